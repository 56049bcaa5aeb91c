"""Dedicated topics over in-memory ports: the operator's loop from heat to a topic of the key's own and back.

Consumers commit on all that the published table lets them read, producers append where it routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.engine.model import Condition
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Outcome, Turn, bury
from hotkey_operator.ports import PolicyRef, Ports, TopicRefused
from hotkey_sdk.routing.envelope import SigningKey
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import DedicatedTopic, Phase, Stream, Table
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import CONFIG, MemoryBrokers, MemoryDistribution, MemoryTables, MemoryTopics

START = 1_790_000_000.0
REF = PolicyRef("ads", "clicks", "0a1b2c3d-4e5f")
STREAM = Stream("memory-cluster", "clicks")
PARTITIONS = 4
PREFIX = "clicks.hot.0a1b2c3d.g"
LOUD, SOFT = 1_200, 40  # records/s of `nike`: too many for all partitions together, and few
POLICY: dict[str, Any] = {
    "topic": "clicks",
    "trigger": {"recordsPerSecond": 150},
    "release": {"for": "5s"},
    "dedicatedTopic": {"enabled": True},
    "consumers": {"groups": ["billing"]},
}


@dataclass
class World:
    """A cluster with one stream; a second is one turn, in which records come and consumers commit."""

    policy: dict[str, Any] = field(default_factory=lambda: dict(POLICY))
    rates: dict[bytes, int] = field(default_factory=dict)
    groups: tuple[str, ...] = ("billing",)  # that follow the read set
    partitions: int = PARTITIONS
    now: float = START
    slot: int = 0

    def __post_init__(self) -> None:
        self.brokers = MemoryBrokers(lambda: self.now)
        self.brokers.create("clicks", self.partitions)
        self.topics = MemoryTopics(self.brokers)
        self.committed = MemoryGroups()
        self.redis = MemoryDistribution(lambda: self.now)
        self.tables = MemoryTables()
        self.signer = EnvelopeSigner.from_secret(new_secret_data())
        self.turn = self.operator()
        self.history: list[Table] = []
        self.calm = {b"k%d" % number: 2 for number in range(20)}

    def operator(self) -> Turn:
        """A fresh start of the operator."""
        return Turn(self.ports, REF, self.spec)

    @property
    def ports(self) -> Ports:
        return Ports(self.brokers, self.redis, self.tables, self.signer, self.committed, topics=self.topics)

    @property
    def spec(self) -> PolicySpec:
        return parse_spec(self.policy)

    @property
    def table(self) -> Table:
        stored = self.tables.peek(REF)
        assert stored is not None
        return stored.table

    @property
    def only(self) -> DedicatedTopic:
        (topic,) = self.table.topics
        return topic

    async def second(self) -> Outcome:
        self.now += 1.0
        self.produce()
        self.consume()
        self.turn.spec = self.spec
        outcome = await self.turn.step(self.now, seed=int(self.now))
        if (stored := self.tables.peek(REF)) is not None:
            check_invariants(self.history, stored.table)
            self.history.append(stored.table)
        return outcome

    def produce(self) -> None:
        published = self.published()
        router = Router(published) if published else None
        for key, rate in {**self.calm, **self.rates}.items():
            for _ in range(rate):
                self.slot += 1
                to = router.route(key, slot=self.slot * 40_503) if router else None
                if to is not None and self.brokers.seen(to.topic) is not None:
                    self.brokers.append(to.topic, to.partition, to.key or key)
                else:
                    self.brokers.append("clicks", partition_for(key, self.partitions), key)

    def consume(self) -> None:
        published = self.published()
        for topic in published.read_set if published else ("clicks",):
            if (seen := self.brokers.seen(topic)) is not None:
                for group in self.groups:
                    for partition in range(seen.partitions):
                        read = len(self.brokers.read(topic, partition, 0))
                        self.committed.commit(group, topic, partition, read)

    def published(self) -> Table | None:
        envelope = self.redis.envelope(STREAM)
        return self.signer.open(envelope, STREAM) if envelope else None

    async def until(self, what: str, seconds: int = 60, **wanted: Any) -> Outcome:
        """Seconds until the one topic's phase, or the decision's reason, is as wanted."""
        seen = []
        for _ in range(seconds):
            outcome = await self.second()
            reason = outcome.decision.reason if outcome.decision else None
            phases = [topic.phase for topic in self.table.topics]
            seen.append((reason, phases))
            if "phase" in wanted and wanted["phase"] in phases:
                return outcome
            if "reason" in wanted and wanted["reason"] is reason:
                return outcome
            if "blocked" in wanted and ready(outcome).reason is wanted["blocked"]:
                return outcome
        raise AssertionError(f"{what}: seen {seen}")


def check_invariants(before: Iterable[Table], table: Table) -> None:
    """Invariants 1, 3 and 8 for what stands in the object, turn by turn."""
    tables = list(before)
    last = tables[-1] if tables else None
    assert "clicks" in table.read_set
    if last is None or last == table:
        return
    assert table.epoch > last.epoch
    for route in table.routes:
        if route.topic != "clicks":
            topic, was = table.dedicated(route.topic), last.dedicated(route.topic)
            assert topic is not None
            assert topic.phase is Phase.ACTIVE
            assert was is not None, "it was written before it was read"
            assert route.topic in last.read_set
            assert was.topic_id == topic.topic_id != ""
    names = {topic.name for each in tables for topic in each.topics}
    for topic in table.topics:
        if topic.name not in names:
            assert topic.name == f"{PREFIX}{table.epoch}", "a name is new with its epoch"


def ready(outcome: Outcome) -> Condition:
    assert outcome.decision is not None
    return next(
        each for each in outcome.decision.conditions if each.type is ConditionType.DEDICATED_TOPICS_READY
    )


async def loud(world: World) -> None:
    """A few quiet seconds, then `nike`."""
    for _ in range(4):
        await world.second()
    world.rates[b"nike"] = LOUD


async def dedicated(world: World) -> Outcome:
    await loud(world)
    return await world.until("nike has its topic", phase=Phase.ACTIVE)


def run(scenario: Any) -> None:
    asyncio.run(scenario)


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
