"""Clicks with one hot advertiser, where each goes, and the process that sends them: `python -m bench.clicks
SETTINGS`.

The same clicks go in two ways: every key on its own partition, as Kafka's default has it, or by a table that
hotkey's planner made. What was sent when is written to a file, so that the time of each record of a partition
is known by its offset.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, Message, Producer

from bench.machine import ROOT
from examples.demo.errors import DemoError
from examples.load.producer import Schedule
from hotkey_operator.engine.placement import Ground, HotKey, plan
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream, Table

HOT, HOT_SHARE, COLD_KEYS = "nike", 0.8, 5_000
ADS = 3  # of one advertiser
TICK_SECONDS, FLUSH_SECONDS, START_SECONDS = 0.005, 120.0, 30.0
MANY = 1_000  # that are sent at once where there is no rate

Times = npt.NDArray[np.int64]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. `spread`: by a planned table. `rate`: clicks/s, 0 for as fast as it can; it ends after
    `count` clicks, which are numbered from `first` on, or when its input ends. `journal`: where it writes
    what it sent."""

    bootstrap: str
    topic: str
    partitions: int
    spread: bool
    journal: str
    run: str = "bench"
    rate: float = 0.0
    count: int = 1_000_000_000
    first: int = 0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """What one sender sent: the click times of each partition by offset, in unix milliseconds."""

    times: tuple[Times, ...]

    @property
    def count(self) -> int:
        """Of all partitions."""
        return sum(map(len, self.times))

    @classmethod
    def read(cls, journal: Path, partitions: int) -> Self:
        """Of a sender that has ended."""
        rows = np.fromfile(journal, dtype=np.int64).reshape(-1, 2)
        order = np.argsort(rows[:, 0], kind="stable")
        cuts = np.searchsorted(rows[order, 0], np.arange(1, partitions))
        return cls(tuple(np.split(rows[order, 1], cuts)))


def cold_keys() -> list[str]:
    """The keys that share what the hot one leaves."""
    return [f"adv{number}" for number in range(COLD_KEYS)]


def spread(topic: str, partitions: int, seed: int = 1) -> Table:
    """The table that hotkey's planner makes for these clicks: loads are parts of the whole, per thousand."""
    background = [0.0] * partitions
    for key in cold_keys():
        background[partition_for(key.encode(), partitions)] += 1_000 * (1 - HOT_SHARE) / COLD_KEYS
    hot = HotKey(HOT.encode(), 1_000 * HOT_SHARE)
    routes = plan(Ground(tuple(background), topic, seed), [hot]).routes
    return Table(Stream("bench", topic), partitions, 1, seed, (topic,), (), routes)


class Placing:
    """Where a click of a key goes: partition and record key, by the SDK's router where there is a route."""

    def __init__(self, table: Table) -> None:
        self._router = Router(table)
        self._partitions = table.partitions
        self._plain: dict[str, tuple[int, bytes]] = {}

    def at(self, key: str, slot: int) -> tuple[int, bytes]:
        """`slot`: any integer, drawn at random."""
        found = self._router.route(key, slot=slot)
        if found is not None and found.key is not None:
            return found.partition, found.key
        if key not in self._plain:
            name = key.encode()
            self._plain[key] = (partition_for(name, self._partitions), name)
        return self._plain[key]


class Sender:
    """The producer, and the journal of what it sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        empty = Table.empty(Stream("bench", settings.topic), partitions=settings.partitions, epoch=1, seed=1)
        table = spread(settings.topic, settings.partitions) if settings.spread else empty
        self._placing = Placing(table)
        self._dice = random.Random(f"{settings.seed}/{settings.first}")
        self._cold = cold_keys()
        self._failures: list[str] = []
        self._sent = 0
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 500_000,
                "delivery.report.only.error": True,
                "on_delivery": self._failed,
                "log_level": 0,
            }
        )

    def run(self) -> None:
        """Send until all is sent or the input ends; returns when every click is acknowledged."""
        rate = self._settings.rate
        schedule = Schedule(rate, time.monotonic())
        with Path(self._settings.journal).open("wb") as journal:
            while self._sent < self._settings.count and not select.select([sys.stdin], [], [], 0)[0]:
                due = schedule.due(time.monotonic()) if rate else MANY
                self._send(min(due, self._settings.count - self._sent), journal)
                self._producer.poll(TICK_SECONDS if rate else 0)
        if left := self._producer.flush(FLUSH_SECONDS):
            raise SystemExit(f"{left} clicks were not answered within {FLUSH_SECONDS:.0f} s")
        if self._failures:
            raise SystemExit(f"{len(self._failures)} clicks were refused, such as: {self._failures[0]}")

    def _send(self, count: int, journal: IO[bytes]) -> None:
        settings, draw, at = self._settings, self._dice.random, self._placing.at
        rows, now = array("q"), int(time.time() * 1000)
        first = settings.first + self._sent
        for number in range(first, first + count):
            chance = draw()
            key = HOT if chance < HOT_SHARE else self._cold[int(draw() * COLD_KEYS)]
            partition, record_key = at(key, int(chance * 2**40))
            value = (
                f'{{"event_id":"{settings.run}-{number}","advertiser_id":"{key}",'
                f'"ad_id":"{key}-{number % ADS}","user_id":"u{number % 100_003}","click_time":{now}}}'
            )
            self._produce(value, record_key, partition)
            rows.append(partition)
            rows.append(now)
        rows.tofile(journal)
        journal.flush()
        self._sent += count

    def _produce(self, value: str, key: bytes, partition: int) -> None:
        while True:
            try:
                self._producer.produce(self._settings.topic, value, key, partition)
            except BufferError:
                self._producer.poll(0.05)
            else:
                return

    def _failed(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failures.append(str(error))


class Sending:
    """A sender in a process of its own; a context that ends it however it is left."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._settings, self._log = settings, log

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.clicks", msgspec.json.encode(self._settings).decode()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait_for_first(self) -> None:
        """Wait until it has sent something."""
        journal, deadline = Path(self._settings.journal), time.monotonic() + START_SECONDS
        while not (journal.exists() and journal.stat().st_size):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"nothing was sent: {self._log.read_text()[-2_000:]}")
            time.sleep(TICK_SECONDS)

    def check(self) -> None:
        """Raise `DemoError` when it ended by an error."""
        if self._process.poll() not in (None, 0):
            raise DemoError(f"the sender failed: {self._log.read_text()[-2_000:]}")

    def finish(self) -> Sent:
        """Wait until it has sent its count."""
        self._process.wait()
        self.check()
        return Sent.read(Path(self._settings.journal), self._settings.partitions)

    def stop(self) -> Sent:
        """Let it end now; what it sent is acknowledged then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.finish()


def main(arguments: Sequence[str]) -> None:
    """The process of one sender."""
    Sender(msgspec.json.decode(arguments[0], type=Settings)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
