"""When the steps of a turn were done, as the line about a new table tells it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_operator.stages import Clock
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables

NOW = 1_790_000_000.0


def moments(clock: Clock | None) -> Mapping[str, int]:
    brokers = MemoryBrokers(lambda: NOW)
    brokers.create("clicks", 3)
    signer = EnvelopeSigner.from_secret(new_secret_data())
    ports = Ports(brokers, MemoryDistribution(lambda: NOW), MemoryTables(), signer)
    turn = Turn(ports, PolicyRef("ads", "clicks", "uid"), PolicySpec("clicks"), clock=clock)
    return asyncio.run(turn.step(NOW, 1)).moments


def test_a_turn_notes_the_steps_that_it_took_in_their_order() -> None:
    ticks = itertools.count(NOW)

    found = moments(lambda: next(ticks))

    taken = ["rates_read_ms", "planned_ms", "written_ms", "published_ms"]
    assert sorted(found, key=lambda name: found[name]) == taken


def test_without_a_clock_nothing_is_noted() -> None:
    assert not moments(None)
