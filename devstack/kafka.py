"""Apache Kafka in KRaft mode: one node, or three that are broker and controller each."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata

from devstack.cache import remove
from devstack.errors import StackError
from devstack.kafka_files import KafkaFiles
from devstack.part import Group, Part, Place
from devstack.process import Command, run

_PROBE_SECONDS = 2.0
_silent = logging.getLogger("devstack.kafka.probe")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


@dataclass(frozen=True)
class KafkaAddress:
    """Node id and the two ports of a node."""

    node: int
    port: int
    controller_port: int


SESSION_MS = 3_000  # a restarted node waits for its old session to end; 9 s would be usual
BUSY_SESSION_MS = 20_000
GROUP_SESSION_MS, GROUP_HEARTBEAT_MS = 10_000, 1_000
"""By the protocol `consumer`, where brokers decide it; 45 s and 5 s would be usual. A dead member is missed
after as long as by the classic protocol, where the aggregator decides it."""
BUSY_FLAGS = ("-Xmx2g",)

# Everything is allowed until somebody makes an ACL, so that tests can forbid a client this or that.
ACLS: dict[str, object] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


class KafkaNode(Part):
    """Broker and controller in one process."""

    def __init__(
        self,
        address: KafkaAddress,
        nodes: Sequence[KafkaAddress],
        cluster_id: str,
        files: KafkaFiles,
        place: Place,
        *,
        busy: bool = False,
        session_ms: int | None = None,
    ) -> None:
        super().__init__("kafka" if len(nodes) == 1 else f"kafka-{address.node}", place, address.port)
        self.id = address.node
        self._node = address
        self._nodes = tuple(nodes)
        self._cluster_id = cluster_id
        self._files = files
        self._session_ms = session_ms or (BUSY_SESSION_MS if busy else SESSION_MS)
        self._flags = BUSY_FLAGS if busy else ()

    @property
    def _properties(self) -> Path:
        return self.data / "server.properties"

    def prepare(self) -> None:
        super().prepare()
        settings = server_properties(self._node, self._nodes, self.data / "log", self._session_ms)
        self._properties.write_text(settings)
        formatted = self.data / "formatted"
        if formatted.exists():
            return
        remove(self.data / "log")
        storage = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(self._properties)]
        run(self._files.java(storage), what=f"formatting the storage of {self.name}")
        formatted.touch()

    def command(self) -> Command:
        return Command(self._files.java(["kafka.Kafka", str(self._properties)], self._flags))

    def probe(self) -> str | None:
        """Asks this very node, so that nobody else's answer is taken for its own."""
        # A client that was refused once waits longer and longer before it tries again.
        socket.create_connection(("127.0.0.1", self.port), timeout=_PROBE_SECONDS).close()
        try:
            metadata = _client(self.address).list_topics(timeout=_PROBE_SECONDS)
        except KafkaException as error:
            return str(error)
        return missing_in(metadata, self.id, self._cluster_id)


class Kafka(Group):
    """The brokers; `nodes[i]` is a part of its own."""

    def __init__(self, nodes: Sequence[KafkaNode], cluster_id: str) -> None:
        super().__init__(nodes)
        self.nodes = tuple(nodes)
        self.cluster_id = cluster_id

    @property
    def bootstrap(self) -> str:
        return ",".join(node.address for node in self.nodes)


def missing_in(metadata: ClusterMetadata, node: int, cluster_id: str) -> str | None:
    """What a node's answer still lacks; StackError when another cluster answers on its port."""
    if metadata.cluster_id not in (None, "", cluster_id):
        raise StackError(
            f"Kafka cluster {metadata.cluster_id} answers where {cluster_id} was started: a broker of "
            "another stack holds the port; stop it, or run `python -m devstack down --wipe`"
        )
    if node not in metadata.brokers:
        return f"node {node} is not among the brokers {sorted(metadata.brokers)}"
    for topic in metadata.topics.values():
        for partition in topic.partitions.values():
            if partition.leader == -1 and node in partition.isrs:
                return f"{topic.topic}/{partition.id} has no leader"
    return None


def _client(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=_silent)


def server_properties(
    node: KafkaAddress, nodes: Sequence[KafkaAddress], log_dir: Path, session_ms: int
) -> str:
    """The settings of one node: small, quick to start and to notice a dead broker."""
    replicas = min(3, len(nodes))
    voters = ",".join(f"{each.node}@127.0.0.1:{each.controller_port}" for each in nodes)
    plaintext, controller = f"127.0.0.1:{node.port}", f"127.0.0.1:{node.controller_port}"
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.node,
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{plaintext},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{plaintext}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": log_dir,
        "auto.create.topics.enable": "false",
        "broker.session.timeout.ms": session_ms,
        "broker.heartbeat.interval.ms": session_ms // 4,
        "group.initial.rebalance.delay.ms": 0,
        "group.consumer.min.session.timeout.ms": GROUP_SESSION_MS,
        "group.consumer.session.timeout.ms": GROUP_SESSION_MS,
        "group.consumer.min.heartbeat.interval.ms": GROUP_HEARTBEAT_MS,
        "group.consumer.heartbeat.interval.ms": GROUP_HEARTBEAT_MS,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": max(1, replicas - 1),
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": max(1, replicas - 1),
        "share.coordinator.state.topic.num.partitions": 4,
        "default.replication.factor": replicas,
        "min.insync.replicas": max(1, replicas - 1),
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 1,
        "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
    }
    if len(nodes) == 1:  # brokers that talk to each other would need names of their own to be let in first
        settings |= ACLS
    return "".join(f"{name}={value}\n" for name, value in settings.items())
