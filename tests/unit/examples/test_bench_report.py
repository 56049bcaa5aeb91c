"""The figures of `make bench`, and how the parts' results become one report."""

from __future__ import annotations

import msgspec
import pytest

from bench import onset, overhead, senders
from bench.figures import Cost, Onset, Paired, Quantiles, Ratio
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


def run(case: str, cost: float) -> Cost:
    return Cost(case, cost, 2 * cost)


def test_a_way_is_held_against_the_mean_of_its_peers_runs_before_and_after() -> None:
    paired = Paired.of([(run("plain", 1.0), run("sdk", 3.0), run("plain", 2.0))])

    assert paired == Paired("sdk", "plain", [3.0], [1.5], [6.0], [3.0])


def test_runs_of_two_ways_are_not_held_against_one_peer() -> None:
    runs = [(run("plain", 1.0), run(case, 1.0), run("plain", 1.0)) for case in ("sdk", "salted")]
    with pytest.raises(ValueError, match="one way and its peer"):
        Paired.of(runs)


def test_two_ways_that_scatter_alike_are_alike_to_the_ratio_of_their_sums() -> None:
    slow_or_fast = [1.0, 1.0, 2.0, 2.0]
    found = Ratio.of(slow_or_fast, slow_or_fast[::-1])

    assert found.value == 1.0
    assert found.low < 1.0 < found.high


def test_the_interval_of_runs_that_all_agree_has_no_width() -> None:
    found = Ratio.of([1.5, 15.0, 3.0], [1.0, 10.0, 2.0])

    assert [round(each, 9) for each in (found.low, found.value, found.high)] == [1.5, 1.5, 1.5]


def test_more_runs_narrow_the_interval() -> None:
    few, many = (Ratio.of([1.0, 2.0, 3.0] * times, [1.0, 1.0, 1.0] * times) for times in (4, 100))

    assert few.low < many.low < many.value < many.high < few.high


def test_a_target_is_met_by_the_point_estimate_to_the_second_decimal() -> None:
    def paired(way: str, *costs: float) -> Paired:
        peers = [1.0] * len(costs)
        return Paired(f"{way} ({overhead.COMPILED})", "plain", list(costs), peers, list(costs), peers)

    result = overhead.Overhead([paired(senders.EMPTY, 0.9, 1.108), paired(senders.ROUTED_BY, 1.2, 1.43)])

    assert [(goal.found, goal.word) for goal in overhead.goals(result)] == [(1.0, "met"), (1.31, "NOT met")]


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
