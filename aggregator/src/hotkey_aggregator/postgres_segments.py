"""Where ids are kept: segments of their arrival, each a table with an index that stays small, and hot.

A segment ends with its hour (a longer time where the horizon is longer), or once its index has grown so
large that inserting random digests gets slow. The newest one takes what comes; one that is closed never
changes. Beside its ids it has their digests packed by flush, for members that load them all. What is past the
horizon is dropped as whole tables. It knows SQL and nothing of flushes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection, sql

from hotkey_aggregator.postgres_copy import Integers
from hotkey_aggregator.postgres_schema import add_to_meta
from hotkey_aggregator.store import HOUR_MILLISECONDS

SEGMENTS_A_HORIZON = 24
INDEX_BYTES = 128 * 1024 * 1024
"""The index of an open segment beyond which the next one is begun: 4 million ids."""

PORTION = 65_536
"""Digests in a row of the packed ones, at most."""

_FETCHED_ROWS = 8
_DIGEST = np.dtype(">i8")

_SEGMENTS = """
    select number, ends, ids, listed,
           case when ids is null then pg_relation_size(('ids_' || number || '_digest')::regclass) else 0 end
    from segments order by number desc
"""

# Rows are never changed or removed one by one: there is nothing to vacuum.
_CREATE = """
    create table {digests} (like digests including storage)
        with (autovacuum_enabled = false, toast.autovacuum_enabled = false);
    create table {ids} (like ids) with (autovacuum_enabled = false, toast.autovacuum_enabled = false);
    create unique index {index} on {ids} (digest);
    alter table {ids} inherit ids
"""


def segment_milliseconds(horizon: int) -> int:
    """How long a segment takes ids: whole hours, such that a horizon (milliseconds) has some two dozen."""
    return max(1, -(-horizon // (SEGMENTS_A_HORIZON * HOUR_MILLISECONDS))) * HOUR_MILLISECONDS


@dataclass(frozen=True, slots=True)
class Segment:
    """One table of ids."""

    number: int
    """Later segments have higher ones; none is given twice."""
    ends: int
    """Unix milliseconds."""
    ids: int | None = None
    """How many it holds; None while it is open."""
    listed: bool = True
    """Whether it has packed digests; what an earlier release has stored has none."""
    index_bytes: int = 0
    """While it is open."""

    @property
    def is_open(self) -> bool:
        return self.ids is None

    def takes_ids_at(self, now: int) -> bool:
        """Whether ids that come at this time (unix milliseconds) go into it, if it is the newest."""
        return self.is_open and now < self.ends

    @property
    def is_large(self) -> bool:
        """Whether the next one should be begun."""
        return self.is_open and self.index_bytes > INDEX_BYTES

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(f"ids_{self.number}")

    @property
    def packed(self) -> sql.Identifier:
        """The table of its digests."""
        return sql.Identifier(f"digests_{self.number}")

    def count(self, connection: Connection[Any]) -> int:
        """How many ids it holds."""
        if self.ids is not None:
            return self.ids
        row = connection.execute(
            sql.SQL("select coalesce(sum(octet_length(digests)), 0) / 8 from {}").format(self.packed)
        ).fetchone()
        assert row is not None
        return int(row[0])

    def pack(self, connection: Connection[Any], digests: Integers) -> None:
        """Add the digests of ids that go into it; ascending."""
        statement = sql.SQL("insert into {} values (%b)").format(self.packed)
        packed = digests.astype(_DIGEST)
        for first in range(0, len(packed), PORTION):
            connection.execute(statement, [packed[first : first + PORTION].tobytes()])

    def digests(self, connection: Connection[Any]) -> Iterator[Integers]:
        """All its digests, ascending within each piece. In a transaction."""
        with connection.cursor(name="digests", binary=True) as cursor:
            cursor.execute(sql.SQL("select digests from {}").format(self.packed))
            while rows := cursor.fetchmany(_FETCHED_ROWS):
                piece = np.frombuffer(b"".join(packed for (packed,) in rows), _DIGEST)
                yield np.sort(piece.astype(np.int64))

    def close(self, connection: Connection[Any]) -> None:
        """Let it take no more ids. In a transaction beside which no flush runs."""
        connection.execute(
            "update segments set ids = %s where number = %s", [self.count(connection), self.number]
        )

    def drop(self, connection: Connection[Any]) -> None:
        """Let go of it and remember how many ids it held. In a transaction beside which no flush runs."""
        add_to_meta(connection, "forgotten_ids", self.count(connection))
        connection.execute(sql.SQL("drop table {}").format(self.table))
        if self.listed:
            connection.execute(sql.SQL("drop table {}").format(self.packed))
        connection.execute("delete from segments where number = %s", [self.number])


def begin(connection: Connection[Any], ends: int) -> None:
    """Make the segment that takes ids from now on. In a transaction beside which no flush runs."""
    row = connection.execute("insert into segments (ends) values (%s) returning number", [ends]).fetchone()
    assert row is not None
    made = Segment(row[0], ends)
    index = sql.Identifier(f"ids_{made.number}_digest")
    connection.execute(sql.SQL(_CREATE).format(ids=made.table, digests=made.packed, index=index))


def segments(connection: Connection[Any]) -> list[Segment]:
    """All there are, the newest first."""
    return [Segment(*row) for row in connection.execute(_SEGMENTS).fetchall()]
