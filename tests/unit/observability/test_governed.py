"""The loops of policies and what they export: from the first moment, and until they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import kopf
import pytest

from hotkey_operator import loop
from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.handlers import Governor
from hotkey_operator.metrics import Metrics
from hotkey_operator.ports import Ports
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables
from tests.unit.observability.turns import series, value
from tests.unit.operator.daemon import Running, an_api_that_is_away

NOW = 1_000_000.0
DEADLINE_SECONDS = 10.0
POLICY = kopf.Body({"metadata": {"name": "clicks", "uid": "u"}, "spec": {"topic": "clicks"}})


def governed_until(metrics: Metrics, condition: Callable[[], bool]) -> None:
    """Run the loop of one policy until the condition holds, then end it."""

    async def run() -> None:
        ports = Ports(
            MemoryBrokers(lambda: NOW), MemoryDistribution(lambda: NOW), MemoryTables(), EnvelopeSigner(None)
        )
        governor = Governor(ports, an_api_that_is_away(), metrics)
        running = cast(Any, Running())
        governing = asyncio.create_task(governor.govern(POLICY, "ads", "clicks", "u", running, claims={}))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)
        governing.cancel()
        await asyncio.gather(governing, return_exceptions=True)

    asyncio.run(run())


def test_a_loop_exports_its_turns_and_takes_its_series_with_it_when_it_ends() -> None:
    metrics, seen = Metrics(), []

    def turned() -> bool:
        seen.append(value(metrics, "last_turn_timestamp_seconds"))
        return bool(seen[-1])

    governed_until(metrics, turned)

    assert seen[-1]
    assert series(metrics, "last_turn_timestamp_seconds") == {}
    assert series(metrics, "turns_total") == {}


def test_a_turn_that_fails_unexpectedly_is_counted_and_is_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, last = Metrics(), []

    def never(*_: Any) -> None:
        raise AssertionError("a defect")

    def failed() -> bool:
        last.append(value(metrics, "last_turn_timestamp_seconds"))
        return bool(value(metrics, "turn_errors_total"))

    monkeypatch.setattr(loop, "decide", never)
    governed_until(metrics, failed)

    assert last[-1] == 0
