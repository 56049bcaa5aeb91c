"""Something to count for every `Meter`, and a way to let it be counted: the suite knows none of them.

Prometheus is a real server that scrapes an exporter of the test's own, with the series of kafka_exporter and
of kminion as they write them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from devstack import Stack
from hotkey_operator.adapters.producer_reports import ProducerReports
from hotkey_operator.adapters.prometheus import Http, PrometheusMeter
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.ports import Meter
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._store import RedisStore, StoreUnavailableError
from hotkey_sdk.routing.report import encode_key_report
from hotkey_sdk.routing.table import Stream
from tests.contract.operator.worlds import BrokersWorld, Put
from tests.prometheus_process import running_prometheus

SCRAPE_SECONDS = 1.0
SCRAPE_TIMEOUT_SECONDS = 10.0  # at most; Prometheus refuses one that is longer than the interval
REPORT_SECONDS = 0.2


class MeterWorld(Protocol):
    """Topics whose records the meters that `meter` gives count."""

    def meter(self, topic: str) -> Meter: ...

    async def create(self, topic: str, partitions: int) -> None: ...

    async def append(self, topic: str, partition: int, records: int) -> None: ...

    async def close(self) -> None: ...


class BrokersMeterWorld:
    """Kafka, or the simulation's cluster."""

    def __init__(self, brokers: BrokersWorld) -> None:
        self._brokers = brokers

    def meter(self, topic: str) -> Meter:  # noqa: ARG002
        return self._brokers.brokers

    async def create(self, topic: str, partitions: int) -> None:
        await self._brokers.create(topic, partitions)

    async def append(self, topic: str, partition: int, records: int) -> None:
        await self._brokers.append(topic, partition, [Put(b"k")] * records)

    async def close(self) -> None:
        await self._brokers.close()


class Exporter:
    """Serves what it is told to count in Prometheus' text format, as kafka_exporter and kminion do."""

    def __init__(self) -> None:
        self.ends: dict[str, dict[int, int]] = {}
        self.sizes: dict[str, dict[int, int]] = {}
        self.look: Callable[[], None] = lambda: None  # before each scrape
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.look()
                body = outer.text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """A scrape is nothing to tell."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def text(self) -> str:
        lines = []
        for topic, ends in self.ends.items():
            for p, end in ends.items():
                lines.append(
                    f'kafka_topic_partition_current_offset{{partition="{p}",topic="{topic}"}} {end:e}'
                )
                mark = f'topic_name="{topic}",partition_id="{p}"'
                lines.append(f"kminion_kafka_topic_partition_high_water_mark{{{mark}}} {end:e}")
        for topic, sizes in self.sizes.items():
            lines += [
                f'kafka_log_size{{topic="{topic}",partition="{p}"}} {size}' for p, size in sizes.items()
            ]
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def watching(exporter: Exporter, folder: Path, scrape_seconds: float = SCRAPE_SECONDS) -> Iterator[str]:
    """A Prometheus that scrapes `exporter` so often; its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    timeout = int(min(scrape_seconds, SCRAPE_TIMEOUT_SECONDS) * 1000)
    config.write_text(
        f"global: {{scrape_interval: {int(scrape_seconds * 1000)}ms, scrape_timeout: {timeout}ms}}\n"
        "scrape_configs:\n"
        f"- {{job_name: kafka, static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]}}\n"
    )
    with running_prometheus(config) as port:
        yield f"http://127.0.0.1:{port}"


QUERIES = {
    "kafka_exporter": ('kafka_topic_partition_current_offset{{topic="{topic}"}}', "partition"),
    "kminion": ('kminion_kafka_topic_partition_high_water_mark{{topic_name="{topic}"}}', "partition_id"),
}


class PrometheusWorld:
    """A Prometheus whose exporter counts what is appended."""

    def __init__(self, exporter: Exporter, url: str, exported_by: str) -> None:
        self._exporter, self._url = exporter, url
        self._query, self._label = QUERIES[exported_by]
        self._http = Http()

    def meter(self, topic: str) -> Meter:
        return PrometheusMeter(self._http, self._url, self._query.format(topic=topic), self._label)

    async def create(self, topic: str, partitions: int) -> None:
        self._exporter.ends[topic] = dict.fromkeys(range(partitions), 0)

    async def append(self, topic: str, partition: int, records: int) -> None:
        self._exporter.ends[topic][partition] += records

    async def close(self) -> None:
        """Nothing is kept open."""


class ProducersWorld:
    """Two producers that count with the SDK's own counts and report into real Redis, as it does."""

    def __init__(self, stack: Stack) -> None:
        self._distribution = RedisDistribution(stack.redis.url, look_seconds=0)
        self._reports = ProducerReports(self._distribution.key_reports)
        self._store = RedisStore(stack.redis.url)
        self._counts = {name: KeyCounts(time.time()) for name in ("p1", "p2")}
        self._topics: list[str] = []
        self._ended = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._reporting = self._thread.submit(self._report)

    def meter(self, topic: str) -> Meter:
        return self._reports.meter(Stream("cluster", topic))

    async def create(self, topic: str, partitions: int) -> None:  # noqa: ARG002
        await self.append(topic, 0, 2)
        self._topics.append(topic)

    async def append(self, topic: str, partition: int, records: int) -> None:
        for number in range(records):
            self._counts["p1" if number % 2 else "p2"].add(topic, b"k", partition, 10, 1)

    def _report(self) -> None:
        while not self._ended.wait(REPORT_SECONDS):
            for name, counts in self._counts.items():
                self._report_counts(name, counts)

    def _report_counts(self, name: str, counts: KeyCounts) -> None:
        found = {topic: counts.report(topic, name, time.time()) for topic in list(self._topics)}
        reports = {Stream("cluster", t): encode_key_report(r) for t, r in found.items() if r}
        with contextlib.suppress(StoreUnavailableError):  # as the SDK goes on: the next report has it all
            self._store.report_keys(reports, name)

    async def close(self) -> None:
        self._ended.set()
        self._thread.shutdown()
        self._store.close()
        await self._distribution.close()
        self._reporting.result()  # a thread that broke off is seen by nobody else
