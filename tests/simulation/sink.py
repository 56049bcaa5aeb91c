"""The aggregator's store of a run, as far away as a database is, and a flush on its way to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from hotkey_aggregator.store import (
    Committed,
    Flush,
    OffsetConflictError,
    Position,
    StoreUnavailableError,
    was_committed,
)
from hotkey_aggregator.windows import Source
from hotkey_aggregator.writer import pause_seconds
from tests.contract.aggregator.model_store import ModelStore
from tests.simulation.faults import Kind
from tests.simulation.parts import Parts
from tests.simulation.process import Process
from tests.simulation.weather import Weather


@dataclass
class Sink:
    """One store for all members. `kill_next`, `freeze_next`: what befalls whoever flushes next."""

    store: ModelStore
    parts: Parts
    weather: Weather
    kill_next: bool = False
    freeze_next: float = 0.0
    mistakes: list[str] = field(default_factory=list)

    async def commit(self, flush: Flush, member: Process, killed: asyncio.Event) -> Committed:
        """One attempt. Raises what a store raises."""
        chance = self.weather.chance
        kills, freezes = self.kill_next, self.freeze_next
        self.kill_next, self.freeze_next = False, 0.0
        steps, struck_at = 0, chance.randint(1, 3)

        async def pause() -> None:
            nonlocal steps
            steps += 1
            await member.sleep(chance.uniform(0.0, 0.05))
            if steps == struck_at:
                if freezes:
                    await self._freeze(member, freezes, steps)
                if kills:
                    await self._kill(member, killed, steps)

        await pause()
        if self.weather.is_on(Kind.SINK_GONE):
            if chance.random() < 0.3:
                await self.parts.commit(self.store, flush, pause)  # it took effect, and the answer was lost
            raise StoreUnavailableError("the store does not answer")
        before = self.store.positions()
        committed = await self.parts.commit(self.store, flush, pause)
        self._compare(flush, before)
        await pause()
        return committed

    def _compare(self, flush: Flush, before: Mapping[Source, Position]) -> None:
        """A flush is taken only where it began at what the store held."""
        for move in flush.moves:
            held = before[move.source].next_offset if move.source in before else None
            if held != move.expected:
                self.mistakes.append(f"a flush of {move.source} from {move.expected} was taken at {held}")

    async def _freeze(self, member: Process, seconds: float, step: int) -> None:
        self.weather.tell(f"{member.name} is frozen at step {step} of a flush for {seconds:.1f} s")
        member.freeze()
        asyncio.get_running_loop().call_later(seconds, member.thaw)
        await member.sleep(0.0)

    async def _kill(self, member: Process, killed: asyncio.Event, step: int) -> None:
        self.weather.tell(f"{member.name} is killed at step {step} of a flush")
        killed.set()
        await asyncio.Event().wait()  # until the task is cancelled


class Flight:
    """The flush that is under way, as `writer.Writer` and `flight.Flight` have it with threads."""

    def __init__(self, sink: Sink, member: Process, killed: asyncio.Event, chance: random.Random) -> None:
        self._sink, self._member, self._killed, self._chance = sink, member, killed, chance
        self._task: asyncio.Task[None] | None = None
        self._given_up = False
        self.was_cut_off = False

    @property
    def is_under_way(self) -> bool:
        return self._task is not None

    def begin(self, flush: Flush) -> None:
        self._task = asyncio.create_task(self._commit(flush))
        self._given_up = self.was_cut_off = False

    def cut_off(self) -> None:
        """The group took partitions from us."""
        self.was_cut_off = self._task is not None

    def land(self) -> bool:
        """Whether it is done, and was taken. Raises what the store raised."""
        if self._task is None or not self._task.done():
            return False
        task, self._task = self._task, None
        task.result()
        return True

    async def wait(self, seconds: float) -> bool:
        """Until it is done, but no longer; then it is not tried again, though it may still be taken."""
        if self._task is None:
            return True
        await asyncio.wait([self._task], timeout=seconds)
        if not self._task.done():
            self._given_up = True
            await asyncio.wait([self._task], timeout=1.0)
        return self._task.done() and not isinstance(self._task.exception(), StoreUnavailableError)

    def forget(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _commit(self, flush: Flush) -> None:
        attempt = 0
        while True:
            try:
                await self._sink.commit(flush, self._member, self._killed)
            except StoreUnavailableError:
                if self._given_up:
                    raise
            except OffsetConflictError:
                if attempt and was_committed(flush, self._sink.store.positions()):
                    return
                raise
            else:
                return
            await self._member.sleep(pause_seconds(attempt, self._chance))
            if self._given_up:
                raise StoreUnavailableError("given up")
            attempt += 1
