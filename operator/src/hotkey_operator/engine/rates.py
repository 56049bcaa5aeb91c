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
    records, as far as samples told; the others are markers of transactions.

    A turn asks for the same rates many times, from what it gathers to what it tells: they are kept with it.
    """

    columns: tuple[Column, ...] = ()
    real: Mapping[int, float] = field(default_factory=dict)
    _rates: dict[float, Rates | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    _extended: list[tuple[EndOffsets, History]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

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
    for known, found in history._extended:
        if known is ends:
            return found
    found = _extended(history, ends)
    history._extended[:] = [(ends, found)]
    return found


def _extended(history: History, ends: EndOffsets) -> History:
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
    if seconds not in history._rates:
        rates = list(_offset_rates(history, seconds))
        history._rates[seconds] = _records(history, rates) if rates and None not in rates else None
    return history._rates[seconds]


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


def imbalance(rates: Sequence[float]) -> float | None:
    """The largest over the mean; None where nothing flows."""
    total = sum(rates)
    return max(rates) * len(rates) / total if total > 0 else None
