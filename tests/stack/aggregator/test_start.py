"""A database that is away, full of others or closed to us when the aggregator starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from devstack import Stack
from devstack.postgres import Postgres
from tests.stack.aggregator.clicks import send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic, new_database
from tests.stack.aggregator.counted import assert_ids
from tests.stack.aggregator.process import AggregatorProcess

_numbers = itertools.count(1)


def waits_for_its_store(waiting: AggregatorProcess, why: str) -> None:
    """It lives, is not ready, and says why."""
    waiting.wait_until(lambda: "event=waiting_for_store" in waiting.log_text(), "it waits")
    ready = waiting.readiness()
    assert not ready["ready"]
    assert ready["reasons"][0].startswith("the store does not answer: the PostgreSQL store 127.0.0.1:")
    assert why in ready["reasons"][0]
    assert waiting.get("/healthz")
    assert waiting.metric("hotkey_aggregator_store_available") == 0


def test_a_database_that_is_away_at_the_start_is_waited_for(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, own_postgres: Postgres
) -> None:
    # given
    topic = new_topic(1)
    send_clicks(stack.kafka.bootstrap, topic, ["e1", "e2"])
    early = aggregator(topic, store=new_database(own_postgres), group_protocol="classic")
    own_postgres.kill()

    # when it is started, it can be told to stop
    early.launch()
    waits_for_its_store(early, "cannot be reached")
    assert early.terminate() == 0

    # and when the database comes, it counts
    early.launch()
    early.wait_until(lambda: early.log_text().count("event=waiting_for_store") == 2, "it waits")
    own_postgres.restart()
    early.wait_until(lambda: early.readiness()["ready"], "it is ready")
    early.wait_until(lambda: early.totals()["clicks"] == 2, "it counts")
    assert_ids(early, ["e1", "e2"])
    assert early.log_text().count("event=store_unavailable") == 2
    assert early.terminate() == 0


def test_connections_that_others_took_are_waited_for_at_the_start_and_later(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, postgres: Postgres
) -> None:
    # given a user who has no connection left
    topic, user = new_topic(1), f"crowded{next(_numbers)}"
    with administrator(postgres) as admin:
        admin.execute(f"create role {user} login connection limit 0".encode())
        crowded = aggregator(topic, store=new_database(postgres, user), group_protocol="classic")
        sent = ["e1"]
        send_clicks(stack.kafka.bootstrap, topic, sent)

        # when the aggregator starts
        crowded.launch()
        waits_for_its_store(crowded, "too many connections")

        # and gets some
        admin.execute(f"alter role {user} connection limit -1".encode())
        crowded.wait_until(lambda: crowded.readiness()["ready"], "it is ready")
        crowded.wait_until(lambda: crowded.totals()["clicks"] == 1, "it counts")

        # and loses them while it runs
        admin.execute(f"alter role {user} connection limit 0".encode())
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [user])
        sent += [f"later-{number}" for number in range(50)]
        send_clicks(stack.kafka.bootstrap, topic, sent)
        crowded.wait_until(lambda: not crowded.readiness()["ready"], "it is not ready")
        crowded.wait_until(
            lambda: "too many connections" in crowded.readiness()["reasons"][0], "it says what is wrong"
        )
        admin.execute(f"alter role {user} connection limit -1".encode())

    # then nothing is lost or doubled
    crowded.wait_until(lambda: crowded.readiness()["ready"], "ready again")
    crowded.wait_until(lambda: crowded.totals()["clicks"] >= len(sent), "all are counted")
    assert_ids(crowded, sent)


def test_a_wrong_password_ends_the_start_with_what_to_correct(
    new_topic: MakeTopic, aggregator: MakeAggregator, postgres: Postgres
) -> None:
    # given a user who needs a password
    user, secret = f"keeper{next(_numbers)}", "wr0ng"
    rules = postgres.data / "pg_hba.conf"
    before = rules.read_text()
    with administrator(postgres) as admin:
        admin.execute(f"create role {user} login password 'right'".encode())
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{before}")
        admin.execute("select pg_reload_conf()")
        try:
            # when
            dsn = new_database(postgres, user).replace(f"{user}@", f"{user}:{secret}@")
            refused = aggregator(new_topic(1), store=dsn)
            refused.launch()
            code = refused.process.wait(timeout=120)
        finally:
            rules.write_text(before)
            admin.execute("select pg_reload_conf()")

    # then
    assert code == 1
    told = refused.log_text()
    assert "refuses this user or database" in told
    assert "Correct user, password and database" in told
    assert (secret in told, "Traceback" in told, "waiting_for_store" in told) == (False, False, False)


def test_two_streams_share_a_database_in_schemas_of_their_own(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str
) -> None:
    both = [
        (topic, aggregator(topic, store=database, schema=f"s{number}"))
        for number, topic in enumerate([new_topic(1), new_topic(1)])
    ]
    for topic, one in both:
        one.start()
        send_clicks(stack.kafka.bootstrap, topic, [f"{topic}-e"])
    for topic, one in both:
        one.wait_for_metric("hotkey_aggregator_clicks_counted_total", 1)
        assert_ids(one, [f"{topic}-e"])


@contextmanager
def administrator(postgres: Postgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        yield connection
