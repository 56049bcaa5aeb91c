"""What each port's contract suite needs beside the port: a way to put things there that the port then finds.

One world on the real part and one on the simulation's in-memory part; the suites know neither.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import redis
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devstack import Stack
from hotkey_operator.adapters.kafka import KafkaBrokers
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.ports import Brokers, Distribution
from hotkey_sdk.routing.names import hint_channel, key_reports_key, reports_key, table_key
from hotkey_sdk.routing.table import Stream
from tests.simulation.memory import MemoryBrokers, MemoryDistribution


@dataclass(frozen=True)
class Put:
    """One record to append; `at_ms` its timestamp in unix milliseconds."""

    key: bytes | None
    value: bytes = b"{}"
    headers: Mapping[str, bytes] = field(default_factory=dict)
    at_ms: int = 1_715_855_400_000


class BrokersWorld(Protocol):
    """A cluster of which the suite may make topics and append to partitions."""

    brokers: Brokers

    async def create(self, topic: str, partitions: int, *, compacted: bool = False) -> None: ...

    async def append(self, topic: str, partition: int, records: Sequence[Put]) -> None: ...

    async def commit_each(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        """Append each record in a transaction of its own, which leaves a marker behind it."""
        ...

    async def leave_open(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        """Append in a transaction that is not ended."""
        ...

    async def recreate(self, topic: str, partitions: int) -> None: ...

    async def close(self) -> None: ...


class KafkaWorld:
    """Real Kafka."""

    def __init__(self, stack: Stack) -> None:
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": stack.kafka.bootstrap,
            "log_level": 0,
        }
        self._config = config
        self.brokers: Brokers = KafkaBrokers(config)
        self._admin = AdminClient(config)
        self._producer = Producer({**config, "linger.ms": 5, "compression.type": "lz4"})
        self._open: list[Producer] = []

    async def create(self, topic: str, partitions: int, *, compacted: bool = False) -> None:
        settings = {"cleanup.policy": "compact"} if compacted else {}
        made = self._admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])
        await asyncio.to_thread(made[topic].result)
        await self._until_usable(topic, partitions)

    async def _until_usable(self, topic: str, partitions: int) -> None:
        """A new topic has leaders a little later than it has a name."""
        async with asyncio.timeout(30):
            while True:
                try:
                    found = await self.brokers.topic(topic)
                    if found is not None and found.partitions == partitions:
                        await self.brokers.end_offsets(topic, partitions)
                        return
                except Exception as error:
                    last = error
                    del last
                await asyncio.sleep(0.05)

    async def append(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        failed: list[object] = []
        for record in records:
            self._producer.produce(
                topic,
                key=record.key,
                value=record.value,
                partition=partition,
                headers=list(record.headers.items()),
                timestamp=record.at_ms,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        left = await asyncio.to_thread(self._producer.flush, 30)
        if left or failed:
            raise KafkaException(failed[0] if failed else f"{left} records were not delivered")

    async def commit_each(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        await asyncio.to_thread(self._commit_each, topic, partition, records)

    def _commit_each(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        config = {**self._config, "transactional.id": fresh("committer")}
        producer = Producer(config)
        producer.init_transactions(30)
        for record in records:
            producer.begin_transaction()
            producer.produce(topic, key=record.key, value=record.value, partition=partition)
            producer.commit_transaction(30)
        # The last marker is written after the commit was answered; the next of that id waits for it.
        Producer(config).init_transactions(30)

    async def leave_open(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        await asyncio.to_thread(self._leave_open, topic, partition, records)

    def _leave_open(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        producer = Producer({**self._config, "transactional.id": fresh("hesitant")})
        producer.init_transactions(30)
        producer.begin_transaction()
        for record in records:
            producer.produce(topic, key=record.key, value=record.value, partition=partition)
        assert producer.flush(30) == 0
        self._open.append(producer)

    async def recreate(self, topic: str, partitions: int) -> None:
        await asyncio.to_thread(self._admin.delete_topics([topic])[topic].result)
        async with asyncio.timeout(30):
            while await self.brokers.topic(topic) is not None:
                await asyncio.sleep(0.05)
        await self.create(topic, partitions)

    async def close(self) -> None:
        assert isinstance(self.brokers, KafkaBrokers)
        for producer in self._open:
            await asyncio.to_thread(producer.abort_transaction, 30)
        await self.brokers.close()


class MemoryBrokersWorld:
    """The simulation's cluster."""

    def __init__(self) -> None:
        self.memory = self._memory = MemoryBrokers(time.time)
        self.brokers: Brokers = self._memory

    async def create(self, topic: str, partitions: int, *, compacted: bool = False) -> None:
        self._memory.create(topic, partitions, compacted=compacted)

    async def append(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        for record in records:
            self._memory.append(
                topic, partition, record.key, record.value, dict(record.headers), record.at_ms
            )

    async def commit_each(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        for record in records:
            await self.append(topic, partition, [record])
            self._memory.mark(topic, partition)

    async def leave_open(self, topic: str, partition: int, records: Sequence[Put]) -> None:
        await self.append(topic, partition, records)

    async def recreate(self, topic: str, partitions: int) -> None:
        self._memory.create(topic, partitions)

    async def close(self) -> None:
        """Nothing is open."""


class DistributionWorld(Protocol):
    """A place for tables in which the suite may plant anything."""

    distribution: Distribution

    async def plant(self, stream: Stream, what: Any) -> None:
        """Put a hash (a mapping), a string (bytes) or a list at the stream's table key."""
        ...

    async def plant_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        """`client_id`: as it is told, with the name of the reporter in front."""
        ...

    async def plant_key_report(self, stream: Stream, client_id: str, data: bytes) -> None: ...

    async def block_reports(self, stream: Stream) -> None:
        """Put something that is no hash in the place of the reports."""
        ...

    async def hints(self, stream: Stream, count: int) -> list[int]:
        """The first `count` epochs hinted since `listen`."""
        ...

    async def listen(self, stream: Stream) -> None: ...

    async def close(self) -> None: ...


class RedisWorld:
    """Real Redis (Valkey)."""

    def __init__(self, stack: Stack) -> None:
        self.distribution: Distribution = RedisDistribution(stack.redis.url, look_seconds=0)
        self._client = redis.Redis.from_url(stack.redis.url, socket_timeout=10)
        self._subscription: Any = self._client.pubsub()  # type: ignore[no-untyped-call]

    async def plant(self, stream: Stream, what: Any) -> None:
        key = table_key(stream)
        self._client.delete(key)
        if isinstance(what, bytes):
            self._client.set(key, what)
        elif isinstance(what, list):
            self._client.rpush(key, *what)
        else:
            self._client.hset(key, mapping=what)

    async def plant_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        reporter, _, field = client_id.partition(":")
        self._client.hset(reports_key(stream, reporter), field, data)

    async def plant_key_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        reporter, _, field = client_id.partition(":")
        self._client.hset(key_reports_key(stream, reporter), field, data)

    async def block_reports(self, stream: Stream) -> None:
        self._client.set(reports_key(stream, "app"), "no hash")

    async def listen(self, stream: Stream) -> None:
        self._subscription.subscribe(hint_channel(stream))
        self._subscription.get_message(timeout=5)

    async def hints(self, stream: Stream, count: int) -> list[int]:
        found: list[int] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                message = await asyncio.to_thread(self._subscription.get_message, True, 0.1)
                if message is not None and message["channel"].decode() == hint_channel(stream):
                    found.append(int(message["data"]))
        return found

    async def close(self) -> None:
        assert isinstance(self.distribution, RedisDistribution)
        self._subscription.close()
        self._client.close()
        await self.distribution.close()


class MemoryDistributionWorld:
    """The simulation's Redis."""

    def __init__(self) -> None:
        self._memory = MemoryDistribution(time.time)
        self.distribution: Distribution = self._memory
        self._hints: dict[Stream, list[int]] = {}

    async def plant(self, stream: Stream, what: Any) -> None:
        self._memory.plant(stream, what)

    async def plant_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        self._memory.plant_report(stream, client_id, data)

    async def plant_key_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        self._memory.plant_key_report(stream, client_id, data)

    async def block_reports(self, stream: Stream) -> None:
        """The memory's reports are of one type."""

    async def listen(self, stream: Stream) -> None:
        def hear(where: Stream, epoch: int) -> None:
            if where == stream:
                self._hints.setdefault(where, []).append(epoch)

        self._memory.listeners.append(hear)

    async def hints(self, stream: Stream, count: int) -> list[int]:
        return self._hints.get(stream, [])[:count]

    async def close(self) -> None:
        """Nothing is open."""


def fresh(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{uuid4().hex[:8]}"
