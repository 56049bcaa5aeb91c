"""Lets a producer know the partitions that a new table names before it takes the table up.

A Kafka client asks for a topic's partitions now and then; until it does, it refuses a record for one that
was added. Runs in the background thread, and must not know how tables are read.
"""

from __future__ import annotations

import time
from typing import Generic, TypeVar

import confluent_kafka
from confluent_kafka import KafkaException

from hotkey_sdk._borrow import Borrow
from hotkey_sdk.routing.table import Table

_SECONDS = 1.0  # the longest that a table waits: what is not known then falls back for a while
_PAUSE_SECONDS = 0.1  # brokers learn of new partitions one after another

Producer = TypeVar("Producer", bound=confluent_kafka.Producer)


class KnownPartitions(Generic[Producer]):
    """How many partitions of each topic the client was seen to know; for one thread."""

    def __init__(self, borrow: Borrow[Producer]) -> None:
        self._borrow = borrow
        self._counts: dict[str, int] = {}

    def learn(self, table: Table) -> None:
        """Make the client ask until it knows every partition that the table names; never raises."""
        deadline = time.monotonic() + _SECONDS
        for topic, partitions in _named(table).items():
            while self._counts.get(topic, 0) < partitions and (left := deadline - time.monotonic()) > 0:
                self._counts[topic] = self._ask(topic, left)
                if self._counts[topic] < partitions:
                    time.sleep(min(left, _PAUSE_SECONDS))

    def _ask(self, topic: str, seconds: float) -> int:
        with self._borrow() as producer:
            if producer is None:
                return 0
            try:
                return len(producer.list_topics(topic, timeout=seconds).topics[topic].partitions)
            except (KafkaException, KeyError, RuntimeError):
                return 0  # no answer in time, or closed


def _named(table: Table) -> dict[str, int]:
    """Topics that records are routed to, and how many partitions they must have."""
    named: dict[str, int] = {}
    for route in table.routes:
        base = table.partitions if route.topic == table.stream.topic else 0
        highest = max(shard.partition for shard in route.shards)
        named[route.topic] = max(named.get(route.topic, base), highest + 1)
    return named
