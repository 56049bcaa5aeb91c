"""Up to when the counts are told to be complete."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.store import Position
from hotkey_aggregator.watermark import TOLERANCE_MILLISECONDS, Watermark, believed, complete_up_to
from hotkey_aggregator.windows import Source

BASE_0, BASE_1 = Source("clicks", 0, "id-1"), Source("clicks", 1, "id-1")
HOT = Source("clicks.hot.1", 0, "id-2")
ALL = [BASE_0, BASE_1, HOT]
NOW = 100_000


def at(time: int, offset: int = 1) -> Position:
    return Position(offset, event_time=time)


def test_a_log_that_was_read_to_its_end_is_complete_but_for_what_is_on_its_way() -> None:
    assert complete_up_to(next_offset=7, end=7, asked_at=50_000, lateness=1_000) == 49_000
    assert complete_up_to(next_offset=0, end=0, asked_at=50_000, lateness=0) == 50_000


def test_a_log_with_something_left_to_read_is_not() -> None:
    assert complete_up_to(next_offset=6, end=7, asked_at=50_000, lateness=1_000) is None


def test_the_oldest_source_decides() -> None:
    assert Watermark().observe({BASE_0: at(500), BASE_1: at(300), HOT: at(900)}, ALL, NOW) == 300


def test_nothing_is_told_while_a_source_is_without_a_mark() -> None:
    watermark = Watermark()
    assert watermark.observe({}, [], NOW) is None
    assert watermark.observe({BASE_0: at(500), BASE_1: Position(3)}, [BASE_0, BASE_1], NOW) is None
    assert watermark.observe({BASE_0: at(500)}, [BASE_0, BASE_1], NOW) is None
    assert watermark.told is None


def test_what_was_told_is_not_taken_back_when_an_older_source_joins() -> None:
    # given a key's topic that is ahead, and the base topic
    watermark = Watermark()
    watermark.observe({BASE_0: at(500), HOT: at(800)}, [BASE_0, HOT], NOW)

    # when the key is merged back and brings its older clicks to the base topic's other partition
    behind = watermark.observe({BASE_0: at(600), BASE_1: at(200), HOT: at(800)}, ALL, NOW)
    caught_up = watermark.observe({BASE_0: at(700), BASE_1: at(650), HOT: at(900)}, ALL, NOW)

    # then the watermark waits until that one has caught up
    assert (behind, caught_up) == (500, 650)


def test_logs_that_are_gone_hold_nothing_back() -> None:
    made_anew, deleted = Source("clicks", 0, "id-0"), Source("clicks.hot.0", 0, "id-9")
    positions = {made_anew: at(5), deleted: at(7), BASE_0: at(500)}
    assert Watermark().observe(positions, [BASE_0], NOW) == 500


times = st.integers(-1, 1_000)


@given(st.lists(st.dictionaries(st.sampled_from([BASE_0, BASE_1, HOT]), times.map(at)), max_size=8))
def test_it_only_grows_and_never_passes_what_was_the_oldest_mark(seen: list[dict[Source, Position]]) -> None:
    watermark = Watermark()
    for positions in seen:
        before = watermark.told
        told = watermark.observe(positions, positions.keys(), NOW)
        marks = [position.event_time for position in positions.values()]
        if told != before:
            assert told == min(marks)
            assert before is None or told > before


def test_a_mark_of_a_time_to_come_is_not_believed_and_what_was_told_by_it_is_taken_back() -> None:
    # given a watermark that was told while the clock was a day ahead
    watermark, tomorrow = Watermark(), NOW + 86_400_000
    assert watermark.observe({BASE_0: at(tomorrow)}, [BASE_0], tomorrow) == tomorrow

    # when the clock is right again
    assert watermark.observe({BASE_0: at(tomorrow)}, [BASE_0], NOW) is None

    # then it goes by marks that can be
    assert watermark.observe({BASE_0: at(NOW - 5)}, [BASE_0], NOW) == NOW - 5


def test_the_clocks_of_members_may_differ_a_little_and_the_watermark_is_never_ahead() -> None:
    nearly = NOW + TOLERANCE_MILLISECONDS
    assert Watermark().observe({BASE_0: at(nearly)}, [BASE_0], NOW) == NOW
    assert Watermark().observe({BASE_0: at(nearly + 1)}, [BASE_0], NOW) is None


def test_of_a_stored_position_only_the_mark_is_not_believed() -> None:
    assert believed(Position(7, 3, NOW * 100), NOW) == Position(7, 3)
    assert believed(Position(7, 3, NOW), NOW) == Position(7, 3, NOW)
    assert believed(None, NOW) is None
