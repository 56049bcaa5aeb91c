"""What the loop tells of its work: metrics, log lines, and the condition that /readyz shows."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from hotkey_aggregator.condition import Told
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.outage import Outage
from hotkey_aggregator.pending import Jump
from hotkey_aggregator.store import Committed, DeadLetter
from hotkey_aggregator.writer import Written

log = logging.getLogger("hotkey_aggregator")

ERROR_LOG_SECONDS = 60.0


class Reports:
    """Tells by `metrics` and `told`, and by the log. Called by the loop's thread alone."""

    def __init__(self, metrics: Metrics, told: Told) -> None:
        self._metrics = metrics
        self._told = told
        self._error_logged: dict[int, float] = {}
        self._clock_logged = float("-inf")

    def condition(self, outage: Outage | None = None, **news: Any) -> None:
        """The fields of `Condition` that changed."""
        self._metrics.store_available.set(outage is None)
        reason = None if outage is None else outage.reason
        self._told.condition = replace(self._told.condition, store_outage=reason, **news)

    def turn(self, outage: Outage | None) -> None:
        """The loop turns, though it may get no further for this outage."""
        self._told.beat()
        self.condition(outage)

    def jump(self, jump: Jump) -> None:
        """A partition did not go on where it was expected to."""
        self._metrics.jumps.inc()
        place = {"topic": jump.source.topic, "partition": jump.source.partition}
        log.warning(line("offset_jump", **place, expected=jump.expected, found=jump.found))

    def flushed(self, written: Written, watermark: int | None, now: int) -> None:
        """The store has taken a flush; times in unix milliseconds."""
        committed = written.committed
        self._metrics.counted.inc(committed.counted)
        self._metrics.duplicates.inc(committed.duplicates)
        self._metrics.flush_seconds.observe(written.seconds)
        self._metrics.last_flush.set(now / 1000)
        if watermark is not None:
            self._metrics.watermark.set(watermark / 1000)
            self._metrics.freshness.observe(max(0, now - watermark) / 1000)
        if committed.conflicts:
            self._conflicts(committed)
        if written.flush.dead:
            self._dead(written.flush.dead)

    def start_over(self, why: str, error: Exception) -> None:
        """What was read and is not in the store is read again."""
        self._metrics.rewinds.inc()
        log.warning(line("rewind", why=why, detail=error))

    def assignment(self, event: str, partitions: Iterable[TopicPartition], total: int) -> None:
        """Partitions came or went; `total` are ours now."""
        named = sorted(f"{partition.topic}/{partition.partition}" for partition in partitions)
        self._metrics.partitions.set(total)
        log.info(line(event, partitions=",".join(named), total=total))

    def clock_behind(self, milliseconds: int) -> None:
        """Records come that are newer than now: one line a minute."""
        now = time.monotonic()
        if now - self._clock_logged >= ERROR_LOG_SECONDS:
            self._clock_logged = now
            log.error(
                line(
                    "clock_behind",
                    seconds=milliseconds // 1000,
                    means="records are newer than this machine's clock",
                    do="set the clocks of this machine and of the brokers; then replay FromTheFuture letters",
                )
            )

    def clock_put_back(self, partitions: int, milliseconds: int) -> None:
        """Marks of a time to come were found: a clock was ahead when they were made."""
        log.warning(
            line(
                "clock_put_back",
                partitions=partitions,
                seconds=milliseconds // 1000,
                then="the watermark is found out anew",
            )
        )

    def kafka_error(self, error: KafkaError) -> None:
        """One line a minute for each kind: a broker that is away reports itself many times a second."""
        now = time.monotonic()
        last = self._error_logged.get(error.code())
        if last is None or now - last >= ERROR_LOG_SECONDS:
            self._error_logged[error.code()] = now
            log.warning(line("kafka_error", code=error.name(), detail=error.str()))

    def _conflicts(self, committed: Committed) -> None:
        """One id with two payloads: somebody makes ids that are not unique."""
        self._metrics.conflicts.inc(committed.conflicts)
        examples = ",".join(
            f"{one.event_id[:100]}@{one.source.topic}/{one.source.partition}/{one.offset}"
            for one in committed.examples[:3]
        )
        log.warning(line("payload_conflicts", records=committed.conflicts, examples=examples))

    def _dead(self, dead: Sequence[DeadLetter]) -> None:
        """One line a flush, however many there are: each is kept in the store and goes to its topic."""
        reasons = Counter(letter.reason.value for letter in dead)
        for reason, records in reasons.items():
            self._metrics.rejected.labels(reason).inc(records)
        first = dead[0]
        example = f"{first.source.topic}/{first.source.partition}@{first.offset}"
        told = {"records": len(dead), "reasons": ",".join(sorted(reasons)), "example": example}
        log.warning(line("records_rejected", **told, detail=first.detail))
