"""Hot keys are found where rates do not come from Kafka's end offsets, nor keys from its records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.operator.meter_worlds import Exporter, watching
from tests.stack.operator.conftest import Proven, StartLoad
from tests.stack.operator.process import Operator
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually

QUICK = {"recordsPerSecond": 500}
RELEASE = {"for": "3s"}
SCRAPE_SECONDS = 2.0
RECORD_BYTES = 120  # as the exporter tells it


def sampled_bytes(operator: Operator) -> float:
    """What the operator says that it read of records, for all policies."""
    found = re.findall(r"^hotkey_operator_sampled_bytes_total\S* (\S+)$", operator.measured(), re.MULTILINE)
    assert found, "no metric of sampled bytes"
    return sum(map(float, found))


def test_a_hot_key_is_spread_and_merged_back_from_what_producers_report_and_no_record_is_read(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    # given a stream whose records must not be read, and no producer that tells what it sends
    operator = scene.operator()
    metrics = {"source": "Producers", "sampling": False}
    scene.apply("clicks", {"topic": topic, "trigger": QUICK, "release": RELEASE, "metrics": metrics})
    why = scene.wait_for_condition("clicks", "KafkaUnavailable")
    assert "hotkey.report.keys" in why

    # when producers tell it
    load = start_load(topic, config={"hotkey.report.keys": True})

    # then their hot key is found and spread, with a share that is about right
    table = scene.wait_for_routes("clicks", {b"nike"})
    (route,) = table.routes
    assert len({shard.partition for shard in route.shards}) > 6
    scene.wait_for_published("clicks", topic)

    def told() -> bool:
        status = scene.status("clicks")
        shares = {key["key"]: key.get("share", 0) for key in status.get("keys", [])}
        assert 0.6 < shares.get("nike", 0) < 1, status
        assert status.get("producers") == "2/2", status
        return True

    eventually("the key's share is told", told)

    # and merged back when it cooled; no record was read for it
    load.set_hot_share(0.0)
    scene.wait_for_routes("clicks", set())
    scene.wait_for_published("clicks", topic)
    assert sampled_bytes(operator) == 0
    proven(load, topic)


@pytest.fixture
def scraped(scene: Scene, topic: str, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes an exporter of the topic's real end offsets; its URL."""
    exporter = Exporter()

    def look() -> None:
        exporter.ends[topic] = scene.ends(topic)
        exporter.sizes[topic] = {p: end * RECORD_BYTES for p, end in exporter.ends[topic].items()}

    exporter.look = look
    with watching(exporter, tmp_path / "prometheus", SCRAPE_SECONDS) as url:
        yield url
    exporter.close()


def test_a_hot_key_is_spread_and_merged_back_by_rates_and_sizes_from_prometheus(
    scene: Scene, topic: str, scraped: str, start_load: StartLoad, proven: Proven
) -> None:
    # given a policy whose rates come from Prometheus, and its bytes from the sizes of logs
    scene.operator()
    prometheus = {
        "url": scraped,
        "query": f'kafka_topic_partition_current_offset{{topic="{topic}"}}',
        "sizeQuery": f'kafka_log_size{{topic="{topic}"}}',
    }
    metrics = {"source": "Prometheus", "prometheus": prometheus}
    scene.apply("clicks", {"topic": topic, "trigger": QUICK, "release": RELEASE, "metrics": metrics})
    scene.wait_for_condition("clicks", "Governing")

    # then the hot key is spread, and it is said what the bytes are made of
    load = start_load(topic)
    (route,) = scene.wait_for_routes("clicks", {b"nike"}).routes
    assert len({shard.partition for shard in route.shards}) > 6
    scene.wait_for_published("clicks", topic)
    eventually("the sizes are those of the logs", lambda: scene.status("clicks").get("sizes") == "logSize")

    # and merged back when it cooled
    load.set_hot_share(0.0)
    scene.wait_for_routes("clicks", set())
    proven(load, topic)


def test_a_prometheus_that_cannot_be_read_is_told_with_its_address_and_query(
    scene: Scene, topic: str
) -> None:
    scene.operator()
    prometheus = {"url": "http://127.0.0.1:9", "query": 'kafka_offsets{topic="clicks"}'}
    scene.apply("clicks", {"topic": topic, "metrics": {"source": "Prometheus", "prometheus": prometheus}})

    why = scene.wait_for_condition("clicks", "KafkaUnavailable")

    assert "http://127.0.0.1:9" in why
    assert 'kafka_offsets{topic="clicks"}' in why
