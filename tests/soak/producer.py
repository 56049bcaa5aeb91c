"""One producer process of a soak: sends what the orders say and journals each id before it counts.

Run as `python -m tests.soak.producer SETTINGS NUMBER NAME`. The number stands in the event ids and is never
used again; the name is the place that this process has among the producers.
"""

from __future__ import annotations

import functools
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from examples.load.clicks import ADS_PER_ADVERTISER, REGIONS, USERS, Click, event_id
from examples.load.journal import Journal
from examples.load.producer import Schedule
from examples.load.settings import FLUSH_SECONDS
from hotkey_sdk import Producer
from tests.soak.orders import Orders, Reader, skew_clock

COLD_KEYS = 5_000
TICK_SECONDS = 0.01
SEEN_SECONDS = 0.5
QUEUE = 2_000
"""So few that a broker's failover fills it."""

_encode = msgspec.json.Encoder().encode


class ProducerSettings(msgspec.Struct, frozen=True):
    """What all producers of a soak have in common. `folder` takes their journals; `orders` is read."""

    bootstrap: str
    topic: str
    redis_url: str
    public_keys: str
    run: str
    seed: int
    folder: str
    orders: str

    def config(self, number: int) -> dict[str, Any]:
        """The constructor dict of the SDK's producer."""
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": client_id(self.run, number),
            "hotkey.client.id": client_id(self.run, number),
            "hotkey.redis.url": self.redis_url,
            "hotkey.public.keys": self.public_keys,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 10,
            "compression.type": "lz4",
            "queue.buffering.max.messages": QUEUE,
            "log_level": 0,
        }


def client_id(run: str, number: int) -> str:
    """Under which a producer reports the epoch that it applies."""
    return f"soak-{run}-{number}"


class Told(msgspec.Struct):
    """What a producer tells of itself: the epochs that it had, in their order, and what it met."""

    epochs: list[int] = []
    queue_full: int = 0
    failed: dict[str, int] = {}
    sent_again: int = 0
    unanswered: int = 0


class Worker:
    """Sends until it is told to stop."""

    def __init__(self, settings: ProducerSettings, number: int, name: str) -> None:
        self._settings, self._number, self._name = settings, number, name
        self._folder = Path(settings.folder)
        self._reader = Reader(Path(settings.orders))
        skew_clock(self._reader, name)
        self._draw = random.Random(settings.seed * 10_007 + number).random
        self._journal = Journal(self._folder, number)
        self._producer = Producer(settings.config(number))
        self._told, self._seen_at = Told(), 0.0
        self._burst = self._reader.now().bursts.get(name, 0)
        self._sent = 0

    def run(self) -> int:
        """The number of records of which it is not known what became of them."""
        schedule = Schedule(self._reader.now().rate, time.monotonic())
        while not (orders := self._reader.now()).stop:
            schedule.rate = orders.rate
            burst = orders.bursts.get(self._name, 0)
            self._send(orders, schedule.due(time.monotonic()) + burst - self._burst)
            self._burst = burst
            self._serve(TICK_SECONDS)
        self._told.unanswered = self._producer.flush(FLUSH_SECONDS)
        self._journal.write()
        self._tell()
        return self._told.unanswered

    def _send(self, orders: Orders, count: int) -> None:
        if count:
            self._journal.will_send(self._sent + count)
        for _ in range(count):
            self._produce(self._click(orders))
            self._sent += 1

    def _click(self, orders: Orders) -> Click:
        at, user = int(time.time() * 1000), int(self._draw() * USERS)
        advertiser = self._advertiser(orders)
        return Click(
            event_id(self._settings.run, self._number, self._sent),
            advertiser,
            f"{advertiser}-{user % ADS_PER_ADVERTISER}",
            f"u{user}",
            at,
            f"region-{int(self._draw() * REGIONS)}",
        )

    def _advertiser(self, orders: Orders) -> str:
        place = self._draw()
        for key, share in orders.shares.items():
            if place < share:
                return key
            place -= share
        return f"adv{int(self._draw() * COLD_KEYS)}"

    def _produce(self, click: Click) -> None:
        value, answered = _encode(click), functools.partial(self._answered, self._sent)
        while True:
            try:
                self._producer.produce(
                    self._settings.topic,
                    value,
                    click.advertiser_id,
                    on_delivery=answered,
                    timestamp=click.click_time,
                    dimensions=click.dimensions(),
                )
                return
            except BufferError:
                self._told.queue_full += 1
                self._serve(0.05)
            except KafkaException as error:
                self._failed(str(error))
                return

    def _answered(self, number: int, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._journal.acked(number)
        else:
            self._failed(error.name())

    def _failed(self, what: str) -> None:
        self._told.failed[what] = self._told.failed.get(what, 0) + 1

    def _serve(self, seconds: float) -> None:
        self._producer.poll(seconds)
        self._producer.poll(0)
        self._journal.write()
        if time.monotonic() - self._seen_at > SEEN_SECONDS:
            self._tell()

    def _tell(self) -> None:
        stats = self._producer.hotkey.stats()
        epoch = stats.source.tables[0].epoch if stats.source.tables else 0
        if epoch != (self._told.epochs[-1] if self._told.epochs else 0):
            self._told.epochs.append(epoch)
        self._told.sent_again = stats.sent_again
        path = told_file(self._folder, self._number)
        partial = path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self._told))
        partial.replace(path)
        self._seen_at = time.monotonic()


def told_file(folder: Path, number: int) -> Path:
    """Where a producer tells of itself."""
    return folder / f"producer-{number}.json"


def main() -> int:
    """0 when every record was answered."""
    settings = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ProducerSettings)
    return 1 if Worker(settings, int(sys.argv[2]), sys.argv[3]).run() else 0


if __name__ == "__main__":
    sys.exit(main())
