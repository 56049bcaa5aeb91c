"""Figures made from samples, with the percentiles and ratios that the report shows. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Of `samples` values: median, 99th percentile (nearest rank: of fewer than 100 the worst) and worst."""

    samples: int
    p50: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """Raises `ValueError` when there is no value."""
        if not values:
            raise ValueError("no sample was taken, there is nothing to summarise")
        ordered = sorted(values)
        rank = math.ceil(0.99 * len(ordered)) - 1
        return cls(len(ordered), statistics.median(ordered), ordered[rank], ordered[-1])


class Onset(msgspec.Struct, frozen=True):
    """One onset: seconds from the load's turn until each stage was done, and the imbalance around it.

    `sensed`: the turn that first saw a partition over the trigger. `waited` to `published`: of the turn that
    wrote the first table with a route, by the operator's clock. `first_record`: one producer routed one.
    `adopted`: all producers reported the table. `spread`: the slowest producer routed a record.
    """

    sensed: float
    waited: float
    sampled: float
    planned: float
    written: float
    published: float
    first_record: float
    adopted: float
    spread: float
    imbalance_before: float
    imbalance_after: float


class Cost(msgspec.Struct, frozen=True):
    """CPU of one way to send in one round, in microseconds per record.

    `thread`: of the thread that calls `produce()`. `process`: of all threads, until the last answer.
    """

    case: str
    thread: float
    process: float


class Ratio(msgspec.Struct, frozen=True):
    """A case against its peer of the same round: the median of the ratios over all rounds, and the range."""

    case: str
    peer: str
    rounds: int
    thread: float
    thread_low: float
    thread_high: float
    process: float
    process_low: float
    process_high: float
    thread_microseconds: float
    process_microseconds: float


def ratio(case: str, peer: str, rounds: Sequence[Sequence[Cost]]) -> Ratio:
    """The paired ratios of `case` to `peer`. Raises `KeyError` when a round lacks one of the two."""
    pairs = [({cost.case: cost for cost in costs}) for costs in rounds]
    threads = [costs[case].thread / costs[peer].thread for costs in pairs]
    processes = [costs[case].process / costs[peer].process for costs in pairs]
    return Ratio(
        case=case,
        peer=peer,
        rounds=len(rounds),
        thread=statistics.median(threads),
        thread_low=min(threads),
        thread_high=max(threads),
        process=statistics.median(processes),
        process_low=min(processes),
        process_high=max(processes),
        thread_microseconds=statistics.median(costs[case].thread for costs in pairs),
        process_microseconds=statistics.median(costs[case].process for costs in pairs),
    )
