"""When a stream rests, and what ends its rest: its pace, Kubernetes, heat, or a table that Redis lost."""

from __future__ import annotations

import asyncio

import pytest

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.spec import parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_operator.resting import GLANCE_SECONDS, Next, Rest, Told
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables

TOLD = Told(1, None)


def steps(rest: Rest, seconds: int, *, pace: float = 10.0, rests: bool = True) -> list[Next]:
    return [rest.next(TOLD, rests, 100.0 + second, pace, 1.0) for second in range(seconds)]


def test_a_stream_that_does_not_rest_turns_every_second() -> None:
    assert steps(Rest(), 5, rests=False) == [Next.TURN] * 5


def test_where_few_partitions_are_governed_a_quiet_stream_turns_every_second_too() -> None:
    assert steps(Rest(), 5, pace=1.0) == [Next.TURN] * 5


def test_a_resting_stream_turns_at_its_pace_and_is_glanced_at_between() -> None:
    found = steps(Rest(told=TOLD, glanced_at=100.0), 31)
    assert [second for second, step in enumerate(found) if step is Next.TURN] == [10, 20, 30]
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


class Stream:
    """A policy's loop over a stream in memory."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.brokers = MemoryBrokers(lambda: self.now)
        self.brokers.create("clicks", 4)
        self.redis = MemoryDistribution(lambda: self.now)
        ports = Ports(self.brokers, self.redis, MemoryTables(), EnvelopeSigner(None))
        self.turn = Turn(ports, PolicyRef("ads", "clicks"), parse_spec({"topic": "clicks"}))

    async def turns(self, count: int, records: int = 0) -> None:
        for _ in range(count):
            for _ in range(records):
                self.brokers.append("clicks", 2, b"nike")
            self.now += 1
            await self.turn.step(self.now, 1)


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
