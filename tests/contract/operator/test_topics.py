"""`Topics`: a real cluster and the simulation's tell of topics alike, and make them alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import pytest

from devstack import Stack
from hotkey_operator.adapters.topics import KafkaTopics
from hotkey_operator.engine.dedicated import weaker
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import TopicRefused, Topics
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import BrokersWorld, KafkaWorld, MemoryBrokersWorld, fresh
from tests.simulation.memory import MemoryTopics


class Closing(Protocol):
    async def close(self) -> None: ...


@dataclass
class World:
    """A cluster of one broker, and the port to its topics."""

    brokers: BrokersWorld
    topics: Topics
    opened: list[Closing]


@pytest.fixture(params=["kafka", "memory"])
def world(request: pytest.FixtureRequest, run: Run) -> Iterator[World]:
    if request.param == "kafka":
        stack: Stack = request.getfixturevalue("stack")
        real = KafkaTopics({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
        kafka = KafkaWorld(stack)
        made = World(kafka, real, [kafka, real])
    else:
        memory = MemoryBrokersWorld()
        made = World(memory, MemoryTopics(memory.memory, brokers_there=1), [memory])
    yield made
    for each in made.opened:
        run(each.close())


def test_a_topic_that_is_not_there_is_none_and_hides_no_other(run: Run, world: World) -> None:
    async def scenario() -> None:
        there, missing = fresh("topic"), fresh("missing")
        await world.brokers.create(there, 3)
        found = await world.topics.describe([missing, there])
        assert found[missing] is None
        seen = found[there]
        assert seen is not None
        assert seen.partitions == 3
        assert seen.topic_id
        assert seen.config.replication == 1
        assert await world.topics.describe([]) == {}

    run(scenario())


def test_a_topic_is_made_as_it_is_asked_for_and_its_id_is_told(run: Run, world: World) -> None:
    async def scenario() -> None:
        base, name = fresh("topic"), fresh("hot")
        await world.brokers.create(base, 2)
        seen = (await world.topics.describe([base]))[base]
        assert seen is not None
        asked = replace(
            seen.config, retention_ms=3_600_000, retention_bytes=10_000_000, max_message_bytes=2_000_000
        )

        topic_id = await world.topics.create(name, 5, asked)

        made = (await world.topics.describe([name]))[name]
        assert made is not None
        assert (made.topic_id, made.partitions, made.config) == (topic_id, 5, asked)
        assert weaker(made.config, asked) == ()

    run(scenario())


def test_a_topic_that_is_there_already_is_left_as_it_is_and_no_id_is_told(run: Run, world: World) -> None:
    async def scenario() -> None:
        name = fresh("hot")
        await world.brokers.create(name, 2)
        before = (await world.topics.describe([name]))[name]
        assert before is not None

        assert await world.topics.create(name, 7, before.config) == ""

        assert (await world.topics.describe([name]))[name] == before

    run(scenario())


def test_more_replicas_than_brokers_are_refused_with_that_reason(run: Run, world: World) -> None:
    async def scenario() -> None:
        base, name = fresh("topic"), fresh("hot")
        await world.brokers.create(base, 1)
        seen = (await world.topics.describe([base]))[base]
        assert seen is not None
        with pytest.raises(TopicRefused) as refused:
            await world.topics.create(name, 1, replace(seen.config, replication=5))
        assert refused.value.reason is Reason.REPLICATION_FACTOR_TOO_HIGH
        assert (await world.topics.describe([name]))[name] is None

    run(scenario())


def test_names_are_told_by_how_they_begin(run: Run, world: World) -> None:
    async def scenario() -> None:
        base = fresh("topic")
        for name in (base, f"{base}.hot.b", f"{base}.hot.a", f"{base}-hot.c"):
            await world.brokers.create(name, 1)
        assert await world.topics.alike(f"{base}.hot.") == (f"{base}.hot.a", f"{base}.hot.b")

    run(scenario())


def test_a_topic_that_was_made_anew_has_another_id(run: Run, world: World) -> None:
    async def scenario() -> None:
        name = fresh("hot")
        await world.brokers.create(name, 1)
        before = (await world.topics.describe([name]))[name]
        await world.brokers.recreate(name, 1)
        after = (await world.topics.describe([name]))[name]
        assert before is not None
        assert after is not None
        assert before.topic_id != after.topic_id

    run(scenario())
