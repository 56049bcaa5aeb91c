"""One stream on the real stack: its topic, whoever publishes its tables, clients, and what Kafka holds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

import hotkey_sdk
from devstack import Stack
from hotkey_sdk.routing import codec, names
from hotkey_sdk.routing.envelope import SigningKey, digest, seal
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import ClientReport, decode_report
from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
)
from tests.stack.end_offsets import end_offsets, until_usable

PARTITIONS = 12
SECONDS = 40.0


def until(condition: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Wait for the condition; say what was seen when it does not come."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {seen()}"
        time.sleep(0.01)


class Scene:
    """A stream of its own; its topic exists."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.key = SigningKey.generate()
        self.topic = f"sdk-{uuid4().hex[:8]}"
        self.stream = Stream(stack.kafka.cluster_id, self.topic)
        self.admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
        self.redis = redis.Redis.from_url(stack.redis.url)
        self.clients: list[hotkey_sdk.Producer | hotkey_sdk.Consumer] = []
        self.create(self.topic, PARTITIONS)

    def create(self, topic: str, partitions: int) -> None:
        """Make the topic and wait until every partition can be written."""
        self.admin.create_topics([NewTopic(topic, partitions)])[topic].result()
        until_usable(self.stack.kafka.bootstrap, topic, partitions)

    def grow(self, partitions: int) -> None:
        """Add partitions to the topic and wait until every one can be written."""
        self.admin.create_partitions([NewPartitions(self.topic, partitions)])[self.topic].result()
        until_usable(self.stack.kafka.bootstrap, self.topic, partitions)

    def config(self, user: str, **more: Any) -> dict[str, Any]:
        """The settings of a client that follows this stream's tables, and may in Redis what `user` may."""
        return {
            "bootstrap.servers": self.stack.kafka.bootstrap,
            "log_level": 0,
            "hotkey.redis.url": self.stack.redis.url_for(user),
            "hotkey.public.keys": self.key.public_line,
            **more,
        }

    def producer(self, **more: Any) -> hotkey_sdk.Producer:
        made = hotkey_sdk.Producer(self.config("hotkey-producer", **more))
        self.clients.append(made)
        return made

    def consumer(self, **more: Any) -> hotkey_sdk.Consumer:
        settings = {"group.id": self.topic, "fetch.wait.max.ms": 50, **more}
        made = hotkey_sdk.Consumer(self.config("hotkey-consumer", **settings))
        self.clients.append(made)
        return made

    def route(
        self,
        key: bytes = b"nike",
        by: tuple[str, ...] = ("user_id",),
        record_key: RecordKey = RecordKey.COMPOSITE,
        partitions: tuple[int, ...] = (1, 4, 7, 10),
    ) -> Route:
        """A route over these partitions of the base topic, with shard ids that hash to them."""
        shards = tuple(
            Shard(next(n for n in range(10_000) if partition_for(b"%b:%d" % (key, n), PARTITIONS) == p), p)
            for p in partitions
        )
        slots = tuple(index % len(shards) for index in range(64))
        return Route(key, self.topic, by, record_key, shards, slots)

    def table(self, *routes: Route, epoch: int, read_set: tuple[str, ...] = ()) -> Table:
        return Table(
            stream=self.stream,
            partitions=PARTITIONS,
            epoch=epoch,
            seed=7,
            read_set=(self.topic, *read_set),
            dimensions=(
                Dimension("user_id"),
                Dimension("country_id", header="x-country"),
                Dimension("hour", time_bucket_seconds=3600),
            ),
            routes=routes,
            topics=tuple(
                DedicatedTopic(name, PARTITIONS, Phase.ACTIVE, "any-id")
                for name in read_set
                if any(route.topic == name for route in routes)
            ),
        )

    def publish(self, table: Table, key: SigningKey | None = None) -> None:
        """Sign and publish as the operator does."""
        self.put(seal(codec.encode(table), key or self.key), epoch=str(table.epoch).encode())

    def put(self, envelope: bytes, epoch: bytes = b"99") -> None:
        """Let anything at all stand at the table key, and hint."""
        key = names.table_key(self.stream)
        self.redis.delete(key)
        for field, value in (("epoch", epoch), ("digest", digest(envelope).encode()), ("envelope", envelope)):
            self.redis.hset(key, field, value)
        self.redis.publish(names.hint_channel(self.stream), epoch)

    def reports(self) -> list[ClientReport]:
        keys = [names.reports_key(self.stream, user) for user in ("hotkey-producer", "hotkey-consumer")]
        found: list[Any] = [report for key in keys for report in self.redis.hvals(key)]
        return [decode_report(report) for report in found]

    def read(self, topic: str | None = None) -> list[Message]:
        """Every record of the topic, read without the SDK."""
        topic = topic or self.topic
        consumer = Consumer(
            {"bootstrap.servers": self.stack.kafka.bootstrap, "group.id": uuid4().hex, "log_level": 0}
        )
        ends = end_offsets(consumer, topic)
        count = sum(ends.values())
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
        found: list[Message] = []
        deadline = time.monotonic() + SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records of {topic} were read"
            found += [message for message in consumer.consume(1000, 0.2) if message.error() is None]
        consumer.close()
        return found

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.redis.close()


class Load:
    """A thread that sends records with ids, `nike` for most of them, until it is stopped."""

    def __init__(self, scene: Scene, producer: hotkey_sdk.Producer) -> None:
        self._scene = scene
        self._producer = producer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.acknowledged: set[bytes] = set()
        self.failures: list[object] = []
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            key = "nike" if number % 5 else f"small-{number % 7}"
            identity = b"id-%d" % number
            try:
                self._producer.produce(
                    self._scene.topic, identity, key, dimensions={"user_id": number}, on_delivery=self._note
                )
                self._producer.poll(0)
            except Exception as error:
                self.failures.append(error)
            number += 1
            if number % 20 == 0:
                self._stop.wait(0.01)  # some 2,000 records/s

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.add(message.value() or b"")
        else:
            self.failures.append(error)

    def goes_on(self, records: int = 300) -> None:
        """Wait until that many more records were acknowledged."""
        enough = len(self.acknowledged) + records
        until(lambda: len(self.acknowledged) >= enough, lambda: (len(self.acknowledged), self.failures[:3]))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "it still sends"
        assert self._producer.flush(SECONDS) == 0, "records are still on their way"

    def prove(self) -> None:
        """Stop; every acknowledged id stands in Kafka exactly once, nothing else does, and no send failed."""
        self.stop()
        found = Counter(message.value() or b"" for message in self._scene.read())
        assert self.failures == []
        twice = {identity: times for identity, times in found.items() if times > 1}
        lost, unacknowledged = self.acknowledged - found.keys(), found.keys() - self.acknowledged
        differs = lost or unacknowledged or twice
        assert not differs, f"{lost=} {unacknowledged=} {twice=}"
