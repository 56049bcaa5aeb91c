"""A producer that reports its keys counts what was delivered, and the caller sees no difference.

Delivery is to librdkafka's in-process mock cluster, which is good enough to acknowledge records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest

import hotkey_sdk
from hotkey_sdk import SettingsError
from hotkey_sdk._counting import CountingProducer
from hotkey_sdk._lanes import Path
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import KeyReport

PARTITIONS = 4  # of a topic of the mock cluster
OWN: dict[str, Any] = {
    "log_level": 0,
    "hotkey.redis.url": "redis://127.0.0.1:1",
    "hotkey.allow.unsigned": True,
    "hotkey.report.keys": True,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a mock cluster with the topic; it lives as long as the client that made it."""
    owner = confluent_kafka.Producer(
        {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
    )
    owner.produce("clicks", b"to make the topic")
    assert owner.flush(20) == 0
    (broker,) = owner.list_topics(timeout=20).brokers.values()
    yield f"{broker.host}:{broker.port}"
    owner.close()


class Counted:
    """A producer, and what reached its callbacks."""

    def __init__(
        self, cluster: str, of: type[hotkey_sdk.Producer] = hotkey_sdk.Producer, **more: Any
    ) -> None:
        self.told: list[tuple[str, bytes | str | None]] = []
        self.producer = of({**OWN, "bootstrap.servers": cluster, **more})
        assert isinstance(self.producer, CountingProducer)

    def note(self, name: str) -> Any:
        def delivered(error: object, message: confluent_kafka.Message) -> None:
            assert error is None
            self.told.append((name, message.value()))

        return delivered

    def report(self) -> KeyReport:
        assert self.producer.flush(20) == 0
        assert isinstance(self.producer, CountingProducer)
        report = self.producer._key_counts.report("clicks", "client", 2e9)
        assert report is not None
        return report

    def keys(self) -> dict[tuple[int, bytes], int]:
        return {
            (count.partition, key.key): key.records
            for count in self.report().partitions
            for key in count.keys
        }


@pytest.fixture
def counted(path: Path, cluster: str) -> Iterator[Counted]:
    made = Counted(cluster)
    yield made
    made.producer.close()


def test_records_are_counted_where_the_partitioner_put_them(counted: Counted) -> None:
    for number in range(30):
        counted.producer.produce("clicks", b"v", "nike" if number % 3 else b"puma")
    home = {key: partition_for(key, PARTITIONS) for key in (b"nike", b"puma")}
    assert counted.keys() == {(home[b"nike"], b"nike"): 20, (home[b"puma"], b"puma"): 10}


def test_a_partition_of_the_caller_s_choice_and_a_missing_key_are_counted(counted: Counted) -> None:
    counted.producer.produce("clicks", b"value", b"nike", 2)
    counted.producer.produce("clicks", b"value", None, 3)
    two, three = counted.report().partitions
    assert (two.partition, two.window_bytes, two.keys[0].key) == (2, 9, b"nike")
    assert (three.partition, three.records, three.window_bytes, three.keys) == (3, 1, 5, ())


def test_every_callback_is_called_as_without_counting(counted: Counted) -> None:
    produce = counted.producer.produce
    produce("clicks", b"1", b"k", callback=counted.note("callback"))
    produce("clicks", b"2", b"k", on_delivery=counted.note("on_delivery"))
    produce("clicks", b"3", b"k", -1, counted.note("both"), counted.note("not this"))
    produce("clicks", b"4", b"k")
    counted.report()
    assert sorted(counted.told) == [("both", b"3"), ("callback", b"1"), ("on_delivery", b"2")]


def test_the_callback_of_the_configuration_is_called_where_a_record_has_none(cluster: str) -> None:
    told: list[bytes | str | None] = []
    own = Counted(cluster, on_delivery=lambda _, message: told.append(message.value()))
    own.producer.produce("clicks", b"1", b"k")
    own.producer.produce("clicks", b"2", b"k", callback=own.note("own"))
    own.report()
    own.producer.close()
    assert (told, own.told) == ([b"1"], [("own", b"2")])


def test_batches_are_counted_and_the_caller_s_messages_stay_as_they_were(counted: Counted) -> None:
    messages: list[dict[str, Any]] = [
        {"value": b"1", "key": "nike"},
        {"value": b"2", "key": b"nike", "callback": counted.note("own")},
        {"value": b"3"},
    ]
    before = [dict(message) for message in messages]

    sent = counted.producer.produce_batch("clicks", messages, callback=counted.note("batch"))

    assert sent == 3
    assert sum(count.records for count in counted.report().partitions) == 3
    assert counted.keys() == {}, "the window was told before"
    assert sorted(counted.told) == [("batch", b"1"), ("batch", b"3"), ("own", b"2")]
    assert messages == before


def test_many_records_are_counted_in_part_and_about_right(counted: Counted) -> None:
    for number in range(40_000):
        counted.producer.produce("clicks", b"v", b"nike" if number % 2 else b"%d" % number)
        if number % 1_000 == 0:
            assert counted.producer.flush(20) == 0  # what is delivered decides how many are looked at next
    report = counted.report()
    records = sum(count.records for count in report.partitions)
    nike = sum(key.records for count in report.partitions for key in count.keys if key.key == b"nike")
    assert sum(count.samples for count in report.partitions) < 20_000
    assert records == pytest.approx(40_000, rel=0.1)
    assert nike == pytest.approx(20_000, rel=0.1)


def test_what_a_caller_s_class_overrides_stays_on_top(cluster: str) -> None:
    class Shouting(hotkey_sdk.Producer):
        def produce(self, topic: str, value: Any = None, key: Any = None, *args: Any, **more: Any) -> None:
            super().produce(topic, value, key.upper(), *args, **more)

    own = Counted(cluster, Shouting)
    own.producer.produce("clicks", b"v", b"nike")
    assert isinstance(own.producer, Shouting)
    assert type(own.producer).__name__ == "Shouting"
    assert list(own.keys()) == [(partition_for(b"NIKE", PARTITIONS), b"NIKE")]
    own.producer.close()


def test_a_producer_that_reports_nothing_is_of_the_plain_class() -> None:
    for report in ({"hotkey.report.keys": "false"}, {}):
        config = {name: value for name, value in OWN.items() if name != "hotkey.report.keys"}
        with hotkey_sdk.Producer({**config, "bootstrap.servers": "127.0.0.1:1", **report}) as producer:
            assert type(producer) is hotkey_sdk.Producer


def test_reports_of_errors_alone_are_refused_as_nothing_could_be_counted() -> None:
    with pytest.raises(SettingsError, match=r"delivery\.report\.only\.error"):
        hotkey_sdk.Producer({**OWN, "bootstrap.servers": "127.0.0.1:1", "delivery.report.only.error": True})
