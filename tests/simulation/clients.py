"""What every client of a run does as the SDK does it: it follows the table, polled and hinted, and tells."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Outcome
from hotkey_sdk.routing.report import ClientReport, Role, encode_report
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream
from tests.simulation.faults import Kind
from tests.simulation.memory import MemoryBrokers, MemoryDistribution
from tests.simulation.parts import Parts
from tests.simulation.process import Process
from tests.simulation.weather import Weather

POLL_SECONDS, JITTER = 1.0, (0.75, 1.25)
REPORT_SECONDS = 3.0


@dataclass
class Surroundings:
    """What every client of a run shares. `clock`: unix seconds; `adopted`: told of client and router."""

    stream: Stream
    keys: PublicKeys
    parts: Parts
    brokers: MemoryBrokers
    distribution: MemoryDistribution
    weather: Weather
    clock: Callable[[], float]
    adopted: Callable[[str, Router], None]
    fail: Callable[[str], None]


class Client:
    """One client process: it follows the table, and reports the epoch that it applies."""

    def __init__(
        self, name: str, role: Role, around: Surroundings, chance: random.Random, group: str | None = None
    ) -> None:
        self.name = name
        self.process = Process(name)
        self.chance = chance
        self.around = around
        self.following = around.parts.make_follower(around.stream, around.keys)
        self._role, self._group = role, group
        self._hinted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reported_at = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        around.distribution.listeners.append(self._hint)

    @property
    def epoch(self) -> int:
        return self.following.follower.epoch

    @property
    def applied(self) -> int:
        """The epoch that is reported."""
        return self.epoch

    @property
    def router(self) -> Router | None:
        return self.following.follower.router

    def took_up(self, router: Router) -> None:
        """A new table is the current one."""

    def start(self) -> None:
        self.run(self.follow())

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it in this process; an error that nothing caught is a defect, and told."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.around.fail(f"{self.name} raised {error!r}")

    def stop(self) -> None:
        """The process is gone, from one moment to the next."""
        self.process.gone = True
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(ValueError):
            self.around.distribution.listeners.remove(self._hint)

    async def follow(self) -> None:
        """Read on every hint and poll; never fail for what Redis does."""
        while True:
            await self.process.sleep(self.chance.uniform(0.001, 0.03))
            self._hinted = asyncio.get_running_loop().create_future()
            await self._read_table()
            self.process.later(POLL_SECONDS * self.chance.uniform(*JITTER), self._wake, self._hinted)
            await self._hinted

    def _hint(self, stream: Stream, epoch: int) -> None:  # noqa: ARG002
        if not self.around.weather.is_on(Kind.HINTS_LOST) and not self.around.weather.is_on(Kind.REDIS_GONE):
            self._wake(self._hinted)

    def _wake(self, waiting: asyncio.Future[None]) -> None:
        if not waiting.done():
            waiting.set_result(None)

    async def _read_table(self) -> None:
        weather = self.around.weather
        if weather.is_on(Kind.REDIS_GONE):
            return
        envelope = self.around.distribution.envelope(self.around.stream)
        if weather.is_on(Kind.SLOW):
            await self.process.sleep(self.chance.uniform(0, 1.0))  # the answer is as old as that
        if envelope is not None and self.following.offer(envelope) is Outcome.ADOPTED:
            router = self.following.follower.router
            assert router is not None
            self.around.adopted(self.name, router)
            self.took_up(router)
        if self.around.clock() - self._reported_at >= REPORT_SECONDS:
            self._reported_at = self.around.clock()
            report = ClientReport(self.name, self._role, self.applied, self._reported_at, self._group)
            self.around.distribution.plant_report(self.around.stream, self.name, encode_report(report))
