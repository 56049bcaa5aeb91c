"""What a turn reads where a policy names another source than Kafka: no more, and nothing that it forbids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hotkey_operator.adapters.producer_reports import ProducerReports
from hotkey_operator.adapters.prometheus import Http
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.adapters.sources import PolicySources
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Decision, EndOffsets, PartitionSample, Read
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports, SampleBudget, Unavailable
from hotkey_operator.sense.gather import gather
from hotkey_operator.sense.sources import newest
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import KeyReport, encode_key_report
from hotkey_sdk.routing.table import Dimension, Stream
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables

START = 1_790_000_000.0
PARTITIONS = 6
REF = PolicyRef("default", "clicks")
UNREAD = parse_spec({"topic": "clicks", "metrics": {"source": "Producers", "sampling": False}})
SAMPLED = parse_spec({"topic": "clicks", "metrics": {"source": "Producers"}})


class Brokers(MemoryBrokers):
    """Notes what is asked of it."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.asked: set[str] = set()

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        self.asked.add("end offsets")
        return await super().end_offsets(name, partitions)

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        self.asked.add("records")
        return await super().sample(name, windows, dimensions, budget, seed)


class World:
    """A stream of which one producer reports: 4,000 records/s, 9 in 10 of them `nike`."""

    def __init__(self) -> None:
        self.now = START
        self.brokers = Brokers(lambda: self.now)
        self.brokers.create("clicks", PARTITIONS)
        self.distribution = MemoryDistribution(lambda: self.now)
        self.stream = Stream("memory-cluster", "clicks")
        self.counts = KeyCounts(START)
        signer = EnvelopeSigner.from_secret(new_secret_data())
        reports = ProducerReports(self.distribution.key_reports, lambda: self.now)
        sources = PolicySources(Http(), reports)
        self.ports = Ports(self.brokers, self.distribution, MemoryTables(), signer, None, sources)

    def second(self) -> None:
        """A second of traffic, and what the producer tells of it."""
        self.now += 1.0
        for number in range(400):
            key = b"nike" if number % 10 else b"k%d" % number
            partition = partition_for(key, PARTITIONS)
            self.brokers.append("clicks", partition, key)
            self.counts.add("clicks", key, partition, 100, 10)
        report = self.counts.report("clicks", "p1", self.now)
        assert report is not None
        self.distribution.plant_key_report(self.stream, "p1", encode_key_report(report))

    def reasons(self, spec: PolicySpec, seconds: int) -> list[Reason]:
        turn = Turn(self.ports, REF, spec)
        found = []
        for number in range(seconds):
            self.second()
            outcome = asyncio.run(turn.step(self.now, number))
            assert outcome.decision is not None, outcome.failure
            found.append(outcome.decision.reason)
        return found

    def decision(self, turn: Turn) -> Decision:
        """What a turn decides after another second of traffic."""
        self.second()
        outcome = asyncio.run(turn.step(self.now, 1))
        assert outcome.decision is not None, outcome.failure
        return outcome.decision

    def messages(self, turn: Turn) -> list[str]:
        decision = self.decision(turn)
        return [decision.message, *(each.message for each in decision.conditions)]


def test_producers_reports_alone_find_and_spread_a_hot_key_without_any_read_of_the_topic() -> None:
    world = World()
    assert Reason.SPREAD in world.reasons(UNREAD, 8)
    assert world.brokers.asked == set()


def test_producers_rates_with_sampling_read_the_newest_records_of_the_topic() -> None:
    world = World()
    assert Reason.SPREAD in world.reasons(SAMPLED, 8)
    assert "records" in world.brokers.asked


def test_windows_over_other_counters_become_as_many_of_the_newest_offsets() -> None:
    world = World()
    world.second()
    home = partition_for(b"nike", PARTITIONS)

    async def scenario() -> None:
        ends = (await world.brokers.end_offsets("clicks", PARTITIONS)).offsets
        asked = {home: (1_000_000, 1_000_100), (home + 1) % PARTITIONS: (5, 5)}
        assert await newest(world.ports, SAMPLED, asked) == {home: (ends[home] - 100, ends[home])}
        longer = {home: (0, 1_000_000)}
        assert await newest(world.ports, SAMPLED, longer) == {home: (0, ends[home])}
        kafka = parse_spec({"topic": "clicks"})
        assert await newest(world.ports, kafka, asked) == asked

    asyncio.run(scenario())


def test_without_sources_it_is_said_that_there_is_kafka_alone() -> None:
    world = World()
    alone = Ports(world.brokers, world.distribution, world.ports.tables, world.ports.signer)
    seen = asyncio.run(gather(alone, REF, UNREAD, Memory(), START, 1))
    assert seen.ends is None
    assert "Kafka alone" in (seen.failure or "")


def test_a_prometheus_that_is_gone_stops_rates_but_not_the_turn() -> None:
    world = World()
    spec = parse_spec(
        {
            "topic": "clicks",
            "metrics": {"source": "Prometheus", "prometheus": {"url": "http://127.0.0.1:1", "query": "ends"}},
        }
    )
    assert world.reasons(spec, 1) == [Reason.KAFKA_UNAVAILABLE]
    assert world.brokers.asked == set()


def test_log_sizes_that_cannot_be_read_leave_the_rates_as_they_are() -> None:
    world = World()
    asked = {"url": "http://127.0.0.1:1", "query": "unused", "sizeQuery": "kafka_log_size"}
    spec = parse_spec({"topic": "clicks", "metrics": {"prometheus": asked}})
    world.second()
    seen = asyncio.run(gather(world.ports, REF, spec, Memory(), world.now, 1))
    assert seen.ends is not None
    assert seen.log_sizes is None
    assert seen.failure is None
    assert "kafka_log_size" in seen.amiss[Read.LOG_SIZES]


class Refusing(Brokers):
    """Tells end offsets, and why a sample cannot be read."""

    refusal: str | None = "Kafka: cannot sample partition 3 of clicks: Broker: Topic authorization failed"

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        if self.refusal is None:
            return await super().sample(name, windows, dimensions, budget, seed)
        return tuple(PartitionSample(partition, (), failure=self.refusal) for partition in windows)


class Refused(World):
    """The same on a cluster that lets nobody read the topic."""

    def __init__(self) -> None:
        super().__init__()
        self.brokers: Refusing = Refusing(lambda: self.now)
        self.brokers.create("clicks", PARTITIONS)
        self.ports = replace(self.ports, brokers=self.brokers)


HOT = {"topic": "clicks", "trigger": {"recordsPerSecond": 100}}


def test_a_sample_that_kafka_refuses_is_told_where_the_evidence_is_wanted_and_of_the_policy() -> None:
    world = Refused()
    turn = Turn(world.ports, REF, parse_spec(HOT))
    decisions = [world.decision(turn) for _ in range(10)]
    assert decisions[-1].reason is Reason.SAMPLING
    assert f"its records cannot be sampled: {Refusing.refusal}" in decisions[-1].message
    (ready,) = [each for each in decisions[-1].conditions if each.type is ConditionType.READY]
    assert (ready.status, ready.reason) == (True, Reason.GOVERNING)
    assert f"not read: samples ({Refusing.refusal})" in ready.message
    assert all("cannot be sampled" in decision.message for decision in decisions[4:])


def test_a_refusal_is_told_no_more_once_samples_come() -> None:
    world = Refused()
    turn = Turn(world.ports, REF, parse_spec(HOT))
    before = [message for _ in range(6) for message in world.messages(turn)]
    world.brokers.refusal = None
    after = [world.messages(turn) for _ in range(20)][-1]
    assert "authorization" in "".join(before)
    assert "authorization" not in "".join(after)


def test_what_another_system_says_is_cut_where_it_is_long_and_stays_in_its_line() -> None:
    world = Refused()
    world.brokers.refusal = "no\n" * 10_000
    turn = Turn(world.ports, REF, parse_spec(HOT))
    messages = [message for _ in range(6) for message in world.messages(turn)]
    assert "no no" in "".join(messages)
    assert max(map(len, messages)) < 1_000
    assert "\n" not in "".join(messages)


def test_key_reports_that_cannot_be_read_are_told_where_no_record_may_be_read() -> None:
    async def unanswered(stream: Stream) -> tuple[KeyReport, ...]:
        raise Unavailable("Redis is away")

    world = World()
    reports = ProducerReports(unanswered, lambda: world.now)
    ports = replace(world.ports, sources=PolicySources(Http(), reports))
    turn = Turn(ports, REF, parse_spec({**HOT, "metrics": {"sampling": False}}))
    decision = [world.decision(turn) for _ in range(6)][-1]
    assert decision.reason is Reason.NOT_SAMPLED
    assert "key reports cannot be read: Redis is away" in decision.message
