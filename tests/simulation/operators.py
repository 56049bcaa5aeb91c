"""The operator's process: turns a second apart, killed and started again."""

from __future__ import annotations

import asyncio

from hotkey_operator.loop import Turn
from tests.simulation.weather import Killed
from tests.simulation.world import World


class Operator:
    """One that is kept running, as Kubernetes does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turning: asyncio.Task[None] | None = None
        self._said = ""

    async def run(self) -> None:
        while True:
            self._turning = asyncio.create_task(self.process())
            await asyncio.wait([self._turning])
            failure = None if self._turning.cancelled() else self._turning.exception()
            if failure is not None:
                self._world.fail(f"the operator's loop raised {failure!r}")
            self._world.tell("operator is down")
            await asyncio.sleep(self._world.chance.uniform(0.1, 3.0))

    async def process(self) -> None:
        """One process from its start; with a memory of its own."""
        world = self._world
        turn = Turn(world.ports(), world.ref, world.scenario.spec(world.now()))
        world.tell("operator starts")
        while True:
            turn.spec = world.scenario.spec(world.now())
            try:
                await self._turn(turn)
            except Killed:
                return
            await asyncio.sleep(1.0)

    async def _turn(self, turn: Turn) -> None:
        world = self._world
        seed = world.chance.randrange(2**32)
        outcome = await turn.step(world.clock(), seed, pace_seconds=world.pace_seconds)
        decision = outcome.decision
        if decision is None:
            world.tell(f"operator: {outcome.failure or 'stands by'}")
        elif decision.reason != self._said or decision.actions:
            world.tell(f"operator: {decision.reason}: {decision.message}")
        self._said = decision.reason if decision else ""
        for event in outcome.applied.events:
            if decision is None or event.message != decision.message:
                world.tell(f"operator, event {event.reason}: {event.message}")

    def kill(self) -> None:
        if self._turning is not None:
            self._turning.cancel()
