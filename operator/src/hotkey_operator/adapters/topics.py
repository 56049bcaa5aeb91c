"""`Topics` on a real Kafka cluster: describes topics with their configuration, and makes dedicated ones.

It must not know what a topic is for, and can delete none. Its own client, as making a topic may take seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from hotkey_operator.engine.model import TopicConfig, TopicSeen
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import TopicRefused, Unavailable

_T = TypeVar("_T")
_THREADS = 4  # for all policies
_MAKING_SECONDS = 20.0  # a topic that is made after that is told as a failure, and nobody's
_VISIBLE_SECONDS = 5.0  # that a new topic may take until a broker that is asked knows it
_PAUSE_SECONDS = 0.1
_COMMON: dict[str, Any] = {
    "client.id": "hotkey-operator",
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,
}
_MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_REFUSALS = {
    KafkaError.POLICY_VIOLATION: Reason.TOPIC_QUOTA_EXCEEDED,
    KafkaError.THROTTLING_QUOTA_EXCEEDED: Reason.TOPIC_QUOTA_EXCEEDED,
    KafkaError.INVALID_REPLICATION_FACTOR: Reason.REPLICATION_FACTOR_TOO_HIGH,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Reason.NOT_AUTHORIZED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: Reason.NOT_AUTHORIZED,
    KafkaError.INVALID_PARTITIONS: Reason.TOPIC_NOT_MADE,
    KafkaError.INVALID_CONFIG: Reason.TOPIC_NOT_MADE,
    KafkaError.TOPIC_EXCEPTION: Reason.TOPIC_NOT_MADE,
    KafkaError.INVALID_REQUEST: Reason.TOPIC_NOT_MADE,
}


class KafkaTopics:
    """Topics through confluent-kafka. `config` is librdkafka's, with at least `bootstrap.servers`.

    `timeout_seconds`: of one request. Close it when done.
    """

    def __init__(self, config: Mapping[str, Any], *, timeout_seconds: float = 5.0) -> None:
        self._timeout = timeout_seconds
        self._admin = AdminClient({**_COMMON, **config})
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="topics")

    async def close(self) -> None:
        """Calls under way end first."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def describe(self, names: Collection[str]) -> dict[str, TopicSeen | None]:
        if not names:
            return {}
        return await self._call("describe topics", lambda: self._describe(names))

    async def alike(self, prefix: str) -> tuple[str, ...]:
        found = await self._call("list topics", lambda: self._admin.list_topics(timeout=self._timeout).topics)
        return tuple(sorted(name for name in found if name.startswith(prefix)))

    async def create(self, name: str, partitions: int, config: TopicConfig) -> str:
        what = f"make topic {name}"
        if not await self._call(what, lambda: self._create(name, partitions, config), _MAKING_SECONDS):
            return ""
        for _ in range(int(_VISIBLE_SECONDS / _PAUSE_SECONDS)):
            try:
                found = (await self.describe([name]))[name]
            except Unavailable:
                found = None  # it was made: whoever gave up now would take it for a stranger's
            if found is not None and found.partitions == partitions:
                return found.topic_id
            await asyncio.sleep(_PAUSE_SECONDS)
        raise Unavailable(f"Kafka: topic {name} was made, and no broker tells of it")

    async def _call(self, what: str, call: Callable[[], _T], seconds: float = 0.0) -> _T:
        loop, seconds = asyncio.get_running_loop(), max(seconds, 3 * self._timeout)
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError:
            raise Unavailable(f"Kafka: cannot {what}: no answer within {seconds:g} s") from None
        except KafkaException as error:
            raise Unavailable(f"Kafka: cannot {what}: {_words(error)}") from error

    def _describe(self, names: Collection[str]) -> dict[str, TopicSeen | None]:
        futures = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=self._timeout)
        found: dict[str, Any] = {}
        for name, future in futures.items():
            try:
                found[name] = future.result()
            except KafkaException as error:
                if error.args[0].code() not in _MISSING:
                    raise
        there = {name: topic for name, topic in found.items() if topic.partitions}
        configs = self._configs(list(there))
        seen = {name: _seen(topic, configs[name]) for name, topic in there.items() if name in configs}
        return {name: seen.get(name) for name in names}

    def _configs(self, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """A topic that was deleted since it was described is left out."""
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = self._admin.describe_configs(resources, request_timeout=self._timeout)
        found = {}
        for resource, future in futures.items():
            try:
                found[resource.name] = future.result()
            except KafkaException as error:
                if error.args[0].code() not in _MISSING:
                    raise
        return found

    def _create(self, name: str, partitions: int, config: TopicConfig) -> bool:
        """Whether this call made it; a topic of that name that is there already is left as it is."""
        new = NewTopic(name, partitions, config.replication, config=_settings(config))
        asked = self._admin.create_topics(
            [new], operation_timeout=0.8 * _MAKING_SECONDS, request_timeout=0.9 * _MAKING_SECONDS
        )
        try:
            asked[name].result()
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if code in _REFUSALS:
                raise TopicRefused(_REFUSALS[code], _words(error)) from error
            raise
        return True


def _settings(config: TopicConfig) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "min.insync.replicas": str(config.min_insync),
        "retention.ms": str(config.retention_ms),
        "retention.bytes": str(config.retention_bytes),
        "message.timestamp.type": config.timestamp_type,
        "unclean.leader.election.enable": str(config.unclean_election).lower(),
        "max.message.bytes": str(config.max_message_bytes),
    }


def _seen(topic: Any, config: Mapping[str, Any]) -> TopicSeen:
    return TopicSeen(
        topic_id=str(topic.topic_id),
        partitions=len(topic.partitions),
        config=TopicConfig(
            replication=min(len(partition.replicas) for partition in topic.partitions),
            min_insync=int(config["min.insync.replicas"].value),
            retention_ms=int(config["retention.ms"].value),
            retention_bytes=int(config["retention.bytes"].value),
            timestamp_type=str(config["message.timestamp.type"].value),
            unclean_election=config["unclean.leader.election.enable"].value == "true",
            max_message_bytes=int(config["max.message.bytes"].value),
        ),
    )


def _words(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if isinstance(cause, KafkaError) else str(cause)
