"""A scene for each test: a namespace in which it starts operators, topics, loads, an aggregator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devstack import Stack, crds, tools
from examples.load import Load, prove
from tests.chart.commands import Program
from tests.stack.aggregator.process import AggregatorProcess
from tests.stack.operator.scene import ROOT, Scene
from tests.stack.operator.sender import Record, Sender

StartLoad = Callable[..., Load]
StartSender = Callable[[Callable[[int], Record], float], Sender]
StartAggregator = Callable[[str], AggregatorProcess]
Proven = Callable[[Load, str], None]


@pytest.fixture(scope="session")
def resources(stack: Stack) -> Program:
    """kubectl on an API server that knows our resources."""
    program = Program(tools.kubectl(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",))
    crds.install(program, ROOT / "crds")
    return program


@pytest.fixture
def scene(stack: Stack, resources: Program, tmp_path: Path) -> Iterator[Scene]:
    namespace = f"op-{uuid4().hex[:8]}"
    resources("create", "namespace", namespace)
    made = Scene(stack, resources, namespace, tmp_path)
    yield made
    for operator in made.operators:
        operator.stop()


@pytest.fixture
def topic(scene: Scene) -> str:
    """A new topic of 12 partitions."""
    return scene.topic(f"clicks-{uuid4().hex[:8]}")


@pytest.fixture
def start_load(scene: Scene, tmp_path: Path) -> Iterator[StartLoad]:
    """`start_load(topic, ...)` starts two producers with the SDK, of whose clicks 80 % are `nike`."""
    loads: list[Load] = []

    def start(topic: str, **options: Any) -> Load:
        options = {"producers": 2, "records_per_second": 2_000.0, **options}
        keys, redis_url = scene.public_keys, scene.stack.redis.url_for("hotkey-producer")
        folder = tmp_path / f"load-{len(loads)}"
        loads.append(Load(scene.stack.kafka.bootstrap, topic, redis_url, keys, folder, **options))
        loads[-1].start()
        return loads[-1]

    yield start
    for load in loads:
        load.kill()


@pytest.fixture
def start_sender(scene: Scene) -> Iterator[StartSender]:
    """`start_sender(draw, records_per_second)` starts to send what `draw` gives for each number."""
    senders: list[Sender] = []

    def start(draw: Callable[[int], Record], records_per_second: float) -> Sender:
        senders.append(Sender(scene, draw, records_per_second))
        senders[-1].start()
        return senders[-1]

    yield start
    for sender in senders:
        sender.stop()


@pytest.fixture
def start_aggregator(scene: Scene, tmp_path: Path) -> Iterator[StartAggregator]:
    """`start_aggregator(topic)` starts one that follows the topic's published table."""
    made: list[AggregatorProcess] = []

    def start(topic: str) -> AggregatorProcess:
        kafka, table = scene.stack.kafka.bootstrap, scene.stack.redis.url_for("hotkey-consumer")
        keys = scene.public_keys
        made.append(AggregatorProcess(tmp_path, topic, kafka, topic, redis_url=table, public_keys=keys))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.ensure_gone()


@pytest.fixture
def proven(scene: Scene) -> Proven:
    """Stops the load and holds the ids in Kafka against those sent and acknowledged."""

    def check(load: Load, topic: str) -> None:
        load.stop()
        proof = prove(load.sent_ids(), load.acked_ids(), scene.event_ids(topic))
        assert proof.acked > 0
        assert proof.holds, str(proof)

    return check
