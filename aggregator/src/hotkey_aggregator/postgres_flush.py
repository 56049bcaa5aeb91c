"""What one flush does within its transaction: move offsets, store new ids, add to windows, keep dead letters.

Members lock rows in one order, so that none waits for another that waits for it: offsets, then ids by digest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import psycopg
from psycopg import Connection, sql

from hotkey_aggregator.postgres_connections import BigInts
from hotkey_aggregator.postgres_copy import (
    Hashing,
    Integers,
    Texts,
    copy_rows,
    escaped,
    timestamps,
    unescaped,
)
from hotkey_aggregator.postgres_ids import Find, Hit, Sorted, sort_out
from hotkey_aggregator.postgres_schema import Day
from hotkey_aggregator.postgres_windows import Deltas
from hotkey_aggregator.store import DeadLetter, OffsetMove
from hotkey_aggregator.windows import Clicks

RACES = 100
"""How often a flush may meet ids that another member has stored since it asked."""

PORTION_BYTES = 4 * 1024 * 1024
LETTER_BYTES = 300
"""What a dead letter takes beside its key and value, about."""

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

_INSERT_DEAD = """
    insert into dead
    select * from unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::text[], %s::text[],
                         %s::bytea[], %s::bytea[], %s::bytea[], %s::bigint[])
    on conflict do nothing
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
    connection: Connection[Any], clicks: Clicks, kept: Sequence[Day], hashing: Hashing, *, ask: bool
) -> Sorted:
    """Store the ids that are new in the first day of `kept`.

    `ask` that day's table first which ids it has; else only once its unique index has refused one.
    Asked again when another member has stored an id meanwhile.
    """
    payloads = np.asarray(clicks.digests, np.int64)
    for attempt in itertools.count(1):
        asked = kept if ask or attempt > 1 else kept[1:]
        found = sort_out(clicks, payloads, hashing, _asking(connection, asked, kept[0]))
        if not len(found.new):
            break
        texts = Texts.of([clicks.event_ids[row] for row in found.new.tolist()])
        statement = sql.SQL("copy {} from stdin (format binary)").format(kept[0].table)
        try:
            with connection.transaction():
                _copy(connection, statement, [found.digests, payloads[found.new]], [texts])
        except psycopg.errors.UniqueViolation:
            if attempt == RACES:
                raise
            continue
        break
    return found


def add_counts(connection: Connection[Any], deltas: Deltas) -> None:
    """Add to the windows: rows of their own, so that no member waits for another's."""
    integers = [timestamps(deltas.minutes), deltas.clicks, deltas.costs]
    statement = sql.SQL("copy counts from stdin (format binary)")
    _copy(connection, statement, integers, [deltas.advertiser_ids, deltas.ad_ids])
    connection.execute(_ADDED, [np.unique(deltas.minutes).tolist()])


def insert_dead(connection: Connection[Any], letters: Sequence[DeadLetter]) -> int:
    """Keep those that are not there yet; how many they are."""
    return sum(_insert_dead(connection, portion) for portion in _portions(letters))


def _insert_dead(connection: Connection[Any], letters: Sequence[DeadLetter]) -> int:
    columns = [
        *places(letters),
        [letter.reason.value for letter in letters],
        [escaped(letter.detail) for letter in letters],
        [letter.key for letter in letters],
        [letter.value for letter in letters],
        [msgspec.msgpack.encode(letter.headers) for letter in letters],
        [letter.timestamp for letter in letters],
    ]
    return connection.execute(_INSERT_DEAD, columns).rowcount


def _portions(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """Statements of a few megabytes each: a record may hold one of them alone."""
    portion: list[DeadLetter] = []
    size = 0
    for letter in letters:
        portion.append(letter)
        size += LETTER_BYTES + len(letter.value or b"") + len(letter.key or b"")
        if size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _asking(connection: Connection[Any], asked: Sequence[Day], current: Day) -> Find:
    """Each day is asked by itself: one scan of its index takes all digests."""

    def find(digests: Integers) -> list[Hit]:
        found: list[Hit] = []
        wanted = BigInts(digests)
        for day in asked:
            statement = sql.SQL("select digest, payload, id from {} where digest = any(%b)").format(day.table)
            rows = connection.execute(statement, [wanted], prepare=True, binary=True).fetchall()
            found += [Hit(digest, payload, unescaped(text), day == current) for digest, payload, text in rows]
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


def places(letters: Sequence[DeadLetter]) -> list[Sequence[object]]:
    """The columns that tell dead letters apart."""
    return [
        [letter.source.topic for letter in letters],
        [letter.source.topic_id for letter in letters],
        [letter.source.partition for letter in letters],
        [letter.offset for letter in letters],
    ]
