"""`Groups` on a real Kafka cluster: what consumer groups committed, asked of their coordinators.

It must not know what lag is. Its client is made when it is first asked, as most clusters' groups never are:
a policy without `trigger.lagSeconds` and `consumers.groups` costs no connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from hotkey_operator.engine.model import Committed
from hotkey_operator.ports import Unavailable

_T = TypeVar("_T")
_THREADS = 4  # for all policies; each waits for the groups of one, which are asked side by side
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_UNKNOWN = frozenset({KafkaError.GROUP_ID_NOT_FOUND})
_COMMON: dict[str, Any] = {
    "client.id": "hotkey-operator",
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,  # what fails is told by the calls
}


class KafkaGroups:
    """Consumer groups through confluent-kafka. `config` is librdkafka's, with at least `bootstrap.servers`.

    Classic groups, those of the new protocol and offsets that were committed without a group's members are
    one to it. `timeout_seconds`: of one call; a turn waits for it, so it is short. Close it when done.
    """

    def __init__(self, config: Mapping[str, Any], *, timeout_seconds: float = 1.0) -> None:
        self._config = {**_COMMON, **config}
        self._timeout = timeout_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="groups")
        self._making = threading.Lock()
        self._made: AdminClient | None = None

    async def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        what = "read the committed offsets on " + topic
        return await self._call(what, lambda: self._committed(topic, partitions, groups))

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        if not partitions:
            return {}
        return await self._call("read the first offsets of " + topic, lambda: self._starts(topic, partitions))

    async def _call(self, what: str, call: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await loop.run_in_executor(self._threads, call)
        except TimeoutError:
            waited = f"it was not its turn, or not done, within {2 * self._timeout:g} s"
            raise Unavailable(f"Kafka: cannot {what}: {waited}") from None
        except KafkaException as error:
            raise Unavailable(f"Kafka: cannot {what}: {_words(error)}") from error

    @property
    def _admin(self) -> AdminClient:
        with self._making:
            if self._made is None:
                self._made = AdminClient(self._config)
            return self._made

    def _committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        """The client asks for one group a call; the calls run side by side."""
        wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
        asked = {group: self._ask(group, wanted) for group in dict.fromkeys(groups)}
        return tuple(_answer(group, asked[group]) for group in groups)

    def _ask(
        self, group: str, wanted: list[TopicPartition]
    ) -> Future[ConsumerGroupTopicPartitions] | ValueError:
        """The answer to come, or why the client takes no such name: clients report any."""
        asked = [ConsumerGroupTopicPartitions(group, wanted)]
        try:
            return self._admin.list_consumer_group_offsets(asked, request_timeout=self._timeout)[group]
        except ValueError as error:
            return error

    def _starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        wanted = {TopicPartition(topic, partition): _EARLIEST for partition in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=self._timeout)
        return {partition.partition: future.result().offset for partition, future in futures.items()}


def _answer(group: str, answer: Future[ConsumerGroupTopicPartitions] | ValueError) -> Committed:
    """An offset below 0 says that there is no commit; one with an error says nothing."""
    if isinstance(answer, ValueError):
        return Committed(group, {}, str(answer))
    try:
        found = answer.result().topic_partitions
    except KafkaException as error:
        return Committed(group, {}, None if _is_unknown(error) else _words(error))
    return Committed(
        group, {each.partition: each.offset for each in found or () if each.offset >= 0 and not each.error}
    )


def _is_unknown(error: KafkaException) -> bool:
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and cause.code() in _UNKNOWN


def _words(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if isinstance(cause, KafkaError) else str(cause)
