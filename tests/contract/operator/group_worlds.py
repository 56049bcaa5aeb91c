"""A way to commit offsets and to delete records, for the suite of `Groups`: on real Kafka and in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from devstack import Stack
from hotkey_operator.adapters.groups import KafkaGroups
from hotkey_operator.ports import Groups
from tests.contract.operator.worlds import KafkaWorld, Put
from tests.simulation.groups import MemoryGroups

READY_SECONDS = 60.0
COORDINATED = 32  # groups: so many have one on each of the few partitions of the offsets


class GroupsWorld(Protocol):
    """A cluster with consumer groups."""

    groups: Groups

    async def create(self, topic: str, partitions: int) -> None: ...

    async def append(self, topic: str, partition: int, records: int) -> None: ...

    async def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit offsets for a group that has no members."""
        ...

    async def join(self, group: str, topic: str, offsets: Mapping[int, int], protocol: str) -> None:
        """Let a member subscribe by this protocol, commit offsets, and stay."""
        ...

    async def delete_before(self, topic: str, partition: int, offset: int) -> None: ...

    async def close(self) -> None: ...


class KafkaGroupsWorld:
    """Real Kafka."""

    def __init__(self, stack: Stack) -> None:
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": stack.kafka.bootstrap,
            "log_level": 0,
        }
        self._kafka = KafkaWorld(stack)
        self._admin = AdminClient(self._config)
        self._members: list[Consumer] = []
        self._groups = KafkaGroups(self._config, timeout_seconds=20.0)
        self.groups: Groups = self._groups
        self.clients = self._groups._consumers

    async def create(self, topic: str, partitions: int) -> None:
        await self._kafka.create(topic, partitions)
        await self._until_coordinated(topic)

    async def _until_coordinated(self, topic: str) -> None:
        """The coordinators of a broker that was just started load their partitions first."""
        names = [f"somebody-{number}" for number in range(COORDINATED)]
        async with asyncio.timeout(READY_SECONDS):
            while any(each.failure for each in await self.groups.committed(topic, 1, names)):
                await asyncio.sleep(0.05)

    async def append(self, topic: str, partition: int, records: int) -> None:
        await self._kafka.append(topic, partition, [Put(b"k")] * records)

    async def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        asked = self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, wanted)])
        answer = await asyncio.to_thread(asked[group].result)
        assert all(each.error is None for each in answer.topic_partitions), answer.topic_partitions

    async def join(self, group: str, topic: str, offsets: Mapping[int, int], protocol: str) -> None:
        config = {**self._config, "group.id": group, "group.protocol": protocol, "enable.auto.commit": False}
        member = Consumer(config)
        self._members.append(member)
        member.subscribe([topic])
        await asyncio.to_thread(self._until_assigned, member)
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        await asyncio.to_thread(lambda: member.commit(offsets=wanted, asynchronous=False))

    def _until_assigned(self, member: Consumer) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not member.assignment():
            assert time.monotonic() < deadline, "the member got no partitions"
            member.poll(0.1)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        asked = self._admin.delete_records([TopicPartition(topic, partition, offset)])
        for answer in asked.values():
            await asyncio.to_thread(answer.result)

    async def close(self) -> None:
        for member in self._members:
            await asyncio.to_thread(member.close)
        await self._groups.close()
        await self._kafka.close()


class MemoryGroupsWorld:
    """The simulation's groups; they have no members, only commits."""

    def __init__(self) -> None:
        self._memory = MemoryGroups()
        self.groups: Groups = self._memory

    async def create(self, topic: str, partitions: int) -> None:
        """Groups know no topics."""

    async def append(self, topic: str, partition: int, records: int) -> None:
        """Nor records."""

    async def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        for partition, offset in offsets.items():
            self._memory.commit(group, topic, partition, offset)

    async def join(self, group: str, topic: str, offsets: Mapping[int, int], protocol: str) -> None:  # noqa: ARG002
        await self.commit(group, topic, offsets)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self._memory.delete_before(topic, partition, offset)

    async def close(self) -> None:
        """Nothing is open."""
