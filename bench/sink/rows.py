"""What is measured: `hotkey-aggregator` on each of its stores, and what else counts the same clicks.

Each counter is one process (and, with PostgreSQL, a server) that consumes the topic in a group of its own, so
that what it has committed can be asked of the broker without disturbing it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import psycopg
from confluent_kafka import Consumer

from bench.aggregators import Aggregator
from bench.postgres_fill import LargePostgres
from bench.processes import cpu_seconds
from examples.demo.errors import DemoError
from examples.demo.program import Program
from hotkey_aggregator.postgres_store import PostgresStore

HERE = Path(__file__).parent
QUIX_PYTHON = HERE.parent / ".venv" / "bin" / "python"
INSTALL_QUIX = "it is not installed: run `make bench-venv`"
TOTALS_SECONDS = 120.0
LATER_MILLISECONDS = 10 * 60_000  # by then the minutes of the clicks are past


@dataclass(frozen=True, slots=True)
class Ground:
    """Where counters work: a folder, and a topic of so many partitions."""

    root: Path
    bootstrap: str
    topic: str
    partitions: int


class Counter(ABC):
    """One way to count; it is started, watched and stopped once a round."""

    def __init__(self, name: str, group: str) -> None:
        self.name = name
        self.group = group

    @abstractmethod
    def start(self) -> None:
        """Start it; returns as soon as it may be consuming."""

    @property
    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """Of its processes that do the work; the first one's memory is measured."""

    @abstractmethod
    def check(self) -> None:
        """Raise `DemoError` when it has ended."""

    @abstractmethod
    def finish(self, sent: int) -> None:
        """Stop it, after a look at whether it has counted as many clicks as were sent; `DemoError` if not."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, however it is left."""

    def upkeep(self) -> float | None:
        """CPU seconds of what its store does later for the clicks of this round; None if not known."""
        return None


@dataclass(slots=True)
class Held:
    """What a store holds: clicks that are counted, and ids."""

    clicks: int = 0
    ids: int = 0


class Sink(Counter):
    """`hotkey-aggregator` on a store. `held`: what is in it. `server`: the one that has it, if any."""

    def __init__(
        self,
        name: str,
        ground: Ground,
        store: str,
        held: Held,
        flags: tuple[str, ...] = (),
        server: LargePostgres | None = None,
    ) -> None:
        super().__init__(name, name)
        self._store = store
        self._held = held
        self._is_new = not held.ids
        self._server = server
        self._aggregator = Aggregator(
            ground.root,
            name,
            [
                f"--bootstrap-servers={ground.bootstrap}",
                f"--topic={ground.topic}",
                f"--group={self.group}",
                f"--store={store}",
                *flags,
            ],
        )

    def start(self) -> None:
        self._aggregator.start()

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._aggregator.pid, *self._serving)

    @property
    def _serving(self) -> tuple[int, ...]:
        record = None if self._server is None else self._server.record
        return () if record is None else (record.pid,)

    def check(self) -> None:
        self._aggregator.check()

    def finish(self, sent: int) -> None:
        totals = self._aggregator.get("/totals")
        found = Held(totals["clicks"], totals["event_ids"])
        expected = Held(self._held.clicks + sent, self._held.ids + sent)
        if found != expected:
            raise DemoError(
                f"{self.name}: the store has {found}, expected {expected}: {self._aggregator.get('/readyz')}"
            )
        self._held = found
        self.stop()

    def stop(self) -> None:
        self._aggregator.stop()

    def upkeep(self) -> float | None:
        """PostgreSQL: merging windows, which a member does every two minutes, and a checkpoint.

        Only where the store was new: opening one with many ids takes long, and makes no difference here.
        """
        if self._server is None:
            return None
        before = cpu_seconds(*self._serving)
        if self._is_new:
            store = PostgresStore(self._store)
            store.merge(int(time.time() * 1000) + LATER_MILLISECONDS)
            store.close()
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute("checkpoint")  # in any case, so that no row pays for the one before it
        return round(cpu_seconds(*self._serving) - before, 3) if self._is_new else None


class Peer(Counter):
    """A script beside this module, with a Python of its own where it needs other packages."""

    def __init__(
        self, name: str, group: str, ground: Ground, script: str, arguments: tuple[str, ...], python: Path
    ) -> None:
        super().__init__(name, group)
        self._ground = ground
        command = [str(python), str(HERE / script), ground.bootstrap, ground.topic, group, *arguments]
        self._program = Program(group, ground.root, command, {}, tied=True)

    def start(self) -> None:
        self._program.start()

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._program.pid,)

    def check(self) -> None:
        self._program.check()

    def _agree(self, found: int, sent: int) -> None:
        if found != sent:
            raise DemoError(f"{self.name} counted {found:,} clicks of {sent:,}: {self._program.tail}")

    def stop(self) -> None:
        self._program.stop()


class Plain(Peer):
    """confluent-kafka, json and a dict."""

    def __init__(self, name: str, group: str, ground: Ground, commit_events: int, ids: bool) -> None:
        arguments = (str(commit_events), *(("ids",) if ids else ()))
        super().__init__(name, group, ground, "plain_peer.py", arguments, Path(sys.executable))

    def finish(self, sent: int) -> None:
        self.stop()  # then it tells
        *_, last = self._program.log.read_text().splitlines()
        self._agree(json.loads(last)["clicks"], sent)


class Quix(Peer):
    """Quix Streams. The windows that it has closed are in its output topic: all but the last click's of each
    partition."""

    def __init__(self, name: str, group: str, ground: Ground, commit_seconds: float) -> None:
        self._output = f"{group}-counts"
        arguments = (str(commit_seconds), self._output, str(ground.root / group))
        super().__init__(name, group, ground, "quix_peer.py", arguments, QUIX_PYTHON)

    @staticmethod
    def version() -> str | None:
        """Which one is installed; None where it is not."""
        if not QUIX_PYTHON.exists():
            return None
        asked = "from importlib.metadata import version; print(version('quixstreams'))"
        done = subprocess.run([QUIX_PYTHON, "-c", asked], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None

    def finish(self, sent: int) -> None:
        self.stop()
        self._agree(self._ground.partitions + self._put_out(sent - self._ground.partitions), sent)

    def _put_out(self, expected: int) -> int:
        """Clicks in the closed windows, when there are as many as expected or no more come."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._ground.bootstrap,
                "group.id": f"{self.group}-check",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        consumer.subscribe([self._output])
        found, deadline = 0, time.monotonic() + TOTALS_SECONDS
        try:
            while found < expected and time.monotonic() < deadline:
                for message in consumer.consume(10_000, 0.5):
                    if message.error() is None:
                        found += int(json.loads(message.value() or b"")["clicks"])
        finally:
            consumer.close()
        return found
