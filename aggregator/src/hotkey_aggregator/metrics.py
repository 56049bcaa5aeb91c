"""The aggregator's Prometheus metrics. Labels are bounded: never a key, an id or a partition."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hotkey_aggregator.events import Reason


class Metrics:
    """One registry per aggregator, so that two in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counted = self._counter("clicks_counted", "Clicks counted.")
        self.duplicates = self._counter("clicks_duplicate", "Clicks left out: their id was counted before.")
        self.rejected = Counter(
            "hotkey_aggregator_records_rejected",
            "Records that are no clicks, kept in the store's table of rejected records.",
            ["reason"],
            registry=self.registry,
        )
        for reason in Reason:
            self.rejected.labels(reason.value)
        self.jumps = self._counter(
            "offset_jumps", "Times that a partition did not go on at the expected offset."
        )
        self.kafka_errors = self._counter("kafka_errors", "Errors that the Kafka client reported.")
        self.pending = Gauge(
            "hotkey_aggregator_pending_events", "Events that wait for the next flush.", registry=self.registry
        )
        self.partitions = Gauge(
            "hotkey_aggregator_assigned_partitions", "Partitions that are read.", registry=self.registry
        )
        self.last_flush = Gauge(
            "hotkey_aggregator_last_flush_timestamp_seconds",
            "Unix time of the last flush that the store committed.",
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            "hotkey_aggregator_flush_seconds", "Time that the store took for a flush.", registry=self.registry
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"hotkey_aggregator_{name}", text, registry=self.registry)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
