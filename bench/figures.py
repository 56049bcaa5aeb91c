"""Figures made from samples, with the percentiles and ratios that the report shows. Pure."""

from __future__ import annotations

import math
import random
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


def thinned(values: Sequence[float], most: int) -> list[float]:
    """At most so many of the values, evenly by rank, with the smallest and the greatest: the same curve."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return ordered
    return [ordered[round(rank * (len(ordered) - 1) / (most - 1))] for rank in range(most)]


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
    """CPU of one way to send in one run, in microseconds per record.

    `thread`: of the thread that calls `produce()`, in these calls. `process`: of all threads, until the last
    answer.
    """

    case: str
    thread: float
    process: float


Sandwich = tuple[Cost, Cost, Cost]  # a run of the peer, one of the way, one of the peer again


class Paired(msgspec.Struct, frozen=True):
    """What a way cost, run by run, and its peer meanwhile: the mean of the runs before and after."""

    case: str
    peer: str
    thread: list[float]
    peer_thread: list[float]
    process: list[float]
    peer_process: list[float]

    @classmethod
    def of(cls, sandwiches: Sequence[Sandwich]) -> Paired:
        """Of one way and one peer. Raises `ValueError` when there is no run, or runs of another way."""
        names = {(way.case, before.case, after.case) for before, way, after in sandwiches}
        if len(names) != 1:
            raise ValueError(f"there are runs of {sorted(names)}, expected those of one way and its peer")
        ((case, peer, _),) = names
        return cls(
            case=case,
            peer=peer,
            thread=[round(way.thread, 4) for _, way, _ in sandwiches],
            peer_thread=[round((one.thread + two.thread) / 2, 4) for one, _, two in sandwiches],
            process=[round(way.process, 4) for _, way, _ in sandwiches],
            peer_process=[round((one.process + two.process) / 2, 4) for one, _, two in sandwiches],
        )


class Ratio(msgspec.Struct, frozen=True):
    """How many times as much, and between which bounds with 95 % confidence."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, costs: Sequence[float], peers: Sequence[float], resamples: int = 1_000) -> Ratio:
        """Sum over sum; the bounds by a bootstrap (percentiles) of the pairs, always the same for the same.

        Not a mean of ratios: that is too high where costs scatter, also for two ways that cost the same.
        """
        draw, pairs = random.Random(1), list(zip(costs, peers, strict=True))
        again = sorted(_sums(draw.choices(pairs, k=len(pairs))) for _ in range(resamples))
        return cls(_sums(pairs), again[int(0.025 * resamples)], again[int(0.975 * resamples)])


def _sums(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(cost for cost, _ in pairs) / sum(peer for _, peer in pairs)
