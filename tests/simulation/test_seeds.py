"""The simulation holds for a hundred seeds, repeats itself, and finds a bug that is planted in a client."""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import explained
from tests.simulation.clients import ForgetfulFollower
from tests.simulation.faults import Fault, Kind
from tests.simulation.run import simulate

SEEDS, CHUNK = 100, 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_and_everything_converges_whatever_goes_wrong(first: int) -> None:
    failed = [report for seed in range(first, first + CHUNK) if (report := simulate(seed)).problems]
    assert not failed, "\n".join(explained(report) for report in failed)


def test_a_run_without_faults_holds_and_carries_records() -> None:
    report = simulate(0, faults=())
    assert not report.problems
    assert report.records > 1_000


def test_a_seed_gives_the_same_run_every_time() -> None:
    assert simulate(7).trace == simulate(7).trace


def test_a_client_that_accepts_a_lower_epoch_is_found_within_those_seeds() -> None:
    found = next(
        (report for seed in range(SEEDS) if (report := simulate(seed, ForgetfulFollower)).problems), None
    )
    assert found is not None, f"none of {SEEDS} seeds found the planted bug"
    assert any("back to" in problem for problem in found.problems), found.problems
    assert f"--from {found.seed} --trace" in explained(found)


def test_a_client_that_accepts_a_lower_epoch_is_found_when_redis_falls_back_to_an_older_copy() -> None:
    faults = (Fault(20.0, Kind.REDIS_OLDER), Fault(33.0, Kind.REDIS_OLDER))
    problems = [
        problem for seed in range(5) for problem in simulate(seed, ForgetfulFollower, faults).problems
    ]
    assert any("back to" in problem for problem in problems), problems
