"""What every store of counts must do. A new store joins by one more entry in `STORES`."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from hotkey_aggregator.events import LATEST_CLICK_TIME, MAX_COST, MILLIONTHS, Reason
from hotkey_aggregator.store import (
    HOUR_MILLISECONDS,
    Committed,
    Conflict,
    Count,
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    OffsetConflictError,
    OffsetMove,
    Position,
    Store,
    StoreError,
    Totals,
    was_committed,
)
from hotkey_aggregator.windows import Clicks, Source, Window, minute_of
from tests.contract.aggregator.flushes import DEFAULT, HOT, P0, P1, OpenStore, Row, clicks, flush, move
from tests.contract.aggregator.model_store import ModelStore
from tests.postgres_server import TimedStore, new_schema

AWKWARD = "a:1.nul\x00 \u202ertl \"quoted\" \\ 'single' \n\t\U0001f45f"
DAY = 24 * HOUR_MILLISECONDS


def duckdb_stores(request: pytest.FixtureRequest) -> OpenStore:
    from hotkey_aggregator.duckdb_store import DuckDBStore

    folder: Path = request.getfixturevalue("tmp_path")
    return lambda keeping=DEFAULT: DuckDBStore(folder / "counts.duckdb", keeping)


def postgres_stores(request: pytest.FixtureRequest) -> OpenStore:
    server: Postgres = request.getfixturevalue("postgres")
    schema = new_schema()
    return lambda keeping=DEFAULT: TimedStore(server.dsn, keeping, schema)


def model_stores(_: pytest.FixtureRequest) -> OpenStore:
    opened: list[ModelStore] = []

    def open_again(keeping: Keeping = DEFAULT) -> ModelStore:
        opened.append(opened[-1].opened_again(keeping) if opened else ModelStore(keeping))
        return opened[-1]

    return open_again


STORES: dict[str, Callable[[pytest.FixtureRequest], OpenStore]] = {
    "model": model_stores,
    "duckdb": duckdb_stores,
    "postgres": postgres_stores,
}


@pytest.fixture(params=list(STORES))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    return STORES[request.param](request)


@pytest.fixture
def store(open_store: OpenStore) -> Iterator[Store]:
    opened = open_store()
    yield opened
    opened.close()


@pytest.fixture
def now() -> int:
    """The clock's time: a store may go by its own clock where it keeps ids by their arrival."""
    return int(time.time() * 1000)


def ids(store: Store, prefix: str = "") -> Counter[str]:
    return Counter(event_id for chunk in store.event_ids(prefix) for event_id in chunk)


def counted(store: Store, query: CountQuery | None = None) -> dict[Window, int]:
    return {count.window: count.clicks for count in store.counts(query or CountQuery())}


def offsets(store: Store) -> dict[Source, int]:
    return {source: position.next_offset for source, position in store.positions().items()}


def letter(source: Source = P0, offset: int = 4, detail: str = "no value") -> DeadLetter:
    return DeadLetter(source, offset, Reason.EMPTY, detail)


def test_a_new_store_holds_nothing(store: Store) -> None:
    assert store.totals() == Totals(clicks=0, event_ids=0, windows=0, dead=0, forgotten=0)
    assert (dict(store.positions()), counted(store), ids(store)) == ({}, {}, Counter())
    assert (list(store.dead(9)), list(store.undelivered([P0], 9))) == ([], [])


def test_a_flush_writes_counts_ids_and_offsets_together(store: Store) -> None:
    committed = store.commit(flush(Row("1"), Row("2", time=60_000)))

    assert committed == Committed(counted=2, duplicates=0, dead=0)
    assert counted(store) == {Window("nike", "ad", 0): 1, Window("nike", "ad", 60_000): 1}
    assert ids(store) == Counter(["1", "2"])
    assert dict(store.positions()) == {P0: Position(2)}


def test_a_flush_of_nothing_changes_nothing(store: Store) -> None:
    assert store.commit(Flush()) == Committed(counted=0, duplicates=0, dead=0)
    assert store.totals() == Totals(clicks=0, event_ids=0, windows=0, dead=0)


def test_later_flushes_add_to_the_counts_and_costs(store: Store) -> None:
    store.commit(flush(Row("1", cost=500_000), Row("2")))
    store.commit(flush(Row("3", cost=7), at=2))
    assert list(store.counts(CountQuery())) == [Count(Window("nike", "ad", 0), clicks=3, cost=500_007)]


def test_costs_beyond_32_bits_are_summed(store: Store) -> None:
    dear = 2**40
    store.commit(flush(Row("1", cost=dear), Row("2", cost=dear)))
    store.commit(flush(Row("3", cost=dear), Row("1", cost=dear), at=2))
    assert [count.cost for count in store.counts(CountQuery())] == [3 * dear]


def test_costs_beyond_64_bits_are_summed(store: Store) -> None:
    # given clicks as dear as they may be, more of them than 64 bits hold the cost of
    dearest, many = MAX_COST * MILLIONTHS, 10_000
    first = [Row(f"a{n}", cost=dearest) for n in range(many)]
    second = [Row(f"b{n}", cost=dearest) for n in range(many)]

    # when
    store.commit(flush(*first))
    store.commit(flush(*second, Row("cheap", "adidas", cost=7), at=many))
    store.expire(0)

    # then
    assert list(store.counts(CountQuery())) == [
        Count(Window("adidas", "ad", 0), 1, 7),
        Count(Window("nike", "ad", 0), 2 * many, 2 * many * dearest),
    ]
    assert store.totals().windows == 2


def test_columns_may_be_any_sequences(store: Store) -> None:
    rows = (Row("1", time=60_001, cost=5), Row("2", cost=6))
    columns = clicks(*rows)
    store.commit(
        Flush(
            replace(
                columns,
                event_ids=tuple(columns.event_ids),
                click_times=tuple(columns.click_times),
                source_of=bytes(columns.source_of),
                offsets=range(2),
            ),
            moves=move(P0, None, 2),
        )
    )
    assert {count.window.minute: count.cost for count in store.counts(CountQuery())} == {60_000: 5, 0: 6}


def test_what_was_committed_is_there_after_opening_again(open_store: OpenStore) -> None:
    # given
    first = open_store()
    first.commit(flush(Row("1"), source=HOT))
    first.close()

    # when
    second = open_store()
    again = second.commit(flush(Row("1"), Row("2"), source=P0))

    # then
    assert (again.counted, again.duplicates) == (1, 1)
    assert (ids(second), offsets(second)) == (Counter(["1", "2"]), {HOT: 1, P0: 2})
    assert second.totals().clicks == 2
    second.close()


def test_an_id_is_counted_once_whichever_topic_and_partition_it_comes_from_again(store: Store) -> None:
    # given
    store.commit(flush(Row("1"), Row("2")))

    # when the same ids come by another topic, with a new one among them
    committed = store.commit(flush(Row("2"), Row("3"), Row("1"), source=HOT))

    # then
    assert committed == Committed(counted=1, duplicates=2, dead=0)
    assert counted(store) == {Window("nike", "ad", 0): 3}
    assert ids(store) == Counter(["1", "2", "3"])


def test_of_clicks_with_one_id_in_a_flush_the_first_counts(store: Store) -> None:
    first, second = Row("1", "nike", cost=1), Row("1", "adidas", cost=2)

    committed = store.commit(flush(Row("0"), first, second, second))

    assert (committed.counted, committed.duplicates, committed.conflicts) == (2, 2, 2)
    assert list(store.counts(CountQuery())) == [Count(Window("nike", "ad", 0), clicks=2, cost=1)]


def test_an_id_that_comes_again_with_another_payload_is_counted_once_and_reported(store: Store) -> None:
    # given
    store.commit(flush(Row("1"), Row("2"), Row("3")))

    # when one comes again as it was, two with something else
    committed = store.commit(
        flush(Row("2", payload="other"), Row("1"), Row("4"), Row("3", ad_id="other"), source=P1)
    )

    # then
    assert (committed.counted, committed.duplicates, committed.conflicts) == (1, 3, 2)
    assert set(committed.examples) == {Conflict("2", P1, 0), Conflict("3", P1, 3)}
    assert counted(store) == {Window("nike", "ad", 0): 4}


def test_a_conflict_within_a_flush_is_measured_against_what_the_store_holds(store: Store) -> None:
    # given
    store.commit(flush(Row("1")))

    # when it comes twice with the same other payload, then as it was
    other = Row("1", payload="other")
    committed = store.commit(flush(other, other, Row("1"), source=P1))

    # then
    assert (committed.counted, committed.duplicates, committed.conflicts) == (0, 3, 2)
    assert set(committed.examples) == {Conflict("1", P1, 0), Conflict("1", P1, 1)}


def test_at_most_ten_conflicts_are_told_as_examples(store: Store) -> None:
    store.commit(flush(*(Row(f"{n}") for n in range(30))))
    committed = store.commit(flush(*(Row(f"{n}", payload="x") for n in range(30)), source=P1))
    assert (committed.conflicts, len(committed.examples)) == (30, 10)


def test_a_flush_of_duplicates_alone_moves_the_offset_and_counts_nothing(store: Store) -> None:
    store.commit(flush(Row("1")))
    store.commit(flush(Row("1"), source=P1))
    assert (store.totals().clicks, store.totals().windows) == (1, 1)
    assert offsets(store) == {P0: 1, P1: 1}


@pytest.mark.parametrize("expected", [None, 1, 3])
def test_a_flush_that_expects_another_offset_is_refused_whole(store: Store, expected: int | None) -> None:
    # given
    store.commit(flush(Row("1"), Row("2")))

    # when a writer that read another offset flushes, with a good move before the bad one
    moves = (*move(P1, None, 9), *move(P0, expected, 5))
    with pytest.raises(OffsetConflictError) as refused:
        store.commit(Flush(clicks(Row("3")), (letter(P1, 8),), moves))

    # then it is told where and what, and nothing of it is kept
    assert refused.value.source == P0
    assert "partition 0 of topic 'clicks'" in str(refused.value)
    assert offsets(store) == {P0: 2}
    assert store.totals() == Totals(clicks=2, event_ids=2, windows=1, dead=0)
    assert store.commit(flush(Row("3"), at=2)).counted == 1


def test_a_store_that_lost_an_offset_refuses_a_writer_that_had_one(store: Store) -> None:
    with pytest.raises(OffsetConflictError):
        store.commit(flush(Row("1"), at=7))
    assert ids(store) == Counter()


def test_an_offset_may_be_moved_back_and_what_is_read_again_is_counted_once(store: Store) -> None:
    store.commit(flush(Row("1"), Row("2")))
    store.commit(Flush(moves=move(P0, 2, 0)))
    store.commit(flush(Row("1"), Row("2"), Row("3"), at=0))
    assert (counted(store), offsets(store)) == ({Window("nike", "ad", 0): 3}, {P0: 3})


def test_a_topic_made_anew_is_another_source_and_the_old_position_stays(store: Store) -> None:
    anew = Source(P0.topic, P0.partition, "topic-id-9")
    store.commit(flush(Row("1"), Row("2")))

    committed = store.commit(flush(Row("2"), source=anew))

    assert (committed.duplicates, offsets(store)) == (1, {P0: 2, anew: 1})


def test_a_position_keeps_its_leader_epoch_and_event_time(open_store: OpenStore) -> None:
    # given
    store = open_store()
    first, second = Position(5, leader_epoch=3, event_time=60_000), Position(9, 4, LATEST_CLICK_TIME)

    # when it moves twice
    store.commit(Flush(moves=(OffsetMove(P0, None, first),)))
    found = dict(store.positions())
    store.commit(Flush(moves=(OffsetMove(P0, 5, second), OffsetMove(P1, None, first))))
    store.close()

    # then
    again = open_store()
    assert (found, dict(again.positions())) == ({P0: first}, {P0: second, P1: first})
    again.close()


def test_a_position_without_a_topic_id_is_named_once_and_only_for_its_topic(store: Store) -> None:
    # given positions as an older schema has left them, and one that has an id
    old, other = Source("clicks", 0), Source("views", 0)
    store.commit(Flush(moves=(*move(old, None, 5), *move(other, None, 6), *move(P1, None, 7))))

    # when
    store.name_topics({"clicks": "topic-id-7"})
    store.name_topics({"clicks": "topic-id-8"})

    # then
    named = Source("clicks", 0, "topic-id-7")
    assert offsets(store) == {named: 5, other: 6, P1: 7}
    store.commit(flush(Row("1"), at=5, source=named))
    assert offsets(store)[named] == 6


def test_a_flush_of_unknown_outcome_is_told_by_the_positions(store: Store) -> None:
    lost, taken = flush(Row("2"), at=1), flush(Row("1"))
    store.commit(taken)
    assert was_committed(taken, store.positions())
    assert not was_committed(lost, store.positions())


def test_dead_letters_are_kept_once_with_their_place_and_reason(store: Store) -> None:
    bad = DeadLetter(P0, 4, Reason.NOT_JSON, "found " + AWKWARD)
    other = letter(P1, 4)

    first = store.commit(Flush(dead=(bad,), moves=move(P0, None, 5)))
    again = store.commit(Flush(dead=(bad, other), moves=move(P1, None, 5)))

    assert (first.dead, again.dead, store.totals().dead) == (1, 1, 2)
    assert set(store.dead(limit=10)) == {bad, other}
    assert len(store.dead(limit=1)) == 1


def test_a_dead_letter_that_is_twice_in_a_flush_is_kept_once(store: Store) -> None:
    committed = store.commit(Flush(dead=(letter(), letter(P1), letter()), moves=move(P0, None, 5)))
    assert (committed.dead, store.totals().dead) == (2, 2)
    assert len(store.undelivered([P0, P1], 9)) == 2


def test_dead_letters_of_another_topic_id_are_others(store: Store) -> None:
    anew = Source(P0.topic, P0.partition, "topic-id-9")
    store.commit(Flush(dead=(letter(P0),), moves=move(P0, None, 5)))
    committed = store.commit(Flush(dead=(letter(anew),), moves=move(anew, None, 5)))
    assert (committed.dead, set(store.dead(9))) == (1, {letter(P0), letter(anew)})


def test_a_dead_letter_where_another_stood_before_its_log_was_cut_off_is_another(store: Store) -> None:
    # given a dead letter that was brought, and one that waits
    brought = replace(letter(P0, 4, "brought"), value=b"brought", leader_epoch=3)
    waiting = replace(letter(P0, 5, "waiting"), value=b"waiting", leader_epoch=3)
    store.commit(Flush(dead=(brought, waiting), moves=move(P0, None, 6)))
    store.delivered([brought])

    # when another leader wrote others there, and all is read again
    others = tuple(replace(one, value=b"other", leader_epoch=5) for one in (brought, waiting))
    store.commit(Flush(moves=move(P0, 6, 4)))
    committed = store.commit(Flush(dead=(*others, *others, waiting), moves=move(P0, 4, 6)))

    # then they are kept and brought, too
    assert (committed.dead, store.totals().dead) == (2, 4)
    found = list(store.undelivered([P0], limit=9))
    assert set(found) == {waiting, *others}
    store.delivered(others)
    assert list(store.undelivered([P0], limit=9)) == [waiting]


def test_a_dead_letter_is_kept_whole_until_it_is_delivered(open_store: OpenStore) -> None:
    # given a record with all that one can have, and one with nothing
    full = DeadLetter(
        P0,
        7,
        Reason.NOT_A_CLICK,
        "no ad_id",
        key=b"nike:7\x00\xff",
        value=b"\x00\xff{",
        headers=(("trace", b"\x00\xfe"), ("trace", b""), (AWKWARD, None)),
        timestamp=LATEST_CLICK_TIME,
    )
    bare = DeadLetter(P0, 3, Reason.EMPTY, "no value")
    store = open_store()
    store.commit(Flush(dead=(full, bare), moves=move(P0, None, 8)))
    store.close()

    # when
    store = open_store()
    waiting = list(store.undelivered([P0, P1], limit=10))
    store.delivered([full])

    # then
    assert waiting == [bare, full]
    assert list(store.undelivered([P0], limit=10)) == [bare]
    assert list(store.dead(limit=10)) == [replace(full, key=None, value=None, headers=()), bare]
    assert store.totals().dead == 2
    store.close()


def test_dead_letters_are_handed_out_by_source_and_number(store: Store) -> None:
    letters = tuple(letter(source, offset) for source in (P0, P1) for offset in (5, 3, 4))
    store.commit(Flush(dead=letters, moves=(*move(P0, None, 6), *move(P1, None, 6))))

    assert [found.offset for found in store.undelivered([P1], limit=2)] == [3, 4]
    assert {found.source for found in store.undelivered([P1], limit=9)} == {P1}
    assert list(store.undelivered([], limit=9)) == []
    assert list(store.undelivered([HOT], limit=9)) == []
    assert [found.offset for found in store.dead(limit=3)] == [5, 5, 4]


def test_a_delivered_dead_letter_that_is_read_again_is_not_handed_out_again(store: Store) -> None:
    bad = DeadLetter(P0, 4, Reason.NOT_JSON, "no", value=b"x")
    store.commit(Flush(dead=(bad,), moves=move(P0, None, 5)))
    store.delivered([bad])
    store.delivered([bad])

    store.commit(Flush(moves=move(P0, 5, 4)))
    committed = store.commit(Flush(dead=(bad,), moves=move(P0, 4, 5)))

    assert (committed.dead, list(store.undelivered([P0], limit=9))) == (0, [])


def test_ids_of_any_characters_and_length_come_back_as_they_were(store: Store) -> None:
    strange = [AWKWARD, AWKWARD + "2", "x" * 10_240, "x" * 10_241, "A", "a", " a", "é", "e\u0301"]
    rows = [Row(name, advertiser_id=name, ad_id=name) for name in strange]

    store.commit(flush(*rows))
    again = store.commit(flush(*rows, source=P1))

    assert (again.counted, again.duplicates, again.conflicts) == (0, len(rows), 0)
    assert ids(store) == Counter(strange)
    assert counted(store) == {Window(name, name, 0): 1 for name in strange}


def test_the_first_and_the_last_minute_are_windows_like_any_other(store: Store) -> None:
    store.commit(flush(Row("1", time=0), Row("2", time=LATEST_CLICK_TIME)))
    assert [count.window.minute for count in store.counts(CountQuery())] == [0, LATEST_CLICK_TIME - 59_999]


def test_counts_are_filtered_ordered_and_bounded(store: Store) -> None:
    # given
    store.commit(
        flush(
            Row("1", "nike", "b", 60_000),
            Row("2", "nike", "a", 60_000),
            Row("3", "adidas", "a", 60_000),
            Row("4", "nike", "a", 0),
            Row("5", "nike", "a", 120_000),
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
    store.commit(flush(Row("run1-a"), Row("run2-a"), Row("run1%b")))
    assert ids(store, "run1") == Counter(["run1-a", "run1%b"])
    assert ids(store, "run1%") == Counter(["run1%b"])


def test_ids_are_read_from_one_snapshot_while_flushes_go_on(store: Store) -> None:
    # given more ids than one chunk holds
    many = [Row(f"old-{n}") for n in range(50_000)]
    store.commit(flush(*many))

    # when a flush is committed between two chunks
    chunks = store.event_ids()
    first = next(chunks)
    store.commit(flush(Row("new"), at=len(many)))
    rest = [event_id for chunk in chunks for event_id in chunk]

    # then the reader saw what was there when it began
    assert Counter([*first, *rest]) == Counter(row.event_id for row in many)
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
    for number in range(flushes):
        store.commit(flush(*(Row(f"{number}-{n}") for n in range(10)), at=number * 10 or None))
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


def test_an_id_is_found_within_the_horizon_and_forgotten_after_it(store: Store, now: int) -> None:
    # given an id that came an hour before the end of its horizon
    horizon = Keeping().ids
    store.commit(flush(Row("1"), now=now))

    # when
    store.expire(now + horizon - HOUR_MILLISECONDS)
    within = store.commit(flush(Row("1"), source=P1, now=now))
    store.expire(now + horizon + 3 * DAY)
    after = store.commit(flush(Row("1"), source=HOT, now=now))

    # then
    assert (within.counted, within.duplicates) == (0, 1)
    assert (after.counted, after.duplicates) == (1, 0)


def test_ids_that_are_forgotten_leave_their_counts(open_store: OpenStore, now: int) -> None:
    # given
    store = open_store()
    store.commit(flush(Row("1", time=now), Row("2", time=now), now=now))

    # when
    store.expire(now + Keeping().ids + 3 * DAY)
    store.commit(flush(Row("3", time=now), at=2, now=now + Keeping().ids + 3 * DAY))
    store.close()

    # then
    again = open_store()
    assert ids(again) == Counter(["3"])
    assert again.totals() == Totals(clicks=3, event_ids=1, windows=1, dead=0, forgotten=2)
    again.close()


def test_windows_past_their_retention_are_dropped_and_their_clicks_still_told(
    open_store: OpenStore, now: int
) -> None:
    # given windows on both sides of a retention of three days
    store = open_store(Keeping(windows=3 * DAY))
    times = [now, now - 3 * DAY + 120_000, now - 5 * DAY, now - 5 * DAY, 0]
    store.commit(flush(*(Row(f"{n}", time=at, cost=1) for n, at in enumerate(times)), now=now))

    # when
    store.expire(now)
    store.expire(now)

    # then
    assert [count.window.minute for count in store.counts(CountQuery())] == sorted(map(minute_of, times[:2]))
    assert store.totals() == Totals(clicks=5, event_ids=5, windows=2, dead=0)
    assert store.commit(flush(Row("2"), source=P1, now=now)).duplicates == 1
    store.close()


def test_a_click_may_come_for_a_window_that_was_dropped(store: Store, now: int) -> None:
    store.commit(flush(Row("1", time=0), now=now))
    store.expire(now)
    store.commit(flush(Row("2", time=0), at=1, now=now))
    assert (counted(store), store.totals().clicks) == ({Window("nike", "ad", 0): 1}, 2)


def test_expiring_an_empty_store_changes_nothing(store: Store, now: int) -> None:
    store.expire(now)
    assert store.totals() == Totals(clicks=0, event_ids=0, windows=0, dead=0)


def test_positions_and_dead_letters_outlive_ids_and_windows(store: Store, now: int) -> None:
    store.commit(replace(flush(Row("1"), now=now), dead=(letter(P0, 0),)))
    store.expire(now + 400 * DAY)
    assert (offsets(store), list(store.undelivered([P0], 9))) == ({P0: 1}, [letter(P0, 0)])
    assert store.totals() == Totals(clicks=1, event_ids=0, windows=0, dead=1, forgotten=1)


class Model:
    """What a store is to answer, in plain Python and slowly."""

    def __init__(self) -> None:
        self.first: dict[str, Row] = {}

    def commit(self, rows: list[Row]) -> tuple[int, int, int]:
        """Counted, duplicates, conflicts."""
        before, conflicts = len(self.first), 0
        for row in rows:
            conflicts += self.first.setdefault(row.event_id, row).digest != row.digest
        new = len(self.first) - before
        return new, len(rows) - new, conflicts

    def counts(self) -> dict[Window, tuple[int, int]]:
        found: dict[Window, tuple[int, int]] = {}
        for row in self.first.values():
            window = Window(row.advertiser_id, row.ad_id, minute_of(row.time))
            was, cost = found.get(window, (0, 0))
            found[window] = (was + 1, cost + row.cost)
        return found


def any_row(dice: random.Random, ids: int) -> Row:
    return Row(
        f"e{dice.randrange(ids)}",
        dice.choice(["nike", "adidas"]),
        dice.choice("ab"),
        dice.randrange(180_000),
        dice.randrange(10),
    )


def interleaved(dice: random.Random, rows: list[Row], at: dict[Source, int | None]) -> Flush:
    """The rows as they come from three partitions; `at` goes on to where they end."""
    sources, first = list(at), dict(at)
    source_of, offsets = [], []
    for _ in rows:
        number = dice.randrange(len(sources))
        source_of.append(number)
        offsets.append(at[sources[number]] or 0)
        at[sources[number]] = offsets[-1] + 1
    moves = tuple(
        OffsetMove(source, first[source], Position(next_offset))
        for source, next_offset in at.items()
        if next_offset is not None and next_offset != first[source]
    )
    columns = replace(clicks(*rows), source_of=source_of, offsets=offsets, sources=tuple(sources))
    return Flush(columns if rows else Clicks(), moves=moves)


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_of_flushes_counts_as_a_plain_model_does(open_store: OpenStore, seed: int) -> None:
    # given flushes that share ids with each other, and a store that is opened again now and then
    dice, model, store = random.Random(seed), Model(), open_store()
    at: dict[Source, int | None] = {P0: None, P1: None, HOT: None}
    size = dice.choice([3, 30, 3_000])

    for _ in range(dice.randint(1, 8)):
        # when
        rows = [any_row(dice, ids=2 * size) for _ in range(dice.randint(0, size))]
        committed = store.commit(interleaved(dice, rows, at))
        if dice.random() < 0.3:
            store.close()
            store = open_store()

        # then
        assert (committed.counted, committed.duplicates, committed.conflicts) == model.commit(rows)

    # then
    found = {count.window: (count.clicks, count.cost) for count in store.counts(CountQuery())}
    assert found == model.counts()
    assert ids(store) == Counter(list(model.first))
    assert offsets(store) == {source: offset for source, offset in at.items() if offset is not None}
    store.close()
