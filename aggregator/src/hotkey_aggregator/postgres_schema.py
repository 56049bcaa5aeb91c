"""The tables of the PostgreSQL store, their versions, and the locks that all members keep to.

It knows SQL and nothing of flushes. The tables that come and go are in `postgres_segments` and
`postgres_days`.
"""

from __future__ import annotations

import secrets
from typing import Any

from psycopg import Connection, sql

from hotkey_aggregator.store import StoreError

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
    """
    -- Ids are kept by segments of their arrival; the newest, while it is open, takes those that come.
    create table segments (
        number integer generated always as identity primary key,
        ends bigint not null,                -- unix milliseconds: later ids go into another one
        ids bigint,                          -- how many it holds; null while it is open
        listed boolean not null default true -- whether there is a table of its digests
    );

    -- One table a segment is like it: the digests that each flush has stored, big-endian, ascending.
    create table digests (digests bytea not null);
    alter table digests alter column digests set storage external;

    do $$ declare old date; was text; made integer; held bigint; begin
        for old in select day from days where kind = 'ids' order by day loop
            was := to_char(old, '"ids_"YYYYMMDD');
            execute format('select count(*) from %I', was) into held;
            insert into segments (ends, ids, listed)
                values (extract(epoch from old + 1) * 1000, held, false) returning number into made;
            execute format('alter table %I rename to %I', was, 'ids_' || made);
            execute format('alter index %I rename to %I', was || '_digest', 'ids_' || made || '_digest');
        end loop;
    end $$;
    delete from days where kind = 'ids';
    alter table days drop column kind;
    alter table days add primary key (day);

    -- What minutes held when they were merged; a minute that is in `added` holds something else by now.
    create table minutes (minute timestamptz primary key, clicks bigint not null, windows bigint not null);
    insert into minutes
        select minute, sum(clicks), count(*)
        from (select minute, sum(clicks) as clicks from counts where minute not in (select minute from added)
              group by minute, advertiser_id, ad_id) as held
        group by minute;
    """,
    """
    -- Where a log was cut off and written anew, another record stands at the offset.
    alter table dead add column leader_epoch integer not null default -1;
    alter table dead drop constraint dead_pkey;
    alter table dead add primary key (topic, topic_id, "partition", "offset", leader_epoch);
    """,
)
"""Entry n takes a store from schema version n to n + 1. Entries are only ever appended."""

MIGRATING, WRITING, MERGING = 1_215_000_001, 1_215_000_002, 1_215_000_003
"""First numbers of the advisory locks; the second is made of the schema's name."""


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
    _check_encoding(connection, where)
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
        if version < len(MIGRATIONS):
            lock(connection, WRITING, schema)
        for migration in MIGRATIONS[version:]:
            connection.execute(migration)
        connection.execute("update meta set value = %s where name = 'schema_version'", [str(len(MIGRATIONS))])
        return int(meta(connection, "seed"))


def _check_encoding(connection: Connection[Any], where: str) -> None:
    """Refuse a database that cannot hold every character: one click could stop all flushes for ever."""
    found = connection.info.parameter_status("server_encoding")
    if found != "UTF8":
        raise StoreError(
            f"the database of the PostgreSQL store {where} has the encoding {found}, expected UTF8: ids and "
            "names may hold any character. An encoding cannot be changed: name a database that was made by "
            "create database NAME encoding 'UTF8' locale 'C' template template0"
        )


def meta(connection: Connection[Any], name: str) -> str:
    """A value that is there in every store."""
    row = connection.execute("select value from meta where name = %s", [name]).fetchone()
    assert row is not None, name
    return str(row[0])


def add_to_meta(connection: Connection[Any], name: str, amount: int) -> None:
    """Add to a sum that is kept there."""
    connection.execute("update meta set value = (value::numeric + %s)::text where name = %s", [amount, name])
