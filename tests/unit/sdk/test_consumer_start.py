"""Where a consumer starts on a topic that a table adds: on librdkafka's mock cluster, and with a planted bug.

The stack's tests show the same on real brokers, by every way of rebalancing; here it has to be able to fail.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

import hotkey_sdk
from hotkey_sdk.routing.router import Router
from tests.unit.sdk.tables import route, table

SECONDS = 60.0
BASE, ADDED = "clicks", "clicks.hot.x.g1"
OLD = {b"old-%d" % number for number in range(20)}


class ForgettingConsumer(hotkey_sdk.Consumer):
    """The planted bug: a topic that a table adds starts where `auto.offset.reset` says."""

    def _place(self, partitions: list[TopicPartition]) -> bool:  # noqa: ARG002
        return False


@pytest.fixture
def owner() -> Iterator[confluent_kafka.Producer]:
    """A producer that holds the mock cluster; the added topic has old records, the base topic one."""
    made = confluent_kafka.Producer(
        {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "linger.ms": 0, "log_level": 0}
    )
    made.produce(BASE, b"base")
    for value in OLD:
        made.produce(ADDED, value)
    assert made.flush(SECONDS) == 0
    yield made
    made.flush(SECONDS)


def reader(kind: type[hotkey_sdk.Consumer], owner: confluent_kafka.Producer) -> hotkey_sdk.Consumer:
    """A consumer of the base topic with a table that adds the other."""
    (broker,) = owner.list_topics(timeout=SECONDS).brokers.values()
    settings: dict[str, Any] = {
        "bootstrap.servers": f"{broker.host}:{broker.port}",
        "group.id": kind.__name__,
        "auto.offset.reset": "latest",
        "log_level": 0,
        "hotkey.redis.url": "redis://127.0.0.1:1",
        "hotkey.allow.unsigned": True,
    }
    made = kind(settings)
    made._read_set.adopt(BASE, Router(table(route(topic=ADDED))))
    made._read_set.survey(made)  # now: the mock cluster takes a change of the subscription for a lost member
    made.subscribe([BASE])
    return made


def until(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {seen()}"


def read_of_the_added_topic(consumer: hotkey_sdk.Consumer, owner: confluent_kafka.Producer) -> set[bytes]:
    """What is read of the added topic until each partition gave a new record; these are sent all the time."""
    partitions = len(owner.list_topics(timeout=SECONDS).topics[ADDED].partitions)
    found: set[bytes] = set()
    begun: set[int | None] = set()

    def go_on() -> bool:
        for partition in range(partitions):
            owner.produce(ADDED, b"new", partition=partition)
        owner.poll(0)
        for message in consumer.consume(1000, 0.1):
            if message.error() is None and message.topic() == ADDED:
                found.add(message.value() or b"")
                if message.value() == b"new":
                    begun.add(message.partition())
        return len(begun) == partitions

    until(go_on, lambda: (found, begun, consumer.hotkey.stats()))
    return found


def test_a_topic_that_a_table_adds_is_read_from_its_start_even_where_the_reset_is_latest(
    owner: confluent_kafka.Producer,
) -> None:
    with reader(hotkey_sdk.Consumer, owner) as consumer:
        assert read_of_the_added_topic(consumer, owner) >= OLD


def test_a_consumer_that_starts_at_the_end_of_an_added_topic_is_found(
    owner: confluent_kafka.Producer,
) -> None:
    with reader(ForgettingConsumer, owner) as consumer:
        assert not read_of_the_added_topic(consumer, owner) & OLD
