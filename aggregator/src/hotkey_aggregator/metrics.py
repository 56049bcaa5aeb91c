"""The aggregator's Prometheus metrics. Labels are bounded: never a key, an id or a partition."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hotkey_aggregator.events import Reason

_FLUSH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FRESHNESS_BUCKETS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0)


class Metrics:
    """One registry per aggregator, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counted = self._counter("clicks_counted", "Clicks counted.")
        self.duplicates = self._counter("clicks_duplicate", "Clicks left out: their id was counted before.")
        self.conflicts = self._counter(
            "payload_conflicts", "Duplicates whose payload was another than the one that was counted."
        )
        self.rejected = Counter(
            "hotkey_aggregator_records_rejected",
            "Records that are not counted but go to the dead-letter topic.",
            ["reason"],
            registry=self.registry,
        )
        for reason in Reason:
            self.rejected.labels(reason.value)
        self.delivered = self._counter("dead_letters_delivered", "Records that the dead-letter topic has.")
        self.undelivered = self._counter(
            "dead_letter_failures", "Failed attempts to bring records to the dead-letter topic."
        )
        self.jumps = self._counter(
            "offset_jumps", "Times that a partition did not go on at the expected offset."
        )
        self.expired = self._counter(
            "records_expired", "Records that retention removed before they were read: lost to the counts."
        )
        self.truncations = self._counter(
            "logs_truncated", "Times that a log ended before what had been read of it."
        )
        self.recreations = self._counter(
            "topics_recreated", "Partitions found to belong to a topic that was made anew under its name."
        )
        self.kafka_errors = self._counter("kafka_errors", "Errors that the Kafka client reported.")
        self.store_retries = self._counter("store_retries", "Flushes tried again: the store did not answer.")
        self.rewinds = self._counter(
            "rewinds", "Times that what waited was read again: a partition was given up while it was flushed."
        )
        self.pending = self._gauge("pending_events", "Events that wait for the next flush.")
        self.partitions = self._gauge("assigned_partitions", "Partitions that are read.")
        self.paused = self._gauge("paused", "1 while nothing is read because the store is behind.")
        self.store_available = self._gauge("store_available", "0 while the store does not answer.")
        self.store_available.set(1)
        self.lag = self._gauge("lag_records", "Records of the assigned partitions that were not read yet.")
        self.last_flush = self._gauge(
            "last_flush_timestamp_seconds", "Unix time of the last flush that the store committed."
        )
        self.watermark = self._gauge(
            "watermark_timestamp_seconds", "Unix time up to which the stream's counts are complete."
        )
        self.freshness = Histogram(
            "hotkey_aggregator_freshness_seconds",
            "Age of the watermark each time that a flush was committed.",
            buckets=_FRESHNESS_BUCKETS,
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            "hotkey_aggregator_flush_seconds",
            "Time that the store took for a flush.",
            buckets=_FLUSH_BUCKETS,
            registry=self.registry,
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"hotkey_aggregator_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"hotkey_aggregator_{name}", text, registry=self.registry)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
