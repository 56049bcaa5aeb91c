"""What goes wrong in a run, and when: drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    CRASH = "the operator is killed"
    CRASH_BETWEEN = "the operator is killed after its next write of the object, before it publishes"
    CRASH_AT_CALL = "the operator is killed before or after one of its next calls"
    SLOW = "every call takes up to two seconds"
    REDIS_WIPED = "Redis loses everything"
    REDIS_OLDER = "Redis falls back to an older copy"
    REDIS_GONE = "Redis does not answer"
    GARBAGE = "somebody writes garbage into Redis"
    HINTS_LOST = "hints are lost"
    KAFKA_GONE = "Kafka does not answer the operator"
    API_GONE = "the API server does not answer"
    CONFLICT = "somebody else writes the object again and again"
    OBJECT_LOST = "somebody deletes the object"
    TWO_OPERATORS = "a second operator runs"
    PARTITIONS_ADDED = "the topic gets more partitions"
    PRODUCER_RESTARTS = "a producer is restarted"
    PRODUCER_FROZEN = "a producer is frozen"
    QUEUE_FULL = "the producers' queues are full"
    LEADERS = "leaders change, and answers of brokers are lost"
    MEMBER_KILLED = "a consumer is killed"
    MEMBER_KILLED_FLUSHING = "a consumer is killed in its next flush"
    MEMBER_FROZEN = "a consumer is frozen"
    MEMBER_FROZEN_FLUSHING = "a consumer is frozen in its next flush"
    MEMBER_JOINS = "one more consumer joins, and leaves again"
    SINK_GONE = "the sink does not answer"
    # What only happens to dedicated topics:
    DENIED = "producers may not write to dedicated topics"
    CREATION_REFUSED = "the brokers refuse to make topics"
    TOPIC_DELETED = "somebody deletes a dedicated topic once all of it was read"
    TOPIC_ANEW = "somebody deletes a dedicated topic once all of it was read, and makes it anew"
    TOPIC_DENIED_DELETED = (
        "somebody forbids writing to dedicated topics, deletes one that was read, allows it"
    )


WINDOWS = frozenset(
    {
        Kind.SLOW,
        Kind.REDIS_GONE,
        Kind.HINTS_LOST,
        Kind.KAFKA_GONE,
        Kind.API_GONE,
        Kind.CONFLICT,
        Kind.TWO_OPERATORS,
        Kind.PRODUCER_FROZEN,
        Kind.QUEUE_FULL,
        Kind.LEADERS,
        Kind.MEMBER_FROZEN,
        Kind.MEMBER_FROZEN_FLUSHING,
        Kind.MEMBER_JOINS,
        Kind.SINK_GONE,
        Kind.DENIED,
        Kind.CREATION_REFUSED,
        Kind.TOPIC_DENIED_DELETED,
    }
)
LONG = frozenset(
    {Kind.MEMBER_FROZEN, Kind.MEMBER_FROZEN_FLUSHING, Kind.MEMBER_JOINS, Kind.TOPIC_DENIED_DELETED}
)
TRUTH_LOST = frozenset({Kind.REDIS_WIPED, Kind.REDIS_OLDER, Kind.OBJECT_LOST, Kind.GARBAGE})
DEDICATED_ALONE = frozenset(
    {Kind.DENIED, Kind.CREATION_REFUSED, Kind.TOPIC_DELETED, Kind.TOPIC_ANEW, Kind.TOPIC_DENIED_DELETED}
)
ONCE = frozenset({Kind.PARTITIONS_ADDED, Kind.TOPIC_DELETED, Kind.TOPIC_ANEW, Kind.TOPIC_DENIED_DELETED})
APART_SECONDS = 12.0  # between two losses of a copy: the other must be repaired before it is lost as well
FROZEN_FOR_GOOD = 0.3  # of the frozen producers stay so until long after everything has changed


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at` seconds, for `seconds` where it lasts."""

    at: float
    kind: Kind
    seconds: float = 0.0

    @property
    def ends(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Season:
    """A part of a run in which so many faults begin, at the least and at the most."""

    first: float
    last: float
    least: int
    most: int


def draw(
    chance: random.Random, seasons: Sequence[Season], without: Collection[Kind], thaw_at: float
) -> tuple[Fault, ...]:
    """The faults of one run, in the order of their times. `thaw_at`: when long frozen producers go on."""
    times = [
        chance.uniform(season.first, season.last)
        for season in seasons
        for _ in range(chance.randint(season.least, season.most))
    ]
    kinds = [kind for kind in Kind if kind not in without]
    faults: list[Fault] = []
    for at in sorted(times):
        kind = chance.choice(kinds)
        lost_lately = any(f.kind in TRUTH_LOST and at - f.at < APART_SECONDS for f in faults)
        if kind in TRUTH_LOST and lost_lately:
            continue
        if kind in ONCE and any(
            f.kind in ONCE and (f.kind is kind or kind in DEDICATED_ALONE) for f in faults
        ):
            continue
        faults.append(Fault(at, kind, _seconds(chance, at, kind, thaw_at)))
    return tuple(faults)


def _seconds(chance: random.Random, at: float, kind: Kind, thaw_at: float) -> float:
    if kind is Kind.PRODUCER_FROZEN and chance.random() < FROZEN_FOR_GOOD:
        return max(1.0, thaw_at - at)
    if kind in LONG:
        return chance.uniform(2.0, 14.0)
    return chance.uniform(0.5, 6.0) if kind in WINDOWS else 0.0
