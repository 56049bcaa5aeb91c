"""The connections of the PostgreSQL store: one that writes, pools that read, their settings.

They are made again after they were lost; what an error means is decided in `postgres_errors`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg_pool import ConnectionPool

from hotkey_aggregator.postgres_copy import Integers, int8_array
from hotkey_aggregator.postgres_errors import TRY_AGAIN_AT_ONCE, connect_error, place, store_error

READERS = 4
OWN = 3
"""For what counting itself reads: it must not wait behind the queries of people."""

RECONNECT_SECONDS = 5.0
"""How long a pool tries by itself, at growing distances; then whoever asks next makes it try at once."""

_SESSION = {
    # Ends a member that was frozen in the middle of a flush: others wait for its locks.
    "idle_in_transaction_session_timeout": "30s",
    "statement_timeout": "120s",
    "lock_timeout": "60s",
    # No timeout ends a COPY whose client is silent: only that its machine does not answer is noticed.
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # Each statement must see what was committed while it waited for a lock.
    "default_transaction_isolation": "read committed",
    "jit": "off",
    # A custom plan would weigh each of some hundred thousand digests.
    "plan_cache_mode": "force_generic_plan",
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
}
_READING = {"jit": "off", "client_encoding": "UTF8", "TimeZone": "UTC"}


class BigInts:
    """A `bigint[]` in binary form: a list of Python integers costs ten times as much."""

    def __init__(self, values: Integers) -> None:
        self.data = int8_array(values)


class _BigIntsDumper(Dumper):
    format = Format.BINARY
    oid = 1016

    def dump(self, obj: BigInts) -> bytes:
        return obj.data


class Connections:
    """To one schema of one database. Raises what `Store` raises."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.where = place(dsn)
        self.schema = schema
        self._dsn = dsn
        self._writing = threading.Lock()
        self._writer: Connection[Any] | None = None
        self._readers, self._own = self._pool(READERS), self._pool(OWN)

    @contextmanager
    def write(self, doing: str) -> Iterator[Connection[Any]]:
        """The connection that writes, one use at a time; made again after it was lost."""
        with self._writing:
            try:
                yield self._connected()
            except psycopg.Error as error:
                # After a failover the same address may lead to a server that takes writes.
                if not isinstance(error, TRY_AGAIN_AT_ONCE):
                    self._let_go()
                raise store_error(self.where, doing, error) from error

    def _connected(self) -> Connection[Any]:
        if self._writer is None or self._writer.closed:
            self._let_go()
            try:
                made = psycopg.connect(self._dsn, autocommit=True, **_network(self._dsn))
            except psycopg.Error as error:
                raise connect_error(self.where, error) from error
            self._configure(made, _SESSION)
            made.adapters.register_dumper(BigInts, _BigIntsDumper)
            self._writer = made
        return self._writer

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _configure(self, connection: Connection[Any], settings: Mapping[str, str]) -> None:
        for name, value in {"search_path": f'"{self.schema}"', **settings}.items():
            connection.execute("select set_config(%s, %s, false)", [name, value])

    def _pool(self, size: int) -> ConnectionPool[Connection[Any]]:
        return ConnectionPool(
            self._dsn,
            kwargs={"autocommit": True, **_network(self._dsn)},
            configure=lambda connection: self._configure(connection, _READING),
            check=ConnectionPool.check_connection,
            min_size=0,
            max_size=size,
            timeout=10,
            max_idle=60,
            reconnect_timeout=RECONNECT_SECONDS,
            open=False,
        )

    @contextmanager
    def read(self, *, own: bool = False) -> Iterator[Connection[Any]]:
        """A connection of its own for a reader, or for a write that is one statement.

        `own`: what counting rests on, not a query of people's.
        """
        pool = self._own if own else self._readers
        pool.open()
        try:
            with pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise store_error(self.where, "answer a reader", error) from error

    @contextmanager
    def read_snapshot(self) -> Iterator[Connection[Any]]:
        """One snapshot of all, in which no day is dropped. The lock comes first: it takes no snapshot."""
        with self.read() as connection, connection.transaction():
            connection.execute("set transaction isolation level repeatable read")
            connection.execute("lock table ids, counts in access share mode")
            yield connection

    def close(self) -> None:
        """Close them all."""
        self._readers.close()
        self._own.close()
        with self._writing:
            self._let_go()


def _network(dsn: str) -> dict[str, Any]:
    """Notices within a minute that the server's machine is gone, unless the DSN says otherwise."""
    defaults = {
        "connect_timeout": 10,
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
        "application_name": "hotkey-aggregator",
    }
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    return {name: value for name, value in defaults.items() if name not in given}
