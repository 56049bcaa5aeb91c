"""A real consumer group whose members take their time for each record."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, TopicPartition

from devstack import Stack

BATCH = 25


class SlowGroup:
    """`members` consumers, each with so many records/s at most; they commit once a second."""

    def __init__(self, stack: Stack, group: str, topic: str, members: int, records_per_second: float) -> None:
        self._rate = records_per_second
        self._ended = threading.Event()
        self._consumers = [
            Consumer(
                {
                    "bootstrap.servers": stack.kafka.bootstrap,
                    "group.id": group,
                    "auto.offset.reset": "earliest",
                    "auto.commit.interval.ms": 1_000,
                    "queued.min.messages": 500,
                    "log_level": 0,
                }
            )
            for _ in range(members)
        ]
        self._assigned = [0] * members
        self._pool = ThreadPoolExecutor(members)
        self._topic = topic
        self._working: list[Future[None]] = []

    @property
    def assigned(self) -> int:
        """How many partitions its members have, as they said: another thread that asks them may hang.

        Raises what ended a member, where something did.
        """
        for work in self._working:
            if work.done():
                work.result()
        return sum(self._assigned)

    def start(self) -> None:
        self._working = [self._pool.submit(self._work, number) for number in range(len(self._consumers))]

    def stop(self) -> None:
        """Raises what ended a member before."""
        self._ended.set()
        self._pool.shutdown()
        for work in self._working:
            work.result()

    def _work(self, number: int) -> None:
        consumer = self._consumers[number]

        def note(_: Consumer, partitions: list[TopicPartition]) -> None:
            self._assigned[number] = len(partitions)

        consumer.subscribe([self._topic], on_assign=note)
        free_at = time.monotonic()
        try:
            while not self._ended.is_set():
                records = consumer.consume(BATCH, timeout=0.1)
                free_at = max(time.monotonic(), free_at) + len(records) / self._rate
                self._ended.wait(max(0.0, free_at - time.monotonic()))  # the work on them
        finally:
            consumer.close()
