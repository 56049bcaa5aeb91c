"""Clicks in Kafka: made under a seed, sent with acks, and counted again from the topic by other code."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.stack.end_offsets import end_offsets, until_usable

FIRST_MINUTE = (int(time.time()) // 60 - 30) * 60_000
"""Half an hour ago: the clicks of ten minutes from there are neither old nor of a time to come."""
KeyAndValue = tuple[bytes | None, bytes | None]


def make_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Create a topic; returns when all of its partitions can be used."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(120)
    until_usable(bootstrap, name, partitions)


def producer(bootstrap: str) -> Producer:
    return Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
    )


def click(
    event_id: str, advertiser: str = "nike", ad: str = "ad-1", time_ms: int = FIRST_MINUTE
) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "advertiser_id": advertiser,
        "ad_id": ad,
        "user_id": "u",
        "click_time": time_ms,
    }


def send(
    bootstrap: str, topic: str, records: Sequence[tuple[bytes | None, bytes | None]], partition: int = 0
) -> None:
    """Send (key, value) pairs to one partition; returns when all are acknowledged."""
    sender = producer(bootstrap)
    failures: list[object] = []
    for key, value in records:
        sender.produce(
            topic, value, key, partition=partition, on_delivery=lambda error, _: failures.append(error)
        )
    assert sender.flush(60) == 0
    assert not any(failures), failures


def send_clicks(bootstrap: str, topic: str, event_ids: Sequence[str], partition: int = 0) -> None:
    send(bootstrap, topic, [(b"nike", json.dumps(click(one)).encode()) for one in event_ids], partition)


@dataclass
class Load:
    """Clicks in the background until stopped: most of one advertiser, some sent twice to other partitions."""

    bootstrap: str
    topic: str
    partitions: int
    seed: int
    per_second: int = 3000
    acknowledged: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop sending; returns when every record is acknowledged or failed."""
        self._stop.set()
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), "the load does not end"
        assert not self.failed, self.failed[:3]

    def _run(self) -> None:
        dice = random.Random(self.seed)
        sender = producer(self.bootstrap)
        started, sent = time.monotonic(), 0
        while not self._stop.is_set():
            while sent < (time.monotonic() - started) * self.per_second:
                self._send(sender, dice, f"{self.topic}-{sent}")
                sent += 1
            sender.poll(0.01)
        sender.flush(60)

    def _send(self, sender: Producer, dice: random.Random, event_id: str) -> None:
        advertiser = "nike" if dice.random() < 0.8 else f"adv:{dice.randrange(20)}"
        one = click(event_id, advertiser, f"ad-{dice.randrange(5)}", FIRST_MINUTE + dice.randrange(600_000))
        value = json.dumps(one).encode()
        for _ in range(2 if dice.random() < 0.05 else 1):
            shard = f"{advertiser}:{dice.randrange(self.partitions)}"
            sender.produce(
                self.topic,
                value,
                shard,
                partition=dice.randrange(self.partitions),
                on_delivery=self._delivered(event_id),
            )

    def _delivered(self, event_id: str) -> Any:
        def note(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.acknowledged.add(event_id)
            else:
                self.failed.append(f"{event_id}: {error}")

        return note


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The end offset of each partition that holds anything."""
    reader = _reader(bootstrap)
    found = end_offsets(reader, topic)
    reader.close()
    return {number: end for number, end in found.items() if end > 0}


def recount(bootstrap: str, *topics: str) -> tuple[set[str], dict[tuple[str, str, str], int]]:
    """Every distinct id in the topics, and the clicks per advertiser, ad and minute."""
    seen: dict[str, tuple[str, str, str]] = {}
    reader = _reader(bootstrap)
    for topic in topics:
        left = ends(bootstrap, topic)
        reader.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        deadline = time.monotonic() + 120
        while left:
            assert time.monotonic() < deadline, f"offsets that were not reached: {left}"
            for message in reader.consume(5000, 0.5):
                assert message.error() is None, message.error()
                _note(seen, json.loads(message.value() or b""))
                partition, offset = message.partition() or 0, message.offset() or 0
                if offset + 1 == left.get(partition):
                    del left[partition]
    reader.close()
    return set(seen), dict(Counter(seen.values()))


def iso_minute(time_ms: int) -> str:
    """The minute of a click as the aggregator names it."""
    minute = datetime.fromtimestamp(time_ms / 1000, UTC).replace(second=0, microsecond=0)
    return minute.strftime("%Y-%m-%dT%H:%M:%SZ")


def _note(seen: dict[str, tuple[str, str, str]], one: dict[str, Any]) -> None:
    window = (one["advertiser_id"], one["ad_id"], iso_minute(one["click_time"]))
    seen.setdefault(one["event_id"], window)


def _reader(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "recount",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
