"""A client never creates a topic: shown on librdkafka's mock cluster, which creates whatever is asked for.

The dev stack's broker creates none, so it cannot show who asked.
"""

from __future__ import annotations

import time
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition

import hotkey_sdk

SECONDS = 30.0
TOPIC = "missing"
MOCK: dict[str, Any] = {
    "bootstrap.servers": "mock",  # ignored: the client talks to the cluster inside it
    "test.mock.num.brokers": 1,
    "topic.metadata.propagation.max.ms": 100,  # how long a missing topic is hoped for
    "log_level": 0,
}
OWN: dict[str, Any] = {"hotkey.redis.url": "redis://127.0.0.1:1", "hotkey.allow.unsigned": True}


def code_of_a_record(producer: confluent_kafka.Producer) -> int | None:
    """Send one record to the topic; the code of the error it ends with, None when it was delivered."""
    ends: list[KafkaError | None] = []
    producer.produce(TOPIC, "v", "k", on_delivery=lambda error, _: ends.append(error))
    assert producer.flush(SECONDS) == 0, f"the record had no end within {SECONDS} s"
    (error,) = ends
    return None if error is None else error.code()


def code_of_an_assignment(consumer: confluent_kafka.Consumer) -> int | None:
    """Ask for a partition of the topic; the code of the error, None when the topic is there instead."""
    consumer.assign([TopicPartition(TOPIC, 0)])
    deadline = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < deadline, f"neither an error nor a topic within {SECONDS} s"
        for message in consumer.consume(1, 0.1):
            error = message.error()
            if error is not None:
                return int(error.code())
        if TOPIC in topics(consumer):
            return None


def topics(client: confluent_kafka.Producer | confluent_kafka.Consumer) -> list[str]:
    return list(client.list_topics(timeout=SECONDS).topics)


def test_the_original_producer_creates_a_missing_topic() -> None:
    original = confluent_kafka.Producer(MOCK)

    assert code_of_a_record(original) is None
    assert topics(original) == [TOPIC]


def test_a_producer_with_settings_of_hotkey_does_not_create_a_missing_topic() -> None:
    with hotkey_sdk.Producer({**MOCK, **OWN}) as ours:
        assert code_of_a_record(ours) == KafkaError.UNKNOWN_TOPIC_OR_PART
        assert topics(ours) == []


def test_without_settings_of_hotkey_a_producer_creates_topics_as_the_original_does() -> None:
    ours = hotkey_sdk.Producer(MOCK)

    assert code_of_a_record(ours) is None
    assert topics(ours) == [TOPIC]


def test_a_consumer_that_is_let_creates_a_missing_topic() -> None:
    original = confluent_kafka.Consumer({**MOCK, "group.id": "group", "allow.auto.create.topics": True})

    assert code_of_an_assignment(original) is None
    assert topics(original) == [TOPIC]
    original.close()


def test_a_consumer_with_settings_of_hotkey_does_not_create_a_missing_topic() -> None:
    with hotkey_sdk.Consumer({**MOCK, "group.id": "group", **OWN}) as ours:
        assert code_of_an_assignment(ours) == KafkaError.UNKNOWN_TOPIC_OR_PART
        assert topics(ours) == []
