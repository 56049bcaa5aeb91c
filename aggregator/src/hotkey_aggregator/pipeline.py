"""Consume, count, flush: the loop that turns records into counts.

The store's offsets are the truth: on every assignment reading starts at them, and a flush moves them
in the transaction that counts. So a kill at any moment loses nothing (what was not flushed is read
again) and doubles nothing (what was flushed is behind the stored offset, and ids are counted once).
The broker gets the same offsets afterwards, for people and lag monitors to see; nothing rests on them.

Memory is bounded because one thread does it all: while the store is busy, nothing more is consumed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from hotkey_aggregator.logfmt import line
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Jump, Pending
from hotkey_aggregator.store import Rejected, Store
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator")

CONSUME_RECORDS = 2_000
CONSUME_SECONDS = 0.5
ERROR_LOG_SECONDS = 60.0


class PipelineError(Exception):
    """The aggregator cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When what was counted goes to the store: at the latest after `seconds`, earlier when it is much."""

    seconds: float = 5.0
    events: int = 200_000
    bytes: int = 64 * 1024 * 1024


class Heartbeat:
    """When the loop last turned; read by the health check in another thread."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        self._last = time.monotonic()

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._last


class Pipeline:
    """One consumer, one store, one loop. `run` returns when `stop` is set, all flushed."""

    def __init__(
        self,
        make_consumer: Callable[[dict[str, Any]], Consumer],
        store: Store,
        topic: str,
        *,
        limits: FlushLimits,
        metrics: Metrics,
        heartbeat: Heartbeat,
    ) -> None:
        self._store = store
        self._topic = topic
        self._limits = limits
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._pending = Pending()
        self._sources: dict[tuple[str, int], Source] = {}
        self._published: dict[Source, int] = {}
        self._failure: Exception | None = None
        self._error_logged: dict[int, float] = {}
        self._flush_due = 0.0
        self._consumer = make_consumer({"on_commit": self._on_commit, "error_cb": self._on_kafka_error})

    def run(self, stop: threading.Event) -> None:
        """Count until `stop` is set. Raises StoreError or PipelineError; what was flushed stays."""
        try:
            if self._bind(stop):
                self._consumer.subscribe(
                    self._topics(),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_revoke,
                )
                self._loop(stop)
                self._flush()
                self._publish()
        finally:
            # Whatever waits after a failure must not be flushed by the revocation that close() causes.
            self._pending.drop()
            self._consumer.close()

    def _bind(self, stop: threading.Event) -> bool:
        """Tie the store to this stream, as soon as Kafka says which cluster it is."""
        while not stop.is_set():
            self._heartbeat.beat()
            try:
                cluster_id = self._consumer.list_topics(timeout=5).cluster_id
            except KafkaException as error:
                self._log_kafka_error(error.args[0])
                stop.wait(1.0)
                continue
            self._store.bind(f"{cluster_id}/{self._topic}")
            return True
        return False

    def _topics(self) -> list[str]:
        """The base topic, and every other one that the store has offsets of: reading it is always safe."""
        return [self._topic, *sorted({source.topic for source in self._store.offsets()} - {self._topic})]

    def _loop(self, stop: threading.Event) -> None:
        self._flush_due = time.monotonic() + self._limits.seconds
        while not stop.is_set():
            self._heartbeat.beat()
            wait = min(CONSUME_SECONDS, max(0.0, self._flush_due - time.monotonic()))
            messages = self._consumer.consume(CONSUME_RECORDS, wait)
            if self._failure is not None:
                raise self._failure
            self._take(messages)
            if time.monotonic() >= self._flush_due or self._is_full():
                self._flush()
                self._publish()

    def _is_full(self) -> bool:
        return self._pending.events >= self._limits.events or self._pending.value_bytes >= self._limits.bytes

    def _take(self, messages: Sequence[Message]) -> None:
        take, sources = self._pending.take, self._sources
        for message in messages:
            error = message.error()
            if error is not None:
                self._on_kafka_error(error)
                continue
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None and partition is not None and offset is not None  # noqa: PT018
            source = sources.get((topic, partition)) or self._new_source(topic, partition)
            jump = take(source, offset, message.value())
            if jump is not None:
                self._note_jump(jump)
        self._metrics.pending.set(self._pending.events)

    def _new_source(self, topic: str, partition: int) -> Source:
        # Made once a partition, not once a record.
        return self._sources.setdefault((topic, partition), Source(topic, partition))

    def _note_jump(self, jump: Jump) -> None:
        self._metrics.jumps.inc()
        place = {"topic": jump.source.topic, "partition": jump.source.partition}
        log.warning(line("offset_jump", **place, expected=jump.expected, found=jump.found))

    def _flush(self) -> None:
        self._flush_due = time.monotonic() + self._limits.seconds
        flush = self._pending.flush()
        if not flush.moves:
            return
        repeats = self._pending.repeats
        with self._metrics.flush_seconds.time():
            committed = self._store.commit(flush)
        self._pending.flushed()
        self._metrics.counted.inc(committed.counted)
        self._metrics.duplicates.inc(committed.duplicates + repeats)
        self._metrics.last_flush.set_to_current_time()
        self._metrics.pending.set(0)
        self._note_rejected(flush.rejected)

    def _note_rejected(self, rejected: Sequence[Rejected]) -> None:
        """One line a flush, however many there are: each is kept in the store."""
        if not rejected:
            return
        reasons = Counter(record.reason.value for record in rejected)
        for reason, records in reasons.items():
            self._metrics.rejected.labels(reason).inc(records)
        first = rejected[0]
        example = f"{first.source.topic}/{first.source.partition}@{first.offset}"
        log.warning(
            line(
                "records_rejected",
                records=len(rejected),
                reasons=",".join(sorted(reasons)),
                example=example,
                detail=first.detail,
            )
        )

    def _publish(self) -> None:
        """Commit the stored offsets to the broker where it does not have them yet; does not wait for it."""
        news = {
            source: offset
            for source, offset in self._pending.stored.items()
            if self._published.get(source) != offset
        }
        if not news:
            return
        offsets = [TopicPartition(source.topic, source.partition, offset) for source, offset in news.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._log_kafka_error(error.args[0])
        else:
            self._published.update(news)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            if error is not None or partition.error is not None:
                self._published.pop(Source(partition.topic, partition.partition), None)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._failing():
            stored = self._store.offsets()
            for partition in partitions:
                source = Source(partition.topic, partition.partition)
                self._pending.assign(source, stored.get(source))
                partition.offset = stored.get(source, OFFSET_BEGINNING)
            consumer.incremental_assign(partitions)
            self._note_assignment("assigned", partitions)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Flush all before partitions are given up. Also when they were lost: a stale flush is refused."""
        with self._failing():
            self._flush()
            sources = [Source(partition.topic, partition.partition) for partition in partitions]
            self._pending.forget(sources)
            for source in sources:
                self._published.pop(source, None)
            self._note_assignment("revoked", partitions)

    def _note_assignment(self, event: str, partitions: list[TopicPartition]) -> None:
        named = sorted(f"{partition.topic}/{partition.partition}" for partition in partitions)
        self._metrics.partitions.set(self._pending.partitions)
        log.info(line(event, partitions=",".join(named), total=self._pending.partitions))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Carries an error out of a client's callback to the loop, which raises it."""
        try:
            yield
        except Exception as error:
            self._failure = error

    def _on_kafka_error(self, error: KafkaError) -> None:
        self._metrics.kafka_errors.inc()
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._failure = PipelineError(
                f"the Kafka client gave up: {error.str()}. If it was fenced, another aggregator runs in this "
                "group: a DuckDB store takes one a group. Stop one of the two, or give it its own --group"
            )
        self._log_kafka_error(error)

    def _log_kafka_error(self, error: KafkaError) -> None:
        """One line a minute for each kind: a broker that is away reports itself many times a second."""
        now = time.monotonic()
        last = self._error_logged.get(error.code())
        if last is None or now - last >= ERROR_LOG_SECONDS:
            self._error_logged[error.code()] = now
            log.warning(line("kafka_error", code=error.name(), detail=error.str()))
