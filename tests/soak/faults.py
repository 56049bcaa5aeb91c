"""What goes wrong in a soak, and when: drawn from the seed before it begins. Pure.

It knows the parts by name and nothing of how they are struck.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

PRODUCERS, AGGREGATORS, BROKERS = 4, 2, 3
SKEW_SECONDS = 1_500.0
"""Brokers take no record of more than an hour ahead."""
BURST = 6_000
LONG = 0.1
"""The part of pauses that last up to `LONG_SECONDS`."""
LONG_SECONDS = 90.0


class Kind(StrEnum):
    KILL_OPERATOR = "operator killed"
    KILL_AGGREGATOR = "aggregator killed"
    KILL_PRODUCER = "producer killed"
    KILL_BROKER = "leading broker killed"
    PAUSE_OPERATOR = "operator paused"
    PAUSE_AGGREGATOR = "aggregator paused"
    PAUSE_PRODUCER = "producer paused"
    PAUSE_BROKER = "broker paused"
    KILL_REDIS = "Redis killed"
    WIPE_REDIS = "Redis wiped"
    ROLL_BACK_REDIS = "Redis rolled back to an old copy"
    API_GONE = "API server gone"
    SKEW_PRODUCER = "producer's clock wrong"
    SKEW_AGGREGATOR = "aggregator's clock wrong"
    QUEUE_FULL = "producer's queue full"


PAUSES = (Kind.PAUSE_OPERATOR, Kind.PAUSE_AGGREGATOR, Kind.PAUSE_PRODUCER)


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` strikes `target` at `at` seconds and is over after `seconds`. `skew`: of a clock, in seconds."""

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    skew: float = 0.0

    def __str__(self) -> str:
        skewed = f" by {self.skew:+.0f} s" if self.skew else ""
        return f"{self.kind} ({self.target}){skewed} for {self.seconds:.1f} s"


_LASTS: dict[Kind, tuple[float, float]] = {
    Kind.KILL_OPERATOR: (0.0, 5.0),
    Kind.KILL_AGGREGATOR: (0.0, 8.0),
    Kind.KILL_PRODUCER: (0.0, 4.0),
    Kind.KILL_BROKER: (0.0, 8.0),
    Kind.PAUSE_OPERATOR: (1.0, 15.0),
    Kind.PAUSE_AGGREGATOR: (1.0, 20.0),
    Kind.PAUSE_PRODUCER: (1.0, 20.0),
    Kind.PAUSE_BROKER: (0.5, 5.0),
    Kind.KILL_REDIS: (0.0, 12.0),
    Kind.WIPE_REDIS: (0.0, 0.0),
    Kind.ROLL_BACK_REDIS: (0.0, 0.0),
    Kind.API_GONE: (1.0, 20.0),
    Kind.SKEW_PRODUCER: (5.0, 30.0),
    Kind.SKEW_AGGREGATOR: (5.0, 30.0),
    Kind.QUEUE_FULL: (0.0, 0.0),
}
_MAY_BE_LONG = (*PAUSES, Kind.KILL_REDIS, Kind.API_GONE)


def draw(chance: random.Random, count: int, first: float, last: float) -> tuple[Fault, ...]:
    """So many faults from `first` to `last` seconds, of every kind about as often, in order of time."""
    every = (last - first) / max(1, count)
    deck: list[Kind] = []
    faults = []
    for number in range(count):
        if not deck:
            deck = list(Kind)
            chance.shuffle(deck)
        faults.append(_fault(chance, deck.pop(), first + (number + chance.random()) * every, last))
    return tuple(faults)


def _fault(chance: random.Random, kind: Kind, at: float, last: float) -> Fault:
    least, most = _LASTS[kind]
    seconds = chance.uniform(least, most)
    if kind in _MAY_BE_LONG and chance.random() < LONG:
        seconds = chance.uniform(most, LONG_SECONDS)
    skew = chance.choice((-1, 1)) * chance.uniform(1, SKEW_SECONDS) if "clock" in kind else 0.0
    return Fault(at, kind, _target(chance, kind), min(seconds, max(least, last - at)), skew)


def _target(chance: random.Random, kind: Kind) -> str:
    if "broker" in kind:
        return "kafka"
    for what, count in (("aggregator", AGGREGATORS), ("producer", PRODUCERS)):
        if what in kind:
            return f"{what}-{chance.randint(1, count)}"
    return "redis" if "Redis" in kind else "apiserver" if "API" in kind else "operator"


def of_short_run(chance: random.Random, first: float, last: float) -> tuple[Fault, ...]:
    """One of each of the kinds that take no more than moments, in an order of the seed's choice."""
    kinds = [
        Kind.KILL_OPERATOR,
        Kind.KILL_AGGREGATOR,
        Kind.KILL_PRODUCER,
        Kind.KILL_BROKER,
        Kind.PAUSE_PRODUCER,
        Kind.ROLL_BACK_REDIS,
        Kind.QUEUE_FULL,
        Kind.SKEW_PRODUCER,
    ]
    chance.shuffle(kinds)
    every = (last - first) / len(kinds)
    return tuple(_short(chance, kind, first + number * every) for number, kind in enumerate(kinds))


def _short(chance: random.Random, kind: Kind, at: float) -> Fault:
    drawn = _fault(chance, kind, at, at + 4.0)
    return Fault(at, kind, drawn.target, min(drawn.seconds, 4.0), drawn.skew)


def counted(faults: Sequence[Fault]) -> dict[str, int]:
    """How many there are of each kind."""
    return {kind.value: found for kind in Kind if (found := sum(each.kind is kind for each in faults))}
