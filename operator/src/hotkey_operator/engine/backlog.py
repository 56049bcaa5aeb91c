"""How far a consumer group is behind on each partition: in records, and in seconds that they have waited.

It judges nothing: what a backlog means is `lag.py`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hotkey_operator.engine.model import Committed
from hotkey_operator.engine.rates import Column, History

BEHIND_KEPT = 64  # partitions of a reading, those furthest behind
SECONDS_AT_MOST = 604_800.0  # a week: beyond it an extrapolated lag says no more than that


@dataclass(frozen=True, slots=True)
class Behind:
    """One partition's backlog: the age of its oldest record in seconds, records, and where it begins."""

    seconds: float
    records: int
    first: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one group. `behind`: its biggest backlogs; `usual`: the lower quartile of all seconds."""

    at: float
    usual: float
    behind: Mapping[int, Behind]

    def seconds(self, partition: int) -> float:
        found = self.behind.get(partition)
        return found.seconds if found else 0.0

    def records(self, partition: int) -> int:
        found = self.behind.get(partition)
        return found.records if found else 0


Readings = tuple[Reading, ...]


def seconds_behind(column: Column, committed: int, at: float) -> float:
    """The age in seconds at `at` of the first record that is not committed: since it was appended.

    The readings of the partition's end offset say when, between two of them by a straight line. What was
    appended before the oldest is taken to have come at the mean rate of all; where nothing came since, it is
    at least as old as they are. Against (end - committed) / rate it needs no rate where the readings reach:
    neither a burst nor a pause changes how long a record has been waiting.
    """
    times, offsets = column.times, column.offsets
    if offsets[-1] <= committed:
        return 0.0
    after = bisect_right(offsets, committed)
    if after:
        part = (committed - offsets[after - 1]) / (offsets[after] - offsets[after - 1])
        appended = times[after - 1] + part * (times[after] - times[after - 1])
    else:
        came, missing = offsets[-1] - offsets[0], offsets[0] - committed
        appended = times[0] - (missing / came * (times[-1] - times[0]) if came else 0.0)
    return min(SECONDS_AT_MOST, max(0.0, at - appended))


def read(
    committed: Committed, history: History, starts: Mapping[int, int], looked_at: float
) -> Reading | None:
    """How far a group is behind; None where it has committed nothing that makes sense.

    A commit beyond the end is no lag. One below what the log still holds counts from there: what retention
    deleted nobody can read any more.
    """
    at, columns = history.ended, history.columns
    if at is None:
        return None
    lags: dict[int, Behind] = {}
    seconds: list[float] = []
    for partition, offset in committed.offsets.items():
        if not 0 <= partition < len(columns) or offset < 0:
            continue
        first = max(offset, starts.get(partition, 0))
        column = columns[partition]
        records = max(0, column.offsets[-1] - first)
        behind = Behind(seconds_behind(column, first, at), records, first)
        seconds.append(behind.seconds)
        if behind.records:
            lags[partition] = behind
    if not seconds:
        return None
    most = sorted(lags, key=lambda p: (-lags[p].seconds, -lags[p].records, p))[:BEHIND_KEPT]
    usual = sorted(seconds)[(len(seconds) - 1) // 4]
    return Reading(looked_at, usual, {partition: lags[partition] for partition in most})


def lagging(
    groups: Iterable[Committed], history: History, lag_seconds: float, at_most: int
) -> tuple[int, ...]:
    """The partitions over `lag_seconds` at this moment, the furthest behind first."""
    readings = [found for each in groups if (found := read(each, history, {}, 0.0)) is not None]
    worst: dict[int, float] = {}
    for reading in readings:
        for partition, behind in reading.behind.items():
            if behind.seconds > lag_seconds:
                worst[partition] = max(behind.seconds, worst.get(partition, 0.0))
    return tuple(sorted(worst, key=lambda p: (-worst[p], p))[:at_most])
