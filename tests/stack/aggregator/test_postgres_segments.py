"""The segments in which PostgreSQL keeps ids: begun, closed, read, dropped, and no id is counted twice."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from devstack.postgres import Postgres
from devstack.process import until
from hotkey_aggregator import postgres_closed, postgres_segments
from hotkey_aggregator.postgres_closed import ClosedSegments
from hotkey_aggregator.postgres_copy import Integers
from hotkey_aggregator.postgres_schema import WRITING, lock
from hotkey_aggregator.postgres_segments import Segment
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import HOUR_MILLISECONDS, Committed, CountQuery, Position, Totals
from tests.contract.aggregator.flushes import HOT, P0, P1, Row, flush
from tests.postgres_server import TimedStore, until_backends_wait
from tests.stack.aggregator.test_postgres_members import (
    AFTER_MIDNIGHT,
    BEFORE_MIDNIGHT,
    LocklessStore,
    held_up,
    ids,
    in_thread,
    opened,
    tables,
)

VERSION_1 = Path(__file__).with_name("postgres_version_1.sql")


@pytest.fixture
def store(postgres: Postgres, schema: str) -> Iterator[TimedStore]:
    made = TimedStore(postgres.dsn, schema=schema)
    yield made
    made.close()


@pytest.fixture
def every_segment_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_segments, "INDEX_BYTES", 0)


def until_read(store: PostgresStore) -> None:
    """Wait until the member knows the digests of all closed segments that its last flush saw."""
    closed = store.closed_segments
    assert until(lambda: not closed.unknown, time.monotonic() + 60), f"not read: {closed.unknown}"


def segments(postgres: Postgres, schema: str) -> dict[str, int]:
    return tables(postgres, schema, "ids\\_%")


def asked_of(store: PostgresStore, rows: Sequence[Row]) -> list[int]:
    """Numbers of the segments that these ids are looked for in, by what the member knows."""
    with store._connections.write("list segments") as connection:
        kept = postgres_segments.segments(connection)
    digests = store._hashing([row.event_id for row in rows], 0)
    return [segment.number for segment, _ in store.closed_segments.asked(digests, kept)]


def test_ids_of_closed_segments_are_found_and_new_ones_are_not_asked_for(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    # given ids of three hours, and a member that has read those of the first two
    hours = [[Row(f"{hour}-{number}") for number in range(2_000)] for hour in range(3)]
    for hour, rows in enumerate(hours):
        store.commit(flush(*rows, at=hour * 2_000 or None, now=hour * HOUR_MILLISECONDS))
        until_read(store)

    # when
    fresh = [Row(f"fresh-{number}") for number in range(2_000)]

    # then only the open segment is asked for new ids, and all ids are still found
    assert segments(postgres, schema) == {"ids_1": 2_000, "ids_2": 2_000, "ids_3": 2_000}
    assert asked_of(store, fresh) == [3]
    assert asked_of(store, hours[1]) == [3, 2]
    again = store.commit(flush(*(row for rows in hours for row in rows), source=P1, now=0))
    assert (again.counted, again.duplicates, again.conflicts) == (0, 6_000, 0)
    assert store.commit(flush(*fresh, source=HOT, now=0)).counted == 2_000


class UnreadSegments(ClosedSegments):
    """Reads nothing: as a member whose reading takes for ever."""

    def _read(self) -> None:
        """Leaves all unknown."""


class BoldSegments(ClosedSegments):
    """Relies on what it has not read."""

    def _read_one(self, segment: Segment) -> None:
        self._room_for(segment)
        self._known[segment.number] = segment.ids
        self._unknown.remove(segment)


def counted_again_in_the_next_hour(postgres: Postgres, schema: str, kind: type[ClosedSegments]) -> int:
    with opened(postgres, schema, 1) as (store,):
        store.closed_segments = kind(store._connections)
        store.commit(flush(Row("1"), now=0))
        store.commit(flush(Row("2"), at=1, now=HOUR_MILLISECONDS))
        if kind is not UnreadSegments:
            until_read(store)
        return store.commit(flush(Row("1"), at=2, now=HOUR_MILLISECONDS)).counted


def test_a_segment_that_is_not_read_yet_is_asked_for_every_id(
    postgres: Postgres, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_closed, "WAIT_SECONDS", 0.1)
    assert counted_again_in_the_next_hour(postgres, schema, UnreadSegments) == 0


def test_a_member_that_relies_on_what_it_has_not_read_is_found(postgres: Postgres, schema: str) -> None:
    assert counted_again_in_the_next_hour(postgres, schema, BoldSegments) == 1


def test_a_segment_whose_reading_was_cut_off_is_read_again(
    postgres: Postgres, schema: str, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a connection that is lost after the first piece
    whole = Segment.digests
    lost: list[int] = []

    def cut(segment: Segment, connection: Connection[Any]) -> Iterator[Integers]:
        yield next(whole(segment, connection))
        if not lost:
            lost.append(segment.number)
            connection.execute("select pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(Segment, "digests", cut)
    old = [Row(f"{number}") for number in range(50)]
    store.commit(flush(*old, now=0))
    store.commit(flush(Row("later"), at=50, now=HOUR_MILLISECONDS))
    until_read(store)
    assert asked_of(store, [Row("new")]) == [2, 1]

    # when the next flush begins again
    store.commit(flush(Row("later still"), at=51, now=HOUR_MILLISECONDS))
    until_read(store)

    # then
    assert lost == [1]
    assert asked_of(store, [Row("new")]) == [2]
    assert store.commit(flush(*old, source=P1, now=HOUR_MILLISECONDS)).duplicates == 50


def test_a_segment_that_was_closed_without_ids_is_none_to_ask(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    # given an hour in which nothing came but an id of the hour before
    for hour, name in enumerate("112"):
        store.commit(flush(Row(name), at=hour or None, now=hour * HOUR_MILLISECONDS))
    until_read(store)
    assert segments(postgres, schema) == {"ids_1": 1, "ids_2": 0, "ids_3": 1}

    # when, then
    again = store.commit(flush(Row("1"), Row("2"), Row("3"), source=P1, now=2 * HOUR_MILLISECONDS))
    assert (again.counted, again.duplicates) == (1, 2)


def test_a_segment_of_which_a_lagging_standby_told_too_little_is_asked_for_every_id(
    postgres: Postgres, schema: str, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a member that has read all but one digest of the first hour
    whole = Segment.digests
    monkeypatch.setattr(
        Segment, "digests", lambda segment, connection: (each[1:] for each in whole(segment, connection))
    )
    old = [Row(f"{number}") for number in range(50)]
    store.commit(flush(*old, now=0))
    store.commit(flush(Row("later"), at=50, now=HOUR_MILLISECONDS))
    until_read(store)

    # when, then
    again = store.commit(flush(*old, source=P1, now=HOUR_MILLISECONDS))
    assert (again.counted, again.duplicates) == (0, 50)


def test_a_segment_that_was_closed_anew_with_more_ids_is_asked_and_read_again(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    # given a segment that was read
    for hour in range(2):
        store.commit(flush(Row(f"{hour}"), at=hour or None, now=hour * HOUR_MILLISECONDS))
    until_read(store)
    fresh = store._hashing(["fresh"], 0)
    with store._connections.write("list segments") as connection:
        _, read = postgres_segments.segments(connection)
    closed = store.closed_segments
    assert list(closed.asked(fresh, [read])) == []

    # when a failover has lost its closing, and it was filled and closed again, or is still open
    for other in (replace(read, ids=2), replace(read, ids=None)):
        # then
        assert [segment for segment, _ in closed.asked(fresh, [other])] == [other]
    closed.follow([replace(read, ids=None)])
    closed.follow([read])
    until_read(store)
    assert list(closed.asked(fresh, [read])) == []


def test_a_segment_that_has_grown_large_is_followed_by_another(
    postgres: Postgres, schema: str, store: TimedStore, every_segment_is_large: None
) -> None:
    for number in range(4):
        store.commit(flush(Row(f"{number}"), Row("always"), at=number * 2 or None, now=0))
    assert segments(postgres, schema) == {"ids_1": 2, "ids_2": 1, "ids_3": 1, "ids_4": 1, "ids_5": 0}
    assert store.totals() == Totals(clicks=5, event_ids=5, windows=1, dead=0)


def across_a_closing(postgres: Postgres, schema: str, kind: type[PostgresStore], *, waits: bool) -> None:
    """One id in flight in a member while another closes the segment that it goes into."""
    with opened(postgres, schema, 3, kind) as (first, second, third):
        first.commit(flush(Row("0")))
        with held_up(postgres, schema):
            one = in_thread(lambda: first.commit(flush(Row("1"), at=1)))
            until_backends_wait(postgres, 1)

            # when
            closing = in_thread(lambda: close_segment(second))
            if waits:
                until_backends_wait(postgres, 2)
            else:
                closing.result(60)
            two = in_thread(lambda: third.commit(flush(Row("1"), source=P1)))
            until_backends_wait(postgres, 3 if waits else 2)
        for each in (one, two, closing):
            each.result(60)

        # then
        assert ids(first) == Counter("01")
        assert list(segments(postgres, schema)) == ["ids_1", "ids_2"]
        assert first.totals() == Totals(clicks=2, event_ids=2, windows=1, dead=0)


def close_segment(store: PostgresStore) -> Committed:
    """As after a flush that found it large, but with more patience."""
    with store._connections.write("list segments") as connection:
        found = postgres_segments.segments(connection)
    store._begin_segment(0, found)
    return Committed(0, 0, 0)


def test_an_id_in_flight_while_its_segment_is_closed_is_counted_once(postgres: Postgres, schema: str) -> None:
    across_a_closing(postgres, schema, TimedStore, waits=True)


def test_a_store_that_closes_a_segment_without_the_lock_is_found(postgres: Postgres, schema: str) -> None:
    with pytest.raises(AssertionError, match="'1': 2"):
        across_a_closing(postgres, schema, LocklessStore, waits=False)


def test_a_large_segment_goes_on_while_a_flush_leaves_no_time_to_close_it(
    postgres: Postgres, schema: str, store: TimedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a long flush of another member, and a segment that is large
    store.commit(flush(Row("0")))
    monkeypatch.setattr(postgres_segments, "INDEX_BYTES", 0)
    with psycopg.connect(postgres.dsn) as elsewhere:
        lock(elsewhere, WRITING, schema, shared=True)

        # when, then
        assert store.commit(flush(Row("1"), at=1)).counted == 1
        assert segments(postgres, schema) == {"ids_1": 2}
    assert store.commit(flush(Row("2"), Row("1"), at=2)).counted == 1
    assert segments(postgres, schema) == {"ids_1": 3, "ids_2": 0}


def test_segments_past_the_horizon_are_forgotten_with_all_that_is_known_of_them(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    # given ids of 26 hours, all read
    for hour in range(26):
        rows = [Row(f"{hour}-{number}") for number in range(10)]
        store.commit(flush(*rows, at=hour * 10 or None, now=hour * HOUR_MILLISECONDS))
    until_read(store)

    # when the first two are past their horizon of 24 hours
    store.expire(26 * HOUR_MILLISECONDS)
    again = store.commit(flush(Row("1-1"), Row("2-1"), source=P1, now=25 * HOUR_MILLISECONDS))

    # then
    assert list(segments(postgres, schema)) == sorted(f"ids_{number}" for number in range(3, 27))
    assert len(tables(postgres, schema, "digests\\_%")) == 24
    assert (again.counted, again.duplicates) == (1, 1)
    assert store.totals() == Totals(clicks=261, event_ids=241, windows=1, dead=0, forgotten=20)
    assert asked_of(store, [Row("never")]) == [26]


def test_totals_are_those_of_all_rows_whatever_was_merged_and_came_late(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    dice, at = random.Random(3), 0
    with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema}", autocommit=True) as looking:
        for step in range(30):
            # given clicks of some minutes, merged or not
            rows = [
                Row(f"{step}-{n}", ad_id=dice.choice("ab"), time=dice.randrange(5) * 60_000, cost=2**61)
                for n in range(dice.randint(1, 9))
            ]
            store.commit(flush(*rows, at=at or None))
            at += len(rows)
            if dice.random() < 0.5:
                store.merge(dice.randrange(6) * 60_000)

            # then
            row = looking.execute(
                "select sum(clicks), count(distinct (minute, ad_id)), (select count(*) from ids) from counts"
            ).fetchone()
            found = store.totals()
            assert (found.clicks, found.windows, found.event_ids) == row


def test_a_store_of_schema_version_1_is_taken_over(postgres: Postgres) -> None:
    # given a store of an earlier release, and clicks that it has counted, of both of its days
    with psycopg.connect(postgres.dsn, autocommit=True) as administrator:
        administrator.execute(VERSION_1.read_text().encode())
    old = [
        Row(f"{letter}{n}", ad_id=f"ad{n % 2}", time=BEFORE_MIDNIGHT - n * 1000, cost=n)
        for letter in "ab"
        for n in range(6)
    ]
    with opened(postgres, "version1", 2, TimedStore) as (store, other):
        before = store.totals(), list(store.counts(CountQuery()))

        # when it goes on
        store.bind("cluster/clicks")
        committed = store.commit(flush(*old, Row("new", time=BEFORE_MIDNIGHT), at=12, now=AFTER_MIDNIGHT))

        # then nothing is counted again, and nothing is lost
        assert before[0] == Totals(clicks=16, event_ids=16, windows=4, dead=1)
        assert [(count.window.ad_id, count.clicks, count.cost) for count in before[1]] == [
            ("ad", 1, 0),
            ("ad0", 6, 12),
            ("ad1", 6, 18),
            ("ad", 3, 0),
        ]
        assert (committed.counted, committed.duplicates, committed.conflicts) == (1, 12, 0)
        assert store.positions() == {P0: Position(25), P1: Position(5)}
        assert segments(postgres, "version1") == {"ids_1": 6, "ids_2": 10, "ids_3": 1}
        assert other.totals() == Totals(clicks=17, event_ids=17, windows=4, dead=1)

        # and what it had is forgotten in its time
        store.expire(BEFORE_MIDNIGHT + 2 * 24 * HOUR_MILLISECONDS + 2_000)
        assert segments(postgres, "version1") == {}
        assert store.totals() == Totals(clicks=17, event_ids=0, windows=4, dead=1, forgotten=17)


def test_a_new_store_has_the_columns_of_one_that_was_taken_over(
    postgres: Postgres, schema: str, store: TimedStore
) -> None:
    older = VERSION_1.read_text().replace("version1", "older")
    with psycopg.connect(postgres.dsn, autocommit=True) as administrator:
        administrator.execute(older.encode())
        with opened(postgres, "older", 1):
            assert columns(administrator, "older") == columns(administrator, schema)


def columns(connection: Connection[Any], schema: str) -> list[tuple[Any, ...]]:
    """Of the tables that every store has."""
    return connection.execute(
        "select table_name, column_name, data_type, is_nullable, column_default"
        " from information_schema.columns"
        " where table_schema = %s and table_name !~ '_[0-9]+$' order by table_name, column_name",
        [schema],
    ).fetchall()
