"""When a stream rests, and what ends its rest: its pace, Kubernetes, heat, or a table that Redis lost."""

from __future__ import annotations

import asyncio

import pytest

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.spec import parse_spec
from hotkey_operator.loop import Outcome, Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_operator.resting import GLANCE_SECONDS, Next, Rest, Told
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables

TOLD = Told(1, None)
REF = PolicyRef("ads", "clicks")


def steps(rest: Rest, seconds: int, *, pace: float = 10.0, rests: bool = True) -> list[Next]:
    return [rest.next(TOLD, rests, 100.0 + second, pace, 1.0) for second in range(seconds)]


def test_a_stream_that_does_not_rest_turns_every_second() -> None:
    assert steps(Rest(), 5, rests=False) == [Next.TURN] * 5


def test_where_few_partitions_are_governed_a_quiet_stream_turns_every_second_too() -> None:
    assert steps(Rest(), 5, pace=1.0) == [Next.TURN] * 5


def test_a_resting_stream_is_looked_at_at_its_pace_and_glanced_at_between() -> None:
    found = steps(Rest(told=TOLD, glanced_at=100.0, read_at=100.0), 31)
    assert [second for second, step in enumerate(found) if step is Next.LOOK] == [10, 20]
    assert [second for second, step in enumerate(found) if step is Next.TURN] == [30], "all is read anew"
    glances = [second for second, step in enumerate(found) if step is Next.GLANCE]
    assert glances == [3, 6, 9, 13, 16, 19, 23, 26, 29]
    assert GLANCE_SECONDS + 1 < 5, "a table that Redis lost must be published again within 5 s"


def test_streams_that_were_found_together_do_not_turn_together() -> None:
    turned = set()
    for chance in (0.1, 0.5, 0.9):
        rest = Rest(told=TOLD, glanced_at=100.0)
        at = next(
            second for second in range(20) if rest.next(TOLD, True, 100.0 + second, 10.0, chance) is Next.TURN
        )
        turned.add(at)
    assert turned == {1, 5, 9}


@pytest.mark.parametrize("told", [Told(2, None), Told(1, "ads/older")], ids=["the spec", "an older policy"])
def test_what_kubernetes_tells_anew_ends_a_rest_at_once(told: Told) -> None:
    rest = Rest()
    steps(rest, 5)
    assert rest.next(told, True, 105.0, 10.0, 1.0) is Next.TURN


def test_however_slow_its_pace_a_resting_streams_object_is_read_when_it_is_due() -> None:
    found = steps(Rest(told=TOLD, glanced_at=100.0, read_at=100.0), 61, pace=7.0)
    turns = [second for second, step in enumerate(found) if step is Next.TURN]
    assert turns == [35], "a pace of 7 s has no turn at 30 s"


class Stream:
    """A policy's loop over a stream in memory."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.brokers = MemoryBrokers(lambda: self.now)
        self.brokers.create("clicks", 4)
        self.redis = MemoryDistribution(lambda: self.now)
        self.tables = MemoryTables()
        ports = Ports(self.brokers, self.redis, self.tables, EnvelopeSigner(None))
        self.turn = Turn(ports, REF, parse_spec({"topic": "clicks"}))

    async def turns(self, count: int, records: int = 0) -> None:
        for _ in range(count):
            for _ in range(records):
                self.brokers.append("clicks", 2, b"nike")
            self.now += 1
            await self.turn.step(self.now, 1)

    async def whole(self) -> Outcome:
        self.now += 1
        return await self.turn.step(self.now, 1, pace_seconds=10.0)

    async def look(self, seconds: int = 10, records: int = 0) -> Outcome:
        for _ in range(records):
            self.brokers.append("clicks", 2, b"nike")
        self.now += seconds
        return await self.turn.look(self.now, 1, pace_seconds=10.0)


def test_a_stream_rests_once_its_table_stands_and_nothing_is_near_the_trigger() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(1)
        rests = [stream.turn.rests]
        await stream.turns(3)
        assert [*rests, stream.turn.rests] == [False, True], "at first its table was written just now"
        assert await stream.turn.glance(stream.now)

    asyncio.run(scenario())


def test_a_partition_above_half_the_trigger_ends_a_rest() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4, records=400)
        rests = [stream.turn.rests]
        await stream.turns(2, records=600)
        assert [*rests, stream.turn.rests] == [True, False]

    asyncio.run(scenario())


def test_a_glance_sees_that_redis_lost_the_table() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4)
        stream.redis.wipe()
        assert not await stream.turn.glance(stream.now)

    asyncio.run(scenario())


def test_a_look_measures_the_stream_and_takes_object_and_topic_to_be_as_the_last_turn_saw_them() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4)
        stream.tables.lose(REF)
        stream.brokers.grow("clicks", 5)
        outcome = await stream.look(records=1_000)
        assert outcome.decision is not None
        assert outcome.decision.summary.records_per_second == 100
        assert stream.turn.rests, "a person's doing is seen when all is read"
        whole = await stream.whole()
        assert whole.applied.stored is not None
        assert whole.applied.stored.table.partitions == 5

    asyncio.run(scenario())


def test_a_look_that_finds_heat_becomes_a_whole_turn_at_once() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4)
        stream.tables.lose(REF)
        outcome = await stream.look(records=6_000)
        assert outcome.applied.stored is not None, "nothing is decided on an object that may have changed"
        assert not stream.turn.rests

    asyncio.run(scenario())


def test_a_look_that_finds_redis_empty_publishes_the_table_again() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4)
        stream.redis.wipe()
        outcome = await stream.look()
        assert outcome.applied.published_epoch is not None

    asyncio.run(scenario())


def test_a_look_at_a_topic_that_was_made_anew_becomes_a_whole_turn() -> None:
    async def scenario() -> None:
        stream = Stream()
        await stream.turns(4, records=10)
        stream.brokers.create("clicks", 4)
        outcome = await stream.look()
        assert outcome.observation is not None
        assert outcome.observation.topic is not None
        assert outcome.observation.topic.topic_id == "topic-2"

    asyncio.run(scenario())
