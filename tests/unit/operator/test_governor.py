"""The governor's loops: what goes on while one of them is busy, and what stops it not."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import kopf
import pytest

from hotkey_operator import loop
from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Decision
from hotkey_operator.handlers import Governor
from hotkey_operator.ports import Ports
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables
from tests.unit.operator.daemon import Running, an_api_that_is_away

NOW = 1_000_000.0
DEADLINE_SECONDS = 10.0


def test_the_probe_and_the_other_loops_go_on_while_a_plan_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deciding, answered = threading.Event(), threading.Event()
    seen: list[bool] = []

    def slowly(*_: Any) -> tuple[Decision, Memory]:
        deciding.set()
        seen.append(answered.wait(DEADLINE_SECONDS))
        raise AssertionError("this plan is of no use")

    async def run() -> None:
        ports = Ports(
            MemoryBrokers(lambda: NOW), MemoryDistribution(lambda: NOW), MemoryTables(), EnvelopeSigner(None)
        )
        governor = Governor(ports, an_api_that_is_away())
        body = kopf.Body({"metadata": {"name": "clicks", "uid": "u"}, "spec": {"topic": "clicks"}})
        governing = asyncio.create_task(
            governor.govern(body, "ads", "clicks", "u", cast(Any, Running()), claims={})
        )
        assert await asyncio.to_thread(deciding.wait, DEADLINE_SECONDS)
        assert await governor.probe() == {"policies": 1}
        answered.set()
        governing.cancel()
        await asyncio.gather(governing, return_exceptions=True)

    monkeypatch.setattr(loop, "decide", slowly)
    asyncio.run(run())
    assert seen[0], "the event loop stood still while it was decided"
