"""The shared store: one PostgreSQL schema that many members of a consumer group write to at once.

A flush asks which of its ids are there, and copies the others straight into the open segment, whose unique
index on their digests has the last word. Two members with one id in flight meet in that index: the second
waits for the first and asks again. They meet there because all flushes in flight write to the same segment:
which one it is, is a row that is read under a shared lock; the next one is begun under the exclusive lock.
It knows SQL and nothing of Kafka.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import psycopg
from psycopg import Connection

from hotkey_aggregator.events import LATEST_CLICK_TIME
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.postgres_closed import ClosedSegments
from hotkey_aggregator.postgres_connections import Connections
from hotkey_aggregator.postgres_copy import escaped, seeded, unescaped
from hotkey_aggregator.postgres_days import DAY_MILLISECONDS, Day, days, held
from hotkey_aggregator.postgres_dead import (
    insert_dead,
    mark_delivered,
    name_topics_of_dead,
    newest_dead,
    undelivered,
)
from hotkey_aggregator.postgres_errors import TRY_AGAIN_AT_ONCE
from hotkey_aggregator.postgres_flush import OffsetsDifferError, add_counts, insert_ids, move_offsets
from hotkey_aggregator.postgres_ids import Sorted
from hotkey_aggregator.postgres_schema import MERGING, WRITING, lock, meta, migrate, try_lock
from hotkey_aggregator.postgres_segments import Segment, begin, segment_milliseconds, segments
from hotkey_aggregator.postgres_upkeep import merge, past
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
MERGE_MILLISECONDS = 2 * 60_000
PATIENCE = "1s"
"""How long all flushes may have to wait for those in flight so that a large segment is closed."""
UNASKED_AFTER = 10
"""Flushes without a duplicate until the open segment is no longer asked before it is written to."""

log = logging.getLogger("hotkey_aggregator")

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

_POSITIONS = 'select topic, "partition", topic_id, next_offset, leader_epoch, event_time from offsets'

# What is there under the id already stays as it is, and its like without one beside it.
_NAME_OFFSETS = """
    update offsets as held set topic_id = named.topic_id
    from unnest(%s::text[], %s::text[]) as named (topic, topic_id)
    where held.topic = named.topic and held.topic_id = '' and not exists (
        select from offsets as other
        where (other.topic, other.topic_id, other."partition")
            = (named.topic, named.topic_id, held."partition"))
"""


class _TablesMissingError(Exception):
    """The flush needs tables that can only be made while no flush runs."""

    def __init__(self, missing: Collection[Day], ended: Sequence[Segment] | None) -> None:
        super().__init__(missing, ended)
        self.missing = missing
        self.ended = ended
        """The segments, of which none takes ids any more; None: one does."""


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
        self.closed_segments = ClosedSegments(self._connections)
        self._merge_at = 0
        self._without_duplicates = UNASKED_AFTER

    def bind(self, stream: str) -> None:
        """See `Store.bind`."""
        with self._connections.write("bind") as connection:
            connection.execute("insert into meta values ('stream', %s) on conflict do nothing", [stream])
            found = meta(connection, "stream")
            self.closed_segments.follow(segments(connection))
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
            name_topics_of_dead(connection, named)

    def positions(self) -> Mapping[Source, Position]:
        """See `Store.positions`."""
        with self._connections.read(own=True) as connection:
            rows = connection.execute(_POSITIONS).fetchall()
        return {Source(*row[:3]): Position(*row[3:]) for row in rows}

    def commit(self, flush: Flush) -> Committed:
        """See `Store.commit`. When a segment ends, the database's clock says, never `flush.now`."""
        self.closed_segments.wait(len(flush.clicks))
        committed, kept = self._commit(flush)
        # The flush is in the store whatever becomes of these; the next one tells what is wrong with it.
        with suppress(StoreError):
            if kept:
                self.closed_segments.follow(kept)
            if kept and kept[0].is_large:
                self._begin_segment(flush.now, kept, patience=PATIENCE)
        if flush.now >= self._merge_at:
            self._merge_at = flush.now + MERGE_MILLISECONDS
            try:
                self.merge(flush.now - MERGE_MILLISECONDS)
            except StoreError as error:
                # Flushes go on without it, and so would not tell.
                log.warning(line("merge_put_off", detail=error))
        return committed

    def merge(self, before: int) -> None:
        """Make one row of each window of minutes before this time (unix milliseconds) that has several."""
        with self._connections.write("merge windows") as connection, connection.transaction():
            if try_lock(connection, MERGING, self._connections.schema):
                self._enter(connection)
                merge(connection, before)

    def _commit(self, flush: Flush) -> tuple[Committed, Sequence[Segment]]:
        for attempt in range(RETRIES):
            try:
                return self._commit_once(flush)
            except _TablesMissingError as error:
                self._make(error.missing)
                if error.ended is not None:
                    self._begin_segment(flush.now, after=error.ended)
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

    def _commit_once(self, flush: Flush) -> tuple[Committed, Sequence[Segment]]:
        with self._connections.write("commit a flush") as connection, connection.transaction():
            self._enter(connection)
            clicks = flush.clicks
            kept = self._tables(connection, flush) if clicks else []
            move_offsets(connection, flush.moves)
            sorted_out = self._insert_ids(connection, clicks, kept) if clicks else _NOTHING
            if len(sorted_out.new):
                add_counts(connection, sum_up(clicks, sorted_out.new))
            dead = insert_dead(connection, flush.dead) if flush.dead else 0
        committed = Committed(
            counted=len(sorted_out.new),
            duplicates=sorted_out.duplicates,
            dead=dead,
            conflicts=sorted_out.conflicts,
            examples=sorted_out.examples,
        )
        return committed, kept

    def _insert_ids(self, connection: Connection[Any], clicks: Clicks, kept: Sequence[Segment]) -> Sorted:
        """Ask the open segment first only where duplicates are about: that costs up to as much as storing."""
        ask = self._without_duplicates < UNASKED_AFTER
        found = insert_ids(connection, clicks, kept, self.closed_segments, self._hashing, ask=ask)
        self._without_duplicates = 0 if found.duplicates else self._without_duplicates + 1
        return found

    def _enter(self, connection: Connection[Any]) -> None:
        """From here to the transaction's end no segment or day begins or is dropped."""
        lock(connection, WRITING, self._connections.schema, shared=True)

    def _enter_alone(self, connection: Connection[Any]) -> None:
        """From here to the transaction's end no flush runs."""
        lock(connection, WRITING, self._connections.schema)

    def _now(self, connection: Connection[Any], given: int) -> int:
        """Unix milliseconds by the database's clock, in place of a member's, which may be wrong."""
        del given
        row = connection.execute("select (extract(epoch from clock_timestamp()) * 1000)::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def _tables(self, connection: Connection[Any], flush: Flush) -> Sequence[Segment]:
        """The segments whose ids are looked through; the first is the one to write to."""
        kept, now = segments(connection), self._now(connection, flush.now)
        times = np.asarray(flush.clicks.click_times, np.int64)
        needed = {Day(int(number)) for number in np.unique(times // DAY_MILLISECONDS)}
        missing = needed.difference(days(connection))
        ended = not kept or not kept[0].takes_ids_at(now)
        if missing or ended:
            raise _TablesMissingError(missing, kept if ended else None)
        return kept

    def _make(self, missing: Collection[Day]) -> None:
        """Begin days."""
        with self._connections.write("begin a day") as connection, connection.transaction():
            self._enter_alone(connection)
            for day in sorted(missing):
                day.create(connection)

    def _begin_segment(self, given_now: int, after: Sequence[Segment], patience: str = "60s") -> None:
        """Begin a segment once no flush is in flight that does not know of it, unless another member has."""
        with self._connections.write("begin a segment") as connection, connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", [patience])
            self._enter_alone(connection)
            found = segments(connection)
            if [each.number for each in found[:1]] == [each.number for each in after[:1]]:
                for each in found[:1]:
                    each.close(connection)
                length = segment_milliseconds(self._keeping.ids)
                begin(connection, (self._now(connection, given_now) // length + 1) * length)

    def _refuse(self, moves: Sequence[OffsetMove]) -> None:
        """Say which offset differs; none, when they have become equal meanwhile."""
        positions = self.positions()
        for move in moves:
            found = positions[move.source].next_offset if move.source in positions else None
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
        """See `Store.totals`. What is closed or merged was summed up when it was."""
        with self._connections.read_snapshot() as connection:
            expired, forgotten = (int(meta(connection, name)) for name in ("expired_clicks", "forgotten_ids"))
            clicks, windows = held(connection)
            ids = sum(segment.count(connection) for segment in segments(connection))
            row = connection.execute("select count(*) from dead").fetchone()
        assert row is not None
        return Totals(clicks + expired, ids, windows, int(row[0]), forgotten)

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """See `Store.event_ids`."""
        with self._connections.read_snapshot() as connection, connection.cursor(name="event_ids") as cursor:
            cursor.execute("select id from ids where starts_with(id, %s)", [escaped(prefix)])
            while rows := cursor.fetchmany(ID_CHUNK):
                yield [unescaped(row[0]) for row in rows]

    def dead(self, limit: int) -> Sequence[DeadLetter]:
        """See `Store.dead`."""
        with self._connections.read() as connection:
            return newest_dead(connection, limit)

    def undelivered(self, sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
        """See `Store.undelivered`."""
        with self._connections.read(own=True) as connection:
            return undelivered(connection, sources, limit)

    def delivered(self, letters: Sequence[DeadLetter]) -> None:
        """See `Store.delivered`."""
        with self._connections.read(own=True) as connection:
            mark_delivered(connection, letters)

    def expire(self, now: int) -> None:
        """See `Store.expire`; past by the database's clock too. What is being read is dropped later."""
        try:
            with self._connections.write("expire") as connection:
                # One clock that runs ahead, whichever it is, must not make the store forget.
                at = min(now, self._now(connection, now))
                if not past(connection, at, self._keeping):
                    return
                with connection.transaction():
                    connection.execute("set local statement_timeout = 0; set local lock_timeout = '2s'")
                    self._enter_alone(connection)
                    # All flushes wait meanwhile: whoever reads for long is not waited for.
                    connection.execute("set local lock_timeout = '100ms'")
                    past(connection, at, self._keeping).drop(connection)
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, LATER):
                raise

    def close(self) -> None:
        """See `Store.close`."""
        self.closed_segments.close()
        self._connections.close()


_NOTHING = Sorted(np.empty(0, np.int64), np.empty(0, np.int64), 0, 0, ())


def _within_time(milliseconds: int | None, unbounded: int) -> int:
    """A bound that the server can take; no click is outside."""
    return unbounded if milliseconds is None else min(max(milliseconds, 0), LATEST_CLICK_TIME + 1)
