"""A PostgreSQL of the tests' own, and stores in it that know nothing of each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.part import Place
from devstack.ports import free_ports
from devstack.postgres import Postgres

_schemas = itertools.count(1)


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
