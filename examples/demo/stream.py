"""The topic as a Kafka client sees it: made, its end offsets, its records. It knows nothing of hotkey."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from examples.demo.errors import DemoError

BATCH = 10_000
CALL_SECONDS = 10.0
QUIET_SECONDS = 30.0
LOOK_SECONDS = 0.05


class Topic:
    """One topic and a client of its own; `partitions` is what it was made with."""

    def __init__(self, bootstrap: str, name: str, partitions: int) -> None:
        self.bootstrap, self.name, self.partitions = bootstrap, name, partitions
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def create(self, wait_seconds: float = 30.0) -> None:
        """Create it and wait until every partition answers. Raises `DemoError` when it is there already."""
        future = self._admin.create_topics([NewTopic(self.name, self.partitions, 1)])[self.name]
        try:
            future.result(CALL_SECONDS)
        except KafkaException as error:
            raise DemoError(f"topic {self.name} cannot be created: {error}") from None
        self.wait_for_end_offsets(wait_seconds)

    def delete(self) -> None:
        """Delete it with all its records."""
        self._admin.delete_topics([self.name])[self.name].result(CALL_SECONDS)

    def end_offsets(self) -> tuple[int, ...] | None:
        """The end offset of every partition in order; None while one of them does not answer."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(self.name, p): latest for p in range(self.partitions)}
        answers = self._admin.list_offsets(asked, request_timeout=CALL_SECONDS)
        try:
            found = {partition.partition: answer.result().offset for partition, answer in answers.items()}
        except KafkaException:
            return None
        return tuple(found[p] for p in range(self.partitions))

    def wait_for_end_offsets(self, wait_seconds: float = 30.0) -> tuple[int, ...]:
        """The end offsets as soon as every partition answers. Raises `DemoError` when one never does."""
        deadline = time.monotonic() + wait_seconds
        while (ends := self.end_offsets()) is None:
            if time.monotonic() > deadline:
                raise DemoError(
                    f"topic {self.name}: not every partition tells its end for {wait_seconds:.0f} s"
                )
            self._admin.list_topics(self.name, timeout=CALL_SECONDS)
            time.sleep(LOOK_SECONDS)
        return ends

    def records(self) -> Iterator[Message]:
        """Every record that the topic holds now, partition by partition in any order.

        Raises `DemoError` when no record comes for 30 s although the end is not reached.
        """
        left = {p: end for p, end in enumerate(self.wait_for_end_offsets()) if end > 0}
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.name}-evidence",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            consumer.assign([TopicPartition(self.name, p, 0) for p in left])
            yield from self._until(consumer, left)
        finally:
            consumer.close()

    def _until(self, consumer: Consumer, left: dict[int, int]) -> Iterator[Message]:
        quiet = time.monotonic()
        while left:
            messages = consumer.consume(BATCH, 0.5)
            if messages:
                quiet = time.monotonic()
            elif time.monotonic() > quiet + QUIET_SECONDS:
                raise DemoError(f"{self.name}: no record for {QUIET_SECONDS:.0f} s, partitions left: {left}")
            for message in messages:
                error = message.error()
                if error is None:
                    yield message
                    _reached(left, message)
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise DemoError(f"{self.name} cannot be read: {error}")


def _reached(left: dict[int, int], message: Message) -> None:
    partition, offset = message.partition(), message.offset()
    if partition is not None and offset is not None and offset + 1 >= left.get(partition, offset + 2):
        del left[partition]
