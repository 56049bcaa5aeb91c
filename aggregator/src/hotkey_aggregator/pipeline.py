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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from hotkey_aggregator.assignment import NO_SUCH_OFFSET, Assignment
from hotkey_aggregator.broker_offsets import BrokerOffsets
from hotkey_aggregator.clock import Clock
from hotkey_aggregator.cluster import Cluster
from hotkey_aggregator.columns import Record
from hotkey_aggregator.condition import Told
from hotkey_aggregator.dead_letters import whose_letters
from hotkey_aggregator.flight import Flight
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.lookout import Lookout
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.reports import Reports
from hotkey_aggregator.rules import Rules
from hotkey_aggregator.store import (
    OffsetConflictError,
    Position,
    Store,
    StoreError,
    StoreUnavailableError,
)
from hotkey_aggregator.watermark import UNKNOWN, Watermark, is_to_come
from hotkey_aggregator.windows import Source
from hotkey_aggregator.writer import Writer, Written
from hotkey_sdk import Consumer

log = logging.getLogger("hotkey_aggregator")

MOST_RECORDS = 4_096
"""At once: what is made of so many stays in the processor's cache until it is laid out in columns."""
FEWEST_RECORDS = 100
CONSUME_BYTES = 8 * 1024 * 1024
CONSUME_SECONDS = 0.5
FLIGHT_SECONDS = 0.1
PAUSED_SECONDS = 0.05
EXPIRE_SECONDS = 60.0
FIRST_FLUSH = 0.2
"""Of the time from flush to flush: how long a flush waits at most after an assignment."""
SILENT_SECONDS = 20.0
"""After so long without an answer of Kafka the counts are not taken to get newer."""
HANDOVER_SECONDS = 20.0
"""How long a rebalance, and the end of the process, waits for the store to take a flush."""


class PipelineError(Exception):
    """The aggregator cannot go on; the message says why and what to do."""


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
        self._reports = Reports(metrics, told)
        self._serve_dead_letters = serve_dead_letters
        self._pending = Pending(rules.keeping)
        self._clock = Clock()
        self._assignment = Assignment(
            lambda: self._consumer, store, cluster, self._pending, metrics, rules.keeping, self._clock.now
        )
        self._lookout = Lookout(
            cluster, self._assignment, self._pending, rules.lateness_milliseconds, self._clock.now
        )
        self._watermark = Watermark()
        self._gone: frozenset[str] = frozenset()  # topics, when dead letters were last looked for
        self._positions: dict[Source, Position] = {}
        self._flight = Flight(writer, told.beat)
        self._batch = FEWEST_RECORDS
        self._paused = self._silent = False
        self._broker_offsets = BrokerOffsets()
        self._failure: Exception | None = None
        self._flush_due = 0.0
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
            self._flight.forget()
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
                    topics = self._cluster.topics(nameless)
                    self._store.name_topics({name: facts.id for name, facts in topics.items()})
                    self._positions = dict(self._store.positions())
            except KafkaException as error:
                self._reports.kafka_error(error.args[0])
            except StoreUnavailableError as error:
                self._writer.outages.note(error)
            else:
                self._writer.outages.end()
                return True
            self._tell()
            stop.wait(1.0)
        return False

    def _topics(self) -> list[str]:
        """The base topic, and every other one that the store has positions of: reading it is always safe.

        Those that are known to be gone would be asked for again and again, for as long as the process lives.
        """
        base = self._rules.topic
        others = {source.topic for source in self._positions} - {base}
        return [base, *sorted(others - self._cluster.absent(others))]

    def _loop(self, stop: threading.Event) -> None:
        self._flush_due = time.monotonic() + self._rules.limits.seconds
        while not stop.is_set():
            self._told.beat()
            self._collect()
            self._look_around()
            if not self._flight.is_under_way and (time.monotonic() >= self._flush_due or self._is_full()):
                self._begin_flush()
            self._pause_or_resume(self._flight.is_under_way and self._is_full())
            self._take(self._consumer.consume(self._batch, self._wait_seconds()))
            if self._failure is not None:
                raise self._failure

    def _wait_seconds(self) -> float:
        if self._paused:
            return PAUSED_SECONDS
        if self._flight.is_under_way:
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
            counted = self._assignment.verified(cast("list[Record]", records))
            for jump in self._pending.take(counted, self._clock.now()):
                self._reports.jump(jump)
            self._clock.saw(records[-1].timestamp()[1])
            if behind := self._clock.behind():
                self._reports.clock_behind(behind)
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
            placed = (topic, partition) not in self._assignment.unplaced
            if source is not None and end is not None and placed:
                self._pending.advance(source, end, UNKNOWN)
        else:
            self._on_kafka_error(error)
            if error.code() in NO_SUCH_OFFSET:
                cut_off = error.code() == KafkaError._LOG_TRUNCATION
                self._assignment.lose_place([(topic, partition)], no_such_offset=True, cut_off=cut_off)

    def _look_around(self) -> None:
        """All that is asked of the cluster beside records, and the store's housekeeping; waits for little."""
        lag = self._lookout.look(self._known_topics)
        if lag is not None:
            self._metrics.lag.set(lag)
            self._tell(lag_records=lag)
            if not self._flight.is_under_way:
                self._distrust_marks()
        if (silent := self._lookout.silent_seconds > SILENT_SECONDS) != self._silent:
            self._silent = silent
            self._tell(kafka_silent=silent)
        if time.monotonic() >= self._expire_due and not self._flight.is_under_way:
            self._expire_due = time.monotonic() + EXPIRE_SECONDS
            if (now := self._clock.to_forget_by()) is not None:
                self._writer.do(lambda: self._expire(now))
        settled = not self._paused and self._assignment.settle()
        if settled or self._gone != self._lookout.gone:
            self._bring_dead_letters()

    def _bring_dead_letters(self) -> None:
        """Of what is read, of logs that stood in its place, and of topics that are gone."""
        self._gone = self._lookout.gone
        read, places = self._pending.sources, self._assignment.places
        self._serve_dead_letters(whose_letters(self._positions, read, places, self._gone, self._rules.topic))

    def _known_topics(self) -> set[str]:
        """The stream's topics: what is read by us or by others, and what the table says is to be read."""
        return {
            self._rules.topic,
            *(source.topic for source in self._positions),
            *(topic for topic, _ in self._assignment.places),
            *self._consumer.hotkey.stats().added_topics,
        }

    def _expire(self, now: int) -> None:
        try:
            self._store.expire(now)
        except StoreError as error:
            log.warning(line("expire_put_off", detail=error))

    def _begin_flush(self) -> None:
        self._flush_due = time.monotonic() + self._rules.limits.seconds
        flush = self._pending.flush(self._clock.now())
        if not flush.moves:
            self._writer.ask(flush.now)
            return
        self._assignment.note_flush(flush.moves)
        self._flight.begin(flush)
        self._metrics.pending.set(0)

    def _collect(self) -> None:
        """Take in what became of the flush that was under way, if it is done."""
        try:
            written = self._flight.land()
        except OffsetConflictError as error:
            self._take_refusal(error)
        except StoreUnavailableError as error:
            self._start_over("a flush was given up with its partitions", error)
        else:
            if written is not None:
                self._take_written(written)

    def _take_refusal(self, error: OffsetConflictError) -> None:
        """Refused in the course of a rebalance, or because others count here and we must not go on."""
        if self._flight.was_cut_off:
            raise error
        if error.source not in self._pending.sources:
            self._start_over("a partition that was given up was flushed too late", error)
        elif self._assignment.excuse(error.source):
            self._start_over("a partition's former owner flushed late", error)
        else:
            raise error

    def _start_over(self, why: str, error: Exception) -> None:
        """Of the refused flush nothing was kept: read all of it again that is still ours to read."""
        self._reports.start_over(why, error)
        self._assignment.start_over()

    def _take_written(self, written: Written) -> None:
        now = self._clock.now()
        self._assignment.note_taken()
        self._positions = dict(written.positions)
        watermark = self._watermark.observe(self._positions, self._lookout.living, now)
        self._reports.flushed(written, watermark, now)
        self._tell(watermark=watermark, committed_at=now)
        if written.flush.dead:
            self._bring_dead_letters()
        try:
            self._broker_offsets.publish(self._consumer, self._positions, self._pending.sources)
        except KafkaException as error:
            self._reports.kafka_error(error.args[0])

    def _distrust_marks(self) -> None:
        """When the clock was put back: what waits is read again, and marked by the clock as it is now."""
        now = self._clock.now()
        positions = [self._pending.position(source) for source in self._pending.sources]
        ahead = [one.event_time - now for one in positions if one and is_to_come(one.event_time, now)]
        if ahead:
            self._reports.clock_put_back(len(ahead), max(ahead))
            self._assignment.start_over()

    def _tell(self, **news: Any) -> None:
        self._reports.condition(
            self._writer.outages.current,
            partitions=len(self._assignment.places),
            unplaced=len(self._assignment.unplaced),
            paused=self._paused,
            **news,
        )

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._broker_offsets.note(error, partitions, self._pending.source)

    def _on_assign(self, _consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        with self._failing():
            self._assignment.add(partitions)
            if self._paused and partitions:
                self._consumer.pause(partitions)
            self._reports.assignment("assigned", partitions, len(self._assignment.places))
            self._tell(joined=True)
            self._bring_dead_letters()
            if partitions:
                self._flush_soon()

    def _flush_soon(self) -> None:
        """What comes first from new partitions has waited for its reader: not a whole interval as well."""
        soon = time.monotonic() + self._rules.limits.seconds * FIRST_FLUSH
        self._flush_due = min(self._flush_due, soon)

    def _on_revoke(self, _consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Flush all before partitions are given up, if the store takes it in time."""
        with self._failing():
            self._drain()
            self._give_up(partitions, "revoked")

    def _on_lost(self, _consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """Others may have them already: what was read of them is theirs to count."""
        with self._failing():
            self._flight.cut_off()
            self._give_up(partitions, "lost")

    def _give_up(self, partitions: list[TopicPartition], event: str) -> None:
        self._assignment.remove(partitions)
        self._broker_offsets.keep(self._pending.sources)
        self._reports.assignment(event, partitions, len(self._assignment.places))
        self._tell(joined=True)
        self._bring_dead_letters()

    def _drain(self) -> bool:
        """Flush all that waits; False when the store did not take it in time and it was given up."""
        deadline = time.monotonic() + HANDOVER_SECONDS
        if not self._await_flight(deadline):
            return False
        self._begin_flush()
        return self._await_flight(deadline)

    def _await_flight(self, deadline: float) -> bool:
        taken = self._flight.wait(deadline)
        # Given up, or not done even so: what is read again then is seen to here or by a later `_collect`.
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
        self._reports.kafka_error(error)
