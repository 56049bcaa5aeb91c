"""Which minute of event time a click belongs to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.events import LATEST_CLICK_TIME
from hotkey_aggregator.windows import WINDOW_MILLISECONDS, Clicks, minute_of


def test_a_minute_starts_at_its_first_millisecond() -> None:
    assert [minute_of(time) for time in (0, 59_999, 60_000, 119_999)] == [0, 0, 60_000, 60_000]


@given(st.integers(0, LATEST_CLICK_TIME))
def test_every_time_lies_in_the_minute_that_it_is_counted_in(time: int) -> None:
    minute = minute_of(time)
    assert minute % WINDOW_MILLISECONDS == 0
    assert minute <= time < minute + WINDOW_MILLISECONDS


def test_no_clicks_are_none() -> None:
    assert len(Clicks()) == 0
