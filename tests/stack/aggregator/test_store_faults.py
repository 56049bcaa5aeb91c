"""The store away, slow or cut off in the middle: nothing is lost or doubled, and it is said."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from devstack import Stack
from devstack.postgres import Postgres
from tests.stack.aggregator.clicks import Load, click, ends, send, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic, new_database
from tests.stack.aggregator.counted import assert_all_counted_once, count_on
from tests.stack.aggregator.deadly import Deaths
from tests.stack.aggregator.process import AggregatorProcess

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
    tmp_path: Path,
    kind: str,
) -> None:
    # given clicks, some twice, and records that are none
    topic = new_topic(2)
    flags = {} if kind == "duckdb" else {"store": request.getfixturevalue("database")}

    def member(number: int) -> AggregatorProcess:
        # Many members may share PostgreSQL: in one group each would wait for the session of the dead one.
        group = topic if kind == "duckdb" else f"{topic}-{number}"
        return aggregator(topic, flush_seconds=0.2, group_protocol="classic", group=group, **flags)

    sent: list[str] = []
    bad = 0

    # when it is killed at each step, with something new to do each time
    with Deaths(tmp_path / "deaths.log") as deaths:
        for step, (when, method) in enumerate(DEADLY_STEPS):
            new = [f"{step}-{number}" for number in range(20)]
            send_clicks(stack.kafka.bootstrap, topic, [*new, *sent[-5:]], partition=step % 2)
            send(stack.kafka.bootstrap, topic, [(b"k", b"bad")], partition=step % 2)
            sent, bad = sent + new, bad + 1
            # Positions are asked for before the first flush, too: at the start and with an assignment.
            number = 4 if method == "positions" else 1
            assert deaths.run(member(step).flags, when, method, number) == -signal.SIGKILL

    # then
    heir = member(len(DEADLY_STEPS))
    heir.start()
    assert_all_counted_once_with(stack, heir, topic, sent, bad)


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
        waiting.wait_until(lambda: not waiting.readiness()["ready"], "it is not ready")
        assert waiting.readiness()["reasons"][0].startswith("the store does not answer")
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


def slow_down(database: str, seconds: float) -> None:
    """Each flush takes so much longer; 0: as long as before."""
    with psycopg.connect(database, autocommit=True, options="-csearch_path=hotkey") as connection:
        connection.execute("drop trigger if exists slow on offsets")
        if seconds:
            connection.execute(
                f"""
                create or replace function slow() returns trigger language plpgsql as
                $$ begin perform pg_sleep({seconds}); return null; end $$;
                create trigger slow after update on offsets for each statement execute function slow()
                """.encode()
            )


def test_a_slow_database_is_kept_pace_with_by_pauses_in_bounded_memory(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str
) -> None:
    # given an aggregator under load
    topic = new_topic(3)
    slowed = aggregator(topic, store=database, flush_seconds=0.3, max_pending=500)
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=23, per_second=3000) as load:
        slowed.start()
        count_on(slowed)

        # when each flush takes longer than it takes to fill the next
        slow_down(database, 1.0)
        for _ in range(2):
            slowed.wait_until(lambda: slowed.metric("hotkey_aggregator_paused") == 1, "it pauses")
            # Two batches, the second at most one delivery of the client over its bound.
            assert slowed.metric("hotkey_aggregator_pending_events") <= 500 + 10_000
            count_on(slowed)

        # then it goes on counting, is ready, and says that it lags
        slowed.wait_until(lambda: slowed.readiness()["ready"], "it is ready")
        slowed.wait_until(lambda: slowed.readiness()["lag_records"] > 500, "it lags")
        load.stop()

    # and catches up
    slow_down(database, 0)
    assert_all_counted_once(stack, [slowed], topic, load.acknowledged)
    slowed.wait_until(lambda: slowed.readiness()["lag_records"] == 0, "no lag")


def test_a_request_to_stop_while_the_database_is_away_ends_with_what_it_means(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, own_postgres: Postgres
) -> None:
    # given an aggregator whose database went away with clicks to flush
    topic = new_topic(1)
    stopping = aggregator(topic, store=new_database(own_postgres), group_protocol="classic")
    stopping.program = ("-m", "tests.stack.aggregator.hasty", "1")
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
