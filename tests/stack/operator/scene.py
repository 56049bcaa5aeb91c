"""A namespace with an operator of its own on the running stack, and what a person or a client sees of it.

It knows the operator by its command, its objects and what it publishes, and nothing of its inside.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from devstack import Stack
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Follower
from hotkey_sdk.routing.names import TABLE_ENVELOPE, table_key
from hotkey_sdk.routing.table import Stream, Table
from tests.chart.commands import Program
from tests.stack.end_offsets import end_offsets, until_usable
from tests.stack.operator.process import SECRET, Operator
from tests.stack.operator.waiting import WAIT_SECONDS, eventually

ROOT = Path(__file__).parents[3]


class Scene:
    """One namespace and the stack as seen from it."""

    def __init__(self, stack: Stack, kubectl: Program, namespace: str, folder: Path) -> None:
        self.stack, self.namespace, self.folder = stack, namespace, folder
        self.kubectl = Program(kubectl.path, (*kubectl.leading, "-n", namespace))
        self._admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
        api = config.new_client_from_config(str(stack.kubernetes.kubeconfig))  # type: ignore[no-untyped-call]
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self.operators: list[Operator] = []

    def operator(self, name: str = "operator", **more: str) -> Operator:
        """A started operator for this namespace; stopped after the test."""
        made = Operator(self.stack, self.namespace, self.folder, name, **more)
        self.operators.append(made)
        return made.start()

    def topic(self, name: str, partitions: int = 12, **settings: str) -> str:
        """A new topic, usable."""
        made = self._admin.create_topics([NewTopic(name, partitions, 1, config=settings)])
        made[name].result(120)
        until_usable(self.stack.kafka.bootstrap, name, partitions)
        return name

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        made = self._admin.create_partitions([NewPartitions(name, partitions)])
        made[name].result(120)
        until_usable(self.stack.kafka.bootstrap, name, partitions)

    def apply(self, name: str, spec: Mapping[str, Any]) -> None:
        """kubectl apply a policy."""
        body = {
            "apiVersion": "hotkeys.dev/v1alpha1",
            "kind": "HotKeyPolicy",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def policy(self, name: str) -> dict[str, Any]:
        found = self._object("hotkeypolicies", name)
        assert found is not None, f"there is no policy {name}"
        return found

    def is_gone(self, name: str) -> bool:
        """Whether the policy is no longer there."""
        return self._object("hotkeypolicies", name) is None

    def _object(self, plural: str, name: str) -> dict[str, Any] | None:
        try:
            found: Any = self._objects.get_namespaced_custom_object(
                "hotkeys.dev", "v1alpha1", self.namespace, plural, name, _request_timeout=10
            )
        except ApiException as error:
            if error.status != 404:
                raise AssertionError(f"{plural}/{name} cannot be read: {error}") from error
            return None
        return dict(found)

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.policy(name).get("status", {})
        return found

    def condition(self, name: str, kind: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty before there is one."""
        for each in self.status(name).get("conditions", []):
            if each["type"] == kind:
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    def wait_for_condition(
        self, name: str, reason: str, kind: str = "Ready", seconds: float = WAIT_SECONDS
    ) -> str:
        """Wait until the condition gives this reason; its message."""

        def look() -> str:
            status, found, message = self.condition(name, kind)
            assert found == reason, (status, found, message)
            return message or reason

        return eventually(f"policy {name} has {kind} with reason {reason}", look, seconds)

    def events(self, name: str) -> set[str]:
        """The reasons of the Events on a policy."""
        found: Any = self._core.list_namespaced_event(self.namespace, _request_timeout=10)
        return {each.reason for each in found.items if each.involved_object.name == name}

    def described(self, name: str) -> tuple[str, str]:
        """What `kubectl describe` says of a policy: down to its status, and its Events."""
        text, _, events = self.kubectl("describe", "hkp", name).partition("\nEvents:")
        return text, events

    def table_object(self, name: str) -> dict[str, Any] | None:
        return self._object("routingtables", name)

    def table(self, name: str) -> Table | None:
        """The table in the RoutingTable object."""
        found = self.table_object(name)
        return None if found is None else codec.from_document(found["spec"])

    @property
    def public_keys(self) -> str:
        """The text of the Secret that clients get."""
        return self.secret("public.keys").decode()

    def secret(self, name: str) -> bytes:
        """One value of the signing Secret."""
        found: Any = self._core.read_namespaced_secret(SECRET, self.namespace, _request_timeout=10)
        return base64.b64decode(found.data[name])

    def stream(self, topic: str) -> Stream:
        return Stream(self.stack.kafka.cluster_id, topic)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.stack.redis.url, socket_timeout=10)

    def published(self, topic: str) -> Table | None:
        """What Redis holds, as a client takes it: signature, stream and form verified; None if refused."""
        with self.redis() as connection:
            try:
                envelope: Any = connection.hget(table_key(self.stream(topic)), TABLE_ENVELOPE)
            except redis.ResponseError:
                return None
        follower = Follower(self.stream(topic), PublicKeys.parse(self.public_keys))
        if isinstance(envelope, bytes):
            follower.offer(envelope)
        return follower.table

    def wait_for_published(self, name: str, topic: str, seconds: float = WAIT_SECONDS) -> Table:
        """Wait until Redis holds, verified, what the RoutingTable object holds."""

        def look() -> Table:
            stored, held = self.table(name), self.published(topic)
            assert stored is not None
            assert held == stored, f"object: epoch {stored.epoch}, Redis: {held.epoch if held else None}"
            return stored

        return eventually(f"Redis holds the table of {name}", look, seconds)

    def wait_for_routes(self, name: str, keys: set[bytes], seconds: float = WAIT_SECONDS) -> Table:
        """Wait until exactly these keys are routed; the table."""

        def look() -> Table:
            table = self.table(name)
            assert table is not None, "no RoutingTable"
            assert {route.key for route in table.routes} == keys, (table, self.status(name).get("decision"))
            return table

        return eventually(f"policy {name} routes {keys or 'nothing'}", look, seconds)

    def event_ids(self, topic: str) -> list[str]:
        """The event id of every record in the topic."""
        return [json.loads(message.value() or b"{}")["event_id"] for message in self.records(topic)]

    def ends(self, topic: str) -> dict[int, int]:
        """The end offset of each partition."""
        with self._reader() as reader:
            return end_offsets(reader, topic)

    def records(self, topic: str, since: Mapping[int, int] | None = None) -> list[Message]:
        """Every record that is in the topic now, from these offsets on where some are given."""
        with self._reader() as reader:
            ends, first = end_offsets(reader, topic), since or {}
            wanted = sum(end - first.get(partition, 0) for partition, end in ends.items())
            reader.assign([TopicPartition(topic, p, first.get(p, 0)) for p in ends])
            found: list[Message] = []
            deadline = time.monotonic() + WAIT_SECONDS
            while len(found) < wanted:
                assert time.monotonic() < deadline, f"read {len(found)} of {wanted} records"
                found += reader.consume(10_000, timeout=1.0)
        assert all(message.error() is None for message in found)
        return found

    @contextmanager
    def _reader(self) -> Iterator[Consumer]:
        config = {"bootstrap.servers": self.stack.kafka.bootstrap, "group.id": "ids", "log_level": 0}
        consumer = Consumer({**config, "enable.auto.commit": False})
        try:
            yield consumer
        finally:
            consumer.close()
