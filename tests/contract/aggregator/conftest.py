"""One PostgreSQL server for all contract tests of a run; each test has a schema of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack.postgres import Postgres
from tests.postgres_server import running_postgres


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A running server."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
