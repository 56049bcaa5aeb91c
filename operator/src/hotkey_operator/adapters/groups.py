"""`Groups` on a real Kafka cluster: what consumer groups committed, asked of their coordinators.

It must not know what lag is. Each group is asked through a consumer of its own that never joins it, and not
by `AdminClient.list_consumer_group_offsets`: that ends the whole process when a coordinator answers that it
is none any more, or not yet (librdkafka 2.16.1 reaches for a consumer group that an admin client has not).
Clients are made when they are first needed: without `trigger.lagSeconds` and `consumers.groups` none is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from hotkey_operator.adapters.roll import Roll
from hotkey_operator.adapters.rota import Full, Rota
from hotkey_operator.engine.model import Committed
from hotkey_operator.ports import Unavailable

_T = TypeVar("_T")
_THREADS = 8  # for all policies
_CONSUMERS_AT_MOST = 256  # kept open, for all policies; where there are more groups they take turns
_CHANGES_PER_SECOND = 4.0  # then: a group is asked for about a minute, long enough to see it fall behind
_STRANGERS_AT_MOST = 128  # kept open to ask who else reads a topic, and asked at a time; others take turns
_STRANGERS_PER_SECOND = 8.0  # then: each of some 2,000 groups has its turn while answers stand,
_STRANGERS_AT_ONCE = 5 * _STRANGERS_PER_SECOND  # also where they are asked every five seconds alone
_NAME_CHARACTERS = 249
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
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
        self._consumers = Rota(self._consumer, _CONSUMERS_AT_MOST, _CHANGES_PER_SECOND)
        self._strangers = Rota(
            self._consumer, _STRANGERS_AT_MOST, _STRANGERS_PER_SECOND, at_once=_STRANGERS_AT_ONCE
        )
        self._rolls: dict[str, Roll] = {}

    async def close(self) -> None:
        """Leave the cluster; calls under way end first."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for consumer in (*self._consumers.drained(), *self._strangers.drained()):
            await asyncio.to_thread(consumer.close)

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        names = list(dict.fromkeys(groups))
        asked = await asyncio.gather(
            *(self._ask(topic, partitions, group, self._consumers) for group in names)
        )
        found = dict(zip(names, asked, strict=True))
        return tuple(found[group] for group in groups)

    async def _ask(self, topic: str, partitions: int, group: str, clients: Rota[Consumer]) -> Committed:
        """One group; why it cannot be asked stands in the answer. Clients report any name, odd ones too."""
        what = f"read what group {group!r} committed on {topic}"
        if not _is_name(group):
            return Committed(group, {}, f"Kafka: cannot {what}: no group can have that name")
        try:
            offsets = await self._call(
                what, lambda: _committed(clients.of(group), topic, partitions, self._timeout)
            )
        except Full:
            if clients is self._strangers:
                raise
            why = f"more than {_CONSUMERS_AT_MOST} groups are looked at, so they take turns"
            return Committed(group, {}, f"Kafka: cannot {what}: {why}")
        except Unavailable as error:
            return Committed(group, {}, str(error))
        return Committed(group, offsets)

    async def reading(self, topic: str, partitions: int, but: Collection[str] = ()) -> tuple[Committed, ...]:
        what = "list the consumer groups"
        listed, failure = await self._call(what, self._listed)
        names = [name for name in listed if name not in but]
        if failure is not None:
            return (Committed("", {}, f"Kafka: cannot {what}: {failure}"),)
        roll = self._rolls.setdefault(topic, Roll(_STRANGERS_AT_MOST))
        asked = await asyncio.gather(*(self._stranger(topic, partitions, group) for group in roll.due(names)))
        roll.take(each for each in asked if each is not None)
        return roll.told(names)

    async def _stranger(self, topic: str, partitions: int, group: str) -> Committed | None:
        """The same of a group that nobody named; None where it was not its turn: it comes first then."""
        try:
            return await self._ask(topic, partitions, group, self._strangers)
        except Full:
            return None

    def _listed(self) -> tuple[list[str], str | None]:
        """The names of all groups, and why some may be missing."""
        answer = self._admin.list_consumer_groups(request_timeout=self._timeout).result()
        failure = str(answer.errors[0]) if answer.errors else None
        return sorted(group.group_id for group in answer.valid), failure

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

    def _consumer(self, group: str) -> Consumer:
        return Consumer({**self._config, "enable.auto.commit": False, "group.id": group})

    def _starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        wanted = {TopicPartition(topic, partition): _EARLIEST for partition in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=self._timeout)
        return {partition.partition: future.result().offset for partition, future in futures.items()}


def _committed(consumer: Consumer, topic: str, partitions: int, timeout: float) -> dict[int, int]:
    """An offset below 0 says that there is no commit; one with an error says nothing, all say why."""
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]
    found = consumer.committed(wanted, timeout=timeout)
    if found and all(each.error for each in found):
        raise KafkaException(found[0].error)
    return {each.partition: each.offset for each in found if each.offset >= 0 and not each.error}


def _is_name(group: str) -> bool:
    """Whether the client takes it: it aborts the process over text that is no UTF-8, and cuts it at a NUL."""
    return 0 < len(group) <= _NAME_CHARACTERS and not any(
        c == "\0" or "\ud800" <= c <= "\udfff" for c in group
    )


def _words(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if isinstance(cause, KafkaError) else str(cause)
