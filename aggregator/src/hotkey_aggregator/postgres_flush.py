"""What one flush does within its transaction: move offsets, store new ids, add to windows.

Members lock rows in one order, so that none waits for another that waits for it: offsets, then ids by digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
from psycopg import Connection, sql

from hotkey_aggregator.postgres_closed import ClosedSegments
from hotkey_aggregator.postgres_connections import BigInts
from hotkey_aggregator.postgres_copy import (
    Hashing,
    Integers,
    Texts,
    copy_rows,
    timestamps,
    unescaped,
)
from hotkey_aggregator.postgres_ids import Find, Hit, Sorted, sort_out
from hotkey_aggregator.postgres_segments import Segment
from hotkey_aggregator.postgres_windows import Deltas
from hotkey_aggregator.store import OffsetMove
from hotkey_aggregator.windows import Clicks

RACES = 100
"""How often a flush may meet ids that another member has stored since it asked."""

_MOVES = """
    unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::integer[], %s::bigint[])
        as move (topic, topic_id, "partition", expected, next_offset, leader_epoch, event_time)
"""

_MOVE_ON = f"""
    update offsets as held
    set next_offset = move.next_offset, leader_epoch = move.leader_epoch, event_time = move.event_time
    from {_MOVES}
    where (held.topic, held.topic_id, held."partition") = (move.topic, move.topic_id, move."partition")
      and held.next_offset = move.expected
"""

_MOVE_FIRST = f"""
    insert into offsets
    select topic, topic_id, "partition", next_offset, leader_epoch, event_time from {_MOVES}
    where expected is null
    on conflict do nothing
"""

_ADDED = """
    insert into added
    select 'epoch'::timestamptz + minute * interval '1 ms' from unnest(%s::bigint[]) as minute
"""


class OffsetsDifferError(Exception):
    """Some move's `expected` is not what the store holds."""


def move_offsets(connection: Connection[Any], moves: Sequence[OffsetMove]) -> None:
    """Compare and set. Raises `OffsetsDifferError`."""
    if not moves:
        return
    columns = [
        [move.source.topic for move in moves],
        [move.source.topic_id for move in moves],
        [move.source.partition for move in moves],
        [move.expected for move in moves],
        [move.position.next_offset for move in moves],
        [move.position.leader_epoch for move in moves],
        [move.position.event_time for move in moves],
    ]
    moved = connection.execute(_MOVE_ON, columns).rowcount
    moved += connection.execute(_MOVE_FIRST, columns).rowcount
    if moved != len(moves):
        raise OffsetsDifferError


def insert_ids(
    connection: Connection[Any],
    clicks: Clicks,
    kept: Sequence[Segment],
    closed: ClosedSegments,
    hashing: Hashing,
    *,
    ask: bool,
) -> Sorted:
    """Store the ids that are new in the first segment of `kept`, the one that is open.

    `ask` that segment first which ids it has; else only once its unique index has refused one.
    Asked again when another member has stored an id meanwhile.
    """
    current = kept[0]
    payloads = np.asarray(clicks.digests, np.int64)
    for attempt in itertools.count(1):
        asked = kept if ask or attempt > 1 else kept[1:]
        found = sort_out(clicks, payloads, hashing, _asking(connection, asked, closed))
        if not len(found.new):
            return found
        texts = Texts.of(clicks.event_ids).take(found.new)
        statement = sql.SQL("copy {} from stdin (format binary)").format(current.table)
        try:
            with connection.transaction():
                _copy(connection, statement, [found.digests, payloads[found.new]], [texts])
        except psycopg.errors.UniqueViolation:
            if attempt == RACES:
                raise
            continue
        current.pack(connection, found.digests)
        return found
    raise AssertionError


def add_counts(connection: Connection[Any], deltas: Deltas) -> None:
    """Add to the windows: rows of their own, so that no member waits for another's."""
    integers = [timestamps(deltas.minutes), deltas.clicks, deltas.costs]
    statement = sql.SQL("copy counts from stdin (format binary)")
    _copy(connection, statement, integers, [deltas.advertiser_ids, deltas.ad_ids])
    connection.execute(_ADDED, [np.unique(deltas.minutes).tolist()])


def _asking(connection: Connection[Any], asked: Sequence[Segment], closed: ClosedSegments) -> Find:
    """Each segment is asked by itself: one scan of its index takes all digests."""

    def find(digests: Integers) -> list[Hit]:
        found: list[Hit] = []
        for segment, suspects in closed.asked(digests, asked):
            statement = sql.SQL("select digest, payload, id from {} where digest = any(%b)").format(
                segment.table
            )
            rows = connection.execute(statement, [BigInts(suspects)], prepare=True, binary=True).fetchall()
            found += [
                Hit(digest, payload, unescaped(text), segment.is_open) for digest, payload, text in rows
            ]
        return found

    return find


def _copy(
    connection: Connection[Any],
    statement: sql.SQL | sql.Composed,
    integers: Sequence[Integers],
    texts: Sequence[Texts],
) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in copy_rows(integers, texts):
            copy.write(chunk)
