"""One running stack for all stack tests, and stacks of their own for those that need one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack import Stack


def own_redis_environment() -> dict[str, str]:
    """The environment without REDIS_URL: tests kill and wipe Redis, so it must be their own."""
    return {name: value for name, value in os.environ.items() if name != "REDIS_URL"}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka (one broker), Kubernetes API and Valkey, started once; a test that kills a part restarts it."""
    with Stack(tmp_path_factory.mktemp("stack"), environment=own_redis_environment()) as running:
        yield running


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """`make_stack(brokers=3, ...)` starts a stack for one test; all are stopped after it.

    `kubernetes=False, redis=False` leaves a broker alone, which starts in 2 s.
    """
    made: list[Stack] = []

    def make(**options: Any) -> Stack:
        options.setdefault("environment", own_redis_environment())
        made.append(Stack(options.pop("root", tmp_path / f"stack-{len(made)}"), **options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()
