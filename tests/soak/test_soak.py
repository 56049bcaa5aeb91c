"""A minute of the soak: real processes are killed, paused and lied to, and each click is counted once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import heat
from tests.soak.faults import Kind, draw
from tests.soak.run import Plan, Soak
from tests.soak.summary import Goals
from tests.soak.world import Scale, World, new_world

SEED = 6
SECONDS = 60.0
MORE_SECONDS = 120.0
"""So much longer it runs on a machine so busy that too little has happened by then."""
GOALS = Goals(changes=4, own_changes=1, faults=8, converge_seconds=120.0)


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """All that runs, started."""
    made = new_world(tmp_path / "soak", Scale(rate=1_200.0, seed=SEED))
    try:
        made.start()
        yield made
    finally:
        made.stop()
    if not request.session.testsfailed:
        made.stack.wipe()


@pytest.mark.timeout(600)
def test_every_click_is_counted_once_while_routes_change_and_processes_die(world: World) -> None:
    plan = Plan.short(SEED, SECONDS, GOALS, MORE_SECONDS)

    summary = Soak(world, plan, print).run()

    assert not summary.breaches, summary.text()
    assert summary.records > 0
    assert summary.lost == summary.twice == summary.unknown == 0


def test_the_same_seed_draws_the_same_load_and_the_same_faults() -> None:
    def drawn(seed: int) -> tuple[object, ...]:
        phases = heat.phases(random.Random(seed))
        return (*(next(phases) for _ in range(20)), *draw(random.Random(seed), 30, 0, 600))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_all_kinds_of_faults_are_drawn_about_as_often() -> None:
    found = [fault.kind for fault in draw(random.Random(1), 4 * len(Kind), 0, 600)]

    assert {kind: found.count(kind) for kind in Kind} == dict.fromkeys(Kind, 4)
