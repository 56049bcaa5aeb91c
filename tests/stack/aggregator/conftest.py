"""Aggregator processes for a test, ended with it, and topics of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import Stack
from devstack.postgres import Postgres
from tests.postgres_server import new_schema, running_postgres
from tests.stack.aggregator.clicks import make_topic
from tests.stack.aggregator.process import AggregatorProcess

_numbers = itertools.count(1)

MakeAggregator = Callable[..., AggregatorProcess]
MakeTopic = Callable[..., str]


@pytest.fixture
def new_topic(stack: Stack) -> MakeTopic:
    """`new_topic(partitions)` creates a topic with a name that no other test has."""

    def make(partitions: int) -> str:
        name = f"clicks-{next(_numbers)}"
        make_topic(stack.kafka.bootstrap, name, partitions)
        return name

    return make


@pytest.fixture
def aggregator(stack: Stack, tmp_path: Path) -> Iterator[MakeAggregator]:
    """`aggregator(topic, flush_seconds=..., ...)` makes one that is not started yet."""
    made: list[AggregatorProcess] = []

    def make(topic: str, **flags: object) -> AggregatorProcess:
        name = f"{topic}-{len(made)}"
        made.append(AggregatorProcess(tmp_path, name, stack.kafka.bootstrap, topic, **flags))
        return made[-1]

    yield make
    for each in made:
        each.ensure_gone()


def new_database(postgres: Postgres, owner: str = "postgres") -> str:
    """The address of a database that nothing else uses, for that user."""
    name = f"aggregator{next(_numbers)}"
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} owner {owner}".encode())
    return f"postgresql://{owner}@{postgres.address}/{name}"


@pytest.fixture
def schema() -> str:
    """The name of a schema that nothing else uses."""
    return new_schema()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of a database that no other test has."""
    return new_database(postgres)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with running_postgres(tmp_path / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server; each test has a schema of its own in it."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
