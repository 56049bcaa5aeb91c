"""Rates of partitions from their end offsets, over a fast horizon to see onsets and slow ones for the rest.

End offsets tell lies of three kinds, which are taken out here: a high watermark that stands still and then
jumps, control records that are counted as records, and a topic that was made anew. Partitions may be read at
paces of their own: each has its own times. It knows nothing of keys.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hotkey_operator.engine.model import EndOffsets

FAST_SECONDS = 1.0  # onsets
STEADY_SECONDS = 10.0  # whether a key has cooled
SLOW_SECONDS = 60.0  # imbalance as it is reported, and what a quiet partition carries
SHORTEST_SECONDS = 0.8  # turns are a second apart, more or less; less than this is no measurement
STALL_DUE = 5.0  # records due while a partition stood still: by chance it does so once in 150 times
STALL_PAID = 0.9  # of what was due must have arrived
STALL_PAYS_SECONDS = 5.0  # what has not arrived so long after it moved again never will
STALL_AT_MOST_SECONDS = 60.0  # a replica that lags for longer has left the ISR: then nothing was sent
SURELY = 3.0  # standard deviations

Rates = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Stall:
    """A partition that stood still while records were due, until these have arrived.

    `since`: when it reached `offset` and stopped; `rate`: offsets/s before that.
    """

    since: float
    offset: int
    rate: float


@dataclass(frozen=True, slots=True)
class Column:
    """One partition's readings, oldest first; `stalls`: the one in force at each."""

    times: tuple[float, ...]
    offsets: tuple[int, ...]
    stalls: tuple[Stall | None, ...]

    def start(self, seconds: float) -> int | None:
        """The newest reading at least about `seconds` older than the last one; the oldest if none is.

        None while there is no reading old enough to measure against.
        """
        now = self.times[-1]
        if now - self.times[0] < SHORTEST_SECONDS:
            return None
        latest = now - max(SHORTEST_SECONDS, seconds - 0.2 * FAST_SECONDS)
        return max(0, bisect_right(self.times, latest) - 1)

    def rate(self, start: int) -> float:
        """Offsets/s since reading `start`.

        What was due before `start` and arrived after it is not of now: then no more than before the stall, or
        than the mean since it began.
        """
        elapsed = self.times[-1] - self.times[start]
        measured = (self.offsets[-1] - self.offsets[start]) / elapsed
        stall = self.stalls[start]
        if stall is None:
            return measured
        mean = (self.offsets[-1] - stall.offset) / (self.times[-1] - stall.since)
        return min(measured, max(stall.rate, mean))


@dataclass(frozen=True, slots=True)
class History:
    """The readings of one topic with one partition count. `real`: the part of a partition's offsets that are
    records, as far as samples told; the others are markers of transactions."""

    columns: tuple[Column, ...] = ()
    real: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, *readings: EndOffsets) -> History:
        """The history of these readings, the oldest first."""
        found = cls()
        for reading in readings:
            found = extended(found, reading)
        return found

    @property
    def began(self) -> float | None:
        """The time of the oldest reading, in unix seconds; None: there is none."""
        return min((column.times[0] for column in self.columns), default=None)

    @property
    def ended(self) -> float | None:
        """The time of the newest reading."""
        return max((column.times[-1] for column in self.columns), default=None)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The end offset of each partition when it was last read."""
        return tuple(column.offsets[-1] for column in self.columns)

    def real_part(self, partition: int) -> float:
        """The part of a partition's offsets that are records; of one that was not sampled, as elsewhere."""
        return self.real.get(partition, self.real_anywhere)

    @property
    def real_anywhere(self) -> float:
        return sum(self.real.values()) / len(self.real) if self.real else 1.0


def extended(history: History, ends: EndOffsets) -> History:
    """The history with one more reading, and what is older than the slow horizon left out.

    It starts anew where the old readings say nothing of this topic any more: another partition count, an end
    offset that went backwards (the topic was made anew), or a clock that did.
    """
    if not math.isfinite(ends.at):
        return history
    if not history.columns or not _continues(history, ends):
        times = (ends.at,)
        return History(tuple(Column(times, (offset,), (None,)) for offset in ends.offsets))
    shared = _Times(ends.at)
    columns = tuple(
        column if p in ends.unread else _appended(column, ends.at, offset, shared)
        for p, (column, offset) in enumerate(zip(history.columns, ends.offsets, strict=True))
    )
    return replace(history, columns=columns)


def _continues(history: History, ends: EndOffsets) -> bool:
    return len(history.columns) == len(ends.offsets) and all(
        offset >= column.offsets[-1] and ends.at >= column.times[-1]
        for column, offset in zip(history.columns, ends.offsets, strict=True)
    )


class _Times:
    """Partitions that were read together share one tuple of times: ten thousand of them are many."""

    def __init__(self, at: float) -> None:
        self._at = at
        self._found: dict[int, tuple[int, tuple[float, ...]]] = {}

    def after(self, times: tuple[float, ...]) -> tuple[int, tuple[float, ...]]:
        """How many readings are too old, and the times without them and with the new one."""
        found = self._found.get(id(times))
        if found is None:
            old = bisect_right(times, self._at - SLOW_SECONDS - FAST_SECONDS)
            found = self._found[id(times)] = old, (*times[old:], self._at)
        return found


def _appended(column: Column, at: float, offset: int, times: _Times) -> Column:
    if at == column.times[-1]:
        return column
    old, after = times.after(column.times)
    stall = _stall(column, at, offset)
    return Column(after, (*column.offsets[old:], offset), (*column.stalls[old:], stall))


def _stall(column: Column, at: float, offset: int) -> Stall | None:
    """The stall that is in force once `offset` was read."""
    held = column.stalls[-1]
    if held is not None:
        return held if _owes(held, column, at, offset) else None
    if offset != column.offsets[-1]:
        return None
    first = bisect_left(column.offsets, offset)
    start = max(0, bisect_right(column.times, column.times[first] - STEADY_SECONDS) - 1)
    before = column.times[first] - column.times[start]
    if before < SHORTEST_SECONDS:
        return None  # it has never been seen to move
    rate = (offset - column.offsets[start]) / before
    since = column.times[first]
    return Stall(since, offset, rate) if rate * (at - since) >= STALL_DUE else None


def _owes(stall: Stall, column: Column, at: float, offset: int) -> bool:
    """Whether records that were due are still to come."""
    if offset == stall.offset:
        return True
    moved = bisect_right(column.offsets, stall.offset)
    moved_at = column.times[moved] if moved < len(column.times) else at
    if at - moved_at >= STALL_PAYS_SECONDS or moved_at - stall.since > STALL_AT_MOST_SECONDS:
        return False
    return offset - stall.offset < STALL_PAID * stall.rate * (at - stall.since)


def over(history: History, seconds: float) -> Rates | None:
    """Records/s of each partition over the last `seconds`; None while nothing is measured yet."""
    rates = list(_offset_rates(history, seconds))
    return _records(history, rates) if rates and None not in rates else None


def _offset_rates(history: History, seconds: float) -> Iterator[float | None]:
    starts: dict[int, int | None] = {}
    for column in history.columns:
        shared = id(column.times)
        if shared not in starts:
            starts[shared] = column.start(seconds)
        start = starts[shared]
        yield None if start is None else column.rate(start)


def _records(history: History, rates: Sequence[float | None]) -> Rates:
    """Offsets/s without the markers of transactions."""
    if all(part == 1.0 for part in history.real.values()):
        return tuple(rate or 0.0 for rate in rates)
    anywhere = history.real_anywhere
    return tuple((rate or 0.0) * history.real.get(p, anywhere) for p, rate in enumerate(rates))


def fast(history: History) -> Rates | None:
    """Records/s of each partition over the last second or two; None while nothing is measured yet."""
    return over(history, FAST_SECONDS)


def steady(history: History, since: float) -> Rates | None:
    """The best guess of each partition's rate now, to plan with: slow where it holds, else fast.

    A second's count of a quiet partition has a noise of 1/sqrt(count); a minute's has an eighth of it, but
    is wrong where the rate has just changed. The slow one is taken where the fast one is within three
    standard deviations of a Poisson count of it. `since`: readings before it are left out.
    """
    now_rates = fast(history)
    if now_rates is None:
        return None
    slow_rates = over(_since(history, since), SLOW_SECONDS)
    return now_rates if slow_rates is None else tuple(map(_holds, slow_rates, now_rates))


def _since(history: History, since: float) -> History:
    if all(column.times[0] >= since for column in history.columns):
        return history
    columns = []
    for column in history.columns:
        first = min(bisect_left(column.times, since), len(column.times) - 1)
        columns.append(Column(column.times[first:], column.offsets[first:], column.stalls[first:]))
    return replace(history, columns=tuple(columns))


def _holds(slow_rate: float, fast_rate: float) -> float:
    noise = math.sqrt(max(slow_rate, 1.0) / FAST_SECONDS)
    return slow_rate if abs(fast_rate - slow_rate) <= SURELY * noise else fast_rate


def imbalance(rates: Sequence[float]) -> float | None:
    """The largest over the mean; None where nothing flows."""
    total = sum(rates)
    return max(rates) * len(rates) / total if total > 0 else None
