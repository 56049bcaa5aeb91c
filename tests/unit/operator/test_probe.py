"""What the liveness probe answers: over HTTP, as the kubelet asks it, with a loop that stands still."""

from __future__ import annotations

import asyncio
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import kopf
from kopf._core.engines.probing import health_reporter  # what kopf.operator(liveness_endpoint=...) runs

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.model import StoredTable
from hotkey_operator.handlers import Governor
from hotkey_operator.liveness import STALE_SECONDS
from hotkey_operator.ports import PolicyRef, Ports
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables
from tests.unit.operator.daemon import Running, an_api_that_is_away

NOW = 1_000_000.0
DEADLINE_SECONDS = 10.0


class ShiftedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    ahead = 0.0  # seconds

    def time(self) -> float:
        return super().time() + self.ahead


class HangingTables(MemoryTables):
    """The truth, which does not answer until it is told to: the loop that asks stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def read(self, ref: PolicyRef) -> StoredTable | None:
        self.asked.set()
        await self.answer.wait()
        return await super().read(ref)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def status_code(url: str) -> int:
    """The status code of the probe."""
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@asynccontextmanager
async def probed(governor: Governor) -> AsyncIterator[str]:
    """Govern one policy and answer the probe, as `kopf.operator` does; the probe's address."""
    body = kopf.Body({"metadata": {"name": "clicks", "uid": "u"}, "spec": {"topic": "clicks"}})
    url, ready = f"http://127.0.0.1:{free_port()}/healthz", asyncio.Event()
    governing = governor.govern(body, "ads", "clicks", "u", cast(Any, Running()), claims={})
    answering = health_reporter(
        url,
        memo=cast(Any, kopf.Memo()),
        indices=cast(Any, {}),
        registry=governor.registry(),
        settings=kopf.OperatorSettings(),
        ready_flag=ready,
    )
    tasks = [asyncio.ensure_future(governing), asyncio.ensure_future(answering)]
    try:
        await asyncio.wait_for(ready.wait(), DEADLINE_SECONDS)
        yield url
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Scenario = Callable[[ShiftedLoop, HangingTables, str], Coroutine[Any, Any, None]]


def with_a_loop_that_waits(scenario: Scenario) -> None:
    """Run a scenario in which the policy's loop waits for the truth."""

    async def run() -> None:
        tables = HangingTables()
        signer = EnvelopeSigner(None)
        ports = Ports(MemoryBrokers(lambda: NOW), MemoryDistribution(lambda: NOW), tables, signer)
        async with probed(Governor(ports, an_api_that_is_away())) as url:
            await asyncio.wait_for(tables.asked.wait(), DEADLINE_SECONDS)
            await scenario(loop, tables, url)

    loop = ShiftedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())


def test_the_probe_fails_while_a_loop_stands_still_and_passes_when_it_turns_again() -> None:
    async def scenario(loop: ShiftedLoop, tables: HangingTables, url: str) -> None:
        loop.ahead = STALE_SECONDS + 1
        assert await asyncio.to_thread(status_code, url) == 500
        tables.answer.set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await asyncio.to_thread(status_code, url) != 200:
                pass

    with_a_loop_that_waits(scenario)


def test_the_probe_passes_while_a_turn_only_takes_long() -> None:
    async def scenario(loop: ShiftedLoop, _: HangingTables, url: str) -> None:
        loop.ahead = STALE_SECONDS / 2
        assert await asyncio.to_thread(status_code, url) == 200

    with_a_loop_that_waits(scenario)
