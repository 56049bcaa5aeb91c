"""A stack for the tests of the chart: a real API server, and Kafka and Redis to run the operator against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import Stack, tools
from tests.chart.commands import Manifest, Program, manifests

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/hotkey-operator"

# What has no default.
NEEDED = ("--set", "kafka.bootstrapServers=kafka:9092", "--set", "redis.url=redis://redis:6379/0")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("chart")) as started:
        yield started


@pytest.fixture(scope="session")
def helm() -> Program:
    """helm without a cluster: lint and template."""
    return Program(tools.helm())


@pytest.fixture(scope="session")
def kubectl(stack: Stack) -> Program:
    return Program(tools.kubectl(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",))


@pytest.fixture(scope="session")
def helm_there(stack: Stack) -> Program:
    """helm on the stack's cluster."""
    return Program(tools.helm(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",))


def render(helm: Program, *arguments: str, namespace: str = "hotkey") -> list[Manifest]:
    """What `helm template` makes of the chart with the needed values and more arguments."""
    return manifests(helm("template", "hk", str(CHART), "--namespace", namespace, *NEEDED, *arguments))
