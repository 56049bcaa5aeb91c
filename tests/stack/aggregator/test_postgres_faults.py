"""PostgreSQL going away, filling up or refusing: nothing lost, nothing doubled, and told as what it is."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from psycopg import Connection

from devstack.postgres import Postgres
from devstack.process import until
from hotkey_aggregator.events import Reason
from hotkey_aggregator.postgres_connections import READERS
from hotkey_aggregator.postgres_copy import Hashing, Integers
from hotkey_aggregator.postgres_days import DAY_MILLISECONDS
from hotkey_aggregator.postgres_ids import Sorted
from hotkey_aggregator.postgres_schema import MIGRATIONS
from hotkey_aggregator.postgres_segments import Segment
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import (
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    Position,
    StoreError,
    StoreUnavailableError,
    Totals,
    was_committed,
)
from hotkey_aggregator.windows import Clicks
from tests.contract.aggregator.flushes import P0, P1, Row, clicks, flush, move
from tests.postgres_server import TimedStore, running_postgres, until_backends_wait
from tests.stack.aggregator.test_postgres_members import BEFORE_MIDNIGHT, held_up, ids, in_thread, tables


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that these tests may kill and fill."""
    with running_postgres(tmp_path_factory.mktemp("postgres-faults")) as server:
        yield server


@pytest.fixture
def store(postgres: Postgres, schema: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(postgres.dsn, schema=schema)
    yield opened
    opened.close()


@contextmanager
def administrator(postgres: Postgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        yield connection


class Proxy:
    """Passes bytes between clients and the server; once armed, cuts the connection that says too much."""

    def __init__(self, postgres: Postgres) -> None:
        self._server = ("127.0.0.1", postgres.port)
        self._left: int | None = None
        self._hand_on = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}/postgres?sslmode=disable"

    @property
    def left(self) -> int | None:
        """How many messages still pass; None once the connection was cut."""
        return self._left

    def cut_after(self, messages: int, *, hand_on: bool = False) -> None:
        """Let so many messages pass, then cut. `hand_on`: the server gets one more, its answer is lost."""
        self._left, self._hand_on = messages, hand_on

    def close(self) -> None:
        self._left = None
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                cut = threading.Event()
                threading.Thread(target=self._answer, args=(server, client, cut), daemon=True).start()
                threading.Thread(target=self._ask, args=(client, server, cut), daemon=True).start()

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        """Until the server is done with the connection: what it did is certain when the client learns."""
        with suppress(OSError), server, client:
            while data := server.recv(65536):
                if not cut.is_set():
                    client.sendall(data)

    def _ask(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._left == 0:
                    self._left = None
                    cut.set()
                    if self._hand_on:
                        server.sendall(data)
                    break
                if self._left is not None:
                    self._left -= 1
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


class EarlyIdsStore(TimedStore):
    """Commits the ids before the counts that they guard."""

    def _insert_ids(self, connection: Connection[Any], clicks: Clicks, kept: Sequence[Segment]) -> Sorted:
        found = super()._insert_ids(connection, clicks, kept)
        connection.execute("commit")
        connection.execute("begin")
        return found


def cut_at_each_message_of_a_flush(
    postgres: Postgres, schema: str, kind: type[PostgresStore], *, hand_on: bool
) -> None:
    """Fails where the database then holds a part of the flush."""
    proxy = Proxy(postgres)
    store = kind(proxy.dsn, schema=schema)
    store.commit(flush(Row("0")))
    flushed, cuts = 1, 0
    while True:
        # given a flush of a new id, the id before, and a dead letter
        lost = Flush(
            clicks(Row(f"{flushed}"), Row(f"{flushed - 1}"), source=P1),
            (DeadLetter(P1, flushed, Reason.EMPTY, "no value"),),
            move(P1, None if flushed == 1 else flushed, flushed + 1),
        )

        # when the connection is cut after so many messages
        proxy.cut_after(cuts, hand_on=hand_on)
        with suppress(StoreUnavailableError):
            store.commit(lost)
        if proxy.left is not None:
            break

        # then all of it is there or nothing, and the rest can follow
        found = f"cut after {cuts} messages: {store.totals()}"
        if not was_committed(lost, store.positions()):
            assert store.totals() == Totals(flushed, flushed, 1, dead=flushed - 1), found
            store.commit(lost)
        flushed, cuts = flushed + 1, cuts + 1
        assert store.totals() == Totals(flushed, flushed, 1, dead=flushed - 1), found
    proxy.close()
    store.close()
    assert cuts > 8


@pytest.mark.parametrize("hand_on", [False, True], ids=["before", "after"])
def test_a_connection_cut_at_any_message_of_a_flush_leaves_all_or_nothing(
    postgres: Postgres, schema: str, hand_on: bool
) -> None:
    cut_at_each_message_of_a_flush(postgres, schema, PostgresStore, hand_on=hand_on)


def test_a_store_that_writes_a_flush_in_two_transactions_is_found(postgres: Postgres, schema: str) -> None:
    with pytest.raises(AssertionError, match=r"cut after \d+ messages"):
        cut_at_each_message_of_a_flush(postgres, schema, EarlyIdsStore, hand_on=False)


def test_a_killed_server_undoes_the_flush_and_the_store_goes_on_after_its_restart(
    postgres: Postgres, schema: str, store: PostgresStore
) -> None:
    # given a flush on its way
    store.commit(flush(Row("0")))
    with suppress(psycopg.OperationalError), held_up(postgres, schema):
        going = in_thread(lambda: store.commit(flush(Row("1"), at=1)))
        until_backends_wait(postgres, 1)

        # when
        postgres.kill()

    # then
    with pytest.raises(StoreUnavailableError, match=r"connection lost|57P0"):
        going.result(60)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        store.commit(flush(Row("1"), at=1))
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        PostgresStore(postgres.dsn, schema=schema)

    # and when it is back
    postgres.restart()
    assert store.commit(flush(Row("1"), at=1)).counted == 1
    assert (ids(store), store.totals().clicks) == (Counter("01"), 2)


def test_a_restarted_server_is_found_again_by_readers(postgres: Postgres, store: PostgresStore) -> None:
    store.commit(flush(Row("0")))
    assert store.totals().clicks == 1
    postgres.restart()
    assert store.totals().clicks == 1


def test_readers_do_not_hold_up_what_counting_asks(store: PostgresStore) -> None:
    # given readers in the middle of the ids, as many as may read at once
    store.commit(flush(*(Row(f"{number}") for number in range(30_000))))
    reading = [store.event_ids() for _ in range(READERS)]
    for each in reading:
        next(each)

    # when, then
    assert store.positions() == {P0: Position(30_000)}
    assert list(store.undelivered([P0], 1)) == []
    store.delivered([])


def test_without_a_free_connection_the_store_is_unavailable(postgres: Postgres, schema: str) -> None:
    with administrator(postgres) as admin:
        admin.execute("create role crowded login connection limit 1")
        admin.execute(f"create schema {schema} authorization crowded".encode())
        dsn = postgres.dsn.replace("postgres@", "crowded@")
        holder = PostgresStore(dsn, schema=schema)

        with pytest.raises(StoreUnavailableError, match="too many connections"):
            PostgresStore(dsn, schema=schema)

        holder.close()

        def opens() -> bool:
            with suppress(StoreUnavailableError):
                PostgresStore(dsn, schema=schema).close()
                return True
            return False

        assert until(opens, time.monotonic() + 60), "the connection was not given back within 60 s"


def test_a_database_that_is_read_only_is_unavailable_until_it_is_not(
    postgres: Postgres, store: PostgresStore
) -> None:
    store.commit(flush(Row("0")))
    with administrator(postgres) as admin:
        admin.execute("alter database postgres set default_transaction_read_only = on")
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid()")
        with pytest.raises(StoreUnavailableError):
            store.commit(flush(Row("1"), at=1))
        with pytest.raises(StoreUnavailableError, match="25006"):
            store.commit(flush(Row("1"), at=1))

        admin.execute("set default_transaction_read_only = off")
        admin.execute("alter database postgres reset default_transaction_read_only")
    assert store.commit(flush(Row("1"), at=1)).counted == 1


def test_a_full_disk_makes_the_store_unavailable_and_undoes_the_flush(
    postgres: Postgres, schema: str
) -> None:
    # given a day that has begun, and whose table is on a device without room
    store = TimedStore(postgres.dsn, schema=schema)
    store.commit(flush(Row("0"), now=BEFORE_MIDNIGHT))
    store.commit(flush(Row("0"), source=P1, now=BEFORE_MIDNIGHT + 2_000))
    store.close()
    with administrator(postgres) as admin:
        row = admin.execute("select pg_relation_filepath(%s)", [f"{schema}.ids_2"]).fetchone()
    assert row is not None
    table = postgres.data / str(row[0])
    table.rename(table.with_suffix(".kept"))
    table.symlink_to("/dev/full")

    # when
    store = TimedStore(postgres.dsn, schema=schema)
    with pytest.raises(StoreUnavailableError, match="53100"):
        store.commit(flush(Row("1"), at=1, now=BEFORE_MIDNIGHT))
    table.unlink()
    table.with_suffix(".kept").rename(table)

    # then nothing of it is there, and it can be written once there is room
    assert store.totals() == Totals(clicks=1, event_ids=1, windows=1, dead=0)
    assert store.commit(flush(Row("1"), at=1, now=BEFORE_MIDNIGHT)).counted == 1
    store.close()


def test_a_wrong_password_or_database_is_told_without_the_password(postgres: Postgres, schema: str) -> None:
    # given a user who needs a password
    with administrator(postgres) as admin:
        admin.execute("create role keeper login password 'right-one'")
    rules = postgres.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all keeper 127.0.0.1/32 scram-sha-256\n{before}")
    with administrator(postgres) as admin:
        admin.execute("select pg_reload_conf()")

    # when, then
    secret = quote("wr0ng:one")
    for dsn, told in [
        (f"postgresql://keeper:{secret}@{postgres.address}/postgres", "password authentication failed"),
        (f"postgresql://keeper@{postgres.address}/postgres", "no password supplied"),
        (f"postgresql://postgres:{secret}@{postgres.address}/absent", 'database "absent" does not exist'),
        (f"postgresql://nobody:{secret}@{postgres.address}/postgres", 'role "nobody" does not exist'),
        (f"postgresql://keeper:{secret}@{postgres.address}/postgres?colour=blue", "cannot be read"),
        (f"keeper:{secret}", "cannot be read"),
    ]:
        with pytest.raises(StoreError, match=told) as refused:
            PostgresStore(dsn, schema=schema)
        assert not isinstance(refused.value, StoreUnavailableError)
        assert secret not in str(refused.value)
        assert "wr0ng" not in str(refused.value)
    rules.write_text(before)


def test_a_user_without_rights_is_told_so(postgres: Postgres, store: PostgresStore, schema: str) -> None:
    with administrator(postgres) as admin:
        admin.execute("create role guest login")
    with pytest.raises(StoreError, match=f"permission denied for schema {schema}") as refused:
        PostgresStore(postgres.dsn.replace("postgres@", "guest@"), schema=schema)
    assert not isinstance(refused.value, StoreUnavailableError)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_character_is_refused_with_what_to_do(
    postgres: Postgres, schema: str, encoding: str
) -> None:
    # given
    name = f"{schema}_{encoding.lower()}"
    with administrator(postgres) as admin:
        admin.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0".encode())

    # when
    with pytest.raises(StoreError, match=f"{name} has the encoding {encoding}, expected UTF8") as refused:
        PostgresStore(f"postgresql://postgres@{postgres.address}/{name}", schema=schema)

    # then what it says helps
    assert not isinstance(refused.value, StoreUnavailableError)
    _, _, remedy = str(refused.value).partition("made by ")
    with administrator(postgres) as admin:
        admin.execute(remedy.replace("NAME", f"{name}_2").encode())
    PostgresStore(f"postgresql://postgres@{postgres.address}/{name}_2", schema=schema).close()


def test_a_schema_of_a_later_release_is_refused_and_left_alone(
    postgres: Postgres, schema: str, store: PostgresStore
) -> None:
    later = len(MIGRATIONS) + 1
    with administrator(postgres) as admin:
        admin.execute(
            f"update {schema}.meta set value = %s where name = 'schema_version'".encode(), [str(later)]
        )
        with pytest.raises(StoreError, match=f"schema version {later}, this release knows versions up to"):
            PostgresStore(postgres.dsn, schema=schema)
        row = admin.execute(
            f"select value from {schema}.meta where name = 'schema_version'".encode()
        ).fetchone()
    assert row == (str(later),)


def expire_until_forgotten(store: PostgresStore, at: int, ids: int) -> None:
    """A call drops nothing that is just being read, be it by the member itself: the next one does."""

    def forgotten() -> bool:
        store.expire(at)
        return store.totals().forgotten == ids

    assert until(forgotten, time.monotonic() + 60), (
        f"forgotten are {store.totals().forgotten}, expected {ids}"
    )


def test_expiring_drops_the_tables_of_past_days(postgres: Postgres, schema: str) -> None:
    # given ids and counts of two days
    store = TimedStore(postgres.dsn, Keeping(windows=DAY_MILLISECONDS), schema)
    next_day = BEFORE_MIDNIGHT + DAY_MILLISECONDS
    store.commit(flush(Row("1", time=BEFORE_MIDNIGHT), now=BEFORE_MIDNIGHT))
    store.commit(flush(Row("2", time=next_day), at=1, now=next_day))

    # when
    store.expire(next_day)
    kept = [*tables(postgres, schema, "counts\\_%"), *tables(postgres, schema, "%s\\__")]
    expire_until_forgotten(store, next_day + 2_000, 1)

    # then
    assert kept == ["counts_20260101", "counts_20260102", "digests_1", "digests_2", "ids_1", "ids_2"]
    assert list(tables(postgres, schema, "counts\\_%")) == ["counts_20260102"]
    assert list(tables(postgres, schema, "%s\\__")) == ["digests_2", "ids_2"]
    assert store.totals() == Totals(clicks=2, event_ids=1, windows=1, dead=0, forgotten=1)
    store.close()


class AheadStore(PostgresStore):
    """On a server whose clock is a year ahead."""

    def _now(self, connection: Connection[Any], given: int) -> int:
        return super()._now(connection, given) + 365 * DAY_MILLISECONDS


def test_a_server_whose_clock_is_ahead_forgets_nothing(
    postgres: Postgres, schema: str, store: PostgresStore
) -> None:
    # given ids and counts that are older than the server's clock allows
    now = int(time.time() * 1000)
    store.commit(flush(Row("1", time=now), now=now))
    ahead = AheadStore(postgres.dsn, schema=schema)

    # when
    ahead.expire(now)

    # then
    assert ahead.totals() == Totals(clicks=1, event_ids=1, windows=1, dead=0)
    assert len(list(ahead.counts(CountQuery()))) == 1
    ahead.close()


def test_a_day_that_is_being_read_is_dropped_later(postgres: Postgres, schema: str) -> None:
    # given a reader in the middle of the ids
    store = TimedStore(postgres.dsn, schema=schema)
    store.commit(flush(*(Row(f"{number}") for number in range(50_000)), now=BEFORE_MIDNIGHT))
    reading = store.event_ids()
    first = next(reading)

    # when the day is past, and a flush begins another one meanwhile
    later = BEFORE_MIDNIGHT + 3 * DAY_MILLISECONDS
    store.expire(later)
    store.commit(flush(Row("new"), source=P1, now=later))

    # then the reader has its snapshot, and the next call drops
    assert len(first) + sum(map(len, reading)) == 50_000
    assert store.totals().forgotten == 0
    expire_until_forgotten(store, later, 50_000)
    assert ids(store) == Counter(["new"])
    store.close()


class CollidingStore(TimedStore):
    """All ids share three digests, each time that they are asked for another one."""

    @staticmethod
    def hashing(seed: int) -> Hashing:
        del seed

        def digests(texts: Sequence[str], attempt: int) -> Integers:
            return np.array([3 * attempt + len(text) % 3 for text in texts], np.int64)

        return digests


def test_ids_whose_digests_collide_are_told_apart_by_their_text(postgres: Postgres, schema: str) -> None:
    # given ids on two days that have the same digests
    store = CollidingStore(postgres.dsn, schema=schema)
    first = [Row("a" * number) for number in range(1, 20)]
    second = [Row("b" * number) for number in range(1, 20)]
    store.commit(flush(*first, now=BEFORE_MIDNIGHT))
    store.commit(flush(*second[:10], at=19, now=BEFORE_MIDNIGHT + 2_000))

    # when all of them come again, and some that are new
    again = store.commit(flush(*second, *first, *second, source=P1, now=BEFORE_MIDNIGHT + 3_000))

    # then
    assert (again.counted, again.duplicates, again.conflicts) == (9, 48, 0)
    assert ids(store) == Counter(row.event_id for row in [*first, *second])
    assert store.commit(flush(*first, *second, at=57, source=P1, now=BEFORE_MIDNIGHT)).counted == 0

    # and when the first day is forgotten, the second day's ids are still found
    expire_until_forgotten(store, BEFORE_MIDNIGHT + DAY_MILLISECONDS + 2_000, 19)
    assert store.commit(flush(*second, at=95, source=P1, now=BEFORE_MIDNIGHT + 4_000)).duplicates == 19
    store.close()


def test_costs_beyond_64_bits_are_summed_and_windows_merged(postgres: Postgres, schema: str) -> None:
    store = PostgresStore(postgres.dsn, schema=schema)
    dear = [Row(f"dear-{number}", cost=2**61 + number) for number in range(20)]
    cheap = [Row(f"cheap-{number}", ad_id="other", cost=1) for number in range(4)]
    store.commit(flush(*dear[:15], *cheap[:2]))
    store.commit(flush(*dear[15:], *cheap[2:], at=17))
    before = list(store.counts(CountQuery()))
    rows = sum(tables(postgres, schema, "counts\\_%").values())

    # when
    store.merge(60_000)

    # then
    assert [(count.clicks, count.cost) for count in before] == [(20, 20 * 2**61 + 190), (4, 4)]
    assert list(store.counts(CountQuery())) == before
    assert sum(tables(postgres, schema, "counts\\_%").values()) == rows - 1
    assert store.totals().windows == 2
    store.close()


def test_flushes_merge_the_windows_of_minutes_past(postgres: Postgres, schema: str) -> None:
    store = PostgresStore(postgres.dsn, schema=schema)
    for number in range(5):
        at = BEFORE_MIDNIGHT + number * 60_000
        store.commit(flush(Row(f"{number}", time=0), at=number or None, now=at))
    assert sum(tables(postgres, schema, "counts\\_%").values()) < 5
    assert [count.clicks for count in store.counts(CountQuery())] == [5]
    store.close()
