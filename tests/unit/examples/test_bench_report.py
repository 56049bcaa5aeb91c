"""The figures of `make bench`, and how the parts' results become one report."""

from __future__ import annotations

import msgspec
import pytest

from bench import onset, overhead
from bench.figures import Cost, Onset, Quantiles, ratio
from bench.machine import Machine
from bench.part import PARTS, Answer, Goal
from bench.report import Measured, Results, report

MACHINE = Machine("a processor", 2, 24.0, "Linux", 0.5)


def spread_after(seconds: float) -> Onset:
    return Onset(1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, seconds, imbalance_before=9.0, imbalance_after=1.1)


def measured(part: str, answer: Answer, *, quick: bool = False) -> Measured:
    return Measured(part, f"python -m bench {part}", MACHINE, {"Kafka": "1"}, 3.0, quick, answer)


def answer(result: msgspec.Struct) -> Answer:
    return Answer(msgspec.Raw(msgspec.json.encode(result)))


def onsets(*spreads: float, quick: bool = False) -> Measured:
    return measured("onset", answer(onset.Onsets([spread_after(s) for s in spreads])), quick=quick)


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


@pytest.mark.parametrize(
    ("found", "word"), [(1.0, "met"), (1.05, "met"), (1.06, "NOT met"), (float("nan"), "NOT met")]
)
def test_a_goal_is_met_up_to_its_bound(found: float, word: str) -> None:
    assert Goal("imbalance", found, 1.05).word == word


@pytest.mark.parametrize(("worst", "row"), [(6.1, "| **NOT met** |"), (2.9, "| met |")])
def test_the_targets_table_is_computed_from_the_results(worst: float, row: str) -> None:
    lines = report(Results((onsets(2.0, 2.0, worst),))).markdown.splitlines()

    (told,) = [line for line in lines if "onset to spread, worst" in line]
    assert told.endswith(row)


def test_an_onset_that_could_not_be_measured_is_told_and_is_a_goal_not_met() -> None:
    result = onset.Onsets([spread_after(2.0)], ["the topic was gone"])

    assert "Not measured: the topic was gone." in onset.section(result)
    assert [goal.word for goal in onset.goals(result)] == ["met", "met", "NOT met"]


def test_a_part_that_failed_is_told_and_the_others_are_kept() -> None:
    failed = measured("overhead", Answer(failure="the broker was gone"))

    made = report(Results((onsets(2.0), failed)))

    assert made.failed == ("overhead",)
    assert "## Onset to spread" in made.markdown
    assert "**This part failed:** the broker was gone" in made.markdown


@pytest.mark.parametrize("stored", [b"null", b'{"onsets":[{}]}', b'{"onsets":[]}'])
def test_a_result_that_cannot_be_told_is_a_failed_part(stored: bytes) -> None:
    made = report(Results((measured("onset", Answer(msgspec.Raw(stored))),)))

    assert made.failed == ("onset",)


def test_a_part_measured_again_takes_the_place_of_the_earlier_one_in_the_order_of_the_report() -> None:
    costs = measured("overhead", answer(overhead.Overhead([])))
    once = Results().plus(costs).plus(onsets(2.0))

    again = once.plus(onsets(3.0))

    assert [each.part for each in again.measured] == ["onset", "overhead"]
    assert again.measured[0] == onsets(3.0)


def test_stored_results_give_the_same_report_again() -> None:
    results = Results((onsets(2.0, 2.5),))
    stored = msgspec.json.format(msgspec.json.encode(results))

    assert report(msgspec.json.decode(stored, type=Results)) == report(results)


def test_a_quick_run_says_that_its_figures_mean_nothing() -> None:
    assert "figures mean nothing" in report(Results((onsets(2.0, quick=True),))).markdown
    assert "figures mean nothing" not in report(Results((onsets(2.0),))).markdown


def test_every_part_stands_with_its_command() -> None:
    assert "`python -m bench onset`" in report(Results((onsets(2.0),))).markdown
    assert set(PARTS) >= {"imbalance", "onset", "overhead", "operator", "planner", "stability"}
