"""The embedded store: one DuckDB file that belongs to one process.

Clicks reach DuckDB as Arrow columns and stay in it from there on: SQL counts them, and `CountedIds` tells it
which of them are new. It knows SQL and nothing of Kafka.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hotkey_aggregator.duckdb_file import DuckDBFile
from hotkey_aggregator.duckdb_ids import CountedIds, Repeat, Sifted, segments
from hotkey_aggregator.duckdb_schema import MIGRATIONS
from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import (
    Committed,
    Conflict,
    Count,
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    OffsetConflictError,
    OffsetMove,
    Position,
    StoreError,
    Totals,
)
from hotkey_aggregator.text_column import TextColumn
from hotkey_aggregator.windows import WINDOW_MILLISECONDS, Clicks, Source, Window

ID_CHUNK = 20_000
EXAMPLES = 10
MERGE_ROWS = 1_000_000
"""Rows of `recent_counts` that `expire` merges; fewer are added up quickly enough by whoever reads them."""

_ALL_COUNTS = "(select * from merged_counts union all select * from recent_counts)"
_WINDOWS = f"select distinct minute, advertiser_id, ad_id from {_ALL_COUNTS}"

_COST_BITS = 62
"""A row's cost stays below 2 to that power; what is more goes into further rows, without clicks."""

_DELTAS = f"""
    select click_time - click_time % {WINDOW_MILLISECONDS} as minute, advertiser_id, ad_id,
           count(*) as clicks, sum(cost) as cost
    from {{table}} group by all
"""

_MERGED = """
    select minute, advertiser_id, ad_id, sum(clicks) as clicks, sum(cost) as cost from recent_counts
    group by all order by minute
"""

_INSERT_COUNTS = f"""
    insert into {{into}} select minute, advertiser_id, ad_id, clicks, cost % {1 << _COST_BITS} from ({{sums}})
"""

_MAY_HAVE_REST = f"select max(cost)::hugeint * count(*) >= {1 << _COST_BITS} from {{table}}"

_INSERT_REST = f"""
    insert into {{into}}
    select minute, advertiser_id, ad_id, 0, {1 << _COST_BITS}
    from (select minute, advertiser_id, ad_id, unnest(range((cost // {1 << _COST_BITS})::bigint))
          from ({{sums}}) where cost >= {1 << _COST_BITS})
"""

_MOVE = """
    update sources set next_offset = moved.next_offset, leader_epoch = moved.leader_epoch,
                       event_time = moved.event_time
    from (select unnest(?::integer[]) as number, unnest(?::bigint[]) as next_offset,
                 unnest(?::integer[]) as leader_epoch, unnest(?::bigint[]) as event_time) moved
    where sources.number = moved.number
"""

_UNDELIVERED = """
    select topic, "partition", topic_id, "offset", reason, detail, key, value, headers, timestamp,
           leader_epoch
    from outbox join dead using (source, "offset", leader_epoch) join sources on source = number
    where source in (select unnest(?::integer[]))
    order by "offset", topic, "partition", topic_id limit ?
"""

_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes | None], ...])

_Numbers = dict[Source, int]


class DuckDBStore:
    """`Store` in a DuckDB file. Raises `StoreInUseError` when another process has the file open.

    Opening it reads the hashes of all ids that it keeps, some seconds for a hundred million.
    """

    def __init__(self, path: Path, keeping: Keeping | None = None) -> None:
        self._path = path
        self._keeping = keeping or Keeping()
        self._file = DuckDBFile(path, MIGRATIONS)
        try:
            self._ids = CountedIds(self._file, self._keeping.ids)
        except BaseException:
            self._file.close()
            raise

    def bind(self, stream: str) -> None:
        """See `Store.bind`."""
        with self._file.transaction("bind"):
            found = self._file.rows("select value from meta where name = 'stream'")
            if not found:
                self._file.rows("insert into meta values ('stream', ?)", [stream])
        if found and found[0][0] != stream:
            raise StoreError(
                f"the store {self._path} counts the stream {found[0][0]!r}, asked for was {stream!r}: "
                "its offsets mean nothing there. Give this stream a --db of its own"
            )

    def name_topics(self, topic_ids: Mapping[str, str]) -> None:
        """See `Store.name_topics`."""
        with self._file.transaction("name topics"):
            known = self._numbers()
            for source, number in known.items():
                topic_id = topic_ids.get(source.topic)
                if topic_id and not source.topic_id and source._replace(topic_id=topic_id) not in known:
                    self._file.rows("update sources set topic_id = ? where number = ?", [topic_id, number])

    def positions(self) -> Mapping[Source, Position]:
        """See `Store.positions`."""
        with self._file.snapshot() as cursor:
            rows = cursor.execute(
                """
                select topic, "partition", topic_id, next_offset, leader_epoch, event_time from sources
                where next_offset is not null
                """
            ).fetchall()
        return {Source(*row[:3]): Position(*row[3:]) for row in rows}

    def commit(self, flush: Flush) -> Committed:
        """See `Store.commit`."""
        self._ids.make_room(len(flush.clicks))
        columns = _columns(flush.clicks)
        repeats: tuple[Repeat, ...] = ()
        with self._file.transaction("flush"):
            numbers = self._number(flush)
            self._move(flush.moves, numbers)
            if len(flush.clicks):
                repeats = self._add(_batch(columns, flush.clicks, numbers), flush.now)
            dead = self._add_dead(flush.dead, numbers) if flush.dead else 0
        conflicts = _conflicts(flush.clicks, repeats)
        return Committed(
            counted=len(flush.clicks) - len(repeats),
            duplicates=len(repeats),
            dead=dead,
            conflicts=len(conflicts),
            examples=tuple(_conflict(flush.clicks, row) for row in conflicts[:EXAMPLES]),
        )

    def counts(self, query: CountQuery) -> Sequence[Count]:
        """See `Store.counts`."""
        with self._file.snapshot() as cursor:
            rows = cursor.execute(
                f"""
                select advertiser_id, ad_id, minute, sum(clicks)::bigint, sum(cost) from {_ALL_COUNTS}
                where ($advertiser is null or advertiser_id = $advertiser)
                  and ($ad is null or ad_id = $ad)
                  and ($first is null or minute >= $first::bigint)
                  and ($end is null or minute < $end::bigint)
                group by all order by minute, advertiser_id, ad_id limit $limit
                """,
                {
                    "advertiser": query.advertiser_id,
                    "ad": query.ad_id,
                    "first": query.minute_from,
                    "end": query.minute_to,
                    "limit": query.limit,
                },
            ).fetchall()
        return [Count(Window(*row[:3]), *row[3:]) for row in rows]

    def totals(self) -> Totals:
        """See `Store.totals`."""
        with self._file.snapshot() as cursor:
            tables = [f"(select count(*) from ids_{number})" for number in segments(cursor)]
            row = cursor.execute(
                f"""
                select coalesce(sum(clicks), 0)::bigint + (select clicks from gone),
                       {" + ".join(tables) or 0}, (select count(*) from ({_WINDOWS})),
                       (select count(*) from dead), (select ids from gone)
                from {_ALL_COUNTS}
                """
            ).fetchone()
        assert row is not None
        return Totals(*row)

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """See `Store.event_ids`."""
        with self._file.snapshot() as cursor:
            for number in segments(cursor):
                cursor.execute(f"select event_id from ids_{number} where starts_with(event_id, ?)", [prefix])
                while rows := cursor.fetchmany(ID_CHUNK):
                    yield [row[0] for row in rows]

    def dead(self, limit: int) -> Sequence[DeadLetter]:
        """See `Store.dead`."""
        with self._file.snapshot() as cursor:
            rows = cursor.execute(
                """
                select topic, "partition", topic_id, "offset", reason, detail, key, value, headers, timestamp,
                       leader_epoch
                from dead left join outbox using (source, "offset", leader_epoch)
                     join sources on source = number
                order by "offset" desc, topic, "partition", topic_id limit ?
                """,
                [limit],
            ).fetchall()
        return [_dead_letter(row) for row in rows]

    def undelivered(self, sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
        """See `Store.undelivered`."""
        with self._file.snapshot() as cursor:
            known = _numbers(cursor)
            wanted = [known[source] for source in sources if source in known]
            rows = cursor.execute(_UNDELIVERED, [wanted, limit]).fetchall()
        return [_dead_letter(row) for row in rows]

    def delivered(self, letters: Sequence[DeadLetter]) -> None:
        """See `Store.delivered`."""
        with self._file.transaction("note what was delivered"):
            table = _places(letters, self._numbers())
            with self._file.tables(letters=table):
                self._file.rows(
                    """
                    delete from outbox using letters
                    where outbox.source = letters.source and outbox."offset" = letters."offset"
                      and outbox.leader_epoch = letters.leader_epoch
                    """
                )

    def expire(self, now: int) -> None:
        """See `Store.expire`. Merges recent counts too."""
        self._ids.expire(now)
        oldest = now - self._keeping.windows
        with self._file.transaction("expire windows"):
            if self._file.rows("select count(*) from recent_counts")[0][0] >= MERGE_ROWS:
                self._insert_counts("merged_counts", _MERGED, "recent_counts")
                self._file.rows("delete from recent_counts")
            expired = f"select coalesce(sum(clicks), 0)::bigint from {_ALL_COUNTS} where minute < ?"
            if clicks := self._file.rows(expired, [oldest])[0][0]:
                self._file.rows("update gone set clicks = clicks + ?", [clicks])
                for table in ("merged_counts", "recent_counts"):
                    self._file.rows(f"delete from {table} where minute < ?", [oldest])

    def close(self) -> None:
        """See `Store.close`."""
        self._file.close()

    def _numbers(self) -> _Numbers:
        return _numbers(self._file.connection)

    def _number(self, flush: Flush) -> _Numbers:
        """The numbers of all sources of the flush; those that are new get one."""
        numbers = self._numbers()
        named = [
            *flush.clicks.sources,
            *(letter.source for letter in flush.dead),
            *(move.source for move in flush.moves),
        ]
        new = [source for source in dict.fromkeys(named) if source not in numbers]
        for number, source in enumerate(new, len(numbers)):
            self._file.rows("insert into sources values (?, ?, ?, ?, null, -1, -1)", [number, *source])
            numbers[source] = number
        return numbers

    def _move(self, moves: Sequence[OffsetMove], numbers: _Numbers) -> None:
        stored = dict(self._file.rows("select number, next_offset from sources"))
        for move in moves:
            found = stored[numbers[move.source]]
            if found != move.expected:
                raise OffsetConflictError(move.source, move.expected, found)
        positions = [move.position for move in moves]
        self._file.rows(
            _MOVE,
            [
                [numbers[move.source] for move in moves],
                [position.next_offset for position in positions],
                [position.leader_epoch for position in positions],
                [position.event_time for position in positions],
            ],
        )

    def _add(self, batch: pa.Table, now: int) -> tuple[Repeat, ...]:
        """Add the clicks whose ids are new; the others."""
        with self._file.tables(batch=batch):
            sifted = self._ids.sift(batch)
            if sifted.fresh is None:
                self._count("batch", sifted, now)
        if sifted.fresh is not None:
            with self._file.tables(fresh=batch.filter(pa.array(sifted.fresh))):
                self._count("fresh", sifted, now)
        return sifted.repeats

    def _count(self, table: str, sifted: Sifted, now: int) -> None:
        self._ids.add(table, sifted.hashes, now)
        self._insert_counts("recent_counts", _DELTAS.format(table=table), table)

    def _insert_counts(self, into: str, sums: str, table: str) -> None:
        """Insert `sums`, which are made of `table`."""
        self._file.rows(_INSERT_COUNTS.format(into=into, sums=sums))
        if self._file.rows(_MAY_HAVE_REST.format(table=table))[0][0]:
            self._file.rows(_INSERT_REST.format(into=into, sums=sums))

    def _add_dead(self, dead: Sequence[DeadLetter], numbers: _Numbers) -> int:
        letters = list({letter.place: letter for letter in dead}.values())
        table = _places(letters, numbers)
        for name, kind, values in (
            ("reason", pa.string(), [letter.reason.value for letter in letters]),
            ("detail", pa.string(), [letter.detail for letter in letters]),
            ("timestamp", pa.int64(), [letter.timestamp for letter in letters]),
            ("key", pa.large_binary(), [letter.key for letter in letters]),
            ("value", pa.large_binary(), [letter.value for letter in letters]),
            ("headers", pa.large_binary(), [msgspec.msgpack.encode(letter.headers) for letter in letters]),
        ):
            table = table.append_column(name, pa.array(values, kind))
        with self._file.tables(letters=table):
            self._file.rows(
                """
                insert into outbox (source, "offset", leader_epoch, key, value, headers)
                select source, "offset", leader_epoch, key, value, headers
                from letters anti join dead using (source, "offset", leader_epoch)
                """
            )
            return int(
                self._file.rows(
                    """
                    insert into dead (source, "offset", leader_epoch, reason, detail, timestamp)
                    select source, "offset", leader_epoch, reason, detail, timestamp
                    from letters anti join dead using (source, "offset", leader_epoch)
                    """
                )[0][0]
            )


def _numbers(connection: duckdb.DuckDBPyConnection) -> _Numbers:
    rows = connection.execute('select topic, "partition", topic_id, number from sources').fetchall()
    return {Source(*row[:3]): row[3] for row in rows}


def _columns(clicks: Clicks) -> dict[str, Any]:
    return {
        "event_id": _texts(clicks.event_ids),
        "advertiser_id": _texts(clicks.advertiser_ids),
        "ad_id": _texts(clicks.ad_ids),
        "click_time": _integers(clicks.click_times),
        "cost": _integers(clicks.costs),
        "digest": _integers(clicks.digests),
        "offset": _integers(clicks.offsets),
    }


def _batch(columns: Mapping[str, Any], clicks: Clicks, numbers: _Numbers) -> pa.Table:
    number_of = np.array([numbers[source] for source in clicks.sources], np.int32)
    return pa.table({**columns, "source": number_of[_integers(clicks.source_of)]})


def _texts(values: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    return values.arrow() if isinstance(values, TextColumn) else pa.array(values, pa.string())


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    if isinstance(values, bytes | bytearray):
        return np.frombuffer(values, np.uint8).astype(np.int64)
    if isinstance(values, range):
        return np.arange(values.start, values.stop, values.step, dtype=np.int64)
    if isinstance(values, array | np.ndarray):
        return np.asarray(values, np.int64)
    return np.fromiter(values, np.int64, len(values))


def _places(letters: Sequence[DeadLetter], numbers: _Numbers) -> pa.Table:
    return pa.table(
        {
            "source": pa.array([numbers[letter.source] for letter in letters], pa.int32()),
            "offset": pa.array([letter.offset for letter in letters], pa.int64()),
            "leader_epoch": pa.array([letter.leader_epoch for letter in letters], pa.int32()),
        }
    )


def _conflicts(clicks: Clicks, repeats: Sequence[Repeat]) -> list[int]:
    """Rows that repeat an id with another payload."""
    return [
        repeat.row
        for repeat in repeats
        if repeat.counted_digest is not None and repeat.counted_digest != clicks.digests[repeat.row]
    ]


def _conflict(clicks: Clicks, row: int) -> Conflict:
    return Conflict(clicks.event_ids[row], clicks.sources[clicks.source_of[row]], clicks.offsets[row])


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    topic, partition, topic_id, offset, reason, detail, key, value, headers, timestamp, leader_epoch = row
    return DeadLetter(
        Source(topic, partition, topic_id),
        offset,
        Reason(reason),
        detail,
        key,
        value,
        _headers.decode(headers) if headers is not None else (),
        timestamp,
        leader_epoch,
    )
