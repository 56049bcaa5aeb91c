"""Rates from end offsets: onsets at once, stalls no spikes, and a history that starts anew when it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine import estimates, rates
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


def stalled(rate: int, still: int, after: Sequence[int]) -> list[float]:
    """The fast rate at each reading from the first after a stall of so many seconds: `after` is appended."""
    offsets = [rate * second for second in range(30)]
    offsets += [offsets[-1]] * still
    found, measured = history(*([offset] for offset in offsets)), []
    for number, appended in enumerate(after):
        offsets.append(offsets[-1] + appended)
        found = rates.extended(found, EndOffsets(1_000.0 + 30 + still + number, (offsets[-1],)))
        measured.append(only(rates.fast(found)))
    return measured


@pytest.mark.parametrize("still", [2, 4, 15, 45, 90, 600])
def test_a_stalled_partition_that_catches_up_is_no_spike_however_long_it_stood(still: int) -> None:
    assert stalled(100, still, [100 * (still + 1), 100, 100]) == pytest.approx([100.0] * 3, rel=0.02)


def test_a_stalled_partition_that_catches_up_in_steps_is_no_spike() -> None:
    found = stalled(100, 19, [500, 500, 600, 700, 100, 100])
    assert found == pytest.approx([100.0] * 6, rel=0.02)


def test_a_load_that_grew_during_a_stall_shows_as_what_it_is() -> None:
    (first, second) = stalled(100, 4, [4_000 * 5, 4_000])
    assert first == pytest.approx(4_000.0)
    assert second == pytest.approx(4_000.0)


def test_a_partition_that_really_stopped_and_goes_on_as_before_shows_at_once() -> None:
    assert stalled(900, 20, [900, 900]) == pytest.approx([900.0, 900.0])


def test_an_onset_after_a_pause_is_seen_in_the_second_reading() -> None:
    assert stalled(100, 20, [4_000, 4_000, 4_000])[1:] == pytest.approx([4_000.0, 4_000.0])


def test_an_onset_on_a_partition_that_hardly_ever_moves_is_seen_at_once() -> None:
    readings = [[0]] * 20 + [[1]] + [[1]] * 20 + [[4_001]]
    assert only(rates.fast(history(*readings))) == pytest.approx(4_000.0)


def test_a_stall_within_it_does_not_raise_the_slow_rate() -> None:
    stopped = [[100 * second] for second in range(40)] + [[3_900]] * 30
    back = [[7_000 + 100 * second] for second in range(50)]
    found = rates.over(history(*stopped, *back), 60)
    assert only(found) == pytest.approx(100.0, rel=0.02)


def test_what_is_owed_after_a_pause_is_forgotten_after_a_while() -> None:
    found = stalled(900, 40, [200] * 8 + [4_000])
    assert found[-1] == pytest.approx(4_000.0)


def test_markers_of_transactions_are_no_records() -> None:
    found = replace(history([0, 0, 0], [200, 150, 90]), real={0: 0.5, 1: 1.0})
    assert rates.fast(found) == pytest.approx((100.0, 150.0, 67.5))  # the third as those that are known
    assert rates.over(found, 60) == pytest.approx((100.0, 150.0, 67.5))


def partly_read(*readings: tuple[float, Sequence[int], set[int]]) -> rates.History:
    return rates.History.of(
        *(EndOffsets(1_000 + at, tuple(offsets), frozenset(unread)) for at, offsets, unread in readings)
    )


def test_a_partition_that_is_read_less_often_is_measured_over_its_own_time() -> None:
    found = partly_read(
        (0, [0, 0], set()), (1, [100, 0], {1}), (2, [200, 0], {1}), (3, [500, 90], set()), (4, [900, 90], {1})
    )
    assert rates.fast(found) == pytest.approx((400.0, 30.0))
    assert rates.over(found, 60) == pytest.approx((225.0, 30.0))


def test_the_times_of_partitions_that_are_read_together_are_kept_once() -> None:
    found = history(*[[second] * 50 for second in range(5)])
    assert len({id(column.times) for column in found.columns}) == 1


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
    found = estimates.steady(history(*readings), since=0)
    assert found is not None
    assert found[0] == pytest.approx(100, abs=1)
    assert found[1] == 4_000


def test_readings_from_before_a_change_are_left_out_of_the_plan() -> None:
    readings = [[100 * i] for i in range(31)] + [[3_000 + 105 * i] for i in range(1, 11)]
    found = history(*readings)
    assert only(estimates.steady(found, since=1_030)) == pytest.approx(105.0)


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
            st.frozensets(st.integers(0, 4)),
        ),
        max_size=8,
    )
)
def test_no_readings_make_a_negative_rate_or_an_error(
    readings: list[tuple[float, list[int], frozenset[int]]],
) -> None:
    found = rates.History()
    for at, offsets, unread in readings:
        found = rates.extended(found, EndOffsets(at, tuple(offsets), unread))
    for measured in (rates.fast(found), rates.over(found, 60), estimates.steady(found, 0)):
        assert measured is None or all(rate >= 0 for rate in measured)


@given(
    still=st.integers(2, 59),
    rate=st.integers(10, 5_000),
    parts=st.lists(st.integers(0, 100), min_size=1, max_size=4),
)
def test_no_way_of_catching_up_looks_hotter_than_the_load_was(
    still: int, rate: int, parts: list[int]
) -> None:
    """What was held back arrives in any steps, beside what is appended meanwhile."""
    owed, steps = rate * still, []
    for part in parts:
        steps.append(owed * part // 100)
        owed -= steps[-1]
    steps.append(owed)
    measured = stalled(rate, still, [rate + step for step in steps])
    due = rate * (still + len(steps))
    slack = due * (1 - rates.STALL_PAID) + 1  # the last of the debt is not told from load
    assert all(found <= rate + slack for found in measured)
