"""The tables of a DuckDB store, one migration per version of the schema.

Counts are rows that are added up when they are read: `recent_counts` has what each flush brought, and is
merged into `merged_counts` now and then. A unique index over windows would cost a flush more the more windows
there are. Ids are in tables `ids_<number>`, one for each segment of arrival time, so that forgetting them is
dropping a table. Hashes and ids are stored as they are: trying compressions on random bytes was most of a
flush's cost.
"""

from __future__ import annotations

IDS = """
    create table ids_{number} (
        event_id varchar not null using compression uncompressed,
        hash ubigint not null using compression uncompressed,
        digest bigint using compression uncompressed,
        source integer not null, "offset" bigint not null);
"""
"""One segment. `hash` is DuckDB's of the id, `digest` is unknown (null) for ids of version 1."""

HASH_PROBE = "select concat_ws(' ', hash(''), hash('hotkey'), hash('\u00e9' || repeat('y', 40)))"
"""DuckDB does not promise that `hash` stays as it is from release to release: this tells."""

_COUNTS = """
    create table {name} (
        minute bigint not null, advertiser_id varchar not null, ad_id varchar not null,
        clicks bigint not null, cost bigint not null);
"""

_VERSION_1 = """
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
"""

# Segment 0 ends when the first flush says what time it is. Rejected records of version 1 were not kept whole:
# they stay to be looked at, there is nothing to deliver.
_VERSION_2 = f"""
    create table sources (
        number integer not null, topic varchar not null, "partition" integer not null,
        topic_id varchar not null, next_offset bigint, leader_epoch integer not null,
        event_time bigint not null);
    insert into sources
    select row_number() over (order by topic, "partition") - 1, topic, "partition", '', next_offset, -1, -1
    from (select topic, "partition" from offsets union select topic, "partition" from events
          union select topic, "partition" from rejected)
    left join offsets using (topic, "partition");

    {_COUNTS.format(name="recent_counts")}
    {_COUNTS.format(name="merged_counts")}
    insert into merged_counts
    select epoch_ms(minute), advertiser_id, ad_id, clicks, 0 from counts
    order by minute, advertiser_id, ad_id;

    create table segments (number integer not null, ends bigint);
    insert into segments values (0, null);
    {IDS.format(number=0)}
    insert into ids_0
    select event_id, hash(event_id), null, number, "offset"
    from events join sources using (topic, "partition");

    create table dead (
        source integer not null, "offset" bigint not null, reason varchar not null,
        detail varchar not null, timestamp bigint not null);
    insert into dead
    select number, "offset", reason, detail, -1 from rejected join sources using (topic, "partition");
    create table outbox (
        source integer not null, "offset" bigint not null, key blob, value blob, headers blob not null);

    create table gone (ids bigint not null, clicks bigint not null);
    insert into gone values (0, 0);
    insert into meta select 'hash_probe', ({HASH_PROBE});

    drop table offsets; drop table counts; drop table events; drop table rejected;
"""

# Where a log was cut off and written anew, another record stands at the offset.
_VERSION_3 = """
    alter table dead add column leader_epoch integer default -1;
    alter table outbox add column leader_epoch integer default -1;
"""

MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3)
"""Entry n takes a file from schema version n to n + 1. Entries are only ever appended."""
