"""Whether the Kafka client in this process puts keys where our plans expect them.

It asks librdkafka itself: a producer on its in-process mock cluster sends a few keys and tells the partitions
they got. Once per process, in a thread of its own, so that no table waits for it; milliseconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import confluent_kafka

from hotkey_sdk.routing.partitioner import partition_for

_TOPIC = "hotkey-self-test"
_SECONDS = 10.0
KEYS: tuple[bytes, ...] = (
    b"",
    b"nike",
    b"nike:7",
    "é".encode(),
    b"\xff\x00",
    b"a:1",
    b"x" * 1000,
    *(b"key-%d" % number for number in range(25)),
)

log = logging.getLogger("hotkey_sdk")


class SelfTestError(RuntimeError):
    """The mock cluster did not answer, so nothing is known."""


def librdkafka_places(keys: Sequence[bytes]) -> tuple[int, dict[bytes, int]]:
    """The number of partitions of a topic on a mock cluster, and where librdkafka put each key.

    Raises `SelfTestError` when it does not answer in time.
    """
    places: dict[bytes, int] = {}

    def note(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        partition = message.partition()
        if error is None and partition is not None:
            places[message.key() or b""] = partition

    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": "mock",
            "test.mock.num.brokers": 1,
            "partitioner": "murmur2_random",
            "log_level": 0,
        }
    )
    for key in keys:
        producer.produce(_TOPIC, b"", key, on_delivery=note)
    producer.flush(_SECONDS)
    topic = producer.list_topics(_TOPIC, timeout=_SECONDS).topics[_TOPIC]
    if len(places) < len(keys):
        raise SelfTestError(f"{len(places)} of {len(keys)} keys were delivered to librdkafka's mock cluster")
    return len(topic.partitions), places


def disagreements(partitions: int, places: dict[bytes, int]) -> list[str]:
    """The keys that are not where our murmur2 puts them, in words."""
    return [
        f"{key!r} is on partition {place}, expected {partition_for(key, partitions)} of {partitions}"
        for key, place in places.items()
        if place != partition_for(key, partitions)
    ]


class _Once:
    """The self-test's result, once per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = False
        self._agrees: bool | None = None

    def known(self) -> bool | None:
        """True or False after the test, None before it or when it could not be made."""
        return self._agrees

    def start(self) -> None:
        """Run the test in the background if this process has not; returns at once."""
        if not self._done:
            threading.Thread(target=self.once, name="hotkey-self-test", daemon=True).start()

    def once(self) -> None:
        """Run the test if this process has not; never raises."""
        with self._lock:
            if self._done:
                return
            self._done = True
        try:
            wrong = disagreements(*librdkafka_places(KEYS))
        except (SelfTestError, confluent_kafka.KafkaException, KeyError) as error:
            log.warning("event=partitioner_unchecked why=%r", str(error))
            return
        self._agrees = not wrong
        if wrong:
            log.error("event=partitioner_disagrees keys=%d first=%r", len(wrong), wrong[0])


partitioner_agrees = _Once()
