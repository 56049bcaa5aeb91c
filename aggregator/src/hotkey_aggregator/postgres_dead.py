"""Dead letters in the PostgreSQL store: kept once, whole until they are delivered.

It knows SQL and nothing of clicks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
from psycopg import Connection

from hotkey_aggregator.events import Reason
from hotkey_aggregator.postgres_copy import escaped, unescaped
from hotkey_aggregator.store import DeadLetter
from hotkey_aggregator.windows import Source

PORTION_BYTES = 4 * 1024 * 1024
LETTER_BYTES = 300
"""What a dead letter takes beside its key and value, about."""

_INSERT = """
    insert into dead (topic, topic_id, "partition", "offset", leader_epoch,
                      reason, detail, key, value, headers, "timestamp")
    select * from unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[], %s::text[],
                         %s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bigint[])
    on conflict do nothing
"""

_LETTER = (
    'topic, "partition", topic_id, "offset", reason, detail, key, value, headers, "timestamp", leader_epoch'
)

_NEWEST = f'select {_LETTER} from dead order by "offset" desc, topic, "partition" limit %s'

_UNDELIVERED = f"""
    select {_LETTER} from dead
    where not delivered and (topic, "partition", topic_id) in
          (select * from unnest(%s::text[], %s::integer[], %s::text[]))
    order by "offset", topic, "partition" limit %s
"""

_DELIVERED = """
    update dead set delivered = true, key = null, value = null, headers = null
    where (topic, topic_id, "partition", "offset", leader_epoch) in
          (select * from unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::integer[]))
"""

# What is there under the id already stays as it is, and its like without one beside it.
_NAME = """
    update dead as held set topic_id = named.topic_id
    from unnest(%s::text[], %s::text[]) as named (topic, topic_id)
    where held.topic = named.topic and held.topic_id = '' and not exists (
        select from dead as other
        where (other.topic, other.topic_id, other."partition", other."offset", other.leader_epoch)
            = (named.topic, named.topic_id, held."partition", held."offset", held.leader_epoch))
"""


def insert_dead(connection: Connection[Any], letters: Sequence[DeadLetter]) -> int:
    """Keep those that are not there yet; how many they are."""
    return sum(_insert(connection, portion) for portion in _portions(letters))


def newest_dead(connection: Connection[Any], limit: int) -> Sequence[DeadLetter]:
    """See `Store.dead`."""
    return [_letter(row) for row in connection.execute(_NEWEST, [limit]).fetchall()]


def undelivered(connection: Connection[Any], sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
    """See `Store.undelivered`."""
    wanted = [
        [source.topic for source in sources],
        [source.partition for source in sources],
        [source.topic_id for source in sources],
    ]
    return [_letter(row) for row in connection.execute(_UNDELIVERED, [*wanted, limit]).fetchall()]


def mark_delivered(connection: Connection[Any], letters: Sequence[DeadLetter]) -> None:
    """See `Store.delivered`."""
    connection.execute(_DELIVERED, _places(letters))


def name_topics_of_dead(connection: Connection[Any], named: Sequence[Sequence[str]]) -> None:
    """See `Store.name_topics`; topics, and the id of each."""
    connection.execute(_NAME, named)


def _insert(connection: Connection[Any], letters: Sequence[DeadLetter]) -> int:
    columns = [
        *_places(letters),
        [letter.reason.value for letter in letters],
        [escaped(letter.detail) for letter in letters],
        [letter.key for letter in letters],
        [letter.value for letter in letters],
        [msgspec.msgpack.encode(letter.headers) for letter in letters],
        [letter.timestamp for letter in letters],
    ]
    return connection.execute(_INSERT, columns).rowcount


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


def _places(letters: Sequence[DeadLetter]) -> list[Sequence[object]]:
    """The columns that tell dead letters apart."""
    return [
        [letter.source.topic for letter in letters],
        [letter.source.topic_id for letter in letters],
        [letter.source.partition for letter in letters],
        [letter.offset for letter in letters],
        [letter.leader_epoch for letter in letters],
    ]


def _letter(row: Sequence[Any]) -> DeadLetter:
    topic, partition, topic_id, offset, reason, detail, key, value, headers, timestamp, leader_epoch = row
    decoded = [] if headers is None else msgspec.msgpack.decode(headers, type=list[tuple[str, bytes | None]])
    source = Source(topic, partition, topic_id)
    return DeadLetter(
        source,
        offset,
        Reason(reason),
        unescaped(detail),
        key,
        value,
        tuple(decoded),
        timestamp,
        leader_epoch,
    )
