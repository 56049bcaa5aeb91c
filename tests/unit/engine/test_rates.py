"""Rates from end offsets: onsets at once, stalls no spikes, and a history that starts anew when it must."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine import rates
from hotkey_operator.engine.model import EndOffsets


def history(*readings: Sequence[int], seconds: float = 1.0) -> rates.History:
    """Readings `seconds` apart, extended one by one as turns do."""
    return rates.History.of(
        *(EndOffsets(1_000 + index * seconds, tuple(offsets)) for index, offsets in enumerate(readings))
    )


def only(measured: rates.Rates | None) -> float:
    """The rate of a topic's one partition."""
    assert measured is not None
    (rate,) = measured
    return rate


def test_one_reading_is_no_rate() -> None:
    assert rates.fast(history([5, 5])) is None
    assert rates.over(history([5, 5]), 60) is None


def test_a_rate_is_what_was_appended_over_the_time_between_readings() -> None:
    assert rates.fast(history([0, 100], [50, 100])) == (50.0, 0.0)
    assert rates.fast(history([0, 100], [50, 300], seconds=2)) == (25.0, 100.0)


def test_readings_too_close_together_are_no_measurement() -> None:
    assert rates.fast(history([0], [50], seconds=0.1)) is None


def test_an_onset_shows_in_the_next_reading() -> None:
    readings = [[100 * i] for i in range(60)] + [[6_000 + 4_000]]
    assert only(rates.fast(history(*readings))) == pytest.approx(4_100.0)


def test_a_stalled_partition_that_catches_up_is_no_spike() -> None:
    moving = [[100 * i] for i in range(10)]
    stalled = [moving[-1]] * 4
    caught_up = [[moving[-1][0] + 500]]
    assert only(rates.fast(history(*moving, *stalled, *caught_up))) == pytest.approx(100.0)


STARTS_ANEW = {
    "offsets that went backwards": EndOffsets(1_002, (5, 0)),
    "another partition count": EndOffsets(1_002, (30, 30, 30)),
    "a clock that went backwards": EndOffsets(900, (30, 30)),
}


@pytest.mark.parametrize("case", STARTS_ANEW)
def test_a_history_starts_anew_after(case: str) -> None:
    old = history([0, 0], [10, 10])
    assert rates.extended(old, STARTS_ANEW[case]) == rates.History.of(STARTS_ANEW[case])


def test_a_reading_without_a_time_is_left_out() -> None:
    old = history([0, 0], [10, 10])
    assert rates.extended(old, EndOffsets(float("nan"), (30, 30))) == old


def test_a_history_is_no_longer_than_the_slow_horizon() -> None:
    (column,) = history(*[[i] for i in range(500)]).columns
    assert len(column.times) == len(column.offsets) == len(column.stalls) <= rates.SLOW_SECONDS + 3


def test_the_slow_rate_is_over_a_minute() -> None:
    readings = [[0]] * 61 + [[600]]
    assert only(rates.over(history(*readings), 60)) == pytest.approx(10.0)


def test_a_noisy_quiet_partition_is_planned_with_its_slow_rate_and_a_hot_one_with_its_fast() -> None:
    quiet, hot, readings = 0, 0, []
    for second in range(60):
        quiet += 90 if second % 2 else 110
        hot += 100 if second < 58 else 4_000
        readings.append([quiet, hot])
    found = rates.steady(history(*readings), since=0)
    assert found is not None
    assert found[0] == pytest.approx(100, abs=1)
    assert found[1] == 4_000


def test_readings_from_before_a_change_are_left_out_of_the_plan() -> None:
    readings = [[100 * i] for i in range(31)] + [[3_000 + 105 * i] for i in range(1, 11)]
    found = history(*readings)
    assert only(rates.steady(found, since=1_030)) == pytest.approx(105.0)


@pytest.mark.parametrize(
    ("load", "expected"), [((1, 1, 1, 1), 1.0), ((4, 0, 0, 0), 4.0), ((0, 0), None), ((5,), 1.0)]
)
def test_imbalance_is_the_largest_over_the_mean(load: tuple[float, ...], expected: float | None) -> None:
    assert rates.imbalance(load) == expected


@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.lists(st.integers(-(2**63), 2**63), min_size=0, max_size=4),
        ),
        max_size=8,
    )
)
def test_no_readings_make_a_negative_rate_or_an_error(readings: list[tuple[float, list[int]]]) -> None:
    found = rates.History()
    for at, offsets in readings:
        found = rates.extended(found, EndOffsets(at, tuple(offsets)))
    for measured in (rates.fast(found), rates.over(found, 60), rates.steady(found, 0)):
        assert measured is None or all(rate >= 0 for rate in measured)
