"""A badly set clock must not make the store forget."""

from __future__ import annotations

import pytest

from hotkey_aggregator.clock import (
    DAY_MILLISECONDS,
    LONGEST_DISTRUST_MILLISECONDS,
    MOST_AHEAD_MILLISECONDS,
    Clock,
)

TODAY = 1_800_000_000_000


def clock_at(now: int, *seen: int) -> Clock:
    clock = Clock(lambda: now)
    for timestamp in seen:
        clock.saw(timestamp)
    return clock


@pytest.mark.parametrize(
    ("now", "seen", "forget_by"),
    [
        (TODAY, [], None),
        (TODAY, [-1, 0], None),
        (TODAY, [TODAY - 5], TODAY - 5),
        (TODAY, [TODAY - 5, TODAY - 9], TODAY - 5),
        (TODAY + DAY_MILLISECONDS, [TODAY], TODAY),
        (TODAY - DAY_MILLISECONDS, [TODAY], TODAY - DAY_MILLISECONDS),
        (TODAY, [1], TODAY - LONGEST_DISTRUST_MILLISECONDS),
    ],
    ids=[
        "nothing read",
        "no timestamps",
        "right",
        "the newest counts",
        "a day ahead",
        "a day behind",
        "only old timestamps",
    ],
)
def test_what_may_be_forgotten_is_old_by_the_clock_and_by_the_records(
    now: int, seen: list[int], forget_by: int | None
) -> None:
    assert clock_at(now, *seen).to_forget_by() == forget_by


def test_a_clock_is_behind_when_records_are_newer_than_a_broker_would_take() -> None:
    assert clock_at(TODAY, TODAY + MOST_AHEAD_MILLISECONDS).behind() == 0
    assert clock_at(TODAY, TODAY + DAY_MILLISECONDS).behind() == DAY_MILLISECONDS
    assert clock_at(TODAY, TODAY - DAY_MILLISECONDS).behind() == 0
