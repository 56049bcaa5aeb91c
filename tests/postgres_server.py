"""A PostgreSQL of the tests' own, and stores in it that know nothing of each other."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from devstack.part import Place
from devstack.ports import free_ports
from devstack.postgres import Postgres
from devstack.process import until
from hotkey_aggregator.postgres_store import PostgresStore

_schemas = itertools.count(1)


class TimedStore(PostgresStore):
    """Takes the time that a test gives for that of the database's clock."""

    def _now(self, connection: Connection[Any], given: int) -> int:
        del connection
        return given


@contextmanager
def running_postgres(root: Path) -> Iterator[Postgres]:
    """A server that ends with the block, and with this program at the latest."""
    place = Place(root, tied=True)
    place.make()
    (port,) = free_ports(1, random.Random())
    server = Postgres(place, port)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def new_schema() -> str:
    """A name that no other test of this run has."""
    return f"test{next(_schemas)}"


def until_backends_wait(server: Postgres, count: int) -> list[int]:
    """Wait until so many connections wait for a lock; their process ids."""
    found: list[int] = []

    def waiting() -> bool:
        rows = asking.execute(
            "select pid from pg_stat_activity where wait_event_type = 'Lock' order by pid"
        ).fetchall()
        found[:] = [pid for (pid,) in rows]
        return len(found) == count

    with psycopg.connect(server.dsn, autocommit=True) as asking:
        if not until(waiting, time.monotonic() + 60):
            shown = asking.execute("select pid, state, wait_event, query from pg_stat_activity").fetchall()
            raise AssertionError(f"{len(found)} connections wait for a lock, expected {count}: {shown}")
    return found
