"""Records of a test's own making, sent with the SDK in the background; what was acknowledged stands by id.

For what the click load cannot send: keys of every kind, headers, a partition of the sender's choice.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError

from examples.load import prove
from hotkey_sdk import Producer
from tests.stack.operator.scene import Scene

TICK_SECONDS = 0.01
ANY_PARTITION = -1


@dataclass(frozen=True, slots=True)
class Record:
    """One record to send, but for its value, which is its event id."""

    topic: str
    key: bytes | None
    partition: int = ANY_PARTITION
    headers: tuple[tuple[str, bytes], ...] = ()


class Sender:
    """Sends `draw(0)`, `draw(1)` and so on at a steady rate, from `start` to `stop`."""

    def __init__(self, scene: Scene, draw: Callable[[int], Record], records_per_second: float) -> None:
        self._scene, self._draw, self._rate = scene, draw, records_per_second
        self.producer = Producer(
            {
                "bootstrap.servers": scene.stack.kafka.bootstrap,
                "hotkey.redis.url": scene.stack.redis.url_for("hotkey-producer"),
                "hotkey.public.keys": scene.public_keys,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        self._sent: dict[str, set[str]] = defaultdict(set)
        self._acked: dict[str, set[str]] = defaultdict(set)
        self._failed: list[str] = []
        self._unanswered: int | None = None  # at the end
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End; returns when every record is acknowledged or has failed."""
        self._ended.set()
        self._thread.join(60)

    def acked_count(self, topic: str) -> int:
        """How many records of a topic were acknowledged so far."""
        return len(self._acked[topic])

    def assert_all_arrived_once(self, *topics: str) -> None:
        """Stop, and hold the ids in each topic against those sent to it and acknowledged."""
        self.stop()
        assert self._unanswered == 0, f"records without an answer: {self._unanswered} (None: it broke off)"
        assert not self._failed, self._failed[:3]
        for topic in topics:
            proof = prove(self._sent[topic], self._acked[topic], self._scene.event_ids(topic))
            assert proof.acked > 0, topic
            assert proof.holds, f"{topic}: {proof}"

    def _run(self) -> None:
        started, number = time.monotonic(), 0
        while not self._ended.wait(TICK_SECONDS):
            while number < (time.monotonic() - started) * self._rate:
                self._send(number, self._draw(number))
                number += 1
            self.producer.poll(0)
        self._unanswered = self.producer.flush(30)

    def _send(self, number: int, record: Record) -> None:
        name = str(number)
        self._sent[record.topic].add(name)
        self.producer.produce(
            record.topic,
            json.dumps({"event_id": name}).encode(),
            record.key,
            record.partition,
            on_delivery=self._answered(record.topic, name),
            headers=list(record.headers),
        )

    def _answered(self, topic: str, name: str) -> Callable[[KafkaError | None, Any], None]:
        def note(error: KafkaError | None, _: Any) -> None:
            if error is None:
                self._acked[topic].add(name)
            else:
                self._failed.append(f"{name}: {error}")

        return note
