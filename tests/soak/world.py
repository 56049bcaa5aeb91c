"""All that runs in a soak: three brokers, Redis, Kubernetes API and PostgreSQL, and on them hotkey itself."""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devstack import Stack, crds, tools
from devstack.part import Place, together
from devstack.ports import free_ports
from devstack.valkey import Valkey
from hotkey_aggregator.postgres_store import PostgresStore
from tests.chart.commands import Program as Command
from tests.soak.faults import AGGREGATORS, BROKERS, PRODUCERS
from tests.soak.orders import Orders
from tests.soak.producer import ProducerSettings
from tests.soak.programs import ROOT, AggregatorProgram, OperatorProgram, ProducerProgram, Program
from tests.stack.end_offsets import until_usable
from tests.stack.operator.process import SECRET
from tests.stack.operator.scene import Scene

NAMESPACE, POLICY, TOPIC, GROUP = "soak", "clicks", "clicks", "counters"
PARTITIONS = 6
OWN_PARTITIONS = 4
BROKER_SESSION_MS = 5_000
"""Long enough for brokers of a machine that is busy."""
OVER_USUAL = 1.25
"""The trigger, in what a partition takes when all is spread evenly at the usual rate."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much: `rate` records/s of all producers together, and the seed that everything is drawn from."""

    rate: float
    seed: int

    @property
    def trigger(self) -> int:
        """Records/s of a partition: above what is usual, below what a surge brings to every partition."""
        return math.ceil(OVER_USUAL * self.rate / PARTITIONS)


def policy(scale: Scale) -> dict[str, Any]:
    """What is asked for: quick to act, and topics of their own where keys fit nowhere."""
    return {
        "topic": TOPIC,
        "dimensions": [{"name": "user_id", "from": {"jsonPath": "$.user_id"}}],
        "spread": {"by": [["user_id"]]},
        "trigger": {"recordsPerSecond": scale.trigger, "for": "500ms"},
        "release": {"ratio": 0.9, "for": "2s"},
        "limits": {"changesPerMinute": 240},
        "dedicatedTopic": {"enabled": True, "partitions": OWN_PARTITIONS},
        "consumers": {"groups": [GROUP]},
    }


@dataclass
class World:
    """What runs, by name; `folder` has its files. Orders are changed by `order` alone."""

    folder: Path
    scale: Scale
    stack: Stack
    scene: Scene = field(init=False)
    operator: OperatorProgram = field(init=False)
    aggregators: tuple[AggregatorProgram, ...] = field(init=False)
    producers: tuple[ProducerProgram, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._place = Place(self.folder / "programs", tied=True)
        self._place.make()
        self._lock = threading.Lock()
        self._orders = Orders()
        self._numbers = iter(range(1_000_000))
        self._begun = 0
        self.journals = self.folder / "journals"
        self.journals.mkdir()
        self.run = f"s{self.scale.seed}"

    @property
    def orders_file(self) -> Path:
        return self.folder / "orders.json"

    @property
    def numbers(self) -> range:
        """Of all producers that there ever were."""
        return range(self._begun)

    @property
    def programs(self) -> tuple[Program, ...]:
        return (self.operator, *self.aggregators, *self.producers)

    @property
    def is_told_to_stop(self) -> bool:
        """Whether producers are to end."""
        return self._orders.stop

    def program(self, name: str) -> Program:
        return next(each for each in self.programs if each.name == name)

    @property
    def valkey(self) -> Valkey:
        assert isinstance(self.stack.redis, Valkey)
        return self.stack.redis

    def order(self, **changed: Any) -> None:
        """Tell producers and clocks something new; what is not named stays as it is."""
        with self._lock:
            self._orders = msgspec.structs.replace(self._orders, **changed)
            self._orders.write(self.orders_file)

    def order_of(self, what: str, name: str, value: float) -> None:
        """Change the entry of one process in `skews`, or add to that in `bursts`."""
        with self._lock:
            before: Mapping[str, Any] = getattr(self._orders, what)
            new = {**before, name: before.get(name, 0) + value if what == "bursts" else value}
            self._orders = msgspec.structs.replace(self._orders, **{what: new})
            self._orders.write(self.orders_file)

    def start(self) -> None:
        """Bring up the stack and everything on it; returns when clicks are sent and counted."""
        self.stack.start()
        kubectl = Command(tools.kubectl(), (f"--kubeconfig={self.stack.kubernetes.kubeconfig}",))
        crds.install(kubectl, ROOT / "crds")
        kubectl("create", "namespace", NAMESPACE)
        self.scene = Scene(self.stack, kubectl, NAMESPACE, self.folder)
        self._make_topic()
        self.scene.apply(POLICY, policy(self.scale))
        ports = iter(free_ports(1 + AGGREGATORS, random.Random(self.scale.seed)))
        self.operator = OperatorProgram(self._place, next(ports), self._operator_environment())
        self.operator.start()
        self.scene.wait_for_condition(POLICY, "Governing")
        self.order(rate=self.scale.rate / PRODUCERS)
        self._start_clients(ports)
        together([each.wait_until_ready for each in (*self.aggregators, *self.producers)])

    def _make_topic(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.stack.kafka.bootstrap, "log_level": 0})
        made = admin.create_topics(
            [NewTopic(TOPIC, PARTITIONS, BROKERS, config={"min.insync.replicas": "2"})]
        )
        made[TOPIC].result(120)
        until_usable(self.stack.kafka.bootstrap, TOPIC, PARTITIONS)

    def _operator_environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.stack.kubernetes.kubeconfig),
            "HOTKEY_KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka.bootstrap,
            "HOTKEY_REDIS_URL": self.valkey.url_for("hotkey-operator"),
            "HOTKEY_SIGNING_SECRET": f"{NAMESPACE}/{SECRET}",
            "HOTKEY_NAMESPACES": NAMESPACE,
        }

    def _start_clients(self, ports: Iterator[int]) -> None:
        keys = self.folder / "public.keys"
        keys.write_text(self.scene.public_keys)
        flags = {
            "bootstrap-servers": self.stack.kafka.bootstrap,
            "topic": TOPIC,
            "group": GROUP,
            "store": self.stack.postgres.dsn,
            "redis-url": self.valkey.url_for("hotkey-consumer"),
            "public-keys": f"file:{keys}",
            "flush-seconds": 1,
        }
        names = [f"aggregator-{number}" for number in range(1, AGGREGATORS + 1)]
        self.aggregators = tuple(
            AggregatorProgram(name, self._place, next(ports), self.orders_file, flags) for name in names
        )
        for aggregator in self.aggregators:
            aggregator.launch()
        settings = ProducerSettings(
            bootstrap=self.stack.kafka.bootstrap,
            topic=TOPIC,
            redis_url=self.valkey.url_for("hotkey-producer"),
            public_keys=f"file:{keys}",
            run=self.run,
            seed=self.scale.seed,
            folder=str(self.journals),
            orders=str(self.orders_file),
        )
        file = self.folder / "producers.json"
        file.write_bytes(msgspec.json.encode(settings))
        self.producers = tuple(
            ProducerProgram(f"producer-{number}", self._place, file) for number in range(1, PRODUCERS + 1)
        )
        for producer in self.producers:
            self.begin(producer)

    def begin(self, producer: ProducerProgram) -> None:
        """Start a producer in this place, under a number that none had before."""
        with self._lock:
            number, self._begun = next(self._numbers), self._begun + 1
        producer.begin(number)

    def store(self) -> PostgresStore:
        """What is counted, to be read."""
        return PostgresStore(self.stack.postgres.dsn)

    def leader(self) -> int:
        """The index of the broker that leads the first partition; of any that runs when it is not known."""
        admin = AdminClient({"bootstrap.servers": self.stack.kafka.bootstrap, "log_level": 0})
        try:
            leader = admin.list_topics(TOPIC, timeout=5).topics[TOPIC].partitions[0].leader
        except (KafkaException, KeyError):
            leader = -1
        return leader - 1 if leader > 0 else 0

    def topics(self) -> set[str]:
        """The names of all topics that there are. Raises OSError while no broker tells."""
        admin = AdminClient({"bootstrap.servers": self.stack.kafka.bootstrap, "log_level": 0})
        try:
            return set(admin.list_topics(timeout=10).topics)
        except KafkaException as error:
            raise OSError(str(error)) from error

    def stop(self) -> None:
        """End all that runs, by its pid."""
        for program in getattr(self, "producers", ()) + getattr(self, "aggregators", ()):
            if program.is_running:
                program.kill()
        operator = getattr(self, "operator", None)
        if operator is not None and operator.is_running:
            operator.kill()
        self.stack.stop()


def new_world(folder: Path, scale: Scale) -> World:
    """A world in this folder, nothing of it started."""
    folder.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    stack = Stack(
        folder / "stack",
        brokers=BROKERS,
        broker_session_ms=BROKER_SESSION_MS,
        postgres=True,
        environment=environment,
    )
    return World(folder, scale, stack)
