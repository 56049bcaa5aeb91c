"""One running stack for all stack tests, and stacks of their own for those that need one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devstack import Stack, StackError


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds what is not in the cache before the first test, whose time limit it would exceed."""
    if session.config.option.collectonly:
        return
    if any({"stack", "make_stack"} & set(getattr(item, "fixturenames", ())) for item in session.items):
        try:
            Stack(Path("unused")).fetch()
        except StackError as error:
            pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def environment() -> Mapping[str, str]:
    """The environment without REDIS_URL: tests kill and wipe Redis, so it must be their own."""
    return {name: value for name, value in os.environ.items() if name != "REDIS_URL"}


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment: Mapping[str, str]
) -> Iterator[Stack]:
    """Kafka (one broker), Kubernetes API and Valkey, started once; a test that kills a part restarts it."""
    with Stack(tmp_path_factory.mktemp("stack"), environment=environment) as running:
        yield running
    _clean(running, request)


@pytest.fixture
def make_stack(
    request: pytest.FixtureRequest, tmp_path: Path, environment: Mapping[str, str]
) -> Iterator[Callable[..., Stack]]:
    """`make_stack(brokers=3, ...)` starts a stack for one test; all are stopped after it.

    `kubernetes=False, redis=False` leaves a broker alone, which starts in 2 s.
    """
    made: list[Stack] = []

    def make(**options: Any) -> Stack:
        options.setdefault("environment", environment)
        made.append(Stack(options.pop("root", tmp_path / f"stack-{len(made)}"), **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()
        _clean(each, request)


def _clean(stopped: Stack, request: pytest.FixtureRequest) -> None:
    """A stack takes 100 MB; its logs are kept only where a test has failed."""
    if not request.session.testsfailed:
        stopped.wipe()
