"""Dedicated topics: the operator's loop from heat to a topic of the key's own and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import TopicRefused
from hotkey_sdk.routing.envelope import SigningKey
from hotkey_sdk.routing.table import Phase
from tests.simulation.memory import CONFIG
from tests.unit.operator.dedicated_world import (
    LOUD,
    POLICY,
    PREFIX,
    SOFT,
    STREAM,
    World,
    dedicated,
    loud,
    ready,
    run,
)


def test_a_key_that_fits_nowhere_gets_its_own_topic_goes_back_and_the_next_key_has_it() -> None:
    async def scenario() -> None:
        world = World()
        outcome = await dedicated(world)
        assert outcome.decision is not None
        assert outcome.decision.reason is Reason.DEDICATED
        topic, route = world.only, world.table.route(b"nike")
        assert route is not None
        assert route.topic == topic.name
        assert topic.name.startswith(PREFIX)
        assert {shard.partition for shard in route.shards} == set(range(topic.partitions))
        assert topic.partitions >= LOUD / 150, "sized to the key's rate"
        verdict = next(each for each in outcome.decision.verdicts if each.key == b"nike")
        assert verdict.reason is Reason.DEDICATED
        assert verdict.cost is not None
        assert verdict.cost.slots_moved == 1
        told = [event.reason for event in outcome.applied.events]
        assert told.count(Reason.DEDICATED) == 1
        assert {each.option for each in verdict.rejected} >= {"go back to the base topic"}

        world.rates[b"nike"] = SOFT
        await world.until("nike goes back", phase=Phase.RETURN)
        assert world.table.route(b"nike") is None
        await world.until("the topic is idle", phase=Phase.IDLE)
        assert world.only.topic_id == topic.topic_id

        world.rates = {b"adidas": LOUD}
        await world.until("adidas has it", phase=Phase.ACTIVE)
        assert (world.only.name, world.only.key) == (topic.name, b"adidas")

    run(scenario())


def test_with_order_per_key_a_heavy_key_is_alone_on_one_partition() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "spread": {"ordering": "PerKey"}})
        await dedicated(world)
        route = world.table.route(b"nike")
        assert route is not None
        assert (world.only.partitions, len(route.shards), route.by) == (1, 1, ())
        assert route.record_key == "Preserve"

    run(scenario())


def test_a_group_that_does_not_follow_keeps_the_key_at_its_rung_and_is_named() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "consumers": {"groups": ["billing", "late"]}})
        await loud(world)
        outcome = await world.until("late is named", blocked=Reason.CONSUMERS_NOT_READING)
        assert "late on all" in ready(outcome).message
        for _ in range(20):
            await world.second()
        assert world.only.phase is Phase.PREPARE
        assert all(route.topic == "clicks" for route in world.table.routes)
        world.groups = ("billing", "late")
        await world.until("late follows", phase=Phase.ACTIVE)

    run(scenario())


def test_a_group_that_the_policy_does_not_name_blocks_until_it_is_ignored() -> None:
    async def scenario() -> None:
        world = World(groups=("billing", "unknown"))
        await loud(world)
        outcome = await world.until("unknown is named", blocked=Reason.UNREGISTERED_GROUP)
        assert "unknown" in ready(outcome).message
        world.policy["consumers"] = {"groups": ["billing"], "ignore": ["unknown"]}
        await world.until("it is ignored", phase=Phase.ACTIVE)

    run(scenario())


@pytest.mark.parametrize(
    "reason", [Reason.TOPIC_QUOTA_EXCEEDED, Reason.NOT_AUTHORIZED, Reason.REPLICATION_FACTOR_TOO_HIGH]
)
def test_a_topic_that_cannot_be_made_is_told_with_its_reason_and_tried_again(reason: Reason) -> None:
    async def scenario() -> None:
        world = World()
        world.topics.refusal = TopicRefused(reason, "the brokers say so")
        await loud(world)
        outcome = await world.until("it is told", blocked=reason)
        assert "the brokers say so" in ready(outcome).message
        assert world.only.topic_id == ""
        world.topics.refusal = None
        await world.until("it is made", phase=Phase.ACTIVE, seconds=120)

    run(scenario())


def test_a_topic_is_made_only_after_the_object_lists_it() -> None:
    async def scenario() -> None:
        world = World()
        made: list[tuple[str, tuple[str, ...]]] = []
        create = world.topics.create

        async def watched(name: str, partitions: int, config: Any) -> str:
            made.append((name, world.table.read_set))
            return await create(name, partitions, config)

        world.topics.create = watched  # type: ignore[method-assign]
        await dedicated(world)
        assert made
        assert all(name in read_set for name, read_set in made)

    run(scenario())


def test_a_topic_that_a_person_made_anew_is_left_at_once_and_never_written_again() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name = world.only.name
        world.brokers.create(name, world.only.partitions)
        await world.second()
        assert all(route.topic != name for route in world.table.routes)
        await world.until("a new one", phase=Phase.ACTIVE)
        assert world.table.dedicated(name) is None
        assert name in world.table.read_set

    run(scenario())


def test_a_topic_that_a_person_deleted_is_left_at_once() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name = world.only.name
        world.brokers.delete(name)
        outcome = await world.second()
        assert outcome.decision is not None
        assert outcome.decision.reason is Reason.TOPIC_REPLACED
        assert all(route.topic != name for route in world.table.routes)

    run(scenario())


def test_a_topic_that_became_weaker_than_the_base_topic_is_left() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.brokers.configure(world.only.name, replace(CONFIG, retention_ms=1))
        await world.second()
        assert world.only.phase is Phase.RETURN

    run(scenario())


def test_warm_topics_are_ready_ahead_of_need_and_taken_first() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "dedicatedTopic": {"enabled": True, "warm": 1, "partitions": 16}})
        await world.until("one is warm", phase=Phase.IDLE)
        warm = world.only.name
        await loud(world)
        await world.until("nike has it", phase=Phase.ACTIVE)
        route = world.table.route(b"nike")
        assert route is not None
        assert route.topic == warm

    run(scenario())


def test_no_more_topics_are_made_than_the_policy_allows() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "limits": {"maxDedicatedTopics": 1}})
        await dedicated(world)
        world.rates[b"adidas"] = LOUD
        outcome = await world.until("the cap is told", blocked=Reason.TOO_MANY_DEDICATED_TOPICS)
        assert "maxDedicatedTopics is 1" in ready(outcome).message
        assert len(world.table.topics) == 1

    run(scenario())


def test_a_table_of_the_former_signing_key_is_signed_anew_under_a_higher_epoch() -> None:
    async def scenario() -> None:
        world = World()
        await world.second()
        before, former = world.table, world.signer
        fresh = SigningKey.generate()
        world.signer = EnvelopeSigner(fresh, former.trusted)
        world.turn = world.operator()
        await world.second()
        assert world.table.epoch > before.epoch
        only_new = EnvelopeSigner(fresh)
        envelope = world.redis.envelope(STREAM)
        assert envelope is not None
        assert only_new.open(envelope, STREAM) == world.table
        after = world.table
        for _ in range(3):
            await world.second()
        assert world.table == after

    run(scenario())


def test_a_key_that_sends_nothing_goes_back_however_hot_the_base_topic_is() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.rates = {b"adidas": LOUD}
        for _ in range(40):
            await world.second()
            if world.table.topics[0].phase is not Phase.ACTIVE:
                return
        raise AssertionError(f"nike keeps its topic: {world.table.topics}")

    run(scenario())


def test_a_frozen_policy_moves_no_topic() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        before = world.table
        world.policy["suspend"] = True
        world.rates[b"nike"] = SOFT
        for _ in range(20):
            await world.second()
        assert msgspec.structs.replace(world.table, epoch=0) == msgspec.structs.replace(before, epoch=0)

    run(scenario())


def test_the_table_with_its_topics_is_one_that_every_reader_takes() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        published = world.published()
        assert published is not None
        assert published == world.table

    run(scenario())
