"""The counted ids of a DuckDB store: which clicks are new, and what becomes of ids with time.

An id is looked up in the filter first and only where that says "perhaps" in the segment that it names; there
its text decides, never its hash. The filter knows ids before they are committed, so it may know too much and
never too little. It knows nothing of windows and offsets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hotkey_aggregator.duckdb_file import DuckDBFile
from hotkey_aggregator.duckdb_schema import HASH_PROBE, IDS
from hotkey_aggregator.id_filter import Hashes, IdFilter, name_of, room_for
from hotkey_aggregator.store import HOUR_MILLISECONDS

SEGMENTS_A_HORIZON = 24

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A click whose id is counted already."""

    row: int
    counted_digest: int | None
    """Of the click that was counted under the id; None where it was not recorded."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What of a batch is new."""

    repeats: tuple[Repeat, ...]
    """In the order of their rows."""
    fresh: NDArray[np.bool_] | None
    """Whether each row is new; None if all are."""
    hashes: Hashes
    """Of the new rows, ascending."""


def segment_milliseconds(horizon: int) -> int:
    """Length of a segment of arrival time: whole hours, such that a horizon has some two dozen of them."""
    return max(1, -(-horizon // (SEGMENTS_A_HORIZON * HOUR_MILLISECONDS))) * HOUR_MILLISECONDS


class CountedIds:
    """The ids of one file. Its methods but `expire` and `make_room` run within the caller's transaction."""

    def __init__(self, file: DuckDBFile, horizon: int) -> None:
        self._file = file
        self._horizon = horizon
        self._length = segment_milliseconds(horizon)
        with file.transaction("check its hashes"):
            self._check_hashes()
        self._complete = False
        self._filter = IdFilter()
        self.make_room(0)

    @property
    def filter(self) -> IdFilter:
        """What is in memory of the ids."""
        return self._filter

    def make_room(self, ids: int) -> None:
        """Make a larger filter if so many more ids do not fit into this one."""
        if self._complete and self._filter.has_room_for(ids):
            return
        # The old one goes first: both together would be more memory than the process is to have. If the store
        # cannot be read now, the next flush begins here again.
        self._complete = False
        self._filter = IdFilter()
        self._filter = self._filter_of_store(ids)
        self._complete = True

    def sift(self, batch: pa.Table) -> Sifted:
        """Which clicks of a batch, which statements can read as `batch`, have an id that is new."""
        columns = self._file.connection.execute("select hash(event_id) as hash from batch").fetchnumpy()
        hashes: Hashes = np.asarray(columns["hash"], np.uint64)
        order = np.argsort(hashes)
        ascending = hashes[order]
        repeats_of = _repeats_within(batch, ascending, order)
        found = self._stored(batch, ascending, order, repeats_of)
        repeats = [Repeat(row, digest) for row, digest in found.items()]
        for row, first in repeats_of.items():
            digest = found[first] if first in found else batch["digest"][first].as_py()
            repeats.append(Repeat(row, digest))
        if not repeats:
            return Sifted((), None, ascending)
        fresh = np.ones(len(hashes), np.bool_)
        fresh[[repeat.row for repeat in repeats]] = False
        return Sifted(tuple(sorted(repeats, key=lambda r: r.row)), fresh, ascending[fresh[order]])

    def add(self, table: str, hashes: Hashes, now: int) -> None:
        """Insert the ids of an Arrow table; `hashes` are theirs, ascending."""
        segment = self._open_segment(now)
        # Before the commit: a filter that knows too much does no harm, whatever becomes of the transaction.
        self._filter.add(hashes, segment)
        self._file.rows(
            f"""
            insert into ids_{segment}
            select event_id, hash(event_id), digest, source, "offset" from {table}
            """
        )

    def expire(self, now: int) -> None:
        """Drop the segments that ended before the horizon, and keep count of the ids in them."""
        old = "select number from segments where ends <= ?"
        with self._file.transaction("expire ids"):
            gone = [number for (number,) in self._file.rows(old, [now - self._horizon])]
            for number in gone:
                self._file.rows(f"update gone set ids = ids + (select count(*) from ids_{number})")
                self._file.rows(f"drop table ids_{number}")
                self._file.rows("delete from segments where number = ?", [number])
        for number in gone:
            self._filter.forget(number)

    def _stored(
        self, batch: pa.Table, ascending: Hashes, order: Rows, repeats_of: dict[int, int]
    ) -> dict[int, int | None]:
        """Rows that are the first of their id and whose id the store has, with the digest that it has."""
        places, names = self._filter.find(ascending)
        if not len(places):
            return {}
        rows = order[places]
        found: dict[int, int | None] = {}
        for (number,) in self._file.rows("select number from segments"):
            suspects = np.unique(rows[names == name_of(number)])
            if len(suspects):
                found |= dict(self._look(number, batch, suspects))
        return {row: digest for row, digest in found.items() if row not in repeats_of}

    def _look(self, segment: int, batch: pa.Table, suspects: Rows) -> Sequence[tuple[int, int | None]]:
        event_ids = batch["event_id"].take(pa.array(suspects))
        with self._file.tables(suspects=pa.table({"row": suspects, "event_id": event_ids})):
            # Joined by the hash alone: joined by the id too, every id of the segment is read.
            return self._file.rows(
                f"""
                select "row", digest from (
                    select s."row", i.digest, i.event_id = s.event_id as same
                    from ids_{segment} i join (select *, hash(event_id) as hash from suspects) s using (hash))
                where same
                """
            )

    def _open_segment(self, now: int) -> int:
        ends = (now // self._length + 1) * self._length
        last = self._file.rows("select number, ends from segments order by number desc limit 1")
        if last and last[0][1] is None:
            self._file.rows("update segments set ends = ? where ends is null", [ends])
        elif not last or now >= last[0][1] or last[0][1] > ends + self._horizon:
            # One of a time far to come is of a clock that was put back: it would take in all ids for ever.
            number = last[0][0] + 1 if last else 0
            self._file.rows("insert into segments values (?, ?)", [number, ends])
            self._file.rows(IDS.format(number=number))
            return int(number)
        return int(last[0][0])

    def _filter_of_store(self, more: int) -> IdFilter:
        with self._file.snapshot() as cursor:
            numbers = segments(cursor)
            stored = sum(_count(cursor, number) for number in numbers)
            made = IdFilter(room_for(stored + more))
            for number in numbers:
                for chunk in _hashes_of(cursor, number):
                    made.add(np.sort(chunk), number)
        return made

    def _check_hashes(self) -> None:
        probe = self._file.rows(HASH_PROBE)[0][0]
        if self._file.rows("select value from meta where name = 'hash_probe'") == [(probe,)]:
            return
        for number in segments(self._file.connection):
            self._file.rows(f"update ids_{number} set hash = hash(event_id)")
        self._file.rows("insert or replace into meta values ('hash_probe', ?)", [probe])


def segments(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Numbers of the segments that there are, the oldest first."""
    return [n for (n,) in connection.execute("select number from segments order by number").fetchall()]


def _count(cursor: duckdb.DuckDBPyConnection, number: int) -> int:
    return int(cursor.execute(f"select count(*) from ids_{number}").fetchall()[0][0])


def _hashes_of(cursor: duckdb.DuckDBPyConnection, number: int) -> Iterator[Hashes]:
    for batch in cursor.sql(f"select hash from ids_{number}").to_arrow_reader(2_000_000):
        yield batch.column(0).to_numpy(zero_copy_only=False)


def _repeats_within(batch: pa.Table, ascending: Hashes, order: Rows) -> dict[int, int]:
    """Rows whose id an earlier row has, with the first row that has it."""
    equal = np.flatnonzero(ascending[1:] == ascending[:-1])
    if not len(equal):
        return {}
    rows = np.unique(order[np.union1d(equal, equal + 1)])
    first_of: dict[str, int] = {}
    repeats: dict[int, int] = {}
    for row, event_id in zip(rows.tolist(), batch["event_id"].take(pa.array(rows)).to_pylist(), strict=True):
        first = first_of.setdefault(event_id, row)
        if first != row:
            repeats[row] = first
    return repeats
