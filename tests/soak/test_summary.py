"""A soak's summary says of everything that went wrong that it did."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.soak.summary import Goals, Summary

GOALS = Goals(changes=4, own_changes=2, faults=2, records_per_second=100)
GOOD = Summary(
    seed=1,
    seconds=60.0,
    records=6_000,
    records_per_second=100.0,
    counted=6_000,
    route_changes={"spread": 2, "to a dedicated topic": 1, "back from a dedicated topic": 1},
    faults={"operator killed": 2},
    lost=0,
    twice=0,
    unknown=0,
    dead_letters=0,
    dedicated_topics=1,
    orphans=(),
    converged_seconds=2.0,
    counted_seconds=1.0,
    epochs_back=(),
    ended_by_themselves={"aggregator-1": 1},
    read_twice=5,
    sent_again=3,
    queue_full=4,
    not_acknowledged={},
)


def test_a_run_in_which_all_held_has_no_breach() -> None:
    assert GOOD.judged(GOALS, ()).breaches == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"twice": 1},
        {"unknown": 1},
        {"dead_letters": 1},
        {"orphans": ("clicks.hot.1",)},
        {"converged_seconds": None},
        {"converged_seconds": 31.0},
        {"epochs_back": ("producer 1 went from 3 to 2",)},
        {"ended_by_themselves": {"producer-1": 1}},
        {"route_changes": {"spread": 4}},
        {"route_changes": {"to a dedicated topic": 3}},
        {"faults": {"operator killed": 1}},
        {"records_per_second": 99.0},
    ],
    ids=str,
)
def test_whatever_is_wrong_is_a_breach_and_is_told(wrong: dict[str, Any]) -> None:
    judged = msgspec.structs.replace(GOOD, **wrong).judged(GOALS, ())

    assert len(judged.breaches) == 1
    assert judged.breaches[0] in judged.text()


def test_what_is_known_beside_the_figures_is_a_breach_too() -> None:
    assert GOOD.judged(GOALS, ("lost s1-0-5",)).breaches == ("lost s1-0-5",)
