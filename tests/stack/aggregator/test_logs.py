"""Logs that are not what they were: made anew, cut off, expired. Noticed, told, counted exactly."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from devstack import Stack
from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import HOUR_MILLISECONDS, DeadLetter, Flush, Keeping, OffsetMove, Position
from hotkey_aggregator.stores import StoreAddress
from hotkey_aggregator.windows import Source
from tests.stack.aggregator.clicks import click, make_topic, producer, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.process import AggregatorProcess, wait_until
from tests.stack.aggregator.test_dead_letters import letters


def make_anew(stack: Stack, topic: str, partitions: int = 1) -> None:
    """Delete a topic and create it again under its name."""
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    admin.delete_topics([topic])[topic].result(120)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, "deleted", lambda: topic)
    make_topic(stack.kafka.bootstrap, topic, partitions)


def remove_records_before(stack: Stack, topic: str, offset: int) -> None:
    """What retention does, at once."""
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    for future in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result(120)


def move_stored_offset(db: Path, next_offset: int, leader_epoch: int = -1) -> None:
    """Set the only position of a store by hand."""
    store = StoreAddress(f"duckdb:{db}").open(Keeping())
    ((source, position),) = store.positions().items()
    moved = Position(next_offset, leader_epoch)
    store.commit(Flush(moves=(OffsetMove(source, position.next_offset, moved),)))
    store.close()


def counted_and_stopped(stack: Stack, topic: str, make: MakeAggregator, ids: list[str]) -> AggregatorProcess:
    """An aggregator that was ended after it had counted these clicks of the topic."""
    aggregator = make(topic)
    aggregator.start()
    send_clicks(stack.kafka.bootstrap, topic, ids)
    clicks_are(aggregator, ids)
    assert aggregator.terminate() == 0
    return aggregator


def clicks_are(aggregator: AggregatorProcess, ids: list[str]) -> None:
    aggregator.wait_until(lambda: aggregator.totals()["clicks"] >= len(ids), f"{len(ids)} clicks")
    assert aggregator.ids() == Counter(ids)
    assert aggregator.totals()["clicks"] == len(ids)


def test_a_topic_made_anew_under_a_running_aggregator_is_read_from_its_beginning(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given
    topic = new_topic(1)
    old, new = [f"old-{number}" for number in range(50)], [f"new-{number}" for number in range(80)]
    running = aggregator(topic)
    running.start()
    send_clicks(stack.kafka.bootstrap, topic, old)
    clicks_are(running, old)

    # when it is made anew and soon holds more than was read of the old one, some of it known
    make_anew(stack, topic)
    send_clicks(stack.kafka.bootstrap, topic, [*new, *old[:10]])

    # then all of it is read, what is new is counted, and it is told
    running.wait_until(lambda: running.stored(topic) == {0: 90}, "the new log is read to its end")
    clicks_are(running, old + new)
    assert "event=topic_recreated" in running.log_text()
    assert running.metric("hotkey_aggregator_topics_recreated_total") == 1
    assert running.metric("hotkey_aggregator_records_expired_total") == 0


def test_a_topic_made_anew_while_the_aggregator_was_away_is_read_from_its_beginning(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given
    topic = new_topic(1)
    old, new = [f"old-{number}" for number in range(50)], [f"new-{number}" for number in range(80)]
    away = counted_and_stopped(stack, topic, aggregator, old)

    # when
    make_anew(stack, topic)
    send_clicks(stack.kafka.bootstrap, topic, new)
    away.start()

    # then
    clicks_are(away, old + new)
    assert "event=topic_recreated" in away.log_text()


def test_dead_letters_of_a_topic_that_was_made_anew_are_brought_all_the_same(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a dead letter that waits in the store
    topic = new_topic(1)
    away = counted_and_stopped(stack, topic, aggregator, ["e0"])
    store = StoreAddress(f"duckdb:{away.db}").open(Keeping())
    ((source, position),) = store.positions().items()
    after = replace(position, next_offset=2)
    letter = DeadLetter(source, 1, Reason.NOT_JSON, "nonsense", value=b"nonsense")
    store.commit(Flush(dead=(letter,), moves=(OffsetMove(source, position.next_offset, after),)))
    store.close()

    # when its topic is made anew
    make_anew(stack, topic)
    away.start()

    # then it is brought
    (brought,) = letters(stack, f"{topic}.dead", 1)
    assert (brought["value"], brought["hotkey-dead-offset"]) == (b"nonsense", b"1")


def test_dead_letters_of_a_topic_that_is_gone_are_brought_and_it_is_not_asked_for_any_more(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a dead letter that waits in the store
    topic = new_topic(1)
    away = counted_and_stopped(stack, topic, aggregator, ["e0"])
    gone = Source(f"{topic}.hot.0123abcd.g1", 0, "id-of-a-topic-that-is-gone")
    store = StoreAddress(f"duckdb:{away.db}").open(Keeping())
    letter = DeadLetter(gone, 1, Reason.NOT_JSON, "nonsense", value=b"nonsense")
    store.commit(Flush(dead=(letter,), moves=(OffsetMove(gone, None, Position(2)),)))
    store.close()

    # when its topic is not there any more
    away.start()

    # then it is brought
    (brought,) = letters(stack, f"{topic}.dead", 1)
    assert (brought["value"], brought["hotkey-dead-topic"]) == (b"nonsense", gone.topic.encode())

    # and counting goes on without that topic
    send_clicks(stack.kafka.bootstrap, topic, ["e1"])
    clicks_are(away, ["e0", "e1"])
    assert f"topic not available: {gone.topic}" not in away.log_text()


def test_records_that_expired_before_they_were_read_are_told_with_their_number(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given an aggregator that was away while records came and went
    topic = new_topic(1)
    sent = [f"e{number}" for number in range(100)]
    away = counted_and_stopped(stack, topic, aggregator, sent[:40])
    send_clicks(stack.kafka.bootstrap, topic, sent[40:])
    remove_records_before(stack, topic, 65)

    # when
    away.start()

    # then it goes on with what is left and says what is missing
    clicks_are(away, sent[:40] + sent[65:])
    assert away.metric("hotkey_aggregator_records_expired_total") == 25
    assert "event=gap" in away.log_text()
    assert "records=25" in away.log_text()


def test_a_log_that_ends_before_what_was_read_is_read_again_and_nothing_doubles(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a store that is ahead of its log
    topic = new_topic(1)
    sent = [f"e{number}" for number in range(60)]
    ahead = counted_and_stopped(stack, topic, aggregator, sent)
    move_stored_offset(ahead.db, 1000)

    # when
    ahead.start()
    send_clicks(stack.kafka.bootstrap, topic, ["after"])

    # then
    clicks_are(ahead, [*sent, "after"])
    assert "event=log_truncated" in ahead.log_text()
    assert ahead.metric("hotkey_aggregator_logs_truncated_total") == 1
    assert ahead.stored(topic) == {0: 61}


def test_a_backlog_older_than_half_of_the_horizon_is_read_though_its_log_was_cut_off_before_it(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given records of twenty hours ago, of which some came while the aggregator was away
    topic = new_topic(1)
    counted, backlog = [f"e{number}" for number in range(40)], [f"late-{number}" for number in range(30)]
    away = aggregator(topic)
    away.start()
    send_hours_ago(stack, topic, counted, 20)
    clicks_are(away, counted)
    assert away.terminate() == 0
    send_hours_ago(stack, topic, backlog, 20)

    # when the last record that was read is another leader's than it was
    move_stored_offset(away.db, 40, leader_epoch=7)
    away.start()

    # then it is told, and nothing of the backlog is passed over
    clicks_are(away, [*counted, *backlog])
    assert "event=log_truncated" in away.log_text()
    assert away.stored(topic) == {0: 70}


def send_hours_ago(stack: Stack, topic: str, ids: list[str], hours: int) -> None:
    """Send clicks in records that bear an old timestamp."""
    sender, then = producer(stack.kafka.bootstrap), int(time.time() * 1000) - hours * HOUR_MILLISECONDS
    for one in ids:
        sender.produce(topic, json.dumps(click(one)).encode(), b"nike", partition=0, timestamp=then)
    assert sender.flush(30) == 0
