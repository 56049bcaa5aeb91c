"""What a turn reads where a policy names another source than Kafka: no more, and nothing that it forbids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from hotkey_operator.adapters.producer_reports import ProducerReports
from hotkey_operator.adapters.prometheus import Http
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.adapters.sources import PolicySources
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, PartitionSample
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports, SampleBudget
from hotkey_operator.sense.gather import gather
from hotkey_operator.sense.sources import newest
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import encode_key_report
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
    assert "sizeQuery" not in (seen.failure or "")
    assert "kafka_log_size" in (seen.failure or "")
