"""Members of one group on one PostgreSQL: partitions come, go, are taken away, in the middle of flushes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from devstack import Stack
from devstack.postgres import Postgres
from tests.postgres_server import until_backends_wait
from tests.stack.aggregator.clicks import Load, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.counted import assert_all_counted_once, assert_ids, count_on
from tests.stack.aggregator.process import AggregatorProcess

HASTY = ("-m", "tests.stack.aggregator.hasty", "1")


def has_partitions(member: AggregatorProcess, number: int) -> None:
    member.wait_until(
        lambda: member.metric("hotkey_aggregator_assigned_partitions") == number, f"{number} partitions"
    )


@pytest.mark.parametrize(
    ("protocol", "endings"),
    # A dead member is missed after 45 s by the one protocol: once is enough.
    [("classic", ["terminate", "kill"]), ("consumer", ["terminate", "terminate"])],
    ids=["classic", "consumer"],
)
def test_a_rebalance_in_the_middle_of_flushes_takes_only_what_moves_and_doubles_nothing(
    stack: Stack,
    new_topic: MakeTopic,
    aggregator: MakeAggregator,
    database: str,
    protocol: str,
    endings: list[str],
) -> None:
    # given a member under load that flushes all the time
    topic = new_topic(4)
    flags = {"store": database, "flush_seconds": 0.05, "max_pending": 300, "group_protocol": protocol}
    first, second = aggregator(topic, **flags), aggregator(topic, **flags)
    with Load(stack.kafka.bootstrap, topic, partitions=4, seed=22, per_second=1500) as load:
        first.start()
        count_on(first)

        # when another joins and leaves, twice
        for ending in endings:
            second.start()
            has_partitions(second, 2)
            count_on(first)
            if ending == "terminate":
                assert second.terminate() == 0
                has_partitions(first, 4)
            else:
                second.kill()
        load.stop()

    # then, when the other's partitions were given back to the first, all is counted
    assert_all_counted_once(stack, [first], topic, load.acknowledged)
    assert first.process.poll() is None

    # and the first never stopped reading what it kept
    revoked = re.findall(r"event=revoked partitions=(\S+)", first.log_text())
    assert [len(partitions.split(",")) for partitions in revoked] == [2, 2], first.log_text()
    assert f"group_protocol={protocol}" in first.log_text()


@contextmanager
def flushes_held_up(database: str) -> Iterator[Connection[Any]]:
    """No flush can move an offset; who asks for them is answered."""
    with psycopg.connect(database, options="-csearch_path=hotkey") as holder:
        holder.execute("lock table offsets in share row exclusive mode")
        yield holder
        holder.rollback()


def test_a_flush_that_outlasts_a_rebalance_costs_its_new_owner_nothing_but_a_second_look(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str, postgres: Postgres
) -> None:
    # given a member in the middle of a flush, which waits for no flush longer than a second
    topic, sent = new_topic(2), [f"first-{number}" for number in range(60)]
    flags = {"store": database, "group_protocol": "classic", "flush_seconds": 3600}
    first = aggregator(topic, max_pending=60, **flags)
    second = aggregator(topic, max_pending=40, **flags)
    first.program = second.program = HASTY
    first.start()
    send_to_both(stack, topic, sent)
    first.wait_until(lambda: first.totals()["clicks"] == 60, "60 clicks")
    with flushes_held_up(database):
        more = [f"more-{number}" for number in range(60)]
        send_to_both(stack, topic, more)
        until_backends_wait(postgres, 1)

        # when half of its partitions go to another, which reads what the first one's flush has not committed
        second.start()
        has_partitions(second, 1)
        second.wait_until(lambda: second.metric("hotkey_aggregator_pending_events") == 30, "it reads")
    first.wait_until(lambda: first.totals()["clicks"] == 120, "the first one's late commit")
    after = [f"after-{number}" for number in range(80)]
    send_to_both(stack, topic, after)

    # then that commit stands, the other starts over behind it, and both go on
    second.wait_until(lambda: "former owner flushed late" in second.log_text(), "it starts over")
    second.wait_until(lambda: second.totals()["clicks"] >= 160, "its own are counted")
    assert first.terminate() == 0
    send_to_both(stack, topic, last := [f"last-{number}" for number in range(40)])
    second.wait_until(lambda: second.totals()["clicks"] == 240, "all are counted")
    assert_ids(second, [*sent, *more, *after, *last])
    assert second.terminate() == 0


def send_to_both(stack: Stack, topic: str, ids: list[str]) -> None:
    for partition in range(2):
        send_clicks(stack.kafka.bootstrap, topic, ids[partition::2], partition)


def test_a_member_that_was_frozen_while_its_partitions_went_to_another_is_refused_and_ends(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str, tmp_path: Path
) -> None:
    # given a member that is frozen just before a flush
    short_session = tmp_path / "session.properties"
    short_session.write_text("session.timeout.ms=6000\n")
    topic, sent = new_topic(1), [f"e{number}" for number in range(100)]
    flags = {"store": database, "group_protocol": "classic", "kafka_config": short_session}
    zombie, heir = aggregator(topic, **flags), aggregator(topic, **flags)
    zombie.program = ("-m", "tests.stack.aggregator.freezing", sent[50])
    zombie.start()
    send_clicks(stack.kafka.bootstrap, topic, sent[:50])
    zombie.wait_until(lambda: zombie.is_frozen() or zombie.totals()["clicks"] == 50, "its first flush")
    send_clicks(stack.kafka.bootstrap, topic, sent[50:])
    zombie.wait_until(zombie.is_frozen, "it is frozen")

    # when another has taken its partition over, and it wakes up
    heir.start()
    heir.wait_until(lambda: heir.totals()["clicks"] == 100, "the heir counts all")
    zombie.process.send_signal(signal.SIGCONT)

    # then its flush is refused and it ends, and nothing is doubled
    assert zombie.process.wait(timeout=120) == 1
    assert "the stored offset is 100, expected 50" in zombie.log_end()
    send_clicks(stack.kafka.bootstrap, topic, ["after"])
    heir.wait_until(lambda: heir.totals()["clicks"] >= 101, "the heir counts on")
    assert_ids(heir, [*sent, "after"])
