"""One seeded run: the real deciding parts over in-memory ports in virtual time, and what must hold.

A key is hot with faults, then all is calm (it must be where it belongs), then it is cold and maybe another
one hot, with faults, then calm again. The seed says under which policy (`scenario.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Iterator

from tests.simulation import checks, virtual
from tests.simulation.faults import Fault
from tests.simulation.operators import Operator
from tests.simulation.parts import REAL, Parts
from tests.simulation.strikes import back_up, strike
from tests.simulation.world import Report, World

__all__ = ["Report", "simulate"]

DRAIN_SECONDS = 16.0  # after the last record was sent
_LOGS = ("hotkey_aggregator", "hotkey_sdk")


def simulate(
    seed: int, parts: Parts = REAL, faults: tuple[Fault, ...] | None = None, unadopted: int = 0
) -> Report:
    """Run one seed to its end. `faults`: instead of those that the seed draws; `unadopted`: how many of the
    producers know no tables."""
    with _quietly(), _without_collecting():
        return virtual.run(_run(seed, parts, faults, unadopted))


async def _run(seed: int, parts: Parts, faults: tuple[Fault, ...] | None, unadopted: int) -> Report:
    world = World(seed, parts, faults, unadopted)
    world.tell(f"seed {seed}: {world.scenario.shape}, second group: {world.scenario.bystander}")
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: world.fail(f"a callback raised {context.get('exception')!r}")
    )
    world.start()
    operator = Operator(world)
    for work in (operator.run(), back_up(world), strike(world, operator)):
        world.spawn(work)
    for moment in world.scenario.looks:
        await asyncio.sleep(moment.at - checks.EVEN_SECONDS - world.now())
        before = checks.ends(world)
        await asyncio.sleep(checks.EVEN_SECONDS)
        checks.look(world, moment, before)
    world.is_hot = False
    await asyncio.sleep(DRAIN_SECONDS)
    world.report.tables = len(world.contents)
    world.report.records = len(world.ledger.acknowledged)
    world.report.dedicated, world.report.resent = world.ledger.dedicated, world.ledger.resent
    checks.check_ends(world)
    world.stop()
    checks.check_records(world)
    checks.check_order(world)
    checks.check_epochs(world)
    checks.check_names(world)
    _raise_defects(world)
    return world.report


def _raise_defects(world: World) -> None:
    """A task that ended by an error is a defect of the harness or of what it runs: never passed over."""
    for task in world.background:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """A run is short, and what it made goes all at once."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the parts log: the trace tells what happened."""
    before = {name: logging.getLogger(name).disabled for name in _LOGS}
    for name in _LOGS:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
