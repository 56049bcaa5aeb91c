"""A stream over in-memory ports, with consumers and producers, under an operator that gives keys own topics.

Consumers commit on all that the published table lets them read, producers append where it routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.engine.model import Condition
from hotkey_operator.engine.reasons import ConditionType
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Outcome, Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import DedicatedTopic, Phase, Stream, Table
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables, MemoryTopics

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
    allowed: frozenset[tuple[str, str]] = frozenset()  # topics by name and id, by the policy's annotation
    denied: bool = False  # producers may write to no topic but the base topic
    straggling: bool = (
        False  # a record a second comes to each dedicated topic, from one that follows no table
    )
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
        return replace(parse_spec(self.policy), allowed_topics=self.allowed)

    @property
    def table(self) -> Table:
        stored = self.tables.peek(REF)
        assert stored is not None
        return stored.table

    @property
    def only(self) -> DedicatedTopic:
        (topic,) = self.table.topics
        return topic

    def of_key(self, key: bytes, phase: Phase) -> DedicatedTopic | None:
        """The topic that the key has in this phase."""
        return next((each for each in self.table.topics if (each.key, each.phase) == (key, phase)), None)

    async def seconds(self, number: int) -> Outcome:
        for _ in range(number - 1):
            await self.second()
        return await self.second()

    async def second(self) -> Outcome:
        self.now += 1.0
        self.produce()
        self.consume()
        self.turn.spec = self.spec
        outcome = await self.turn.step(self.now, seed=int(self.now))
        self.check()
        return outcome

    def check(self) -> None:
        """What the object holds now keeps the invariants."""
        if (stored := self.tables.peek(REF)) is not None:
            check_invariants(self.history, stored.table)
            self.history.append(stored.table)

    def produce(self) -> None:
        published = self.published()
        router = Router(published) if published else None
        for key, rate in {**self.calm, **self.rates}.items():
            for _ in range(rate):
                self.slot += 1
                to = router.route(key, slot=self.slot * 40_503) if router else None
                denied = to is None or (self.denied and to.topic != "clicks")
                if to is not None and not denied and self.brokers.seen(to.topic) is not None:
                    self.brokers.append(to.topic, to.partition, to.key or key)
                else:
                    self.brokers.append("clicks", partition_for(key, self.partitions), key)

        for name in self.brokers.names:
            if self.straggling and name != "clicks":
                self.brokers.append(name, 0, b"nike")

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
    assert table.stream.topic in table.read_set
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
