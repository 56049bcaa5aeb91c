"""No room under the store: nothing is lost or doubled, memory stays bounded, and it is said."""

from __future__ import annotations

import resource
from pathlib import Path

import psycopg

from devstack import Stack
from devstack.postgres import Postgres
from tests.stack.aggregator.clicks import Load, ends, send
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic, new_database
from tests.stack.aggregator.counted import assert_all_counted_once, assert_ids, count_on
from tests.stack.aggregator.process import AggregatorProcess

FLAGS = {"flush_seconds": 0.3, "max_pending": 2000}


def let_files_grow_to(size: int, aggregator: AggregatorProcess) -> None:
    """What a full disk does to writes behind the end of a file, for one running process."""
    _, hard = resource.prlimit(aggregator.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(aggregator.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def largest_file_of(db: Path) -> int:
    return max(file.stat().st_size for file in db.parent.glob(f"{db.name}*"))


def is_out_of_room(full: AggregatorProcess) -> None:
    """It pauses, says so, lives, and holds no more than it may."""
    full.wait_until(lambda: full.metric("hotkey_aggregator_paused") == 1, "it pauses")
    full.wait_until(lambda: not full.readiness()["ready"], "it is not ready")
    assert full.readiness()["reasons"][0].startswith("the store does not answer")
    assert full.get("/healthz")
    # Two batches, the second at most one delivery of the client over its bound.
    assert full.metric("hotkey_aggregator_pending_events") <= 2000 + 10_000


def test_a_full_disk_under_a_duckdb_file_is_waited_out(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given an aggregator under load
    topic = new_topic(3)
    full = aggregator(topic, **FLAGS)
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=31, per_second=2000) as load:
        full.start()
        count_on(full)

        # when its files can grow no more
        let_files_grow_to(largest_file_of(full.db) + 65_536, full)
        is_out_of_room(full)

        # and when there is room again
        let_files_grow_to(resource.RLIM_INFINITY, full)
        full.wait_until(lambda: full.readiness()["ready"], "ready again")
        count_on(full)
        load.stop()

    # then all is counted, after a kill too: what the failed writes left behind does no harm
    assert_all_counted_once(stack, [full], topic, load.acknowledged)
    full.kill()
    full.start()
    assert_ids(full, load.acknowledged)


def test_a_full_disk_under_postgresql_is_waited_out(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, own_postgres: Postgres
) -> None:
    # given an aggregator under load, and a table without room to grow
    topic, database = new_topic(3), new_database(own_postgres)
    full = aggregator(topic, store=database, **FLAGS)
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=32, per_second=2000) as load:
        full.start()
        count_on(full)
        table = file_of(own_postgres, database, "dead")
        table.rename(table.with_suffix(".kept"))
        table.symlink_to("/dev/full")

        # when a flush needs some of it
        send(stack.kafka.bootstrap, topic, [(b"k", b"no click")])
        is_out_of_room(full)
        assert "No space left on device" in full.readiness()["reasons"][0]

        # and when there is room again
        table.unlink()
        table.with_suffix(".kept").rename(table)
        full.wait_until(lambda: full.readiness()["ready"], "ready again")
        load.stop()

    # then all is counted, and the record that is no click is kept
    reached = ends(stack.kafka.bootstrap, topic)
    full.wait_until(lambda: full.stored(topic) == reached, f"stored offsets {reached}")
    assert_ids(full, load.acknowledged)
    assert [row["reason"] for row in full.dead()] == ["NotJson"]


def file_of(postgres: Postgres, database: str, table: str) -> Path:
    with psycopg.connect(database) as connection:
        row = connection.execute("select pg_relation_filepath(%s)", [f"hotkey.{table}"]).fetchone()
    assert row is not None
    return postgres.data / str(row[0])
