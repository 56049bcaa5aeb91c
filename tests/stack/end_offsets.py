"""The end offsets of a topic, asked again while its partitions change their leaders."""

from __future__ import annotations

import time
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_SECONDS = 60.0
_CHANGING_LEADERS = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a broker that has not heard of the topic yet
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
)


def end_offsets(reader: Consumer, topic: str) -> dict[int, int]:
    """The end offset of each partition of the topic."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return _ask(reader, topic)
        except KafkaException as error:
            if error.args[0].code() not in _CHANGING_LEADERS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def until_usable(bootstrap: str, topic: str, partitions: int) -> None:
    """Wait until each partition of a topic that was just made, or grown, has its log.

    It has a leader in the metadata before. Where it lacks the log it refuses the first batch of a producer
    and may take the second; then it calls the first, when that is sent again, one that it has, and the Kafka
    client tells it as delivered.
    """
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid4().hex, "log_level": 0})
    deadline = time.monotonic() + _SECONDS
    try:
        while (found := len(end_offsets(reader, topic))) != partitions:
            assert time.monotonic() < deadline, f"{topic} has {found} of {partitions} partitions"
            time.sleep(0.1)
    finally:
        reader.close()


def _ask(reader: Consumer, topic: str) -> dict[int, int]:
    found: dict[int, int] = {}
    for number in reader.list_topics(topic, timeout=10).topics[topic].partitions:
        marks = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        found[number] = marks[1]
    return found
