"""Dedicated topics while operators are killed, race or lose their stores, and policies go."""

from __future__ import annotations

from hotkey_operator.engine.reasons import Reason
from hotkey_operator.loop import bury
from hotkey_sdk.routing.table import Phase
from tests.simulation.memory import CONFIG
from tests.unit.operator.dedicated_world import (
    LOUD,
    PREFIX,
    REF,
    SOFT,
    World,
    dedicated,
    loud,
    ready,
    run,
)


def test_an_operator_that_was_killed_after_it_made_a_topic_does_not_adopt_it() -> None:
    async def scenario() -> None:
        world = World()
        await loud(world)
        await world.until("the name stands", phase=Phase.PREPARE)
        first = world.only.name
        await world.topics.create(first, world.only.partitions, CONFIG)
        world.turn = world.operator()
        await world.until("another one is used", phase=Phase.ACTIVE)
        assert world.only.name != first
        assert first in world.table.read_set

    run(scenario())


def test_after_the_object_was_lost_the_topic_is_still_read_and_used() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        topic = world.only
        world.tables.lose(REF)
        world.turn, world.history = world.operator(), []
        await world.second()
        assert world.only == topic

    run(scenario())


def test_after_both_stores_were_lost_what_is_named_like_ours_is_read_and_told_and_not_written() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name = world.only.name
        world.tables.lose(REF)
        world.redis.wipe()
        world.turn, world.history = world.operator(), []
        outcome = await world.second()
        assert name in world.table.read_set
        assert (world.table.topics, world.table.routes) == ((), ())
        assert ready(outcome).reason is Reason.UNLISTED_TOPIC
        assert name in ready(outcome).message

    run(scenario())


def test_a_deleted_policy_returns_the_key_and_keeps_the_topic_in_the_read_set() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name = world.only.name
        await world.turn.retire(world.now, seed=1)
        assert (world.table.routes, world.only.phase) == ((), Phase.RETURN)
        assert name in world.table.read_set

    run(scenario())


def test_a_tombstone_stays_as_long_as_a_dedicated_topic_holds_records() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name = world.only.name
        for _ in range(5):
            await world.second()
        await world.turn.retire(world.now, seed=1)
        for _ in range(3):
            stored = world.tables.peek(REF)
            assert stored is not None
            assert not await bury(world.ports, REF, stored, world.now)
        world.brokers.delete(name)
        assert stored is not None
        assert await bury(world.ports, REF, stored, world.now)
        assert world.tables.peek(REF) is None

    run(scenario())


def test_of_two_operators_the_one_that_loses_the_race_stops_and_says_so() -> None:
    async def scenario() -> None:
        world = World()
        await loud(world)
        await world.until("the name stands", phase=Phase.PREPARE)
        other = world.operator()
        outcomes = []
        for _ in range(30):
            await world.second()
            outcomes.append(await other.step(world.now, seed=1))
        topics = {name for name in world.brokers.names if name.startswith(PREFIX)}
        assert topics <= set(world.table.read_set)
        assert [topic.phase for topic in world.table.topics].count(Phase.ACTIVE) == 1

    run(scenario())


def test_a_topic_is_not_written_while_redis_does_not_hold_the_table_that_lists_it() -> None:
    async def scenario() -> None:
        world = World()
        await world.second()
        before = world.redis.snapshot()
        await loud(world)
        for _ in range(30):
            await world.second()
            world.redis.restore(before)  # as after a failover to a copy that is never up to date
            for topic in world.table.topics:
                for partition in range(topic.partitions):
                    world.committed.commit("billing", topic.name, partition, 0)
        assert [topic.phase for topic in world.table.topics] == [Phase.PREPARE]
        await world.until("Redis keeps it", phase=Phase.ACTIVE)

    run(scenario())


# who reads a topic that is written


def test_a_group_that_is_registered_while_a_topic_is_written_and_does_not_read_it_ends_that() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.policy["consumers"] = {"groups": ["billing", "audit"]}
        outcome = await world.until("base has it again", phase=Phase.RETURN)
        assert outcome.decision is not None
        assert outcome.decision.reason is Reason.CONSUMERS_NOT_READING
        assert "group audit has no committed offset" in outcome.decision.message
        assert world.table.route(b"nike") is None
        await world.seconds(20)
        assert all(topic.phase is not Phase.ACTIVE for topic in world.table.topics)
        world.groups = ("billing", "audit")
        await world.until("audit follows", phase=Phase.ACTIVE)

    run(scenario())


def test_a_group_that_begins_to_read_the_base_topic_alone_while_another_is_written_is_told() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        assert ready(await world.seconds(7)).status
        world.committed.commit("newcomer", "clicks", 0, 5)
        outcome = await world.seconds(7)
        assert ready(outcome).reason is Reason.UNREGISTERED_GROUP
        assert "newcomer" in ready(outcome).message
        assert world.only.phase is Phase.ACTIVE

    run(scenario())


def test_a_topic_is_not_taken_again_by_offsets_of_a_group_that_reads_it_no_more() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        read = dict(world.committed._offsets["billing", world.only.name])
        await world.seconds(10)
        world.rates[b"nike"] = SOFT
        await world.until("it is free", phase=Phase.IDLE)
        name = world.only.name
        world.groups = ()  # it reads the base topic alone, and its offsets of before still stand
        for partition, offset in read.items():
            world.committed.commit("billing", name, partition, offset)
        world.rates[b"nike"] = LOUD
        outcome = await world.until("it is told", blocked=Reason.CONSUMERS_NOT_READING)
        assert "still to read: billing" in ready(outcome).message
        world.groups = ("billing",)
        await world.until("it has read on", phase=Phase.ACTIVE)

    run(scenario())
