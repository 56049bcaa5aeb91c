"""Each suite runs on the real part and on the simulation's in-memory part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from devstack import Stack, crds
from devstack.tools import kubectl
from hotkey_operator.adapters.kubernetes import KubernetesTables
from hotkey_operator.ports import Tables
from tests.chart.commands import Program
from tests.contract.operator.worlds import (
    BrokersWorld,
    DistributionWorld,
    KafkaWorld,
    MemoryBrokersWorld,
    MemoryDistributionWorld,
    RedisWorld,
)
from tests.simulation.memory import MemoryTables
from tests.stack.conftest import environment, stack  # noqa: F401

CRDS = Path(__file__).parents[3] / "crds"
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """One event loop for a test and the adapters that it uses."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(params=["kafka", "memory"])
def brokers(request: pytest.FixtureRequest, run: Run) -> Iterator[BrokersWorld]:
    is_real = request.param == "kafka"
    world: BrokersWorld = KafkaWorld(request.getfixturevalue("stack")) if is_real else MemoryBrokersWorld()
    yield world
    run(world.close())


@pytest.fixture(params=["redis", "memory"])
def redis(request: pytest.FixtureRequest, run: Run) -> Iterator[DistributionWorld]:
    is_real = request.param == "redis"
    world: DistributionWorld = (
        RedisWorld(request.getfixturevalue("stack")) if is_real else MemoryDistributionWorld()
    )
    yield world
    run(world.close())


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[client.ApiClient]:  # noqa: F811
    """A client of an API server that knows our resources."""
    crds.install(Program(kubectl(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",)), CRDS)
    made = config.new_client_from_config(str(stack.kubernetes.kubeconfig))  # type: ignore[no-untyped-call]
    yield made
    made.close()


@pytest.fixture(params=["kubernetes", "memory"])
def tables(request: pytest.FixtureRequest) -> Tables:
    if request.param == "memory":
        return MemoryTables()
    return KubernetesTables(request.getfixturevalue("api"))
