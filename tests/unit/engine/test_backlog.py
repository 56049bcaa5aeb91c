"""How long a record has been waiting for its consumer group, from end offsets and commits of every kind."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.backlog import BEHIND_KEPT, SECONDS_AT_MOST, Reading, lagging, read
from hotkey_operator.engine.lag import Lags, in_the_way, seen, told
from hotkey_operator.engine.model import Committed, EndOffsets, Progress
from hotkey_operator.engine.rates import History
from hotkey_operator.engine.spec import Release, Trigger

BEGAN = 1_000.0
SECONDS = 60
STEADY_100 = History.of(*(EndOffsets(BEGAN + s, (100 * s,)) for s in range(SECONDS + 1)))


def reading(
    history: History, offsets: Mapping[int, int], starts: Mapping[int, int] | None = None
) -> Reading | None:
    return read(Committed("g", offsets), history, starts or {}, BEGAN)


def waited(history: History, committed: int) -> float:
    found = reading(history, {0: committed})
    assert found is not None
    return found.seconds(0)


def test_a_record_has_waited_since_it_was_appended_also_between_two_readings() -> None:
    assert waited(STEADY_100, 6_000) == 0.0
    assert waited(STEADY_100, 5_000) == pytest.approx(10.0)
    assert waited(STEADY_100, 4_950) == pytest.approx(10.5)


def test_what_was_appended_before_the_history_began_is_taken_to_have_come_at_its_mean_rate() -> None:
    later = History.of(*(EndOffsets(BEGAN + s, (6_000 + 100 * s,)) for s in range(SECONDS + 1)))
    assert waited(later, 3_000) == pytest.approx(SECONDS + 30.0)


def test_a_burst_does_not_make_records_wait_for_less_nor_a_pause_for_more() -> None:
    burst = History.of(*(EndOffsets(BEGAN + s, (100 * s if s < 60 else 50_000,)) for s in range(61)))
    assert waited(burst, 5_000) == pytest.approx(10.0)
    pause = History.of(*(EndOffsets(BEGAN + s, (min(3_000, 100 * s),)) for s in range(61)))
    assert waited(pause, 2_000) == pytest.approx(40.0)


def test_where_nothing_is_appended_a_record_has_waited_at_least_as_long_as_was_watched() -> None:
    still = History.of(*(EndOffsets(BEGAN + s, (500,)) for s in range(31)))
    assert waited(still, 100) == 30.0


def test_a_trickle_after_a_flood_does_not_make_the_lag_endless() -> None:
    trickle = History.of(*(EndOffsets(BEGAN + s, (10**12 + s // 60,)) for s in range(61)))
    assert waited(trickle, 0) == SECONDS_AT_MOST


def test_a_commit_beyond_the_end_is_no_lag() -> None:
    found = reading(STEADY_100, {0: 10**9})
    assert found is not None
    assert (found.seconds(0), found.records(0), found.behind) == (0.0, 0, {})


def test_a_commit_below_the_start_of_the_log_counts_from_there() -> None:
    found = reading(STEADY_100, {0: 100}, {0: 5_500})
    assert found is not None
    assert found.seconds(0) == pytest.approx(5.0)
    assert (found.records(0), found.behind[0].first) == (500, 5_500)


@pytest.mark.parametrize("offsets", [{}, {0: -1_001}, {7: 5}, {-1: 5}])
def test_commits_that_make_no_sense_are_none(offsets: Mapping[int, int]) -> None:
    assert reading(STEADY_100, offsets) is None


def test_before_anything_is_measured_nothing_is_behind() -> None:
    assert reading(History(), {0: 5}) is None
    assert waited(History.of(EndOffsets(BEGAN, (500,))), 100) == 0.0


def test_of_many_partitions_the_ones_furthest_behind_are_kept_and_the_usual_lag_is_that_of_all() -> None:
    partitions = 10 * BEHIND_KEPT
    wide = History.of(*(EndOffsets(BEGAN + s, (100 * s,) * partitions) for s in range(61)))
    found = reading(wide, {p: 6_000 - p for p in range(partitions)})
    assert found is not None
    assert set(found.behind) == set(range(partitions - BEHIND_KEPT, partitions))
    assert found.usual == pytest.approx(partitions / 400, abs=0.05)


def test_the_partitions_over_a_limit_come_the_furthest_behind_first() -> None:
    wide = History.of(*(EndOffsets(BEGAN + s, (100 * s,) * 4) for s in range(61)))
    groups = [Committed("a", {0: 5_000, 1: 3_000}), Committed("b", {0: 1_000, 2: 5_990}), Committed("c", {})]
    assert lagging(groups, wide, 9.0, 5) == (0, 1)
    assert lagging(groups, wide, 9.0, 1) == (0,)


def test_end_offsets_that_were_read_a_little_later_than_the_turn_began_are_judged_all_the_same() -> None:
    later, trigger, lags = 0.05, Trigger(lag_seconds=5.0), Lags()
    for second in (61, 64, 67):
        ends = [EndOffsets(BEGAN + s + later, (500 * s, 50 * s, 50 * s)) for s in range(second + 1)]
        progress = Progress((Committed("g", {0: 500 * second // 2, 1: 50 * second, 2: 50 * second}),))
        history = History.of(*ends)
        lags = seen(lags, trigger, progress, history, BEGAN + second, float("-inf"))
    assert set(lags.hot_at(BEGAN + 67, float("-inf"))) == {0}


ANY = st.integers(-(2**63), 2**63 - 1)


@st.composite
def histories(draw: st.DrawFn) -> History:
    partitions = draw(st.integers(1, 4))
    offsets, at = [0] * partitions, BEGAN
    readings = []
    for _ in range(draw(st.integers(0, 6))):
        offsets = [offset + draw(st.one_of(st.just(0), st.integers(0, 2**60))) for offset in offsets]
        at += draw(st.floats(0.001, 100.0))
        readings.append(EndOffsets(at, tuple(offsets)))
    return History.of(*readings)


@given(
    histories(), st.dictionaries(ANY, ANY, max_size=5), st.dictionaries(st.integers(0, 4), ANY, max_size=3)
)
def test_no_offsets_make_it_raise_and_no_lag_is_negative_or_endless(
    history: History, offsets: dict[int, int], starts: dict[int, int]
) -> None:
    found = reading(history, offsets, starts)
    if found is None:
        return
    assert 0 <= found.usual <= SECONDS_AT_MOST
    for partition, behind in found.behind.items():
        assert 0 <= behind.seconds <= SECONDS_AT_MOST
        assert 0 < behind.records <= history.offsets[partition]
        assert behind.first >= offsets[partition]


@given(histories(), st.integers(0, 2**62), st.integers(0, 2**62))
def test_who_has_committed_more_is_never_further_behind(history: History, one: int, other: int) -> None:
    less, more = reading(history, {0: min(one, other)}), reading(history, {0: max(one, other)})
    if less is None or more is None:
        return
    assert more.seconds(0) <= less.seconds(0) * (1 + 1e-9)


@given(
    histories(),
    st.lists(st.dictionaries(st.integers(-1, 5), ANY, max_size=4), max_size=8),
    st.one_of(st.just(float("nan")), st.floats()),
    st.floats(),
)
def test_no_run_of_readings_makes_the_judgement_raise(
    history: History, commits: list[dict[int, int]], changed_at: float, odd: float
) -> None:
    trigger, lags, at = Trigger(lag_seconds=5.0), Lags(), history.ended or BEGAN
    for number, offsets in enumerate(commits):
        looked = at + 3 * number if number != 3 else odd
        lags = seen(lags, trigger, Progress((Committed("g", offsets),)), history, looked, changed_at)
        assert all(0 <= p < len(history.columns) for p in (*lags.hot, *lags.limits))
        assert [each.group for each in told(lags, looked)] == ["g"]
        assert in_the_way(lags, trigger, Release(), looked, 0, odd) != ""
