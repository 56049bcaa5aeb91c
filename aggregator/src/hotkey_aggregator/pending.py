"""What was consumed and is not in the store yet, and from where to go on.

Pure bookkeeping between the consumer and the store: it turns batches of records into columns of clicks, keeps
those that are none, and knows for each assigned partition what the store holds and what comes next, so that a
flush is a compare-and-set. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hotkey_aggregator.columns import Columns, Figures, Place, Record, Rows, click_times
from hotkey_aggregator.events import NotAClickError, Reason, decode, decode_all
from hotkey_aggregator.store import HOUR_MILLISECONDS, DeadLetter, Flush, Keeping, OffsetMove, Position
from hotkey_aggregator.windows import Source

FUTURE_MILLISECONDS = 24 * HOUR_MILLISECONDS
"""How far a click may be ahead of our clock: time zones and badly set clocks, but not the year 9999."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A partition did not go on where it was expected to.

    Forward: records were removed (retention, compaction) or are transaction markers. Backward: the log was
    truncated, or its offsets were rewound; ids are counted once all the same.
    """

    source: Source
    expected: int
    found: int


class Pending:
    """Un-flushed clicks, dead letters and positions of the assigned partitions."""

    def __init__(self, keeping: Keeping | None = None) -> None:
        self._keeping = keeping or Keeping()
        self._sources: list[Source] = []  # by number; a number keeps its meaning until the process ends
        self._numbers: dict[Place, int] = {}  # of the assigned ones
        self._stored: dict[Source, Position | None] = {}
        self._retired: set[Source] = set()  # another log has their place, but what was read of them waits
        self._next: dict[Source, Position] = {}
        self._columns = Columns()
        self._dead: list[DeadLetter] = []
        self._bytes = 0

    @property
    def events(self) -> int:
        """Clicks and dead letters that wait for the next flush."""
        return len(self._columns) + len(self._dead)

    @property
    def value_bytes(self) -> int:
        """Size of the values that they were read from, an upper bound of the ids that are held, and of all
        else that dead letters keep."""
        return self._bytes

    @property
    def sources(self) -> Collection[Source]:
        """The assigned partitions."""
        return self._stored.keys() - self._retired

    def source(self, topic: str, partition: int) -> Source | None:
        """Which log an assigned partition is; None where it is not assigned."""
        number = self._numbers.get((topic, partition))
        return None if number is None else self._sources[number]

    def position(self, source: Source) -> Position | None:
        """How far an assigned partition was consumed, flushed or not; None: nothing yet, nothing stored."""
        return self._next.get(source) or self._stored.get(source)

    def assign(self, source: Source, stored: Position | None) -> None:
        """Take on a partition that the store holds up to `stored`; None when it holds nothing of it.

        If another log had its place (the topic was made anew), what was read of that one is flushed with the
        next flush: it cannot be read again.
        """
        former = self.source(source.topic, source.partition)
        if former is not None and former != source:
            self._retired.add(former)
        # A broker that is behind may have told of another log in between.
        self._retired.discard(source)
        if source not in self._sources:
            self._sources.append(source)
        self._numbers[source.topic, source.partition] = self._sources.index(source)
        self._stored[source] = stored

    def release(self, sources: Iterable[Source]) -> None:
        """Give partitions up, and with them what waits of theirs: whoever has them reads it again."""
        gone = {source for source in sources if source in self._stored}
        waits = not gone.isdisjoint(self._next)
        for source in gone:
            del self._stored[source]
            self._next.pop(source, None)
            if self.source(source.topic, source.partition) == source:
                del self._numbers[source.topic, source.partition]
        self._retired -= gone
        if waits:
            self._columns = self._columns.without({self._sources.index(source) for source in gone})
            self._dead = [letter for letter in self._dead if letter.source not in gone]

    def take(self, records: Sequence[Record], now: int) -> list[Jump]:
        """Take records that were consumed; `now` in unix milliseconds.

        Returns where they do not follow on. Records of partitions that are not assigned are left out: whoever
        has them reads them again.
        """
        rows = Rows.of(records, self._numbers)
        if not rows.records:
            return []
        order = np.argsort(rows.source_of, kind="stable")
        begins = np.flatnonzero(np.diff(rows.source_of[order], prepend=-1))
        jumps = self._jumps(rows, order, begins)
        last = [rows.records[index] for index in order[np.append(begins[1:], len(order)) - 1].tolist()]
        places = rows.source_of[order[begins]].tolist()
        self._bytes += sum(map(len, rows.values))
        self._decode(rows)
        times = self._in_time(rows, now)
        self._columns.extend(rows, times)
        self._move(dict(zip(places, last, strict=True)), rows.source_of, times, now)
        return jumps

    def advance(self, source: Source, next_offset: int, event_time: int) -> None:
        """An assigned partition was read to its end, which is `next_offset`, and so up to `event_time`."""
        position = self.position(source) or Position(next_offset)
        advanced = replace(
            position,
            next_offset=max(position.next_offset, next_offset),
            event_time=max(position.event_time, event_time),
        )
        if source in self._stored and advanced != self._stored[source]:
            self._next[source] = advanced

    def reposition(self, source: Source, next_offset: int) -> None:
        """An assigned partition goes on at another offset than the one that was to come next."""
        before = self.position(source)
        self._next[source] = Position(next_offset, event_time=-1 if before is None else before.event_time)

    def flush(self, now: int) -> Flush:
        """All that waits, with the moves of the positions that it takes; the next batch starts from there."""
        moves = tuple(
            OffsetMove(source, _next_offset(self._stored[source]), position)
            for source, position in self._next.items()
        )
        columns, dead = self._columns, self._dead
        self._stored.update(self._next)
        for source in self._retired:
            del self._stored[source]
        self._retired = set()
        self._clear()
        return Flush(columns.clicks(self._sources), tuple(dead), moves, now)

    def drop(self) -> None:
        """Give all partitions up and let go of what waits."""
        self._numbers, self._stored, self._retired = {}, {}, set()
        self._clear()

    def _clear(self) -> None:
        self._next = {}
        self._columns, self._dead, self._bytes = Columns(), [], 0

    def _jumps(self, rows: Rows, order: Figures, begins: Figures) -> list[Jump]:
        """Where an offset is not the one after the last of its source, whose rows `order` has together."""
        numbers, offsets = rows.source_of[order], rows.offsets[order]
        expected = np.empty_like(offsets)
        expected[1:] = offsets[:-1] + 1
        for index in begins.tolist():
            position = self.position(self._sources[numbers[index]])
            # The first record ever may have any offset.
            expected[index] = offsets[index] if position is None else position.next_offset
        return [
            Jump(self._sources[numbers[index]], int(expected[index]), int(offsets[index]))
            for index in np.flatnonzero(expected != offsets)
        ]

    def _decode(self, rows: Rows) -> None:
        decoded = decode_all(rows.values)
        rows.clicks = decoded.clicks
        if decoded.refused:
            self._dead += [self._letter(rows, index, error) for index, error in decoded.refused]
            rows.drop({index for index, _ in decoded.refused})

    def _in_time(self, rows: Rows, now: int) -> Figures:
        """The clicks' times, when those that are too old or too new were taken out of the rows."""
        times = click_times(rows.clicks)
        earliest, latest = now - self._keeping.windows, now + FUTURE_MILLISECONDS
        outside = np.flatnonzero((times < earliest) | (times > latest))
        if not len(outside):
            return times
        refused = {index: _refused_time(int(times[index]), earliest, latest) for index in outside.tolist()}
        self._dead += [self._letter(rows, index, error) for index, error in refused.items()]
        rows.clicks = [click for index, click in enumerate(rows.clicks) if index not in refused]
        rows.drop(refused)
        return np.delete(times, outside)

    def _move(self, last: dict[int, Record], source_of: Figures, times: Figures, now: int) -> None:
        newest = np.full(len(self._sources), -1, dtype=np.int64)
        np.maximum.at(newest, source_of, times)
        # A clock that runs ahead must not make the stream look complete up to a time that has not come.
        newest = np.minimum(newest, now)
        for number, record in last.items():
            source = self._sources[number]
            before = self.position(source)
            epoch, offset = record.leader_epoch(), record.offset()
            assert offset is not None
            mark = _no_later_than_sent(int(newest[number]), record)
            self._next[source] = Position(
                offset + 1,
                -1 if epoch is None else epoch,
                max(mark, -1 if before is None else before.event_time),
            )

    def _letter(self, rows: Rows, index: int, error: NotAClickError) -> DeadLetter:
        record = rows.records[index]
        epoch = record.leader_epoch()
        letter = DeadLetter(
            self._sources[rows.source_of[index]],
            int(rows.offsets[index]),
            error.reason,
            error.detail,
            _bytes(record.key()),
            _bytes(record.value()),
            tuple((name, _bytes(value)) for name, value in record.headers() or ()),
            record.timestamp()[1],
            -1 if epoch is None else epoch,
        )
        kept = (letter.key, *(value for _, value in letter.headers))
        self._bytes += sum(len(one) for one in kept if one) + sum(len(name) for name, _ in letter.headers)
        return letter


def _no_later_than_sent(time: int, last: Record) -> int:
    """The newest click's time, or that at which the last record of its batch was sent, if that is earlier.

    What is later was made by a clock that was ahead. In a backlog of yesterday one such click would say that
    all up to now was read. Unix milliseconds; a record of an old format bears no time, and bounds nothing.
    """
    _, sent = last.timestamp()
    return time if sent < 0 else min(time, sent)


def _next_offset(position: Position | None) -> int | None:
    return None if position is None else position.next_offset


def why_not_counted(value: bytes | None, now: int, keeping: Keeping) -> NotAClickError | None:
    """Why a record of this value would not be counted; None when it would."""
    try:
        time = decode(value).click_time
    except NotAClickError as error:
        return error
    earliest, latest = now - keeping.windows, now + FUTURE_MILLISECONDS
    return None if earliest <= time <= latest else _refused_time(time, earliest, latest)


def _refused_time(time: int, earliest: int, latest: int) -> NotAClickError:
    if time < earliest:
        return NotAClickError(
            Reason.OUT_OF_RETENTION,
            f"click_time {time} is before {earliest}, which is as long as windows are kept",
        )
    return NotAClickError(Reason.FROM_THE_FUTURE, f"click_time {time} is after {latest}, a day from now")


def _bytes(text: bytes | str | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text
