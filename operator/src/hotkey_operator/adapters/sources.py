"""`Sources`: what a policy may name in `metrics`, made of the adapters that this process has."""

from __future__ import annotations

from hotkey_operator.adapters.producer_reports import ProducerReports
from hotkey_operator.adapters.prometheus import Http, PrometheusMeter
from hotkey_operator.engine.model import KeyTally
from hotkey_operator.engine.spec import Metrics, Source
from hotkey_operator.ports import Meter
from hotkey_sdk.routing.table import Stream


class PolicySources:
    """`http` for the Prometheus servers that policies name; `producers` for what SDK producers report."""

    def __init__(self, http: Http, producers: ProducerReports) -> None:
        self._http = http
        self._producers = producers

    def meter(self, metrics: Metrics, stream: Stream) -> Meter:
        asked = metrics.prometheus
        if metrics.source is Source.PROMETHEUS and asked is not None:
            return PrometheusMeter(self._http, asked.url, asked.query, asked.partition_label)
        return self._producers.meter(stream)

    def log_sizes(self, metrics: Metrics) -> Meter | None:
        asked = metrics.prometheus
        if asked is None or asked.size_query is None:
            return None
        return PrometheusMeter(self._http, asked.url, asked.size_query, asked.partition_label, "sizeQuery")

    async def tallies(self, stream: Stream, partitions: int) -> tuple[KeyTally, ...]:
        return await self._producers.tallies(stream, partitions)
