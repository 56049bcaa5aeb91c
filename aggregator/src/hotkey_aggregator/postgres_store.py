"""The shared store: one PostgreSQL schema that many members of a consumer group write to at once.

A flush asks which of its ids are there, and copies the others straight into the table of the day, whose
unique index on their digests has the last word. Two members with one id in flight meet in that index: the
second waits for the first and asks again. They meet there because all flushes in flight write to the same
day's table: which one it is, is a row that is read under a shared lock; a new day begins under the exclusive.
It knows SQL and nothing of Kafka.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import psycopg
from psycopg import Connection

from hotkey_aggregator.events import LATEST_CLICK_TIME, Reason
from hotkey_aggregator.postgres_connections import Connections
from hotkey_aggregator.postgres_copy import escaped, seeded, unescaped
from hotkey_aggregator.postgres_errors import TRY_AGAIN_AT_ONCE
from hotkey_aggregator.postgres_flush import (
    OffsetsDifferError,
    add_counts,
    insert_dead,
    insert_ids,
    move_offsets,
    places,
)
from hotkey_aggregator.postgres_ids import Sorted
from hotkey_aggregator.postgres_schema import (
    MERGING,
    WRITING,
    Day,
    days,
    lock,
    meta,
    migrate,
    try_lock,
)
from hotkey_aggregator.postgres_upkeep import drop, merge, past
from hotkey_aggregator.postgres_windows import sum_up
from hotkey_aggregator.store import (
    Committed,
    Count,
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    OffsetConflictError,
    OffsetMove,
    Position,
    StoreError,
    StoreUnavailableError,
    Totals,
)
from hotkey_aggregator.windows import Clicks, Source, Window

ID_CHUNK = 20_000
RETRIES = 8
CLOCK_SKEW_MILLISECONDS = 5 * 60_000
MERGE_MILLISECONDS = 2 * 60_000
UNASKED_AFTER = 10
"""Flushes without a duplicate until the day's table is no longer asked before it is written to."""

LATER = (psycopg.errors.LockNotAvailable, *TRY_AGAIN_AT_ONCE)

_COUNTS = """
    select advertiser_id, ad_id, (extract(epoch from minute) * 1000)::bigint, sum(clicks), sum(cost)
    from counts
    where (%(advertiser)s::text is null
           or (left(advertiser_id, 100) = left(%(advertiser)s, 100) and advertiser_id = %(advertiser)s))
      and (%(ad)s::text is null or ad_id = %(ad)s)
      and minute >= 'epoch'::timestamptz + %(first)s * interval '1 ms'
      and minute < 'epoch'::timestamptz + %(end)s * interval '1 ms'
    group by minute, advertiser_id, ad_id order by minute, advertiser_id, ad_id limit %(limit)s
"""

_TOTALS = """
    select (select coalesce(sum(clicks), 0) from counts) + %s,
           (select count(*) from ids),
           (select count(*) from counts where clicks > 0 and minute not in (select minute from added)) +
           (select count(*) from (select from counts where minute in (select minute from added)
                                  group by minute, advertiser_id, ad_id) as merged_later),
           (select count(*) from dead), %s
"""

# What is there under the id already stays as it is, and its like without one beside it.
_NAME_OFFSETS = """
    update offsets as held set topic_id = named.topic_id
    from unnest(%s::text[], %s::text[]) as named (topic, topic_id)
    where held.topic = named.topic and held.topic_id = '' and not exists (
        select from offsets as other
        where (other.topic, other.topic_id, other."partition")
            = (named.topic, named.topic_id, held."partition"))
"""
_NAME_DEAD = """
    update dead as held set topic_id = named.topic_id
    from unnest(%s::text[], %s::text[]) as named (topic, topic_id)
    where held.topic = named.topic and held.topic_id = '' and not exists (
        select from dead as other
        where (other.topic, other.topic_id, other."partition", other."offset")
            = (named.topic, named.topic_id, held."partition", held."offset"))
"""

_LETTER = 'topic, "partition", topic_id, "offset", reason, detail, key, value, headers, "timestamp"'


class _DayMissingError(Exception):
    """The flush needs tables of days that have none yet."""

    def __init__(self, missing: Collection[Day]) -> None:
        super().__init__(missing)
        self.missing = missing


class PostgresStore:
    """`Store` in a schema of a PostgreSQL database; as many processes as like may open it.

    Raises `StoreError` when the database refuses, `StoreUnavailableError` when it does not answer.
    """

    hashing = staticmethod(seeded)

    def __init__(self, dsn: str, keeping: Keeping | None = None, schema: str = "hotkey") -> None:
        self._keeping = keeping or Keeping()
        self._connections = Connections(dsn, schema)
        try:
            with self._connections.write("open") as connection:
                seed = migrate(connection, schema, self._connections.where)
        except BaseException:
            self._connections.close()
            raise
        self._hashing = self.hashing(seed)
        self._merge_at = 0
        self._without_duplicates = UNASKED_AFTER

    def bind(self, stream: str) -> None:
        """See `Store.bind`."""
        with self._connections.write("bind") as connection:
            connection.execute("insert into meta values ('stream', %s) on conflict do nothing", [stream])
            found = meta(connection, "stream")
        if found != stream:
            raise StoreError(
                f"the PostgreSQL store {self._connections.where} counts the stream {found!r}, asked for was "
                f"{stream!r}: its offsets mean nothing there. Give this stream a database of its own"
            )

    def name_topics(self, topic_ids: Mapping[str, str]) -> None:
        """See `Store.name_topics`."""
        named = [list(topic_ids), list(topic_ids.values())]
        with self._connections.write("name topics") as connection, connection.transaction():
            connection.execute(_NAME_OFFSETS, named)
            connection.execute(_NAME_DEAD, named)

    def positions(self) -> Mapping[Source, Position]:
        """See `Store.positions`."""
        with self._connections.read() as connection:
            rows = connection.execute(
                'select topic, "partition", topic_id, next_offset, leader_epoch, event_time from offsets'
            ).fetchall()
        return {Source(*row[:3]): Position(*row[3:]) for row in rows}

    def commit(self, flush: Flush) -> Committed:
        """See `Store.commit`."""
        committed = self._commit(flush)
        if flush.now >= self._merge_at:
            self._merge_at = flush.now + MERGE_MILLISECONDS
            # The flush is in the store whatever becomes of this; the next one tells what is wrong with it.
            with suppress(StoreError):
                self.merge(flush.now - MERGE_MILLISECONDS)
        return committed

    def merge(self, before: int) -> None:
        """Make one row of each window of minutes before this time (unix milliseconds) that has several."""
        with self._connections.write("merge windows") as connection, connection.transaction():
            if try_lock(connection, MERGING, self._connections.schema):
                self._enter(connection)
                merge(connection, before)

    def _commit(self, flush: Flush) -> Committed:
        for attempt in range(RETRIES):
            try:
                return self._commit_once(flush)
            except _DayMissingError as error:
                self._open(error.missing)
            except OffsetsDifferError:
                self._refuse(flush.moves)
            except StoreUnavailableError as error:
                if attempt == RETRIES - 1 or not isinstance(error.__cause__, TRY_AGAIN_AT_ONCE):
                    raise
                time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
        raise StoreUnavailableError(
            f"the PostgreSQL store {self._connections.where} was changed by others under each of {RETRIES} "
            "tries to commit a flush. It is tried again"
        )

    def _commit_once(self, flush: Flush) -> Committed:
        with self._connections.write("commit a flush") as connection, connection.transaction():
            self._enter(connection)
            kept = self._tables(connection, flush)
            move_offsets(connection, flush.moves)
            clicks = flush.clicks
            sorted_out = self._insert_ids(connection, clicks, kept) if clicks else _NOTHING
            if len(sorted_out.new):
                add_counts(connection, sum_up(clicks, sorted_out.new))
            dead = insert_dead(connection, flush.dead) if flush.dead else 0
        return Committed(
            counted=len(sorted_out.new),
            duplicates=sorted_out.duplicates,
            dead=dead,
            conflicts=sorted_out.conflicts,
            examples=sorted_out.examples,
        )

    def _insert_ids(self, connection: Connection[Any], clicks: Clicks, kept: Sequence[Day]) -> Sorted:
        """Ask the day's table first only where duplicates are about: that costs up to as much as storing."""
        ask = self._without_duplicates < UNASKED_AFTER
        found = insert_ids(connection, clicks, kept, self._hashing, ask=ask)
        self._without_duplicates = 0 if found.duplicates else self._without_duplicates + 1
        return found

    def _enter(self, connection: Connection[Any]) -> None:
        """From here to the transaction's end no day begins or is dropped."""
        lock(connection, WRITING, self._connections.schema, shared=True)

    def _tables(self, connection: Connection[Any], flush: Flush) -> Sequence[Day]:
        """The days whose ids are looked through; the first is the one to write to."""
        if not flush.clicks:
            return []
        row = connection.execute("select (extract(epoch from clock_timestamp()) * 1000)::bigint").fetchone()
        assert row is not None
        # A member whose clock is ahead must not open days that would then be kept until they have come.
        arrival = Day.of("ids", min(flush.now, row[0] + CLOCK_SKEW_MILLISECONDS))
        kept = days(connection, "ids")
        times = np.asarray(flush.clicks.click_times, np.int64)
        needed = {Day.of("counts", int(time)) for time in np.unique(times // 86_400_000) * 86_400_000}
        missing = needed.difference(days(connection, "counts"))
        if not kept or kept[0] < arrival:
            missing.add(arrival)
        if missing:
            raise _DayMissingError(missing)
        return kept

    def _open(self, missing: Collection[Day]) -> None:
        """Begin days once no flush is in flight that does not know of them."""
        with self._connections.write("begin a day") as connection, connection.transaction():
            self._enter_alone(connection)
            newest = max(days(connection, "ids"), default=None)
            for day in sorted(missing):
                # Another member may have begun a later day of ids by now.
                if day.kind == "counts" or newest is None or newest < day:
                    day.create(connection)

    def _enter_alone(self, connection: Connection[Any]) -> None:
        lock(connection, WRITING, self._connections.schema)

    def _refuse(self, moves: Sequence[OffsetMove]) -> None:
        """Say which offset differs; none, when they have become equal meanwhile."""
        held = self.positions()
        for move in moves:
            found = held[move.source].next_offset if move.source in held else None
            if found != move.expected:
                raise OffsetConflictError(move.source, move.expected, found)

    def counts(self, query: CountQuery) -> Sequence[Count]:
        """See `Store.counts`."""
        advertiser, ad = query.advertiser_id, query.ad_id
        asked = {
            "advertiser": None if advertiser is None else escaped(advertiser),
            "ad": None if ad is None else escaped(ad),
            "first": _within_time(query.minute_from, 0),
            "end": _within_time(query.minute_to, LATEST_CLICK_TIME + 1),
            "limit": query.limit,
        }
        with self._connections.read() as connection:
            rows = connection.execute(_COUNTS, asked).fetchall()
        return [
            Count(Window(unescaped(advertiser), unescaped(ad), minute), int(clicks), int(cost))
            for advertiser, ad, minute, clicks, cost in rows
        ]

    def totals(self) -> Totals:
        """See `Store.totals`."""
        with self._connections.read_snapshot() as connection:
            expired, forgotten = (int(meta(connection, name)) for name in ("expired_clicks", "forgotten_ids"))
            row = connection.execute(_TOTALS, [expired, forgotten]).fetchone()
        assert row is not None
        return Totals(*map(int, row))

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """See `Store.event_ids`."""
        with self._connections.read_snapshot() as connection, connection.cursor(name="event_ids") as cursor:
            cursor.execute("select id from ids where starts_with(id, %s)", [escaped(prefix)])
            while rows := cursor.fetchmany(ID_CHUNK):
                yield [unescaped(row[0]) for row in rows]

    def dead(self, limit: int) -> Sequence[DeadLetter]:
        """See `Store.dead`."""
        with self._connections.read() as connection:
            rows = connection.execute(
                f'select {_LETTER} from dead order by "offset" desc, topic, "partition" limit %s', [limit]
            ).fetchall()
        return [_letter(row) for row in rows]

    def undelivered(self, sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
        """See `Store.undelivered`."""
        wanted = [
            [source.topic for source in sources],
            [source.partition for source in sources],
            [source.topic_id for source in sources],
        ]
        with self._connections.read() as connection:
            rows = connection.execute(
                f"""
                select {_LETTER} from dead
                where not delivered and (topic, "partition", topic_id) in
                      (select * from unnest(%s::text[], %s::integer[], %s::text[]))
                order by "offset", topic, "partition" limit %s
                """,
                [*wanted, limit],
            ).fetchall()
        return [_letter(row) for row in rows]

    def delivered(self, letters: Sequence[DeadLetter]) -> None:
        """See `Store.delivered`."""
        with self._connections.read() as connection:
            connection.execute(
                """
                update dead set delivered = true, key = null, value = null, headers = null
                where (topic, topic_id, "partition", "offset") in
                      (select * from unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[]))
                """,
                places(letters),
            )

    def expire(self, now: int) -> None:
        """See `Store.expire`. What a reader holds is dropped by a later call."""
        try:
            with self._connections.write("expire") as connection:
                with connection.transaction():
                    connection.execute("set local statement_timeout = 0")
                    to_drop = past(connection, now, self._keeping)
                # Apart: who has looked at a day must not hold it while waiting for who drops it.
                with connection.transaction():
                    connection.execute("set local statement_timeout = 0; set local lock_timeout = '2s'")
                    if to_drop:
                        self._enter_alone(connection)
                        drop(connection, to_drop)
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, LATER):
                raise

    def close(self) -> None:
        """See `Store.close`."""
        self._connections.close()


_NOTHING = Sorted(np.empty(0, np.int64), np.empty(0, np.int64), 0, 0, ())


def _within_time(milliseconds: int | None, unbounded: int) -> int:
    """A bound that the server can take; no click is outside."""
    return unbounded if milliseconds is None else min(max(milliseconds, 0), LATEST_CLICK_TIME + 1)


def _letter(row: Sequence[Any]) -> DeadLetter:
    topic, partition, topic_id, offset, reason, detail, key, value, headers, timestamp = row
    decoded = [] if headers is None else msgspec.msgpack.decode(headers, type=list[tuple[str, bytes | None]])
    source = Source(topic, partition, topic_id)
    return DeadLetter(
        source, offset, Reason(reason), unescaped(detail), key, value, tuple(decoded), timestamp
    )
