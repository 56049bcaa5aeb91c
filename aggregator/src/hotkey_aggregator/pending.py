"""What was consumed and is not in the store yet, and from where to go on.

Pure bookkeeping between the consumer and the store: it turns batches of records into columns of clicks, keeps
those that are none, and knows for each assigned partition what the store holds and what comes next, so that a
flush is a compare-and-set. It does no I/O and reads no clock.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import xxhash

from hotkey_aggregator.events import Click, NotAClickError, Reason, cost_in_millionths, decode, decode_all
from hotkey_aggregator.store import HOUR_MILLISECONDS, DeadLetter, Flush, Keeping, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source

FUTURE_MILLISECONDS = 24 * HOUR_MILLISECONDS
"""How far a click may be ahead of our clock: time zones and badly set clocks, but not the year 9999."""

Headers = Sequence[tuple[str, bytes | str | None]]


class Record(Protocol):
    """What is read of a record; the Kafka client's message is one."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | str | None: ...
    def value(self) -> bytes | str | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def leader_epoch(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Jump:
    """A partition did not go on where it was expected to.

    Forward: records were removed (retention, compaction) or are transaction markers. Backward: the log was
    truncated, or its offsets were rewound; ids are counted once all the same.
    """

    source: Source
    expected: int
    found: int


@dataclass(slots=True)
class _Columns:
    """Clicks that wait, as `Clicks` has them, but growing."""

    event_ids: list[str] = field(default_factory=list)
    advertiser_ids: list[str] = field(default_factory=list)
    ad_ids: list[str] = field(default_factory=list)
    click_times: array[int] = field(default_factory=lambda: array("q"))
    costs: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("q"))
    source_of: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))

    def extend(self, rows: _Rows, times: array[int]) -> None:
        clicks = rows.clicks
        self.event_ids += [click.event_id for click in clicks]
        self.advertiser_ids += [click.advertiser_id for click in clicks]
        self.ad_ids += [click.ad_id for click in clicks]
        self.click_times += times
        self.costs += _costs(clicks)
        self.digests += _digests(rows.values)
        self.source_of += rows.source_of
        self.offsets += rows.offsets

    def without(self, numbers: Collection[int]) -> _Columns:
        """A copy without the clicks of some sources."""
        kept = [row for row, number in enumerate(self.source_of) if number not in numbers]

        def names(column: list[str]) -> list[str]:
            return [column[row] for row in kept]

        def figures(column: array[int]) -> array[int]:
            return array("q", [column[row] for row in kept])

        return _Columns(
            names(self.event_ids),
            names(self.advertiser_ids),
            names(self.ad_ids),
            figures(self.click_times),
            figures(self.costs),
            figures(self.digests),
            figures(self.source_of),
            figures(self.offsets),
        )


@dataclass(slots=True)
class _Rows:
    """Records of one batch and what is known of each, in columns of one length."""

    records: list[Record]
    source_of: array[int]
    offsets: array[int]
    values: list[bytes]
    clicks: Sequence[Click] = ()

    def drop(self, indexes: Collection[int]) -> None:
        kept = [index for index in range(len(self.records)) if index not in indexes]
        self.records = [self.records[index] for index in kept]
        self.source_of = array("q", [self.source_of[index] for index in kept])
        self.offsets = array("q", [self.offsets[index] for index in kept])
        self.values = [self.values[index] for index in kept]


class Pending:
    """Un-flushed clicks, dead letters and positions of the assigned partitions."""

    def __init__(self, keeping: Keeping | None = None) -> None:
        self._keeping = keeping or Keeping()
        self._sources: list[Source] = []  # by number; a number keeps its meaning until the process ends
        self._numbers: dict[tuple[str, int], int] = {}  # of the assigned ones
        self._stored: dict[Source, Position | None] = {}
        self._retired: set[Source] = set()  # another log has their place, but what was read of them waits
        self._next: dict[Source, Position] = {}
        self._columns = _Columns()
        self._dead: list[DeadLetter] = []
        self._bytes = 0

    @property
    def events(self) -> int:
        """Clicks and dead letters that wait for the next flush."""
        return len(self._columns.event_ids) + len(self._dead)

    @property
    def value_bytes(self) -> int:
        """Size of the values that they were read from: an upper bound of the ids that are held."""
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
        rows = self._rows(records)
        if not rows.records:
            return []
        jumps = self._jumps(rows)
        last = dict(zip(rows.source_of, rows.records, strict=True))
        self._bytes += sum(map(len, rows.values))
        self._decode(rows)
        times = self._in_time(rows, now)
        self._columns.extend(rows, times)
        self._move(last, rows.source_of, times, now)
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
        clicks = Clicks(
            columns.event_ids,
            columns.advertiser_ids,
            columns.ad_ids,
            columns.click_times,
            columns.costs,
            columns.digests,
            columns.source_of,
            columns.offsets,
            tuple(self._sources),
        )
        return Flush(clicks, tuple(dead), moves, now)

    def drop(self) -> None:
        """Give all partitions up and let go of what waits."""
        self._numbers, self._stored, self._retired = {}, {}, set()
        self._clear()

    def _clear(self) -> None:
        self._next = {}
        self._columns, self._dead, self._bytes = _Columns(), [], 0

    def _rows(self, records: Sequence[Record]) -> _Rows:
        number_of = self._numbers.get
        source_of = [
            number_of((record.topic(), record.partition()), -1)  # type: ignore[arg-type]
            for record in records
        ]
        if -1 in source_of:
            records = [record for record, number in zip(records, source_of, strict=True) if number >= 0]
            source_of = [number for number in source_of if number >= 0]
        return _Rows(
            list(records),
            array("q", source_of),
            array("q", [record.offset() for record in records]),  # type: ignore[misc]
            [record.value() or b"" for record in records],  # type: ignore[misc]
        )

    def _jumps(self, rows: _Rows) -> list[Jump]:
        """Where an offset is not the one after the last of its source."""
        numbers, offsets = _figures(rows.source_of), _figures(rows.offsets)
        order = np.argsort(numbers, kind="stable")
        numbers, offsets = numbers[order], offsets[order]
        begins = np.ones(len(numbers), dtype=bool)
        begins[1:] = numbers[1:] != numbers[:-1]
        expected = np.empty_like(offsets)
        expected[1:] = offsets[:-1] + 1
        for index in np.flatnonzero(begins):
            position = self.position(self._sources[numbers[index]])
            # The first record ever may have any offset.
            expected[index] = offsets[index] if position is None else position.next_offset
        return [
            Jump(self._sources[numbers[index]], int(expected[index]), int(offsets[index]))
            for index in np.flatnonzero(expected != offsets)
        ]

    def _decode(self, rows: _Rows) -> None:
        decoded = decode_all(rows.values)
        rows.clicks = decoded.clicks
        if decoded.refused:
            self._dead += [self._letter(rows, index, error) for index, error in decoded.refused]
            rows.drop({index for index, _ in decoded.refused})

    def _in_time(self, rows: _Rows, now: int) -> array[int]:
        """The clicks' times, when those that are too old or too new were taken out of the rows."""
        times = array("q", [click.click_time for click in rows.clicks])
        earliest, latest = now - self._keeping.windows, now + FUTURE_MILLISECONDS
        if not times or (min(times) >= earliest and max(times) <= latest):
            return times
        refused = {
            index: _refused_time(time, earliest, latest)
            for index, time in enumerate(times)
            if not earliest <= time <= latest
        }
        self._dead += [self._letter(rows, index, error) for index, error in refused.items()]
        rows.clicks = [click for index, click in enumerate(rows.clicks) if index not in refused]
        rows.drop(refused)
        return array("q", [click.click_time for click in rows.clicks])

    def _move(self, last: dict[int, Record], source_of: array[int], times: array[int], now: int) -> None:
        newest = np.full(len(self._sources), -1, dtype=np.int64)
        np.maximum.at(newest, _figures(source_of), _figures(times))
        # A clock that runs ahead must not make the stream look complete up to a time that has not come.
        newest = np.minimum(newest, now)
        for number, record in last.items():
            source = self._sources[number]
            before = self.position(source)
            epoch, offset = record.leader_epoch(), record.offset()
            assert offset is not None
            self._next[source] = Position(
                offset + 1,
                -1 if epoch is None else epoch,
                max(int(newest[number]), -1 if before is None else before.event_time),
            )

    def _letter(self, rows: _Rows, index: int, error: NotAClickError) -> DeadLetter:
        record = rows.records[index]
        return DeadLetter(
            self._sources[rows.source_of[index]],
            rows.offsets[index],
            error.reason,
            error.detail,
            _bytes(record.key()),
            _bytes(record.value()),
            tuple((name, _bytes(value)) for name, value in record.headers() or ()),
            record.timestamp()[1],
        )


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


def _costs(clicks: Sequence[Click]) -> array[int]:
    costs = [click.cost for click in clicks]
    if any(costs):
        return array("q", map(cost_in_millionths, costs))
    return array("q", bytes(8 * len(costs)))


def _digests(values: Sequence[bytes]) -> array[int]:
    signed = array("q")
    signed.frombytes(array("Q", map(xxhash.xxh3_64_intdigest, values)).tobytes())
    return signed


def _figures(column: array[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The same memory, for bulk arithmetic."""
    return np.frombuffer(column, dtype=np.int64)


def _bytes(text: bytes | str | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text
