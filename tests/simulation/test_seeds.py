"""The simulation holds for a hundred seeds, repeats itself, finds bugs that are planted in a client."""

from __future__ import annotations

import pytest

from tests.simulation.faults import Fault, Kind
from tests.simulation.parts import Parts
from tests.simulation.planted import ForgetfulFollower, whatever_the_order
from tests.simulation.run import simulate
from tests.simulation.scenario import Shape
from tests.simulation.seeds import explained, idle_processors, replay, run_seeds

SEEDS, CHUNK = 100, 10
MORE_SEEDS, TOLD_AT = 5_000, 100
FORGETFUL = Parts(make_follower=ForgetfulFollower)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_and_everything_converges_whatever_goes_wrong(first: int) -> None:
    failed = [report for report in run_seeds(first, CHUNK) if report.problems]
    assert not failed, "\n".join(explained(report) for report in failed)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_nothing_is_lost_in_thousands_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    failed = []
    for done, report in enumerate(run_seeds(SEEDS, MORE_SEEDS - SEEDS, idle_processors()), 1):
        failed += [report] if report.problems else []
        if done % TOLD_AT == 0:
            with capsys.disabled():
                print(f"{done + SEEDS} of {MORE_SEEDS} seeds, {len(failed)} failed", flush=True)
    assert not failed, "\n".join(explained(report) for report in failed)


@pytest.mark.parametrize("seed", range(len(Shape)), ids=list(Shape))
def test_a_run_without_faults_holds_and_carries_records(seed: int) -> None:
    report = simulate(seed, faults=())
    assert not report.problems
    assert report.records > 1_000
    assert not report.resent
    assert bool(report.dedicated) == (seed >= list(Shape).index(Shape.OUTGROWS))


@pytest.mark.parametrize("seed", [0, 1], ids=["no order", "per user"])
def test_a_producer_without_tables_is_told_of_and_makes_no_table_after_table(seed: int) -> None:
    report = simulate(seed, faults=(), unadopted=1)
    assert not report.problems
    assert any("operator: PartialAdoption" in line for line in report.trace)
    assert report.tables <= 5  # none, spread, planned with what follows, merged back


def test_records_that_a_dedicated_topic_refuses_are_counted_from_the_base_topic() -> None:
    report = simulate(2, faults=(Fault(40.0, Kind.DENIED, 4.0),))
    assert not report.problems
    assert report.resent


def test_a_group_that_the_policy_does_not_name_keeps_the_key_on_the_base_topic_until_it_does() -> None:
    blocked = next(seed for seed in range(2, 99, 5) if "does not name" in simulate(seed, faults=()).trace[0])
    trace = simulate(blocked, faults=()).trace
    told = next(place for place, line in enumerate(trace) if "UnregisteredGroup" in line)
    in_order = next(place for place, line in enumerate(trace) if "is put in order" in line)
    active = next(place for place, line in enumerate(trace) if "Active of nike" in line)
    assert told < in_order < active


def test_a_seed_gives_the_same_run_every_time() -> None:
    assert simulate(7).trace == simulate(7).trace


def test_a_client_that_accepts_a_lower_epoch_is_found_within_those_seeds() -> None:
    found = next((report for seed in range(SEEDS) if (report := simulate(seed, FORGETFUL)).problems), None)
    assert found is not None, f"none of {SEEDS} seeds found the planted bug"
    assert any("back to" in problem for problem in found.problems), found.problems
    assert replay(found.seed) in explained(found)


def test_a_client_that_accepts_a_lower_epoch_is_found_when_redis_falls_back_to_an_older_copy() -> None:
    faults = (Fault(20.0, Kind.REDIS_OLDER), Fault(33.0, Kind.REDIS_OLDER))
    problems = [problem for seed in range(5) for problem in simulate(seed, FORGETFUL, faults).problems]
    assert any("back to" in problem for problem in problems), problems


def test_a_client_that_ignores_the_users_of_an_ordered_route_is_found_even_without_faults() -> None:
    report = simulate(1, Parts(choose=whatever_the_order), faults=())
    assert any("not where earlier ones are" in problem for problem in report.problems), report
