"""An operator's turns in this process over real parts: killed at a side effect, or two of them at once.

One topic is prepared ahead of need (`warm`), so that all steps but writing to it come without any load.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from kubernetes import config

from hotkey_operator.adapters.groups import KafkaGroups
from hotkey_operator.adapters.kafka import KafkaBrokers
from hotkey_operator.adapters.kubernetes import KubernetesTables
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.adapters.topics import KafkaTopics
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.table import Stream, Table
from tests.stack.operator.scene import Scene
from tests.unit.operator.killing import KilledError, Killer


class RealTurns:
    """One policy's turns. Their clock is a second ahead with each, however long it took."""

    def __init__(self, scene: Scene, **policy: Any) -> None:
        self.scene = scene
        self.topic = scene.topic(f"clicks-{uuid4().hex[:8]}", 2)
        self.ref = PolicyRef(scene.namespace, f"clicks-{uuid4().hex[:8]}", uuid4().hex)
        kafka: dict[str, Any] = {"bootstrap.servers": scene.stack.kafka.bootstrap, "log_level": 0}
        self._kafka = kafka
        api = config.new_client_from_config(str(scene.stack.kubernetes.kubeconfig))  # type: ignore[no-untyped-call]
        self._closing = KafkaBrokers(kafka), RedisDistribution(scene.stack.redis.url), KafkaTopics(kafka)
        brokers, distribution, topics = self._closing
        self._groups, self._api = KafkaGroups(kafka), api
        signer = EnvelopeSigner.from_secret(new_secret_data())
        self.ports = Ports(brokers, distribution, KubernetesTables(api), signer, self._groups, topics=topics)
        self.spec: PolicySpec = parse_spec(
            {"topic": self.topic, "dedicatedTopic": {"enabled": True, "warm": 1, "partitions": 3}, **policy}
        )
        self.killer = Killer()
        self.now = time.time()
        self.turn = self.operator()

    async def close(self) -> None:
        for each in (*self._closing, self._groups):
            await each.close()
        self._api.close()

    def operator(self) -> Turn:
        """A fresh start of the operator."""
        return Turn(self.killer.around(self.ports), self.ref, self.spec)

    @property
    def stream(self) -> Stream:
        return self.scene.stream(self.topic)

    async def table(self) -> Table | None:
        """What the object holds."""
        found = await self.ports.tables.read(self.ref)
        return getattr(found, "table", None)

    async def made(self) -> set[str]:
        """The dedicated topics that are there."""
        assert self.ports.topics is not None
        return set(await self.ports.topics.alike(dedicated_prefix(self.topic)))

    def send(self, topic: str) -> None:
        """One record, acknowledged."""
        producer = Producer({**self._kafka, "acks": "all"})
        producer.produce(topic, b"{}", b"nike")
        assert producer.flush(30) == 0

    def delete(self, topic: str) -> None:
        """As a person may."""
        admin = AdminClient(self._kafka)
        admin.delete_topics([topic])[topic].result(120)

    async def second(self) -> Any:
        """One turn, and a fresh start where it was killed. What was made is always in the object by then."""
        self.now += 1.0
        try:
            return await self.turn.step(self.now, seed=1)
        except KilledError:
            self.turn = self.operator()
            return None
        finally:
            table = await self.table()
            assert await self.made() <= set(table.read_set if table else ())
