"""The parts of one stack, made from its recorded state; nothing is started here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.control_plane import ControlPlane
from devstack.kafka import Kafka, KafkaAddress, KafkaNode
from devstack.kafka_files import KafkaFiles
from devstack.kubernetes import ApiServer, ControllerManager, Etcd, ExternalKubernetes, Kubernetes
from devstack.part import Part, Place
from devstack.postgres import Postgres
from devstack.programs import Programs
from devstack.state import State
from devstack.valkey import ExternalRedis, Valkey


@dataclass(frozen=True)
class Parts:
    """What a stack is made of; None for what it was made without."""

    kafka: Kafka
    kubernetes: Kubernetes | ExternalKubernetes | None
    redis: Valkey | ExternalRedis | None
    postgres: Postgres | None

    @classmethod
    def of(cls, state: State, place: Place, programs: Programs) -> Parts:
        return cls(
            kafka=_kafka(state, place, programs.kafka),
            kubernetes=_kubernetes(state, place, programs.control_plane),
            redis=_redis(state, place),
            postgres=Postgres(place, state.ports["postgres"]) if state.options.postgres else None,
        )

    @property
    def starts(self) -> list[Callable[[], None]]:
        return [part.start for part in self._present]

    @property
    def stops(self) -> list[Callable[[], None]]:
        return [part.stop for part in self._present]

    @property
    def _present(self) -> list[Kafka | Kubernetes | ExternalKubernetes | Valkey | ExternalRedis | Postgres]:
        return [part for part in (self.kafka, self.kubernetes, self.redis, self.postgres) if part is not None]

    @property
    def processes(self) -> list[Part]:
        """Every process of our own, in the order of the status table."""
        found: list[Part] = list(self.kafka.parts)
        if isinstance(self.kubernetes, Kubernetes):
            found += self.kubernetes.parts
        return found + [part for part in (self.redis, self.postgres) if isinstance(part, Part)]


def _kafka(state: State, place: Place, files: KafkaFiles) -> Kafka:
    ports = state.ports
    addresses = [
        KafkaAddress(node, ports[f"kafka-{node}"], ports[f"kafka-{node}-controller"])
        for node in range(1, state.options.brokers + 1)
    ]
    busy = state.options.busy_brokers
    session_ms = state.options.broker_session_ms
    nodes = [
        KafkaNode(each, addresses, state.cluster_id, files, place, busy=busy, session_ms=session_ms)
        for each in addresses
    ]
    return Kafka(nodes, state.cluster_id)


def _kubernetes(state: State, place: Place, binaries: ControlPlane) -> Kubernetes | ExternalKubernetes | None:
    options, ports = state.options, state.ports
    if not options.kubernetes:
        return None
    if options.use_cluster is not None:
        return ExternalKubernetes(Path(options.use_cluster))
    kubeconfig = place.root / "kubeconfig"
    etcd = Etcd(place, ports["etcd"], ports["etcd-peer"], binaries)
    apiserver = ApiServer(place, ports["apiserver"], etcd, binaries)
    controllers = None
    if options.controller_manager:
        port = ports["controller-manager"]
        controllers = ControllerManager(place, port, apiserver, kubeconfig, binaries)
    return Kubernetes(etcd, apiserver, controllers, kubeconfig)


def _redis(state: State, place: Place) -> Valkey | ExternalRedis | None:
    options = state.options
    if options.redis_url is not None:
        return ExternalRedis(options.redis_url)
    if not options.redis:
        return None
    return Valkey(place, state.ports["redis"], persistent=options.redis_persistent)
