"""`Brokers` on a real Kafka cluster. All calls of the client block, so each runs in a thread of its own pool.

It must not know what a policy is. One AdminClient and one kept consumer serve all streams: a consumer that is
assigned anew costs about 3 ms for each run of a sample, a new one a second.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType

from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord
from hotkey_operator.engine.model import EndOffsets, PartitionSample, SampledRecord, TopicFacts
from hotkey_operator.ports import SampleBudget, Unavailable
from hotkey_sdk.routing.table import Dimension, Stream

_T = TypeVar("_T")
_THREADS = 16  # for all policies; a cluster that hangs must not take the threads of Redis and Kubernetes
_CLEANUP_POLICY_SECONDS = 30.0  # a topic rarely becomes compacted, and asking costs a request

_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_COMMON: dict[str, Any] = {
    "client.id": "hotkey-operator",
    "allow.auto.create.topics": False,  # asking for a missing topic must not make it
    "topic.metadata.refresh.interval.ms": 30_000,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,  # what fails is told by the calls; the client would repeat it on stderr
}
_CONSUMER: dict[str, Any] = {
    "group.id": "hotkey-operator-sampler",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "fetch.wait.max.ms": 20,
    "fetch.error.backoff.ms": 50,
    "fetch.queue.backoff.ms": 1,  # the pause that the next run would wait for
    "max.partition.fetch.bytes": 64 * 1024,
    "queued.min.messages": 100,
}


@dataclass(slots=True)
class _Run:
    """One run while it is read: records at `start` <= offset < `end`, at most `end - start` of them."""

    partition: int
    start: int
    end: int
    records: list[SampledRecord] = field(default_factory=list)
    done: bool = False


class KafkaBrokers:
    """Kafka through confluent-kafka. `config` is librdkafka's, with at least `bootstrap.servers`.

    `undecodable` counts sampled records whose JSON could not be read. Close it when done. Raises `ValueError`
    where the client refuses `config`; whether anybody answers shows later. `timeout_seconds`: of one request;
    `patience_seconds`: of one call with its wait for a thread, so that the turns of very many policies end in
    time while Kafka is away.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        timeout_seconds: float = 3.0,
        patience_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.undecodable = 0
        self._timeout = timeout_seconds
        self._patience = patience_seconds
        self._clock = clock
        try:
            self._admin = AdminClient({**_COMMON, **config})
            self._consumer = Consumer({**_COMMON, **_CONSUMER, **config})
        except KafkaException as error:
            raise ValueError(f"the Kafka client refuses its settings: {_words(error)}") from None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kafka")
        self._sampler = ThreadPoolExecutor(1, thread_name_prefix="sampler")  # one at a time has the consumer
        self._compacted: dict[str, tuple[float, bool]] = {}

    async def close(self) -> None:
        """Leave the cluster; a sampling under way ends first."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(self._sampler, self._consumer.close)
        self._sampler.shutdown(wait=False)

    async def topic(self, name: str) -> TopicFacts | None:
        return await self._call("read the facts of topic " + name, lambda: self._topic(name))

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        what = "read the end offsets of " + name
        offsets = await self._call(what, lambda: self._end_offsets(name, partitions))
        return EndOffsets(self._clock(), offsets)

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        plans = {
            p: _plan(p, first, end, budget, random.Random(seed + p)) for p, (first, end) in windows.items()
        }
        if not any(plans.values()):
            return ()
        reader = DimensionReader(dimensions)
        await self._call(
            "sample " + name,
            lambda: self._read_runs(name, plans, reader, budget.seconds),
            self._sampler,
        )
        self.undecodable += reader.undecodable
        return tuple(
            PartitionSample(partition, tuple(tuple(run.records) for run in runs if run.records))
            for partition, runs in sorted(plans.items())
            if any(run.records for run in runs)
        )

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
        metadata = self._consumer.list_topics(name, timeout=self._timeout)
        topic = metadata.topics[name]
        if topic.error is not None:
            if topic.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                self._compacted.pop(name, None)
                return None
            raise KafkaException(topic.error)
        if not topic.partitions:
            return None
        if not metadata.cluster_id:
            raise Unavailable("Kafka: the cluster told no cluster id, which streams are named by")
        return TopicFacts(Stream(metadata.cluster_id, name), len(topic.partitions), self._is_compacted(name))

    def _is_compacted(self, name: str) -> bool:
        now = self._clock()
        known = self._compacted.get(name)
        if known is not None and 0 <= now - known[0] < _CLEANUP_POLICY_SECONDS:
            return known[1]
        resource = ConfigResource(ResourceType.TOPIC, name)
        futures = self._admin.describe_configs([resource], request_timeout=self._timeout)
        entry = futures[resource].result()["cleanup.policy"]
        compacted = "compact" in (entry.value or "")
        self._compacted[name] = (now, compacted)
        return compacted

    def _end_offsets(self, name: str, partitions: int) -> tuple[int, ...]:
        try:
            return self._list_offsets(name, partitions)
        except KafkaException:
            # A client that asked too soon after the topic was made keeps "no leaders found" until its
            # metadata is read anew. All topics are asked for, as that never creates one.
            self._admin.list_topics(timeout=self._timeout)
            return self._list_offsets(name, partitions)

    def _list_offsets(self, name: str, partitions: int) -> tuple[int, ...]:
        asked = {TopicPartition(name, p): _LATEST for p in range(partitions)}
        futures = self._admin.list_offsets(asked, request_timeout=self._timeout)
        found = {partition.partition: future.result().offset for partition, future in futures.items()}
        return tuple(found[p] for p in range(partitions))

    def _read_runs(
        self, name: str, plans: Mapping[int, list[_Run]], reader: DimensionReader, seconds: float
    ) -> None:
        """Reads the first run of every partition side by side, then the second, until the time is up."""
        deadline = time.monotonic() + seconds
        try:
            for number in range(max(len(runs) for runs in plans.values())):
                together = {p: runs[number] for p, runs in plans.items() if number < len(runs)}
                self._consumer.assign([TopicPartition(name, p, run.start) for p, run in together.items()])
                if not self._fill(together, reader, deadline):
                    return
        finally:
            self._consumer.unassign()

    def _fill(self, runs: Mapping[int, _Run], reader: DimensionReader, deadline: float) -> bool:
        """True when all runs are done, False when the time is up."""
        while wanted := sum(run.end - run.start - len(run.records) for run in runs.values() if not run.done):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for message in self._consumer.consume(wanted, timeout=min(left, 0.1)):
                _take(message, runs, reader)
        return True


def _plan(partition: int, first: int, end: int, budget: SampleBudget, chance: random.Random) -> list[_Run]:
    """Runs at random offsets that do not overlap: one in each of equal parts of the window."""
    count = min(budget.runs_per_partition, end - first)
    if count <= 0:
        return []
    bounds = [first + (end - first) * i // count for i in range(count + 1)]
    length = max(1, budget.records_per_partition // count)
    runs = []
    for low, high in itertools.pairwise(bounds):
        size = min(length, high - low)
        start = chance.randint(low, high - size)
        runs.append(_Run(partition, start, start + size))
    return runs


def _take(message: Message, runs: Mapping[int, _Run], reader: DimensionReader) -> None:
    run = runs.get(message.partition() if message.partition() is not None else -1)  # type: ignore[arg-type]
    if run is None or run.done:
        return
    offset = message.offset()
    if message.error() is not None or offset is None or not run.start <= offset < run.end:
        run.done = True
        return
    run.records.append(_sampled(message, reader))
    run.done = offset == run.end - 1


def _sampled(message: Message, reader: DimensionReader) -> SampledRecord:
    key, value = _bytes(message.key()), _bytes(message.value())
    kind, timestamp = message.timestamp()
    headers: Any = message.headers() or []
    record = RawRecord(value, headers, timestamp if kind else None)
    return SampledRecord(key, len(key or b"") + len(value or b""), reader.read(record))


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _words(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return str(cause.str()) if isinstance(cause, KafkaError) else str(cause)
