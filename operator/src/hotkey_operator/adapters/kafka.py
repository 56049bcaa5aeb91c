"""`Brokers` on a real Kafka cluster. All calls of the client block, so each runs in a thread of its own pool.

It must not know what a policy is. One AdminClient and one kept consumer serve all streams: a consumer that is
assigned anew costs about 3 ms for each run of a sample, a new one a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from hotkey_operator.adapters.dimensions import DimensionReader
from hotkey_operator.adapters.sampler import SAMPLER, SAMPLING_BYTES_PER_SECOND, Sampler
from hotkey_operator.engine.model import EndOffsets, PartitionSample, TopicFacts
from hotkey_operator.ports import SampleBudget, Unavailable
from hotkey_sdk.routing.table import Dimension, Stream

_T = TypeVar("_T")
_THREADS = 16  # for all policies; a cluster that hangs must not take the threads of Redis and Kubernetes
_SETTLED_SECONDS = 30.0
_RENEW_SECONDS = 0.5
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of brokers that give topics none

_LATEST = -1  # in the place of an offset: the end
_COMMON: dict[str, Any] = {
    "client.id": "hotkey-operator",
    "allow.auto.create.topics": False,  # asking for a missing topic must not make it
    "topic.metadata.refresh.interval.ms": 30_000,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,  # what fails is told by the calls; the client would repeat it on stderr
}


@dataclass(frozen=True, slots=True)
class _Settled:
    """What of a topic rarely changes, as of `at` (unix seconds): asking for it costs two requests."""

    at: float
    topic_id: str
    cluster_id: str
    compacted: bool


class _Admin(AdminClient):
    """The client's own `list_offsets` makes a future for each partition, which costs more than all else."""

    def latest(self, name: str, partitions: Collection[int], timeout: float) -> dict[int, int]:
        """The end offset of each of `partitions`. Raises `KafkaException`."""
        answer: Future[dict[TopicPartition, Any]] = Future()
        asked = [TopicPartition(name, p, _LATEST) for p in partitions]
        super(AdminClient, self).list_offsets(asked, answer, request_timeout=timeout)
        found = answer.result()
        for result in found.values():
            if isinstance(result, KafkaError):
                raise KafkaException(result)
        return {partition.partition: result.offset for partition, result in found.items()}


class KafkaBrokers:
    """Kafka through confluent-kafka. `config` is librdkafka's, with at least `bootstrap.servers`.

    `undecodable` counts sampled records whose JSON could not be read, `sampled_bytes` what samples took at
    most, `samples_cut` those for which `sampling_bytes_per_second` of all streams did not suffice. Close it
    when done. Raises `ValueError` where the client refuses `config`; whether anybody answers shows later.
    `timeout_seconds`: of one request; `patience_seconds`: of one call with its wait for a thread, so that the
    turns of very many policies end in time while Kafka is away.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        timeout_seconds: float = 3.0,
        patience_seconds: float = 10.0,
        sampling_bytes_per_second: float = SAMPLING_BYTES_PER_SECOND,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.undecodable = 0
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._clock = clock
        try:
            self._admin = _Admin({**_COMMON, **config})
            self._consumer = Consumer({**_COMMON, **SAMPLER, **config})
        except KafkaException as error:
            raise ValueError(f"the Kafka client refuses its settings: {_words(error)}") from None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kafka")
        self._sampling = ThreadPoolExecutor(1, thread_name_prefix="sampler")  # one at a time has the consumer
        self._sampler = Sampler(self._consumer, sampling_bytes_per_second)
        self._settled: dict[str, _Settled] = {}
        self._renewing = threading.Lock()
        self._renewed_at = float("-inf")

    @property
    def sampled_bytes(self) -> int:
        return self._sampler.bytes_read

    @property
    def samples_cut(self) -> int:
        return self._sampler.cut

    async def close(self) -> None:
        """Leave the cluster; a sampling under way ends first."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(self._sampling, self._consumer.close)
        self._sampling.shutdown(wait=False)

    async def topic(self, name: str) -> TopicFacts | None:
        return await self._call("read the facts of topic " + name, lambda: self._topic(name))

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        what = "read the end offsets of " + name
        found = await self._call(what, lambda: self._end_offsets(name, range(partitions)))
        return EndOffsets(self._clock(), tuple(found[p] for p in range(partitions)))

    async def some_end_offsets(self, name: str, partitions: Collection[int]) -> tuple[float, dict[int, int]]:
        what = f"read end offsets of {name}"
        found = await self._call(what, lambda: self._end_offsets(name, partitions))
        return self._clock(), found

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        reading = await self._call(
            "sample " + name,
            lambda: self._sampler.read(name, windows, DimensionReader(dimensions), budget, seed),
            self._sampling,
        )
        self.undecodable += reading.undecodable
        return reading.samples

    async def _call(self, what: str, call: Callable[[], _T], threads: Executor | None = None) -> _T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience):
                return await loop.run_in_executor(threads or self._threads, call)
        except TimeoutError:
            waited = f"it was not its turn, or not done, within {self._patience:g} s"
            raise Unavailable(f"Kafka: cannot {what}: {waited}") from None
        except KafkaException as error:
            raise Unavailable(f"Kafka: cannot {what}: {_words(error)}") from error

    def _topic(self, name: str) -> TopicFacts | None:
        futures = self._admin.describe_topics(TopicCollection([name]), request_timeout=self._timeout)
        try:
            topic = futures[name].result()
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                raise
            self._settled.pop(name, None)
            return None
        if not topic.partitions:
            return None
        topic_id = str(topic.topic_id)
        settled = self._settled_facts(name, topic_id)
        return TopicFacts(
            Stream(settled.cluster_id, name),
            len(topic.partitions),
            settled.compacted,
            "" if topic_id == _NO_TOPIC_ID else topic_id,
        )

    def _settled_facts(self, name: str, topic_id: str) -> _Settled:
        now, known = self._clock(), self._settled.get(name)
        if known is not None and known.topic_id == topic_id and 0 <= now - known.at < _SETTLED_SECONDS:
            return known
        cluster_id = self._consumer.list_topics(name, timeout=self._timeout).cluster_id
        if not cluster_id:
            raise Unavailable("Kafka: the cluster told no cluster id, which streams are named by")
        resource = ConfigResource(ResourceType.TOPIC, name)
        futures = self._admin.describe_configs([resource], request_timeout=self._timeout)
        policy = futures[resource].result()["cleanup.policy"].value or ""
        self._settled[name] = found = _Settled(now, topic_id, cluster_id, "compact" in policy)
        return found

    def _end_offsets(self, name: str, partitions: Collection[int]) -> dict[int, int]:
        try:
            return self._list_offsets(name, partitions)
        except KafkaException:
            # A client that asked too soon after the topic was made keeps "no leaders found" until its
            # metadata is read anew.
            self._renew_metadata()
            return self._list_offsets(name, partitions)

    def _renew_metadata(self) -> None:
        """All topics are asked for, as that never creates one; it is much, so once for all that want it."""
        with self._renewing:
            if time.monotonic() - self._renewed_at >= _RENEW_SECONDS:
                self._admin.list_topics(timeout=self._timeout)
                self._renewed_at = time.monotonic()

    def _list_offsets(self, name: str, partitions: Collection[int]) -> dict[int, int]:
        return self._admin.latest(name, partitions, self._timeout) if partitions else {}


def _words(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if isinstance(cause, KafkaError) else str(cause)
