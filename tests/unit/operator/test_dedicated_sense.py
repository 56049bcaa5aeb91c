"""What a turn asks of dedicated topics: all at once, not for long, and later again where it was slow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Committed, DedicatedSeen, EndOffsets, StoredTable, TopicFacts
from hotkey_operator.engine.topic_memory import seen
from hotkey_operator.engine.topic_readers import seen as read
from hotkey_operator.ports import Ports, Unavailable
from hotkey_operator.sense.dedicated import read_dedicated
from hotkey_sdk.routing.table import DedicatedTopic, Phase, Table
from tests.simulation import virtual
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers
from tests.unit.operator.dedicated_world import POLICY, PREFIX, START, STREAM, World

LEADERLESS = 8


class Slow(MemoryBrokers):
    """A cluster that takes half a minute to say that a dedicated topic has no leader."""

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:  # noqa: ARG002
        await asyncio.sleep(30.0 if name != "clicks" else 0.0)
        raise Unavailable("Kafka: cannot read end offsets")


class SlowGroups(MemoryGroups):
    """A coordinator that takes two seconds for each call, and counts those on dedicated topics."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = False

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        self.asked.append(topic)
        await asyncio.sleep(2.0)
        return await super().committed(topic, partitions, groups)

    async def reading(self, topic: str, partitions: int, but: Collection[str] = ()) -> tuple[Committed, ...]:
        await asyncio.sleep(2.0)
        if self.away:
            raise Unavailable("Kafka: cannot list the consumer groups")
        return await super().reading(topic, partitions, but)


def listed(phase: Phase) -> tuple[DedicatedTopic, ...]:
    names = [f"{PREFIX}{number}" for number in range(LEADERLESS)]
    return tuple(DedicatedTopic(name, 2, phase, f"id-{name}", name.encode()) for name in names)


def stored(phase: Phase) -> StoredTable:
    topics = listed(phase)
    names = ("clicks", *(topic.name for topic in topics))
    return StoredTable(Table(STREAM, 4, 9, seed=7, read_set=names, topics=topics), "1")


async def looked(ports: Ports, memory: Memory, table: StoredTable, at: float) -> tuple[DedicatedSeen, Memory]:
    """One look, and what is remembered of it."""
    found = await read_dedicated(
        ports, World(dict(POLICY)).spec, memory, table, TopicFacts(STREAM, 4, False), (), at
    )
    assert found is not None
    topics = seen(memory.topics, found, at)
    topics = replace(topics, readers=read(topics.readers, table.table.topics, found, at))
    return found, replace(memory, topics=topics)


def test_topics_without_leaders_hold_a_turn_up_as_long_as_one_of_them_and_the_next_turns_not_at_all() -> None:
    async def scenario() -> None:
        world, loop = World(dict(POLICY)), asyncio.get_running_loop()
        ports = replace(world.ports, brokers=Slow(lambda: START))
        began = loop.time()
        found, memory = await looked(ports, Memory(), stored(Phase.RETURN), START)
        assert len(found.unmeasured) == LEADERLESS
        assert loop.time() - began <= 3.0

        began = loop.time()
        again, memory = await looked(ports, memory, stored(Phase.RETURN), START + 4)
        assert (again.unmeasured, loop.time()) == ((), began)
        later, _ = await looked(ports, memory, stored(Phase.RETURN), START + 15)
        assert len(later.unmeasured) == LEADERLESS

    virtual.run(scenario())


def test_keys_that_wait_hold_a_turn_up_as_long_as_one_of_them() -> None:
    async def scenario() -> None:
        world, loop, groups = World(dict(POLICY)), asyncio.get_running_loop(), SlowGroups()
        await looked(replace(world.ports, groups=groups), Memory(), stored(Phase.PREPARE), START)
        assert len(groups.asked) >= LEADERLESS
        assert loop.time() <= 2.0

    virtual.run(scenario())


def test_groups_that_could_not_be_asked_are_left_alone_for_some_turns_and_told_all_the_while() -> None:
    async def scenario() -> None:
        world, loop, groups = World(dict(POLICY)), asyncio.get_running_loop(), SlowGroups()
        groups.away, ports = True, replace(world.ports, groups=groups)
        first, memory = await looked(ports, Memory(), stored(Phase.PREPARE), START)
        began = loop.time()
        second, memory = await looked(ports, memory, stored(Phase.PREPARE), START + 3)
        assert (second.on_base, loop.time()) == (first.on_base, began)
        assert first.on_base is not None
        assert first.on_base[0].failure == "Kafka: cannot list the consumer groups"

        groups.away = False
        third, _ = await looked(ports, memory, stored(Phase.PREPARE), START + 6)
        assert third.on_base == ()

    virtual.run(scenario())


def test_who_reads_a_topic_that_is_written_is_asked_every_few_seconds() -> None:
    async def scenario() -> None:
        world, groups = World(dict(POLICY)), SlowGroups()
        memory, ports = Memory(), replace(world.ports, groups=groups)
        for second in range(11):
            _, memory = await looked(ports, memory, stored(Phase.ACTIVE), START + second)
        assert groups.asked.count("clicks") == 3

    virtual.run(scenario())
