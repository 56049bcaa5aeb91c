"""The clients' counters as Prometheus metrics; needs prometheus_client, which nothing else here does.

REGISTRY.register(hotkey_sdk.prometheus.Collector(producer, consumer))
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as _Collector

from hotkey_sdk._consumer import Consumer
from hotkey_sdk._producer import Producer
from hotkey_sdk._stats import SourceStats


class Collector(_Collector):
    """Sums over its clients, which it does not keep alive. Labels are bounded: topics and outcomes."""

    def __init__(self, *clients: Producer | Consumer) -> None:
        self._clients: weakref.WeakSet[Producer | Consumer] = weakref.WeakSet(clients)

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        clients = list(self._clients)
        yield from _records([client for client in clients if isinstance(client, Producer)])
        yield from _tables([client.hotkey.stats().source for client in clients])


def _records(producers: list[Producer]) -> Iterator[Metric]:
    stats = [producer.hotkey.stats() for producer in producers]
    for name, text, value in (
        ("routed", "Records sent to a shard.", sum(each.routed for each in stats)),
        (
            "missing_dimension",
            "Routed records that lacked a dimension, hashed as empty.",
            sum(each.missing_dimension for each in stats),
        ),
        (
            "fell_back",
            "Records sent under the plain key because their shard's partition or topic cannot be used.",
            sum(each.fell_back for each in stats),
        ),
        (
            "sent_again",
            "Records that a dedicated topic refused, and those behind them, given to the base topic.",
            sum(each.sent_again for each in stats),
        ),
    ):
        yield CounterMetricFamily(f"hotkey_sdk_{name}_records", text, value=value)
    waiting = sum(each.waiting for each in stats)
    yield GaugeMetricFamily("hotkey_sdk_waiting_records", "Records still to be sent again.", value=waiting)


def _tables(sources: list[SourceStats]) -> Iterator[Metric]:
    failures = sum(source.failures for source in sources)
    yield CounterMetricFamily(
        "hotkey_sdk_store_failures", "Reads that the table store did not answer.", value=failures
    )
    epochs: dict[str, int] = {}
    outcomes: Counter[tuple[str, str]] = Counter()
    for table in (table for source in sources for table in source.tables):
        epochs[table.topic] = min(table.epoch, epochs.get(table.topic, table.epoch))
        for outcome, count in table.outcomes.items():
            outcomes[table.topic, outcome] += count
    epoch = GaugeMetricFamily(
        "hotkey_sdk_table_epoch", "Epoch of the current table, the lowest of all clients.", labels=["topic"]
    )
    for topic, value in epochs.items():
        epoch.add_metric([topic], value)
    yield epoch
    offered = CounterMetricFamily(
        "hotkey_sdk_tables", "Envelopes that were found, by what became of them.", labels=["topic", "outcome"]
    )
    for (topic, outcome), count in outcomes.items():
        offered.add_metric([topic, outcome], count)
    yield offered
