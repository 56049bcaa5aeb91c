"""The tables of the PostgreSQL store, their versions, and the tables that each day gets.

Ids are kept by the day of their arrival, counts by the day of their minute, so that what is past its time is
dropped as whole tables. It knows SQL and nothing of flushes.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg import Connection, sql

from hotkey_aggregator.store import HOUR_MILLISECONDS, StoreError

DAY_MILLISECONDS = 24 * HOUR_MILLISECONDS

MIGRATIONS = (
    """
    create table offsets (
        topic text collate "C" not null, topic_id text collate "C" not null, "partition" integer not null,
        next_offset bigint not null, leader_epoch integer not null, event_time bigint not null,
        primary key (topic, topic_id, "partition"));

    -- One table a day inherits from it; each has a unique index on digest. Its own rows: none.
    create table ids (digest bigint not null, payload bigint not null, id text collate "C" not null);

    -- What flushes have added, row by row; the sum of a window's rows is what it counts.
    create table counts (
        minute timestamptz not null, clicks bigint not null, cost bigint not null,
        advertiser_id text collate "C" not null, ad_id text collate "C" not null)
        partition by range (minute);
    create index counts_minute on counts (minute, left(advertiser_id, 100));
    create view windows as
        select minute, advertiser_id, ad_id, sum(clicks)::bigint as clicks, sum(cost) as cost
        from counts group by minute, advertiser_id, ad_id;

    -- Minutes whose windows may have more rows than one.
    create table added (minute timestamptz not null);

    create table days (
        kind text not null check (kind in ('ids', 'counts')), day date not null, primary key (kind, day));

    create table dead (
        topic text collate "C" not null, topic_id text collate "C" not null, "partition" integer not null,
        "offset" bigint not null, reason text not null, detail text not null,
        key bytea, value bytea, headers bytea, "timestamp" bigint not null,
        delivered boolean not null default false,
        primary key (topic, topic_id, "partition", "offset"));
    create index dead_undelivered on dead ("offset", topic, "partition") where not delivered;

    insert into meta values ('forgotten_ids', '0'), ('expired_clicks', '0');
    """,
)
"""Entry n takes a store from schema version n to n + 1. Entries are only ever appended."""

MIGRATING, WRITING, MERGING = 1_215_000_001, 1_215_000_002, 1_215_000_003
"""First numbers of the advisory locks; the second is made of the schema's name."""

_CREATE_IDS = """
    create table {table} (like ids) with (autovacuum_enabled = false, toast.autovacuum_enabled = false);
    create unique index {index} on {table} (digest);
    alter table {table} inherit ids
"""

# Attached rather than created as a partition: that would wait for every reader of the other days.
_CREATE_COUNTS = """
    create table {table} (like counts including all);
    alter table counts attach partition {table}
        for values from (to_timestamp({day} * 86400.0)) to (to_timestamp(({day} + 1) * 86400.0))
"""


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """One UTC day and the table that holds its ids or its counts."""

    kind: str
    number: int
    """Days since 1970-01-01."""

    @classmethod
    def of(cls, kind: str, milliseconds: int) -> Day:
        return cls(kind, milliseconds // DAY_MILLISECONDS)

    @property
    def date(self) -> date:
        return date(1970, 1, 1) + timedelta(days=self.number)

    @property
    def end(self) -> int:
        """Unix milliseconds of the midnight that ends it."""
        return (self.number + 1) * DAY_MILLISECONDS

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(f"{self.kind}_{self.date:%Y%m%d}")

    def create(self, connection: Connection[Any]) -> None:
        """Make its table, unless somebody else has."""
        row = connection.execute(
            "insert into days values (%s, %s) on conflict do nothing", [self.kind, self.date]
        )
        if row.rowcount:
            statement = sql.SQL(_CREATE_IDS if self.kind == "ids" else _CREATE_COUNTS).format(
                table=self.table,
                index=sql.Identifier(f"ids_{self.date:%Y%m%d}_digest"),
                day=sql.Literal(self.number),
            )
            connection.execute(statement)

    def drop(self, connection: Connection[Any]) -> None:
        """Let go of its table and all that it holds."""
        connection.execute(sql.SQL("drop table {}").format(self.table))
        connection.execute("delete from days where kind = %s and day = %s", [self.kind, self.date])


def days(connection: Connection[Any], kind: str) -> list[Day]:
    """The days that have a table, the newest first."""
    rows = connection.execute(
        "select day - date '1970-01-01' from days where kind = %s order by day desc", [kind]
    )
    return [Day(kind, number) for (number,) in rows]


def lock(connection: Connection[Any], purpose: int, schema: str, *, shared: bool = False) -> None:
    """Take an advisory lock of this schema until the transaction ends."""
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.execute(f"select {function}(%s, hashtext(%s))", [purpose, schema])


def try_lock(connection: Connection[Any], purpose: int, schema: str) -> bool:
    """Take the lock until the transaction ends, unless somebody has it."""
    row = connection.execute(
        "select pg_try_advisory_xact_lock(%s, hashtext(%s))", [purpose, schema]
    ).fetchone()
    return row is not None and bool(row[0])


def migrate(connection: Connection[Any], schema: str, where: str) -> int:
    """Bring the schema to this release's version; the seed of its digests."""
    with connection.transaction():
        connection.execute("set local statement_timeout = 0; set local lock_timeout = 0")
        lock(connection, MIGRATING, schema)
        if not connection.execute("select from pg_namespace where nspname = %s", [schema]).fetchall():
            connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        # Named in full: what is wrong with the schema is told as such.
        connection.execute(
            sql.SQL("create table if not exists {} (name text primary key, value text not null)").format(
                sql.Identifier(schema, "meta")
            )
        )
        # Nobody can choose ids that have one digest without knowing the seed.
        seed = secrets.randbits(62)
        connection.execute(
            "insert into meta values ('schema_version', '0'), ('seed', %s) on conflict do nothing",
            [str(seed)],
        )
        version = int(meta(connection, "schema_version"))
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the PostgreSQL store {where} has schema version {version}, this release knows versions up "
                f"to {len(MIGRATIONS)}: use the release that wrote it, or a newer one"
            )
        for migration in MIGRATIONS[version:]:
            connection.execute(migration)
        connection.execute("update meta set value = %s where name = 'schema_version'", [str(len(MIGRATIONS))])
        return int(meta(connection, "seed"))


def meta(connection: Connection[Any], name: str) -> str:
    """A value that is there in every store."""
    row = connection.execute("select value from meta where name = %s", [name]).fetchone()
    assert row is not None, name
    return str(row[0])


def add_to_meta(connection: Connection[Any], name: str, amount: int) -> None:
    """Add to a sum that is kept there."""
    connection.execute("update meta set value = (value::numeric + %s)::text where name = %s", [amount, name])
