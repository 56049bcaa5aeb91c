"""What sampling takes from a real broker: what is told, no more than allowed, nothing where it is off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from devstack import Stack
from hotkey_operator.adapters.kafka import KafkaBrokers
from hotkey_operator.adapters.sampler import FETCH_BYTES
from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports, SampleBudget, Unavailable
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import KafkaWorld, Put, fresh
from tests.simulation.memory import MemoryDistribution, MemoryTables

SECONDS = 20.0
REASON_SECONDS = 120.0  # a busy broker hands out little within the second that a turn samples
TURNS = 4  # at least: what must not be said is looked for in so many
VALUE = b"%0256d"


@dataclass
class Statistics:
    """What librdkafka counts, newest last."""

    found: list[dict[str, Any]] = field(default_factory=list)

    def hear(self, text: str) -> None:
        self.found.append(json.loads(text))

    @property
    def received(self) -> int:
        """Bytes from all brokers."""
        return sum(int(broker["rxbytes"]) for broker in self.found[-1]["brokers"].values())

    @property
    def fetches(self) -> int:
        return sum(int(broker["req"].get("Fetch", 0)) for broker in self.found[-1]["brokers"].values())

    async def renewed(self, brokers: KafkaBrokers) -> None:
        """Wait for the next that is told after all that was done until now."""
        known = len(self.found)
        async with asyncio.timeout(SECONDS):
            while len(self.found) < known + 2:
                await asyncio.to_thread(brokers._consumer.poll, 0.05)


class Cluster:
    """A broker, and adapters to it that count what they take."""

    def __init__(self, stack: Stack, run: Run) -> None:
        self.world = KafkaWorld(stack)
        self.statistics = Statistics()
        self._stack, self._run = stack, run
        self._open: list[KafkaBrokers] = []

    def brokers(self, **options: Any) -> KafkaBrokers:
        config = {
            "bootstrap.servers": self._stack.kafka.bootstrap,
            "statistics.interval.ms": 100,
            "stats_cb": self.statistics.hear,
        }
        self._open.append(KafkaBrokers(config, **options))
        return self._open[-1]

    def close(self) -> None:
        for brokers in self._open:
            self._run(brokers.close())
        self._run(self.world.close())


@pytest.fixture
def cluster(stack: Stack, run: Run) -> Iterator[Cluster]:
    made = Cluster(stack, run)
    yield made
    made.close()


def test_what_is_told_of_the_bytes_read_is_about_what_the_broker_sent(cluster: Cluster, run: Run) -> None:
    async def scenario() -> None:
        topic, brokers = fresh("cost"), cluster.brokers()
        await cluster.world.create(topic, 2)
        for partition in (0, 1):
            await cluster.world.append(topic, partition, [Put(b"%d" % i, VALUE % i) for i in range(4_000)])
        await brokers.topic(topic)
        await cluster.statistics.renewed(brokers)
        before = cluster.statistics.received
        for seed in range(5):
            await brokers.sample(topic, {0: (0, 4_000), 1: (0, 4_000)}, (), SampleBudget(seconds=20), seed)
        await cluster.statistics.renewed(brokers)
        sent = cluster.statistics.received - before
        assert sent / 3 <= brokers.sampled_bytes <= 3 * sent

    run(scenario())


def test_a_sampling_takes_no_more_than_its_bytes_and_the_first_windows_have_precedence(
    cluster: Cluster, run: Run
) -> None:
    async def scenario() -> None:
        topic, brokers = fresh("budget"), cluster.brokers()
        await cluster.world.create(topic, 6)
        for partition in range(6):
            await cluster.world.append(topic, partition, [Put(b"%d" % i, VALUE % i) for i in range(2_000)])
        budget = SampleBudget(records_per_partition=200, seconds=20, bytes=45 * FETCH_BYTES)
        windows = dict.fromkeys((4, 2, 0, 1, 3, 5), (0, 2_000))
        found = await brokers.sample(topic, windows, (), budget, seed=1)
        assert [sample.partition for sample in found] == [2, 4]
        assert all(len(sample.runs) == budget.runs_per_partition for sample in found)
        assert sum(sample.bytes_read for sample in found) == brokers.sampled_bytes <= budget.bytes
        assert brokers.samples_cut == 1

    run(scenario())


def test_all_streams_together_are_held_to_their_bytes_per_second(cluster: Cluster, run: Run) -> None:
    async def scenario() -> None:
        topic = fresh("rate")
        brokers = cluster.brokers(sampling_bytes_per_second=1)
        await cluster.world.create(topic, 1)
        await cluster.world.append(topic, 0, [Put(b"%d" % i, VALUE % i) for i in range(4_000)])
        (cut,) = await brokers.sample(topic, {0: (0, 4_000)}, (), SampleBudget(seconds=20), seed=1)
        assert 0 < len(cut.runs) < SampleBudget().runs_per_partition
        with pytest.raises(Unavailable, match="used up"):
            await brokers.sample(topic, {0: (0, 4_000)}, (), SampleBudget(seconds=20), seed=2)
        assert brokers.samples_cut == 2

    run(scenario())


def test_big_records_take_no_more_bytes_than_small_ones_and_leave_others_theirs(
    cluster: Cluster, run: Run
) -> None:
    async def scenario() -> None:
        big, small, brokers = fresh("big"), fresh("small"), cluster.brokers()
        budget = SampleBudget(seconds=10)
        for topic, records, value in ((big, 400, b"x" * 100_000), (small, 400, b"x")):
            await cluster.world.create(topic, 1)
            await cluster.world.append(topic, 0, [Put(b"%d" % i, value) for i in range(records)])
        for seed in range(3):  # the first knows nothing of their size
            taken = brokers.sampled_bytes
            (sample,) = await brokers.sample(big, {0: (0, 400)}, (), budget, seed)
            assert brokers.sampled_bytes - taken <= 2 * budget.bytes
            await brokers.sample(small, {0: (0, 400)}, (), budget, seed)
            brokers._sampler._saved += budget.bytes  # half a second goes by
        assert len(sample.runs) >= 10, "once their size is known they are from all over the window"
        assert sample.spans[-1][1] - sample.spans[0][0] >= 200

    run(scenario())


async def _turns(
    cluster: Cluster, brokers: KafkaBrokers, topic: str, spec: PolicySpec, last: Reason
) -> list[Reason]:
    """What a policy decides on a topic of which one partition is over the trigger, until it says `last`."""
    now = 1_000_000.0
    brokers._clock = lambda: now
    ports = Ports(brokers, MemoryDistribution(lambda: now), MemoryTables(), EnvelopeSigner(None))
    turn = Turn(ports, PolicyRef("ads", topic), spec)
    found: list[Reason] = []
    deadline = time.monotonic() + REASON_SECONDS
    while last not in found or len(found) < TURNS:
        assert time.monotonic() < deadline, f"never {last}, but {found}"
        await cluster.world.append(topic, 0, [Put(b"nike", VALUE % 1)] * 500)
        now += 1
        outcome = await turn.step(now, 1)
        found += [outcome.decision.reason] if outcome.decision else []
    return found


@pytest.mark.parametrize("sampling", [True, False])
def test_where_sampling_is_off_no_record_is_ever_fetched(cluster: Cluster, run: Run, sampling: bool) -> None:
    async def scenario() -> None:
        topic, brokers = fresh("unread"), cluster.brokers()
        await cluster.world.create(topic, 4)
        spec = parse_spec(
            {"topic": topic, "metrics": {"sampling": sampling}, "trigger": {"recordsPerSecond": 200}}
        )
        last = Reason.SPREAD if sampling else Reason.NOT_SAMPLED
        reasons = await _turns(cluster, brokers, topic, spec, last)
        await cluster.statistics.renewed(brokers)
        assert (cluster.statistics.fetches > 0) is sampling
        assert (brokers.sampled_bytes > 0) is sampling
        assert (Reason.NOT_SAMPLED in reasons) is not sampling
        assert (Reason.SPREAD in reasons) is sampling

    run(scenario())
