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
YEAR_MILLISECONDS = 365 * DAY_MILLISECONDS


def clock_at(now: int, *seen: int, started: int = TODAY, running: int = 0) -> Clock:
    """A clock that showed `started` so many milliseconds ago, and shows `now` now."""
    walls, steadies = iter([started]), iter([0])
    clock = Clock(lambda: next(walls, now), lambda: next(steadies, running))
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
        (TODAY + YEAR_MILLISECONDS, [TODAY], TODAY),
        (TODAY - DAY_MILLISECONDS, [TODAY], TODAY - DAY_MILLISECONDS),
        (TODAY, [1], 1),
    ],
    ids=[
        "nothing read",
        "no timestamps",
        "right",
        "the newest counts",
        "a day ahead",
        "a year ahead",
        "a day behind",
        "only old timestamps",
    ],
)
def test_what_may_be_forgotten_is_old_by_the_clock_and_by_the_records(
    now: int, seen: list[int], forget_by: int | None
) -> None:
    assert clock_at(now, *seen).to_forget_by() == forget_by


def test_old_timestamps_alone_put_forgetting_off_by_a_week_of_running() -> None:
    def forget_by(running: int, now: int) -> int | None:
        return clock_at(now, 1, running=running).to_forget_by()

    week = LONGEST_DISTRUST_MILLISECONDS
    assert forget_by(week - 1, TODAY + week - 1) == 1
    assert forget_by(week, TODAY + week) == TODAY
    assert forget_by(week + DAY_MILLISECONDS, TODAY + week + DAY_MILLISECONDS) == TODAY + DAY_MILLISECONDS


def test_a_jump_of_the_clock_is_no_time_that_passed() -> None:
    week = LONGEST_DISTRUST_MILLISECONDS
    ahead = clock_at(TODAY + YEAR_MILLISECONDS, TODAY + week, running=week + DAY_MILLISECONDS)
    assert ahead.to_forget_by() == TODAY + week
    put_back = clock_at(TODAY, 1, started=TODAY + YEAR_MILLISECONDS, running=2 * week)
    assert put_back.to_forget_by() == TODAY


def test_a_clock_is_behind_when_records_are_newer_than_a_broker_would_take() -> None:
    assert clock_at(TODAY, TODAY + MOST_AHEAD_MILLISECONDS).behind() == 0
    assert clock_at(TODAY, TODAY + DAY_MILLISECONDS).behind() == DAY_MILLISECONDS
    assert clock_at(TODAY, TODAY - DAY_MILLISECONDS).behind() == 0
