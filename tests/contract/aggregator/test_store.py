"""What every store of counts must do. A new store joins by one more entry in `STORES`."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.events import LATEST_CLICK_TIME, Click, Reason
from hotkey_aggregator.store import (
    Committed,
    CountQuery,
    Flush,
    OffsetConflictError,
    OffsetMove,
    Rejected,
    Store,
    StoreError,
    Totals,
)
from hotkey_aggregator.windows import Batch, Clicks, Source, Window
from tests.contract.aggregator.broken_stores import UncomparingStore

P0, P1 = Source("clicks", 0), Source("clicks", 1)
HOT = Source("clicks.hot.1234abcd.g7", 0)
AWKWARD = "a:1.nul\x00 \u202ertl \"quoted\" \\ 'single' \n\t\U0001f45f"

OpenStore = Callable[[], Store]
"""Opens the same store again and again: what one has committed the next one finds."""


def duckdb_stores(folder: Path) -> OpenStore:
    return lambda: DuckDBStore(folder / "counts.duckdb")


STORES = {"duckdb": duckdb_stores}


@pytest.fixture(params=list(STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    return STORES[request.param](tmp_path)


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    opened = open_store()
    yield opened
    opened.close()


def click(event_id: str, advertiser: str = "nike", ad: str = "ad", time: int = 0) -> Click:
    return Click(event_id, advertiser, ad, "user", time)


def clicks(*members: Click, source: Source = P0, first_offset: int = 0) -> Clicks:
    batch = Batch()
    for offset, member in enumerate(members, first_offset):
        batch.add(member, source, offset)
    return batch.clicks()


def move(source: Source, expected: int | None, next_offset: int) -> tuple[OffsetMove, ...]:
    return (OffsetMove(source, expected, next_offset),)


def ids(store: Store, prefix: str = "") -> Counter[str]:
    return Counter(event_id for chunk in store.event_ids(prefix) for event_id in chunk)


def counted(store: Store, query: CountQuery | None = None) -> dict[Window, int]:
    return {count.window: count.clicks for count in store.counts(query or CountQuery())}


def test_a_new_store_holds_nothing(store: Store) -> None:
    assert store.totals() == Totals(clicks=0, event_ids=0, windows=0, rejected=0)
    assert (dict(store.offsets()), counted(store), ids(store)) == ({}, {}, Counter())


def test_a_flush_writes_counts_ids_and_offsets_together(store: Store) -> None:
    committed = store.commit(Flush(clicks(click("1"), click("2", time=60_000)), moves=move(P0, None, 2)))

    assert committed == Committed(counted=2, duplicates=0, rejected=0)
    assert counted(store) == {Window("nike", "ad", 0): 1, Window("nike", "ad", 60_000): 1}
    assert ids(store) == Counter(["1", "2"])
    assert dict(store.offsets()) == {P0: 2}


def test_later_flushes_add_to_the_counts(store: Store) -> None:
    store.commit(Flush(clicks(click("1"), click("2")), moves=move(P0, None, 2)))
    store.commit(Flush(clicks(click("3")), moves=move(P0, 2, 3)))
    assert counted(store) == {Window("nike", "ad", 0): 3}


def test_what_was_committed_is_there_after_opening_again(open_store: OpenStore) -> None:
    # given
    first = open_store()
    first.commit(Flush(clicks(click("1")), moves=move(HOT, None, 1)))
    first.close()

    # when
    second = open_store()

    # then
    assert (ids(second), dict(second.offsets()), second.totals().clicks) == (Counter(["1"]), {HOT: 1}, 1)
    second.close()


def test_an_id_is_counted_once_whichever_topic_and_partition_it_comes_from_again(store: Store) -> None:
    # given
    store.commit(Flush(clicks(click("1"), click("2")), moves=move(P0, None, 2)))

    # when the same ids come by another topic, with a new one among them
    again = clicks(click("2"), click("3"), click("1"), source=HOT)
    committed = store.commit(Flush(again, moves=move(HOT, None, 3)))

    # then
    assert committed == Committed(counted=1, duplicates=2, rejected=0)
    assert counted(store) == {Window("nike", "ad", 0): 3}
    assert ids(store) == Counter(["1", "2", "3"])


def test_a_flush_of_duplicates_alone_moves_the_offset_and_counts_nothing(store: Store) -> None:
    store.commit(Flush(clicks(click("1")), moves=move(P0, None, 1)))
    store.commit(Flush(clicks(click("1"), source=P1), moves=move(P1, None, 1)))
    assert (store.totals().clicks, store.totals().windows) == (1, 1)
    assert dict(store.offsets()) == {P0: 1, P1: 1}


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_a_flush_that_expects_another_offset_is_refused_whole(store: Store, expected: int | None) -> None:
    # given
    store.commit(Flush(clicks(click("1"), click("2")), moves=move(P0, None, 2)))

    # when a writer that read another offset flushes, with a good move before the bad one
    moves = (*move(P1, None, 9), *move(P0, expected, 5))
    with pytest.raises(OffsetConflictError) as refused:
        store.commit(Flush(clicks(click("3")), (Rejected(P1, 8, Reason.EMPTY, "no value"),), moves))

    # then it is told where and what, and nothing of it is kept
    assert refused.value.source == P0
    assert "partition 0 of topic 'clicks'" in str(refused.value)
    assert dict(store.offsets()) == {P0: 2}
    assert store.totals() == Totals(clicks=2, event_ids=2, windows=1, rejected=0)


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_a_store_that_does_not_compare_offsets_is_found(tmp_path: Path, expected: int | None) -> None:
    broken = UncomparingStore(tmp_path / "counts.duckdb")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_a_flush_that_expects_another_offset_is_refused_whole(broken, expected)
    broken.close()


def test_a_store_that_lost_an_offset_refuses_a_writer_that_had_one(store: Store) -> None:
    with pytest.raises(OffsetConflictError):
        store.commit(Flush(clicks(click("1")), moves=move(P0, 7, 8)))
    assert ids(store) == Counter()


def test_a_store_goes_on_after_it_refused_a_flush(store: Store) -> None:
    with pytest.raises(OffsetConflictError):
        store.commit(Flush(clicks(click("1")), moves=move(P0, 7, 8)))
    store.commit(Flush(clicks(click("1")), moves=move(P0, None, 1)))
    assert ids(store) == Counter(["1"])


def test_an_offset_may_be_moved_back_and_what_is_read_again_is_counted_once(store: Store) -> None:
    store.commit(Flush(clicks(click("1"), click("2")), moves=move(P0, None, 2)))
    store.commit(Flush(moves=move(P0, 2, 0)))
    store.commit(Flush(clicks(click("1"), click("2"), click("3")), moves=move(P0, 0, 3)))
    assert (counted(store), dict(store.offsets())) == ({Window("nike", "ad", 0): 3}, {P0: 3})


def test_rejected_records_are_kept_once_with_their_place_and_reason(store: Store) -> None:
    bad = Rejected(P0, 4, Reason.NOT_JSON, "found " + AWKWARD)
    other = Rejected(P1, 4, Reason.EMPTY, "no value")

    first = store.commit(Flush(rejected=(bad,), moves=move(P0, None, 5)))
    again = store.commit(Flush(rejected=(bad, other), moves=move(P1, None, 5)))

    assert (first.rejected, again.rejected, store.totals().rejected) == (1, 1, 2)
    assert set(store.rejected(limit=10)) == {bad, other}
    assert len(store.rejected(limit=1)) == 1


def test_ids_of_any_characters_and_length_come_back_as_they_were(store: Store) -> None:
    strange = [AWKWARD, AWKWARD + "2", "x" * 10_240, "x" * 10_241, "A", "a", " a", "é", "e\u0301"]
    store.commit(
        Flush(clicks(*(click(name, advertiser=name, ad=name) for name in strange)), moves=move(P0, None, 9))
    )
    assert ids(store) == Counter(strange)
    assert counted(store) == {Window(name, name, 0): 1 for name in strange}


def test_the_first_and_the_last_minute_are_windows_like_any_other(store: Store) -> None:
    store.commit(
        Flush(clicks(click("1", time=0), click("2", time=LATEST_CLICK_TIME)), moves=move(P0, None, 2))
    )
    assert [count.window.minute for count in store.counts(CountQuery())] == [0, LATEST_CLICK_TIME - 59_999]


def test_counts_are_filtered_ordered_and_bounded(store: Store) -> None:
    # given
    store.commit(
        Flush(
            clicks(
                click("1", "nike", "b", 60_000),
                click("2", "nike", "a", 60_000),
                click("3", "adidas", "a", 60_000),
                click("4", "nike", "a", 0),
                click("5", "nike", "a", 120_000),
            ),
            moves=move(P0, None, 5),
        )
    )

    def asked(query: CountQuery) -> list[Window]:
        return [count.window for count in store.counts(query)]

    # then
    everything = [
        Window("nike", "a", 0),
        Window("adidas", "a", 60_000),
        Window("nike", "a", 60_000),
        Window("nike", "b", 60_000),
        Window("nike", "a", 120_000),
    ]
    assert asked(CountQuery()) == everything
    assert asked(CountQuery(limit=2)) == everything[:2]
    assert asked(CountQuery(advertiser_id="adidas")) == everything[1:2]
    assert asked(CountQuery(advertiser_id="nike", ad_id="b")) == everything[3:4]
    assert asked(CountQuery(minute_from=60_000, minute_to=120_000)) == everything[1:4]
    assert asked(CountQuery(advertiser_id="' or 1=1 --")) == []


def test_ids_can_be_asked_for_by_prefix(store: Store) -> None:
    store.commit(Flush(clicks(click("run1-a"), click("run2-a"), click("run1%b")), moves=move(P0, None, 3)))
    assert ids(store, "run1") == Counter(["run1-a", "run1%b"])
    assert ids(store, "run1%") == Counter(["run1%b"])


def test_ids_are_read_from_one_snapshot_while_flushes_go_on(store: Store) -> None:
    # given more ids than one chunk holds
    many = [click(f"old-{n}") for n in range(50_000)]
    store.commit(Flush(clicks(*many), moves=move(P0, None, len(many))))

    # when a flush is committed between two chunks
    chunks = store.event_ids()
    first = next(chunks)
    store.commit(Flush(clicks(click("new")), moves=move(P0, len(many), len(many) + 1)))
    rest = [event_id for chunk in chunks for event_id in chunk]

    # then the reader saw what was there when it began
    assert Counter([*first, *rest]) == Counter(member.event_id for member in many)
    assert ids(store)["new"] == 1


def test_readers_in_other_threads_only_see_whole_flushes(store: Store) -> None:
    # given a reader that looks on until it has seen the last flush, or anything amiss
    flushes, torn = 40, []

    def look() -> None:
        totals = store.totals()
        while totals.clicks < flushes * 10:
            if totals.clicks != totals.event_ids or totals.clicks % 10:
                torn.append(totals)
            totals = store.totals()

    reader = threading.Thread(target=look, daemon=True)
    reader.start()

    # when
    for flush in range(flushes):
        members = clicks(*(click(f"{flush}-{n}") for n in range(10)))
        store.commit(Flush(members, moves=move(P0, flush or None, flush + 1)))
    reader.join(timeout=30)

    # then
    assert not reader.is_alive(), f"the reader saw {store.totals()} in the end"
    assert torn == []


def test_a_store_counts_one_stream_only(open_store: OpenStore) -> None:
    # given
    store = open_store()
    store.bind("cluster-1/clicks")
    store.close()

    # when it is opened for another one
    again = open_store()
    again.bind("cluster-1/clicks")
    with pytest.raises(StoreError, match=r"'cluster-1/clicks'.*'cluster-2/clicks'"):
        again.bind("cluster-2/clicks")
    again.close()


@pytest.mark.parametrize("seed", range(10))
def test_any_sequence_of_flushes_counts_each_id_once(store: Store, seed: int) -> None:
    # given flushes that share ids with each other
    dice = random.Random(seed)
    seen: dict[str, Click] = {}
    at: int | None = None

    # when
    for _ in range(dice.randint(1, 8)):
        batch = [
            click(f"e{dice.randint(0, 30)}", ad=dice.choice("ab"), time=dice.randint(0, 2) * 60_000)
            for _ in range(dice.randint(0, 20))
        ]
        store.commit(Flush(clicks(*batch), moves=move(P0, at, (at or 0) + len(batch))))
        at = (at or 0) + len(batch)
        for member in batch:
            seen.setdefault(member.event_id, member)

    # then
    expected = Counter(Window(m.advertiser_id, m.ad_id, m.click_time) for m in seen.values())
    assert counted(store) == dict(expected)
    assert ids(store) == Counter(list(seen))
