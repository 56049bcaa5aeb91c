"""The operator killed before and after each of its side effects, in the whole life of a dedicated topic."""

from __future__ import annotations

import asyncio

import pytest

from hotkey_operator.ports import Ports
from hotkey_sdk.routing.table import Phase
from tests.unit.operator.dedicated_world import LOUD, POLICY, PREFIX, REF, SOFT, World
from tests.unit.operator.killing import KilledError, Killer

WRITTEN = ["object", "published"]
LIFE = [
    *WRITTEN,  # the stream's first table
    *WRITTEN,  # the key is spread over the base topic
    *WRITTEN,  # its topic has a name
    "topic",
    *WRITTEN,  # and an id
    *WRITTEN,  # it is written
    *WRITTEN,  # its key has cooled
    *WRITTEN,  # it is idle
    *WRITTEN,  # the next key is spread
    *WRITTEN,  # and takes it
    *WRITTEN,  # and writes to it
]
SECONDS = 120
ONE_TOPIC = {**POLICY, "limits": {"maxDedicatedTopics": 1}}  # one that was lost must not count


class Mortal(World):
    """A world whose operator may be killed, and is started again a second later."""

    killer = Killer()
    killed = ""

    @property
    def ports(self) -> Ports:
        return self.killer.around(super().ports)

    async def live(self, what: str, key: bytes, phase: Phase) -> None:
        for _ in range(SECONDS):
            try:
                await self.second()
            except KilledError as killed:
                self.killed = str(killed)
                self.turn = self.operator()
                self.check()
            if self.tables.peek(REF) is not None and self.of_key(key, phase) is not None:
                return
        raise AssertionError(f"{what}: not within {SECONDS} s, killed {self.killed}: {self.table.topics}")


async def life(world: Mortal) -> None:
    """A key gets its topic and gives it back, and the next key gets it, or another one."""
    world.rates = {b"nike": LOUD}
    await world.live("nike has its topic", b"nike", Phase.ACTIVE)
    world.rates = {b"nike": SOFT}
    await world.live("its topic is idle", b"nike", Phase.IDLE)
    world.rates = {b"adidas": LOUD}
    await world.live("adidas has a topic", b"adidas", Phase.ACTIVE)


def test_the_side_effects_in_the_life_of_a_topic_are_these() -> None:
    world = Mortal(dict(ONE_TOPIC))
    world.killer = Killer()
    world.turn = world.operator()

    asyncio.run(life(world))

    assert world.killer.done == LIFE


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, len(LIFE) + 1), ids=[f"{n}-{what}" for n, what in enumerate(LIFE, 1)])
def test_an_operator_that_is_killed_at_any_side_effect_goes_on_and_no_record_is_where_nobody_reads(
    at: int, before: bool
) -> None:
    # given an operator that dies once, before or after one of its side effects
    world = Mortal(dict(ONE_TOPIC))
    world.killer = Killer(at, before)
    world.turn = world.operator()

    # when a key gets a topic of its own, and another one after it
    asyncio.run(life(world))

    # then it was killed, and got there all the same: each table on the way was checked when it was written
    assert world.killed
    made = [name for name in world.brokers.names if name.startswith(PREFIX)]
    assert set(made) <= set(world.table.read_set)
    assert len(made) <= 2, "at most one topic more than without the kill: made, and its id not recorded"
