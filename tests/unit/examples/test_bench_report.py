"""The figures of `make bench` and how they are reported."""

from __future__ import annotations

import pytest

from bench.figures import Cost, Onset, Quantiles, ratio
from bench.machine import Machine
from bench.report import Results, markdown

MACHINE = Machine("a processor", 2, 24.0, "Linux", 0.5)


def onset(seconds: float) -> Onset:
    return Onset(seconds - 0.5, seconds - 0.4, seconds - 0.2, seconds, 9.0, 1.1)


def results(spreads: list[float], costs: list[list[Cost]]) -> Results:
    peers = {"sdk": "plain"}
    return Results("python -m bench", MACHINE, {"Kafka": "1"}, [onset(s) for s in spreads], costs, peers)


def test_the_99th_percentile_of_few_samples_is_the_worst() -> None:
    assert Quantiles.of([3.0, 1.0, 2.0]) == Quantiles(3, 2.0, 3.0, 3.0)


def test_the_99th_percentile_of_many_samples_leaves_the_worst_hundredth_out() -> None:
    assert Quantiles.of([float(n) for n in range(1, 201)]) == Quantiles(200, 100.5, 198.0, 200.0)


def test_no_samples_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no sample"):
        Quantiles.of([])


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_round_changes_nothing() -> None:
    rounds = [
        [Cost("plain", 1.0, 2.0), Cost("sdk", 1.5, 3.0)],
        [Cost("sdk", 15.0, 30.0), Cost("plain", 10.0, 20.0)],
    ]
    found = ratio("sdk", "plain", rounds)
    assert (found.thread, found.thread_low, found.thread_high) == (1.5, 1.5, 1.5)
    assert (found.process, found.rounds) == (1.5, 2)


@pytest.mark.parametrize(("worst", "word"), [(4.9, "NOT met"), (2.9, ": met")])
def test_the_report_says_whether_the_goal_was_met(worst: float, word: str) -> None:
    assert word in markdown(results([2.0, worst, worst], []))


def test_a_part_that_was_not_run_is_not_in_the_report() -> None:
    assert "CPU per record" not in markdown(results([2.0], []))
    costs = [[Cost("plain", 1.0, 2.0), Cost("sdk", 1.5, 3.0)]]
    assert "Onset to spread" not in markdown(results([], costs))
    assert "| sdk | plain | 1.50 (1.50-1.50) | 1.50 (1.50-1.50) | 1.50 | 3.00 |" in markdown(
        results([], costs)
    )
