"""The embedded store: one DuckDB file that belongs to one process.

Columns reach DuckDB as JSON arrays: one parameter per column is unnested in bulk, about 1 us a row,
where a row-by-row `executemany` takes a hundred times as long and Arrow would be one more dependency.
It knows SQL and nothing of Kafka.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import (
    Committed,
    Count,
    CountQuery,
    Flush,
    OffsetConflictError,
    OffsetMove,
    Rejected,
    StoreError,
    StoreInUseError,
    Totals,
)
from hotkey_aggregator.windows import Clicks, Source, Window

MIGRATIONS = (
    """
    create table offsets (
        topic varchar not null, "partition" integer not null, next_offset bigint not null,
        primary key (topic, "partition"));
    create table counts (
        advertiser_id varchar not null, ad_id varchar not null, minute timestamp not null,
        clicks bigint not null,
        primary key (advertiser_id, ad_id, minute));
    create table events (
        event_id varchar not null, topic varchar not null, "partition" integer not null,
        "offset" bigint not null);
    create table rejected (
        topic varchar not null, "partition" integer not null, "offset" bigint not null,
        reason varchar not null, detail varchar not null);
    """,
)
"""Entry n takes a file from schema version n to n + 1. Entries are only ever appended."""

ID_CHUNK = 20_000

_STRINGS = """unnest(from_json(?::json, '["VARCHAR"]'))"""
_INTEGERS = """unnest(from_json(?::json, '["BIGINT"]'))"""

_STAGE = (
    f'insert into stage select {_STRINGS} event_id, {_INTEGERS} source, {_INTEGERS} "offset", {_INTEGERS} row'
)

# The small side is the one that is hashed; the ids of all time are only scanned.
_DUPLICATES = "select row from stage semi join events using (event_id)"

_INSERT_EVENTS = f"""
    with source as (select {_INTEGERS} number, {_STRINGS} topic, {_INTEGERS} "partition"),
         duplicate as (select {_INTEGERS} row)
    insert into events
    select stage.event_id, source.topic, source."partition", stage."offset"
    from stage join source on stage.source = source.number
    where stage.row not in (select row from duplicate)
"""

_ADD_COUNTS = f"""
    insert into counts
    select {_STRINGS}, {_STRINGS}, make_timestamp_ms({_INTEGERS}), {_INTEGERS}
    on conflict do update set clicks = clicks + excluded.clicks
"""

_INSERT_REJECTED = f"""
    with bad as (select {_STRINGS} topic, {_INTEGERS} "partition", {_INTEGERS} "offset",
                        {_STRINGS} reason, {_STRINGS} detail)
    insert into rejected
    select * from bad anti join rejected using (topic, "partition", "offset")
"""

_MOVE_OFFSETS = f"""
    insert into offsets select {_STRINGS}, {_INTEGERS}, {_INTEGERS}
    on conflict do update set next_offset = excluded.next_offset
"""


class DuckDBStore:
    """`Store` in a DuckDB file. Raises `StoreInUseError` when another process has the file open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _connect(path)
        try:
            self._migrate()
            self._connection.execute(
                'create temp table stage (event_id varchar, source bigint, "offset" bigint, row bigint)'
            )
        except BaseException:
            self._connection.close()
            raise

    def bind(self, stream: str) -> None:
        """See `Store.bind`."""
        with self._transaction("bind"):
            found = self._rows("select value from meta where name = 'stream'")
            if not found:
                self._connection.execute("insert into meta values ('stream', ?)", [stream])
        if found and found[0][0] != stream:
            raise StoreError(
                f"the store {self._path} counts the stream {found[0][0]!r}, asked for was {stream!r}: "
                "its offsets mean nothing there. Give this stream a --db of its own"
            )

    def offsets(self) -> Mapping[Source, int]:
        """See `Store.offsets`."""
        with self._reading() as cursor:
            rows = cursor.execute('select topic, "partition", next_offset from offsets').fetchall()
        return {Source(topic, partition): next_offset for topic, partition, next_offset in rows}

    def commit(self, flush: Flush) -> Committed:
        """See `Store.commit`."""
        with self._transaction("flush"):
            self._move_offsets(flush.moves)
            duplicates = self._insert_events(flush.clicks)
            self._add_counts(flush.clicks.counts(without=duplicates))
            rejected = self._insert_rejected(flush.rejected)
        return Committed(
            counted=len(flush.clicks) - len(duplicates), duplicates=len(duplicates), rejected=rejected
        )

    def counts(self, query: CountQuery) -> Sequence[Count]:
        """See `Store.counts`."""
        with self._reading() as cursor:
            rows = cursor.execute(
                """
                select advertiser_id, ad_id, epoch_ms(minute), clicks from counts
                where ($advertiser is null or advertiser_id = $advertiser)
                  and ($ad is null or ad_id = $ad)
                  and ($first is null or minute >= make_timestamp_ms($first::bigint))
                  and ($end is null or minute < make_timestamp_ms($end::bigint))
                order by minute, advertiser_id, ad_id limit $limit
                """,
                {
                    "advertiser": query.advertiser_id,
                    "ad": query.ad_id,
                    "first": query.minute_from,
                    "end": query.minute_to,
                    "limit": query.limit,
                },
            ).fetchall()
        return [Count(Window(advertiser, ad, minute), clicks) for advertiser, ad, minute, clicks in rows]

    def totals(self) -> Totals:
        """See `Store.totals`."""
        with self._reading() as cursor:
            row = cursor.execute(
                """
                select (select coalesce(sum(clicks), 0)::bigint from counts), (select count(*) from events),
                       (select count(*) from counts), (select count(*) from rejected)
                """
            ).fetchone()
        assert row is not None
        return Totals(*row)

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """See `Store.event_ids`."""
        with self._reading() as cursor:
            cursor.execute("select event_id from events where starts_with(event_id, ?)", [prefix])
            while rows := cursor.fetchmany(ID_CHUNK):
                yield [row[0] for row in rows]

    def rejected(self, limit: int) -> Sequence[Rejected]:
        """See `Store.rejected`."""
        with self._reading() as cursor:
            rows = cursor.execute(
                'select topic, "partition", "offset", reason, detail from rejected '
                'order by "offset" desc, topic, "partition" limit ?',
                [limit],
            ).fetchall()
        return [
            Rejected(Source(topic, partition), offset, Reason(reason), detail)
            for topic, partition, offset, reason, detail in rows
        ]

    def close(self) -> None:
        """See `Store.close`."""
        self._connection.close()

    def _migrate(self) -> None:
        with self._transaction("migrate"):
            self._connection.execute(
                "create table if not exists meta (name varchar primary key, value varchar not null)"
            )
            found = self._rows("select value from meta where name = 'schema_version'")
            version = int(found[0][0]) if found else 0
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"the store {self._path} has schema version {version}, this release knows versions up "
                    f"to {len(MIGRATIONS)}: use the release that wrote it, or a newer one"
                )
            for migration in MIGRATIONS[version:]:
                self._connection.execute(migration)
            self._connection.execute(
                "insert or replace into meta values ('schema_version', ?)", [str(len(MIGRATIONS))]
            )

    def _move_offsets(self, moves: Sequence[OffsetMove]) -> None:
        stored = {
            Source(topic, partition): next_offset
            for topic, partition, next_offset in self._rows(
                'select topic, "partition", next_offset from offsets'
            )
        }
        for move in moves:
            if stored.get(move.source) != move.expected:
                raise OffsetConflictError(move.source, move.expected, stored.get(move.source))
        self._bulk(
            _MOVE_OFFSETS,
            [move.source.topic for move in moves],
            [move.source.partition for move in moves],
            [move.next_offset for move in moves],
        )

    def _insert_events(self, clicks: Clicks) -> Sequence[int]:
        """Insert the clicks that are new; the row numbers of the others."""
        self._connection.execute("delete from stage")
        self._bulk(_STAGE, clicks.event_ids, clicks.source_of, clicks.offsets, range(len(clicks)))
        duplicates = [row for (row,) in self._rows(_DUPLICATES)]
        sources = clicks.sources
        self._bulk(
            _INSERT_EVENTS,
            range(len(sources)),
            [source.topic for source in sources],
            [source.partition for source in sources],
            duplicates,
        )
        return duplicates

    def _add_counts(self, counts: Mapping[Window, int]) -> None:
        self._bulk(
            _ADD_COUNTS,
            [window.advertiser_id for window in counts],
            [window.ad_id for window in counts],
            [window.minute for window in counts],
            list(counts.values()),
        )

    def _insert_rejected(self, rejected: Sequence[Rejected]) -> int:
        inserted = self._bulk(
            _INSERT_REJECTED,
            [record.source.topic for record in rejected],
            [record.source.partition for record in rejected],
            [record.offset for record in rejected],
            [record.reason.value for record in rejected],
            [record.detail for record in rejected],
        )
        return int(inserted[0][0])

    def _bulk(self, statement: str, *columns: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._rows(statement, [msgspec.json.encode(list(column)).decode() for column in columns])

    def _rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(statement, list(parameters)).fetchall()
        return rows

    @contextmanager
    def _transaction(self, purpose: str) -> Iterator[None]:
        try:
            self._connection.execute("begin")
            try:
                yield
                self._connection.execute("commit")
            except BaseException:
                self._roll_back()
                raise
        except duckdb.Error as error:
            raise StoreError(
                f"the store {self._path} failed to {purpose}: {error}. Nothing of it was kept; what was "
                "committed before is safe. Repair the cause (disk space, permissions), then start again"
            ) from error

    def _roll_back(self) -> None:
        try:
            self._connection.execute("rollback")
        except duckdb.Error:
            # A failed commit has ended the transaction itself; the first error is the one to report.
            return

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of its own for one reader: a snapshot that no commit disturbs, usable in any thread."""
        try:
            with self._connection.cursor() as cursor:
                yield cursor
        except duckdb.Error as error:
            raise StoreError(f"the store {self._path} could not be read: {error}") from error


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(
            path, config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        )
    except duckdb.Error as error:
        raise _connect_error(path, str(error)) from error


def _connect_error(path: Path, message: str) -> StoreError:
    if "lock" in message.lower():
        holder = re.search(r"PID (\d+)", message)
        by = f"process {holder.group(1)}" if holder else "another process"
        return StoreInUseError(
            f"the store {path} is in use by {by}; a DuckDB file belongs to one process. "
            "Stop that one, ask it over HTTP (hotkey-aggregator query), or name another file with --db"
        )
    if not path.parent.is_dir():
        return StoreError(
            f"the store {path} cannot be made: the folder {path.parent} does not exist; make it"
        )
    return StoreError(f"the store {path} cannot be opened: {message}")
