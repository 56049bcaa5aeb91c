"""The counters as Prometheus metrics."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

import hotkey_sdk
from hotkey_sdk.prometheus import Collector

NOWHERE: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def test_the_metrics_are_sums_over_the_clients() -> None:
    registry = CollectorRegistry()
    producers = [hotkey_sdk.Producer(NOWHERE) for _ in range(2)]
    registry.register(Collector(*producers))
    for producer in producers:
        producer._counts.routed += 3

    text = generate_latest(registry).decode()

    assert "hotkey_sdk_routed_records_total 6.0" in text
    assert "hotkey_sdk_store_failures_total 0.0" in text


def test_the_protocols_page_lists_every_metric_and_no_other() -> None:
    made = {metric.name + ("_total" if metric.type == "counter" else "") for metric in Collector().collect()}
    page = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()

    assert set(re.findall(r"^\| `(hotkey_sdk_\w+)", page, re.MULTILINE)) == made


def test_the_collector_keeps_no_client_alive() -> None:
    registry = CollectorRegistry()
    producer = hotkey_sdk.Producer(NOWHERE)
    producer._counts.routed += 3
    registry.register(Collector(producer))

    del producer
    gc.collect()

    assert "hotkey_sdk_routed_records_total 0.0" in generate_latest(registry).decode()
