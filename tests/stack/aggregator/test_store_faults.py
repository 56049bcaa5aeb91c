"""The store away, slow or cut off in the middle: nothing is lost or doubled, and it is said."""

from __future__ import annotations

import itertools
import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import Stack
from devstack.postgres import Postgres
from tests.postgres_server import running_postgres
from tests.stack.aggregator.clicks import Load, click, ends, recount, send, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.process import AggregatorProcess, wait_until

_numbers = itertools.count(1)


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of a database that no other test has."""
    return new_database(postgres)


def new_database(postgres: Postgres) -> str:
    name = f"aggregator{next(_numbers)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return f"{postgres.dsn.rpartition('/')[0]}/{name}"


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with running_postgres(tmp_path / "postgres") as server:
        yield server


def count_on(aggregator: AggregatorProcess, more: int = 500) -> None:
    """Wait until that many more clicks are counted than are now."""
    before = aggregator.totals()["clicks"]
    aggregator.wait_until(lambda: aggregator.totals()["clicks"] >= before + more, f"{more} more clicks")


def assert_all_counted_once(
    stack: Stack, aggregators: list[AggregatorProcess], topic: str, sent: set[str]
) -> None:
    """When all of the topic is read: ids and windows are those of the topic, each id once."""
    asked = aggregators[0]
    reached = ends(stack.kafka.bootstrap, topic)
    wait_until(
        lambda: asked.stored(topic) == reached,
        f"stored offsets {reached}",
        lambda: [asked.stored(topic), *(one.log_end() for one in aggregators)],
        90,
    )
    ids, windows = recount(stack.kafka.bootstrap, topic)
    assert ids == sent
    assert asked.ids() == Counter(list(sent))
    assert asked.counts() == windows
    assert asked.totals()["clicks"] == len(sent)


DEADLY_STEPS = [
    *((when, method) for method in ("commit", "undelivered", "delivered") for when in ("before", "after")),
    ("before", "positions"),
    ("after", "positions"),
]


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_kill_before_and_after_each_step_of_a_flush_loses_and_doubles_nothing(
    stack: Stack,
    new_topic: MakeTopic,
    aggregator: MakeAggregator,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    # given clicks, some twice, and records that are none
    topic = new_topic(2)
    flags = {} if kind == "duckdb" else {"store": request.getfixturevalue("database")}
    dying = aggregator(topic, flush_seconds=0.2, group_protocol="classic", **flags)
    sent: list[str] = []
    bad = 0

    # when it is killed at each step, with something new to do each time
    for step, (when, method) in enumerate(DEADLY_STEPS):
        new = [f"{step}-{number}" for number in range(20)]
        send_clicks(stack.kafka.bootstrap, topic, [*new, *sent[-5:]], partition=step % 2)
        send(stack.kafka.bootstrap, topic, [(b"k", b"bad")], partition=step % 2)
        sent, bad = sent + new, bad + 1
        # Positions are asked for before the first flush, too: at the start and when partitions are assigned.
        number = "4" if method == "positions" else "1"
        dying.program = ("-m", "tests.stack.aggregator.deadly", when, method, number)
        dying.launch()
        assert dying.process.wait(timeout=90) == -signal.SIGKILL, dying.log_end()

    # then
    dying.program = ("-m", "hotkey_aggregator")
    dying.start()
    assert_all_counted_once_with(stack, dying, topic, sent, bad)


def assert_all_counted_once_with(
    stack: Stack, asked: AggregatorProcess, topic: str, sent: list[str], bad: int
) -> None:
    reached = ends(stack.kafka.bootstrap, topic)
    asked.wait_until(lambda: asked.stored(topic) == reached, f"stored offsets {reached}")
    assert asked.ids() == Counter(sent)
    assert asked.totals()["clicks"] == len(sent)
    assert asked.totals()["dead"] == bad
    assert len({(row["partition"], row["offset"]) for row in asked.dead()}) == bad


def test_a_database_that_is_away_is_waited_for_with_bounded_memory_and_caught_up_with(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, own_postgres: Postgres
) -> None:
    # given an aggregator under load
    topic = new_topic(3)
    waiting = aggregator(topic, store=new_database(own_postgres), flush_seconds=0.3, max_pending=2000)
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=21, per_second=2000) as load:
        waiting.start()
        waiting.wait_until(lambda: waiting.totals()["clicks"] > 1000, "it counts")

        # when the database is away
        own_postgres.kill()
        waiting.wait_until(lambda: waiting.metric("hotkey_aggregator_paused") == 1, "it pauses")

        # then it says so, lives, and holds no more than it may
        ready = waiting.readiness()
        assert not ready["ready"]
        assert ready["reasons"][0].startswith("the store does not answer")
        assert waiting.get("/healthz")
        # Two batches, the second at most one delivery of the client over its bound.
        assert waiting.metric("hotkey_aggregator_pending_events") <= 2000 + 10_000
        own_postgres.restart()
        waiting.wait_until(lambda: bool(waiting.readiness()["ready"]), "ready again")
        load.stop()

    # and catches up
    assert_all_counted_once(stack, [waiting], topic, load.acknowledged)
    assert waiting.metric("hotkey_aggregator_store_retries_total") > 0
    assert waiting.terminate() == 0


def test_a_request_to_stop_while_the_database_is_away_ends_with_what_it_means(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, own_postgres: Postgres
) -> None:
    # given an aggregator whose database went away with clicks to flush
    topic = new_topic(1)
    stopping = aggregator(topic, store=new_database(own_postgres), group_protocol="classic")
    stopping.start()
    send_clicks(stack.kafka.bootstrap, topic, ["before"])
    stopping.wait_until(lambda: stopping.totals()["clicks"] == 1, "it counts")
    own_postgres.kill()
    send_clicks(stack.kafka.bootstrap, topic, ["while away"])
    stopping.wait_until(lambda: "event=store_unavailable" in stopping.log_text(), "it noticed")

    # when
    code = stopping.terminate()

    # then it ends in bounded time, and the click is counted after the next start
    assert code == 1
    assert "nothing is lost, they are read again at the next start" in stopping.log_end()
    own_postgres.restart()
    stopping.start()
    stopping.wait_until(lambda: stopping.totals()["clicks"] == 2, "the click is counted")


def test_members_share_the_partitions_and_a_rebalance_in_the_middle_of_flushes_doubles_nothing(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str
) -> None:
    # given a member under load that flushes all the time
    topic = new_topic(4)
    flags = {"store": database, "flush_seconds": 0.05, "max_pending": 300}
    first, second = aggregator(topic, **flags), aggregator(topic, **flags)
    with Load(stack.kafka.bootstrap, topic, partitions=4, seed=22, per_second=1500) as load:
        first.start()
        first.wait_until(lambda: first.totals()["clicks"] > 500, "it counts")

        # when another joins, leaves, joins and is killed
        for ending in ("terminate", "kill"):
            second.start()
            second.wait_until(
                lambda: second.metric("hotkey_aggregator_assigned_partitions") == 2, "half of the partitions"
            )
            count_on(first)
            if ending == "terminate":
                assert second.terminate() == 0
            else:
                second.kill()
        load.stop()

    # then, when the dead member's partitions were given to the first
    assert_all_counted_once(stack, [first], topic, load.acknowledged)
    assert first.process.poll() is None


def test_a_member_that_was_frozen_while_its_partitions_went_to_another_counts_nothing_twice(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str
) -> None:
    # given a member that is frozen with clicks that it has not flushed
    topic = new_topic(1)
    flags = {"store": database, "group_protocol": "classic"}
    zombie = aggregator(topic, flush_seconds=3600, **flags)
    zombie.start()
    sent = [f"e{number}" for number in range(100)]
    send_clicks(stack.kafka.bootstrap, topic, sent)
    zombie.wait_until(lambda: zombie.metric("hotkey_aggregator_pending_events") == 100, "100 waiting")
    zombie.process.send_signal(signal.SIGSTOP)

    # when another took its partition over and it wakes up and flushes
    heir = aggregator(topic, **flags)
    heir.start()
    heir.wait_until(lambda: heir.totals()["clicks"] == 100, "the heir counts them")
    zombie.process.send_signal(signal.SIGCONT)
    zombie.process.send_signal(signal.SIGTERM)
    zombie.process.wait(timeout=60)

    # then
    assert heir.ids() == Counter(sent)
    assert heir.totals()["clicks"] == 100
    assert heir.process.poll() is None


def test_one_id_with_two_payloads_is_counted_once_and_reported(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(1)
    reporting = aggregator(topic)
    reporting.start()
    first, other = click("same"), {**click("same"), "cost": 5}
    send(stack.kafka.bootstrap, topic, [(b"k", json.dumps(one).encode()) for one in (first, first, other)])
    reporting.wait_until(lambda: reporting.stored(topic) == {0: 3}, "all read")
    assert reporting.totals()["clicks"] == 1
    reporting.wait_for_metric("hotkey_aggregator_clicks_duplicate_total", 2)
    reporting.wait_for_metric("hotkey_aggregator_payload_conflicts_total", 1)
    assert "event=payload_conflicts" in reporting.log_text()
