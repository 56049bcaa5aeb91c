"""Counting per advertiser, ad and minute of event time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.events import LATEST_CLICK_TIME, Click
from hotkey_aggregator.windows import Batch, Source, Window, minute_of

BASE = Source("clicks", 0)
clicks_strategy = st.lists(
    st.builds(
        Click,
        st.sampled_from([f"e{n}" for n in range(12)]),
        st.sampled_from(["nike", "nike:7", "a:1"]),
        st.sampled_from(["x", "y"]),
        st.just("u"),
        st.sampled_from([0, 59_999, 60_000, 61_000, LATEST_CLICK_TIME]),
    ),
    max_size=40,
)


def batch_of(clicks: list[Click]) -> Batch:
    batch = Batch()
    for offset, click in enumerate(clicks):
        batch.add(click, Source("clicks", offset % 3), offset)
    return batch


def first_seen(clicks: list[Click]) -> list[Click]:
    first: dict[str, Click] = {}
    for click in clicks:
        first.setdefault(click.event_id, click)
    return list(first.values())


def test_a_minute_starts_at_its_first_millisecond() -> None:
    assert [minute_of(time) for time in (0, 59_999, 60_000, 119_999)] == [0, 0, 60_000, 60_000]


def test_clicks_are_counted_by_what_the_payload_says() -> None:
    clicks = [
        Click("1", "nike", "x", "u", 5),
        Click("2", "nike", "x", "v", 59_999),
        Click("3", "nike", "x", "u", 60_000),
        Click("4", "nike:7", "x", "u", 5),
    ]
    assert batch_of(clicks).clicks().counts() == {
        Window("nike", "x", 0): 2,
        Window("nike", "x", 60_000): 1,
        Window("nike:7", "x", 0): 1,
    }


def test_a_repeated_id_is_counted_once_at_the_place_it_was_first_seen() -> None:
    batch = Batch()
    batch.add(Click("1", "nike", "x", "u", 0), BASE, 10)
    batch.add(Click("1", "nike", "x", "u", 0), Source("clicks.hot", 4), 2)
    clicks = batch.clicks()
    assert (len(batch), batch.repeats) == (1, 1)
    assert (clicks.event_ids, clicks.offsets, clicks.sources) == (("1",), (10,), (BASE,))


def test_an_empty_batch_counts_nothing() -> None:
    assert Batch().clicks().counts() == {}


@given(clicks_strategy, st.data())
def test_counts_leave_out_exactly_what_the_store_holds_already(
    clicks: list[Click], data: st.DataObject
) -> None:
    # given clicks, some of which were counted before
    distinct = first_seen(clicks)
    known = data.draw(st.sets(st.integers(0, len(distinct) - 1))) if distinct else set()

    # when the others are counted
    counts = batch_of(clicks).clicks().counts(without=known)

    # then it is the plain count of the others, without empty windows
    expected = Counter(
        Window(click.advertiser_id, click.ad_id, minute_of(click.click_time))
        for row, click in enumerate(distinct)
        if row not in known
    )
    assert counts == dict(expected)


@given(clicks_strategy)
def test_each_distinct_id_keeps_its_partition_and_offset(clicks: list[Click]) -> None:
    columns = batch_of(clicks).clicks()
    placed = zip(columns.event_ids, columns.source_of, columns.offsets, strict=True)
    places = {event_id: (columns.sources[source].partition, offset) for event_id, source, offset in placed}
    first = {click.event_id: offset for offset, click in reversed(list(enumerate(clicks)))}
    assert places == {event_id: (offset % 3, offset) for event_id, offset in first.items()}
