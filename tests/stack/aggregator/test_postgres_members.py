"""Several members of a group that count into one PostgreSQL at once: what one process cannot show."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg import Connection

from devstack.postgres import Postgres
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import (
    Committed,
    CountQuery,
    Flush,
    OffsetConflictError,
    StoreUnavailableError,
    Totals,
)
from hotkey_aggregator.windows import Source
from tests.contract.aggregator.flushes import P0, P1, Row, flush
from tests.postgres_server import TimedStore, until_backends_wait

BEFORE_MIDNIGHT = 1_767_311_999_000
"""2026-01-01T23:59:59Z in unix milliseconds."""
AFTER_MIDNIGHT = BEFORE_MIDNIGHT + 2_000


class LocklessStore(TimedStore):
    """Reads which day is current without holding it: what the lock is for."""

    def _enter(self, connection: Connection[Any]) -> None:
        """Holds nothing."""
        del connection

    _enter_alone = _enter


@contextmanager
def opened(
    postgres: Postgres, schema: str, count: int, kind: type[PostgresStore] = TimedStore
) -> Iterator[list[PostgresStore]]:
    stores = [kind(postgres.dsn, schema=schema) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            store.close()


@contextmanager
def held_up(postgres: Postgres, schema: str) -> Iterator[Connection[Any]]:
    """Somebody holds what a flush writes last: it stops after its ids are in, before it commits."""
    with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema} -cdeadlock_timeout=10min") as holder:
        holder.execute("lock table added in exclusive mode")
        yield holder
        holder.rollback()


T = TypeVar("T")


def in_thread(act: Callable[[], T]) -> Future[T]:
    threads = ThreadPoolExecutor(1)
    try:
        return threads.submit(act)
    finally:
        threads.shutdown(wait=False)


def ids(store: PostgresStore) -> Counter[str]:
    return Counter(event_id for chunk in store.event_ids() for event_id in chunk)


def test_an_id_in_flight_in_two_members_is_counted_once(postgres: Postgres, schema: str) -> None:
    with opened(postgres, schema, 2) as (first, second):
        # given a member whose flush is not committed yet
        first.commit(flush(Row("0")))
        with held_up(postgres, schema):
            one = in_thread(lambda: first.commit(flush(Row("1"), Row("2"), at=1)))
            until_backends_wait(postgres, 1)

            # when another one has the same id
            two = in_thread(lambda: second.commit(flush(Row("2"), Row("3"), source=P1)))
            until_backends_wait(postgres, 2)

        # then it waits, and counts what the first has not
        assert one.result(60) == Committed(counted=2, duplicates=0, dead=0)
        assert two.result(60) == Committed(counted=1, duplicates=1, dead=0)
        assert ids(first) == Counter("0123")
        assert first.totals() == Totals(clicks=4, event_ids=4, windows=1, dead=0)


def test_an_id_whose_first_flush_is_undone_is_counted_by_the_other_member(
    postgres: Postgres, schema: str
) -> None:
    with opened(postgres, schema, 2) as (first, second):
        # given two members with one id in flight
        first.commit(flush(Row("0")))
        with held_up(postgres, schema) as holder:
            one = in_thread(lambda: first.commit(flush(Row("1"), at=1)))
            (pid,) = until_backends_wait(postgres, 1)
            two = in_thread(lambda: second.commit(flush(Row("1"), source=P1)))
            until_backends_wait(postgres, 2)

            # when the first one's connection is lost
            holder.execute("select pg_terminate_backend(%s)", [pid])
            with pytest.raises(StoreUnavailableError, match=r"connection lost|57P01"):
                one.result(60)

        # then
        assert two.result(60).counted == 1
        assert (ids(second), second.totals().clicks) == (Counter("01"), 2)
        assert first.commit(flush(Row("1"), at=1)).duplicates == 1


def across_midnight(postgres: Postgres, schema: str, kind: type[PostgresStore]) -> None:
    with opened(postgres, schema, 2, kind) as (first, second):
        # given a member that began its flush before midnight
        first.commit(flush(Row("0"), now=BEFORE_MIDNIGHT))
        with held_up(postgres, schema):
            one = in_thread(lambda: first.commit(flush(Row("1"), at=1, now=BEFORE_MIDNIGHT)))
            until_backends_wait(postgres, 1)

            # when another one begins the next day with the same id
            two = in_thread(lambda: second.commit(flush(Row("1"), source=P1, now=AFTER_MIDNIGHT)))
            until_backends_wait(postgres, 2)
        one.result(60)
        two.result(60)

        # then
        assert ids(second) == Counter("01")
        assert second.totals() == Totals(clicks=2, event_ids=2, windows=1, dead=0)


def test_an_id_in_flight_on_both_sides_of_midnight_is_counted_once(postgres: Postgres, schema: str) -> None:
    across_midnight(postgres, schema, TimedStore)


def test_a_store_that_begins_a_day_without_the_lock_is_found(postgres: Postgres, schema: str) -> None:
    with pytest.raises(AssertionError, match="'1': 2"):
        across_midnight(postgres, schema, LocklessStore)


def test_a_member_behind_midnight_writes_to_the_day_that_another_has_begun(
    postgres: Postgres, schema: str
) -> None:
    with opened(postgres, schema, 2) as (first, second):
        first.commit(flush(Row("1"), now=BEFORE_MIDNIGHT))
        second.commit(flush(Row("1"), Row("2"), source=P1, now=AFTER_MIDNIGHT))
        late = first.commit(flush(Row("2"), Row("3"), at=1, now=BEFORE_MIDNIGHT))

        assert (late.counted, late.duplicates) == (1, 1)
        assert tables(postgres, schema, "ids\\__") == {"ids_1": 1, "ids_2": 2}


def tables(postgres: Postgres, schema: str, pattern: str) -> dict[str, int]:
    with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema}") as connection:
        names = connection.execute(
            "select relname from pg_class where relkind = 'r' and relname like %s "
            "and relnamespace = %s::regnamespace order by 1",
            [pattern, schema],
        ).fetchall()
        counts = {}
        for (name,) in names:
            row = connection.execute(f"select count(*) from {name}".encode()).fetchone()
            assert row is not None
            counts[name] = row[0]
        return counts


def test_the_databases_clock_says_when_a_segment_ends_and_what_is_past(
    postgres: Postgres, schema: str
) -> None:
    # given members whose clocks are far ahead and far behind
    ahead = int(time.time() * 1000) + 10**12
    with opened(postgres, schema, 2, PostgresStore) as (first, second):
        first.commit(flush(Row("1", time=ahead), now=ahead))
        second.commit(flush(Row("2", time=ahead), source=P1, now=0))

        # when the one that is ahead forgets
        first.expire(ahead)

        # then
        with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema}") as connection:
            found = connection.execute(
                "select ends > extract(epoch from now()) * 1000,"
                " ends <= extract(epoch from now() + interval '1 hour') * 1000 from segments"
            ).fetchall()
        assert found == [(True, True)]
        assert first.totals() == Totals(clicks=2, event_ids=2, windows=1, dead=0)


def test_a_zombie_that_flushes_at_the_same_time_is_refused(postgres: Postgres, schema: str) -> None:
    with opened(postgres, schema, 2) as (first, second):
        # given two members that both believe to own a partition
        first.commit(flush(Row("0")))
        with held_up(postgres, schema):
            one = in_thread(lambda: first.commit(flush(Row("1"), at=1)))
            until_backends_wait(postgres, 1)
            two = in_thread(lambda: second.commit(flush(Row("2"), at=1)))
            until_backends_wait(postgres, 2)

        # then one of them wins
        assert one.result(60).counted == 1
        with pytest.raises(OffsetConflictError, match="the stored offset is 2, expected 1"):
            two.result(60)
        assert ids(first) == Counter("01")


def member_flushes(member: int, flushes: int, size: int, seed: int) -> Iterator[Flush]:
    """What one member of a group writes: ids that all members share, windows that all members share."""
    dice = random.Random(f"{seed}-{member}")
    for number in range(flushes):
        rows = [shared_row(dice.randrange(flushes * size)) for _ in range(size)]
        yield flush(*rows, at=number * size or None, source=Source("clicks", member), now=BEFORE_MIDNIGHT)


def shared_row(number: int) -> Row:
    return Row(f"e{number}", "nike", f"ad{number % 7}", time=number % 3 * 60_000, cost=number)


def check_members(store: PostgresStore, members: int, flushes: int, size: int, seed: int) -> None:
    numbers = {
        int(event_id[1:])
        for member in range(members)
        for each in member_flushes(member, flushes, size, seed)
        for event_id in each.clicks.event_ids
    }
    assert ids(store) == Counter(f"e{number}" for number in numbers)
    expected = Counter((f"ad{number % 7}", number % 3 * 60_000) for number in numbers)
    found = {(count.window.ad_id, count.window.minute): count.clicks for count in store.counts(CountQuery())}
    assert found == dict(expected)
    assert sum(count.cost for count in store.counts(CountQuery())) == sum(numbers)


def test_threads_that_commit_the_same_ids_count_each_once(postgres: Postgres, schema: str) -> None:
    members, flushes, size, seed = 4, 8, 500, random.randrange(10**6)
    with opened(postgres, schema, members) as stores:
        # when
        start = threading.Barrier(members)

        def run(member: int) -> int:
            start.wait()
            return sum(
                stores[member].commit(each).counted for each in member_flushes(member, flushes, size, seed)
            )

        with ThreadPoolExecutor(members) as threads:
            counted = list(threads.map(run, range(members)))

        # then
        check_members(stores[0], members, flushes, size, seed)
        assert sum(counted) == stores[0].totals().clicks


MEMBER = """
import sys
from hotkey_aggregator.postgres_store import PostgresStore
from tests.stack.aggregator.test_postgres_members import member_flushes
dsn, schema, member, seed = sys.argv[1:]
store = PostgresStore(dsn, schema=schema)
print("ready", flush=True)
sys.stdin.read()
for each in member_flushes(int(member), 6, 400, int(seed)):
    store.commit(each)
store.close()
"""


def test_processes_that_open_and_commit_at_once_count_each_id_once(postgres: Postgres, schema: str) -> None:
    seed, members = random.randrange(10**6), 3
    # given members that all find an empty database
    arguments = [[postgres.dsn, schema, str(member), str(seed)] for member in range(members)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for words in arguments
    ]
    try:
        # when
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.communicate()[1]
        ended = [(process, process.communicate(timeout=120)[1]) for process in released(processes)]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    # then
    assert [error for process, error in ended if process.returncode] == []
    with opened(postgres, schema, 1) as (store,):
        check_members(store, members, 6, 400, seed)


def released(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    return processes


def test_a_flush_that_a_deadlock_ended_is_tried_again(postgres: Postgres, schema: str) -> None:
    store = TimedStore(f"{postgres.dsn}?options=-cdeadlock_timeout%3D100ms", schema=schema)
    store.commit(flush(Row("0")))
    with held_up(postgres, schema) as holder:
        with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema}") as gate:
            # given a flush that has moved its offset and is stopped there
            gate.execute("lock table ids_1 in share mode")
            one = in_thread(lambda: store.commit(flush(Row("1"), at=1)))
            until_backends_wait(postgres, 1)

            # when who holds what it wants next wants that offset, and it goes on: it is the last to wait,
            # and so the one that finds the deadlock
            wanting = in_thread(lambda: holder.execute("update offsets set event_time = 7"))
            until_backends_wait(postgres, 2)
        wanting.result(60)
        holder.commit()

    # then the database ends the flush, and its second try is committed
    assert one.result(60).counted == 1
    assert ids(store) == Counter("01")
    store.close()


def fail_updates_of_offsets(postgres: Postgres, schema: str, sqlstate: str, times: int) -> None:
    """The next `times` transactions that move an offset end with this error."""
    with psycopg.connect(postgres.dsn, options=f"-csearch_path={schema}") as connection:
        connection.execute(
            f"""
            create sequence failures;
            create function fail() returns trigger language plpgsql as $$ begin
                if nextval('{schema}.failures') <= {times} then
                    raise exception 'so it was asked for' using errcode = '{sqlstate}';
                end if;
                return new;
            end $$;
            create trigger fail before update on offsets for each row execute function fail()
            """.encode()
        )


def test_a_flush_that_could_not_be_serialized_is_tried_again(postgres: Postgres, schema: str) -> None:
    with opened(postgres, schema, 1) as (store,):
        store.commit(flush(Row("0")))
        fail_updates_of_offsets(postgres, schema, "40001", times=3)
        assert store.commit(flush(Row("1"), at=1)).counted == 1
        assert ids(store) == Counter("01")


def test_a_conflict_that_lasts_is_told_as_unavailable(postgres: Postgres, schema: str) -> None:
    with opened(postgres, schema, 1) as (store,):
        store.commit(flush(Row("0")))
        fail_updates_of_offsets(postgres, schema, "40001", times=50)
        with pytest.raises(StoreUnavailableError, match="40001"):
            store.commit(flush(Row("1"), at=1))
        assert (ids(store), store.positions()[P0].next_offset) == (Counter("0"), 1)
