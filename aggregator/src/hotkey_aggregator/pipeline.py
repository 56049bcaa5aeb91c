"""Consume, count, flush: the loop that turns records into counts.

The store's positions are the truth: on every assignment reading starts at them, and a flush moves them in the
transaction that counts. So a kill at any moment loses nothing (what was not flushed is read again) and
doubles nothing (what was flushed is behind the stored position, and ids are counted once). The broker gets
the same offsets afterwards, for people and lag monitors to see; nothing rests on them.

The store works in a thread of its own while the next batch is read. When that batch is full before the store
is done, reading pauses: memory holds two batches, whatever the store does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from hotkey_aggregator.assignment import NO_SUCH_OFFSET, Assignment
from hotkey_aggregator.cluster import Cluster, Look
from hotkey_aggregator.condition import Told
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Jump, Pending, Record
from hotkey_aggregator.store import (
    Committed,
    DeadLetter,
    Keeping,
    OffsetConflictError,
    Position,
    Store,
    StoreUnavailableError,
)
from hotkey_aggregator.watermark import UNKNOWN, Watermark, complete_up_to
from hotkey_aggregator.windows import Source
from hotkey_aggregator.writer import Writer, Written

log = logging.getLogger("hotkey_aggregator")

MOST_RECORDS = 10_000
FEWEST_RECORDS = 100
CONSUME_BYTES = 8 * 1024 * 1024
CONSUME_SECONDS = 0.5
FLIGHT_SECONDS = 0.1
PAUSED_SECONDS = 0.05
LOOK_SECONDS = 1.0
EXPIRE_SECONDS = 60.0
HANDOVER_SECONDS = 20.0
"""How long a rebalance, and the end of the process, waits for the store to take a flush."""
ERROR_LOG_SECONDS = 60.0


class PipelineError(Exception):
    """The aggregator cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When what was counted goes to the store: at the latest after `seconds`, earlier when it is much."""

    seconds: float = 5.0
    events: int = 200_000
    bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rules:
    """How a stream is counted."""

    topic: str
    limits: FlushLimits
    keeping: Keeping
    lateness_milliseconds: int
    """What a click may take from its time until it is in Kafka, for a log without news to be complete."""


class Pipeline:
    """One consumer, one store, one loop. `run` returns when `stop` is set, all flushed."""

    def __init__(
        self,
        make_consumer: Callable[[dict[str, Any]], Consumer],
        store: Store,
        writer: Writer,
        cluster: Cluster,
        rules: Rules,
        *,
        metrics: Metrics,
        told: Told,
        serve_dead_letters: Callable[[Collection[Source]], None],
    ) -> None:
        self._store = store
        self._writer = writer
        self._cluster = cluster
        self._rules = rules
        self._metrics = metrics
        self._told = told
        self._serve_dead_letters = serve_dead_letters
        self._pending = Pending(rules.keeping)
        self._assignment = Assignment(
            lambda: self._consumer, store, cluster, self._pending, metrics, rules.keeping, _now
        )
        self._watermark = Watermark()
        self._positions: dict[Source, Position] = {}
        self._topic_ids: dict[str, str] = {}
        self._flight: Future[Written] | None = None
        self._batch = FEWEST_RECORDS
        self._paused = False
        self._published: dict[Source, int] = {}
        self._failure: Exception | None = None
        self._error_logged: dict[int, float] = {}
        self._flush_due = self._look_due = 0.0
        self._expire_due = time.monotonic() + EXPIRE_SECONDS
        self._consumer = make_consumer({"on_commit": self._on_commit, "error_cb": self._on_kafka_error})

    def run(self, stop: threading.Event) -> None:
        """Count until `stop` is set. Raises StoreError or PipelineError; what was flushed stays."""
        try:
            if self._bind(stop):
                self._consumer.subscribe(
                    self._topics(),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
                self._loop(stop)
                self._finish()
        finally:
            # Whatever waits after a failure must not be flushed by the revocation that close() causes.
            self._pending.drop()
            self._flight = None
            self._consumer.close()

    def _bind(self, stop: threading.Event) -> bool:
        """Tie the store to this stream, as soon as Kafka says which cluster it is."""
        while not stop.is_set():
            self._told.beat()
            try:
                cluster_id = self._consumer.list_topics(timeout=5).cluster_id
                self._store.bind(f"{cluster_id}/{self._rules.topic}")
                self._positions = dict(self._store.positions())
                nameless = {source.topic for source in self._positions if not source.topic_id}
                if nameless:
                    self._store.name_topics(self._cluster.topic_ids(nameless))
                    self._positions = dict(self._store.positions())
            except KafkaException as error:
                self._log_kafka_error(error.args[0])
            except StoreUnavailableError as error:
                self._tell(store_outage=str(error))
                log.warning(line("store_unavailable", detail=error))
            else:
                return True
            stop.wait(1.0)
        return False

    def _topics(self) -> list[str]:
        """The base topic, and every other one that the store has positions of: reading it is always safe."""
        base = self._rules.topic
        return [base, *sorted({source.topic for source in self._positions} - {base})]

    def _loop(self, stop: threading.Event) -> None:
        self._flush_due = time.monotonic() + self._rules.limits.seconds
        while not stop.is_set():
            self._told.beat()
            self._collect()
            self._look_around()
            if self._flight is None and (time.monotonic() >= self._flush_due or self._is_full()):
                self._begin_flush()
            self._pause_or_resume(self._flight is not None and self._is_full())
            self._take(self._consumer.consume(self._batch, self._wait_seconds()))
            if self._failure is not None:
                raise self._failure

    def _wait_seconds(self) -> float:
        if self._paused:
            return PAUSED_SECONDS
        if self._flight is not None:
            return FLIGHT_SECONDS
        return min(CONSUME_SECONDS, max(0.0, self._flush_due - time.monotonic()))

    def _is_full(self) -> bool:
        limits = self._rules.limits
        return self._pending.events >= limits.events or self._pending.value_bytes >= limits.bytes

    def _pause_or_resume(self, full: bool) -> None:
        if full == self._paused:
            return
        self._paused = full
        self._metrics.paused.set(full)
        partitions = self._consumer.assignment()
        (self._consumer.pause if full else self._consumer.resume)(partitions)
        self._tell()

    def _take(self, messages: Sequence[Message]) -> None:
        records = [message for message in messages if message.error() is None]
        before = self._pending.value_bytes
        if records:
            for jump in self._pending.take(cast("list[Record]", records), _now()):
                self._note_jump(jump)
            # As many at once as keep what the client hands out small, whatever the records' size.
            mean = max(1, (self._pending.value_bytes - before) // len(records))
            self._batch = max(FEWEST_RECORDS, min(MOST_RECORDS, CONSUME_BYTES // mean))
        if len(records) < len(messages):
            for message in messages:
                self._take_event(message)
        self._metrics.pending.set(self._pending.events)

    def _take_event(self, message: Message) -> None:
        """What the client says of a partition between its records."""
        error, topic, partition = message.error(), message.topic(), message.partition()
        if error is None:
            return
        if topic is None or partition is None:
            self._on_kafka_error(error)
        elif error.code() == KafkaError._PARTITION_EOF:
            source, end = self._pending.source(topic, partition), message.offset()
            if source is not None and end is not None:
                self._pending.advance(source, end, UNKNOWN)
        else:
            self._on_kafka_error(error)
            if error.code() in NO_SUCH_OFFSET:
                self._assignment.lose_place([(topic, partition)])

    def _note_jump(self, jump: Jump) -> None:
        self._metrics.jumps.inc()
        place = {"topic": jump.source.topic, "partition": jump.source.partition}
        log.warning(line("offset_jump", **place, expected=jump.expected, found=jump.found))

    def _look_around(self) -> None:
        """All that is asked of the cluster beside records, and the store's housekeeping; waits for little."""
        look = self._cluster.answer()
        if look is not None:
            self._take_look(look)
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + LOOK_SECONDS
            places = self._assignment.places
            topics = {self._rules.topic, *(s.topic for s in self._positions), *(topic for topic, _ in places)}
            self._cluster.ask(topics, places, _now())
            self._tell()
        if now >= self._expire_due:
            self._expire_due = now + EXPIRE_SECONDS
            self._writer.do(self._expire)
        if not self._paused:
            self._assignment.settle()

    def _expire(self) -> None:
        try:
            self._store.expire(_now())
        except StoreUnavailableError as error:
            log.warning(line("expire_put_off", detail=error))

    def _take_look(self, look: Look) -> None:
        if look.whole:
            self._topic_ids = dict(look.topic_ids)
        for source in self._pending.sources:
            if look.topic_ids.get(source.topic, source.topic_id) != source.topic_id:
                self._assignment.lose_place([(source.topic, source.partition)])
        lag = 0
        for place, end in look.ends.items():
            placed = self._pending.source(*place)
            if placed is None:
                continue
            position = self._pending.position(placed)
            read = 0 if position is None else position.next_offset
            lag += max(0, end - read)
            mark = complete_up_to(read, end, look.asked_at, self._rules.lateness_milliseconds)
            if mark is not None:
                self._pending.advance(placed, read, mark)
        self._metrics.lag.set(lag)
        self._tell(lag_records=lag)

    def _begin_flush(self) -> None:
        self._flush_due = time.monotonic() + self._rules.limits.seconds
        flush = self._pending.flush(_now())
        if flush.moves:
            self._flight = self._writer.commit(flush)
            self._metrics.pending.set(0)

    def _collect(self) -> None:
        """Take in what became of the flush that was under way, if it is done."""
        if self._flight is None or not self._flight.done():
            return
        flight, self._flight = self._flight, None
        try:
            written = flight.result()
        except OffsetConflictError as error:
            if error.source in self._pending.sources:
                raise
            self._start_over("a partition that was given up was flushed too late", error)
        except StoreUnavailableError as error:
            self._start_over("a flush was given up with its partitions", error)
        else:
            self._note_written(written)

    def _start_over(self, why: str, error: Exception) -> None:
        """Of the refused flush nothing was kept: read all of it again that is still ours to read."""
        self._metrics.rewinds.inc()
        log.warning(line("rewind", why=why, detail=error))
        self._assignment.start_over()

    def _note_written(self, written: Written) -> None:
        committed, now = written.committed, _now()
        self._positions = dict(written.positions)
        self._metrics.counted.inc(committed.counted)
        self._metrics.duplicates.inc(committed.duplicates)
        self._metrics.flush_seconds.observe(written.seconds)
        self._metrics.last_flush.set(now / 1000)
        watermark = self._watermark.observe(self._positions, self._pending.sources, self._topic_ids)
        if watermark is not None:
            self._metrics.watermark.set(watermark / 1000)
            self._metrics.freshness.observe(max(0, now - watermark) / 1000)
        self._note_conflicts(committed)
        self._note_dead(written.flush.dead)
        self._tell(watermark=watermark, committed_at=now)
        self._publish()

    def _note_conflicts(self, committed: Committed) -> None:
        """One id with two payloads: somebody makes ids that are not unique."""
        if not committed.conflicts:
            return
        self._metrics.conflicts.inc(committed.conflicts)
        examples = ",".join(
            f"{one.event_id[:100]}@{one.source.topic}/{one.source.partition}/{one.offset}"
            for one in committed.examples[:3]
        )
        log.warning(line("payload_conflicts", records=committed.conflicts, examples=examples))

    def _note_dead(self, dead: Sequence[DeadLetter]) -> None:
        """One line a flush, however many there are: each is kept in the store and goes to its topic."""
        if not dead:
            return
        reasons = Counter(letter.reason.value for letter in dead)
        for reason, records in reasons.items():
            self._metrics.rejected.labels(reason).inc(records)
        first = dead[0]
        example = f"{first.source.topic}/{first.source.partition}@{first.offset}"
        told = {"records": len(dead), "reasons": ",".join(sorted(reasons)), "example": example}
        log.warning(line("records_rejected", **told, detail=first.detail))
        self._serve_dead_letters(self._pending.sources)

    def _tell(self, **news: Any) -> None:
        outage = self._writer.outage
        self._metrics.store_available.set(outage is None)
        self._told.condition = replace(
            self._told.condition,
            **{
                "partitions": len(self._assignment.places),
                "unplaced": len(self._assignment.unplaced),
                "paused": self._paused,
                "store_outage": None if outage is None else outage.reason,
                **news,
            },
        )

    def _publish(self) -> None:
        """Commit the stored offsets to the broker where it does not have them yet; does not wait for it."""
        news = {
            source: position.next_offset
            for source in self._pending.sources
            if (position := self._positions.get(source)) is not None
            and self._published.get(source) != position.next_offset
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
                source = self._pending.source(partition.topic, partition.partition)
                if source is not None:
                    self._published.pop(source, None)

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self._failing():
            self._assignment.add(partitions)
            if self._paused and partitions:
                self._consumer.pause(partitions)
            self._note_assignment("assigned", partitions)
            self._serve_dead_letters(self._pending.sources)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Flush all before partitions are given up, if the store takes it in time."""
        with self._failing():
            self._drain()
            self._give_up(partitions, "revoked")

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others may have them already: what was read of them is theirs to count."""
        with self._failing():
            self._give_up(partitions, "lost")

    def _give_up(self, partitions: list[TopicPartition], event: str) -> None:
        self._assignment.remove(partitions)
        mine = self._pending.sources
        self._published = {source: offset for source, offset in self._published.items() if source in mine}
        self._note_assignment(event, partitions)
        self._serve_dead_letters(mine)

    def _note_assignment(self, event: str, partitions: list[TopicPartition]) -> None:
        named = sorted(f"{partition.topic}/{partition.partition}" for partition in partitions)
        total = len(self._assignment.places)
        self._metrics.partitions.set(total)
        self._tell(joined=True)
        log.info(line(event, partitions=",".join(named), total=total))

    def _drain(self) -> bool:
        """Flush all that waits; False when the store did not take it in time and it was given up."""
        deadline = time.monotonic() + HANDOVER_SECONDS
        if not self._await_flight(deadline):
            return False
        self._begin_flush()
        return self._await_flight(deadline)

    def _await_flight(self, deadline: float) -> bool:
        flight = self._flight
        if flight is None:
            return True
        while not flight.done() and time.monotonic() < deadline:
            self._told.beat()
            wait_for([flight], 0.1)
        if not flight.done():
            self._writer.give_up()
            wait_for([flight], 1.0)
        # Done without the store's word, or not done even so: a later `_collect` starts over then.
        taken = flight.done() and not isinstance(flight.exception(), StoreUnavailableError)
        self._collect()
        return taken

    def _finish(self) -> None:
        waiting = self._pending.events
        if not self._drain():
            raise PipelineError(
                f"the store did not take the last flush ({waiting} events waited behind it) within "
                f"{HANDOVER_SECONDS:.0f} s: nothing is lost, they are read again at the next start"
            )

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


def _now() -> int:
    return int(time.time() * 1000)
