"""`hotkey-aggregator` as a process that is killed, bounded and looked at from outside, and the positions of
its store as others see them. It knows no figure.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg
from psycopg import sql

from examples.demo.errors import DemoError
from examples.demo.program import Program, free_port

READY_SECONDS = 60.0
LOOK_SECONDS = 0.05
ASK_SECONDS = 60.0
_IDS = msgspec.json.Decoder(str)

Offsets = tuple[int, ...]
"""The next offset of each partition of one topic in order, 0 where nothing was counted."""


class Aggregator:
    """One `hotkey-aggregator run` with these flags; it can be killed and started again."""

    def __init__(self, root: Path, name: str, flags: Sequence[str]) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        arguments = ["hotkey-aggregator", "run", f"--http-port={port}", *flags]
        self._program = Program(name, root, arguments, {}, tied=True)

    def start(self) -> None:
        """Start it, without waiting for anything."""
        self._program.start()

    def check(self) -> None:
        """Raise `DemoError` when it is no longer there."""
        self._program.check()

    def wait_for_partitions(self, counts: Callable[[int], bool]) -> None:
        """Wait until it answers and `counts` holds for the number of partitions that it has."""
        deadline = time.monotonic() + READY_SECONDS
        while not counts(found := self.partitions()):
            self._program.check()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{self.name} has {found} partitions after {READY_SECONDS:.0f} s: {self._program.tail}"
                )
            time.sleep(LOOK_SECONDS)

    def partitions(self) -> int:
        """How many partitions the group has given it; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=ASK_SECONDS) as answer:
                return int(json.load(answer)["partitions"])
        except (OSError, http.client.HTTPException):
            return 0

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._program.pid

    @property
    def protocol(self) -> str:
        """The group protocol that it took."""
        found = re.findall(r"group_protocol=(\w+)", self._program.log.read_text())
        return str(found[-1]) if found else "?"

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        os.kill(self._program.pid, signal.SIGKILL)
        self._program.stop()

    def stop(self) -> None:
        """Let it flush and end."""
        self._program.stop()

    def get(self, path: str) -> Any:
        """What it answers, from JSON."""
        with urllib.request.urlopen(self.url + path, timeout=ASK_SECONDS) as answer:
            return json.load(answer)

    def text(self, path: str) -> str:
        """What it answers."""
        with urllib.request.urlopen(self.url + path, timeout=ASK_SECONDS) as answer:
            return str(answer.read().decode())

    def ids(self) -> Iterator[str]:
        """All event ids that its store knows, each as often as it is there."""
        with urllib.request.urlopen(f"{self.url}/ids", timeout=600) as answer:
            rest = b""
            while part := answer.read(1 << 20):
                lines, _, rest = (rest + part).rpartition(b"\n")
                yield from _IDS.decode_lines(lines)


def over_http(aggregator: Aggregator, topic: str, partitions: int) -> Callable[[], Offsets | None]:
    """The positions as the aggregator answers them; None while it does not."""

    def ask() -> Offsets | None:
        try:
            sources = aggregator.get("/watermark")["sources"]
        except (OSError, http.client.HTTPException, ValueError):
            return None
        found = {one["partition"]: one["next_offset"] for one in sources if one["topic"] == topic}
        return tuple(found.get(partition, 0) for partition in range(partitions))

    return ask


def over_sql(dsn: str, topic: str, partitions: int) -> Callable[[], Offsets | None]:
    """The positions as PostgreSQL has them, read by a connection of our own; None where there is no table."""
    connection = psycopg.connect(dsn, autocommit=True)

    def ask() -> Offsets | None:
        try:
            rows = connection.execute(
                'select "partition", next_offset from hotkey.offsets where topic = %s', (topic,)
            ).fetchall()
        except psycopg.errors.UndefinedTable:
            return None
        found: dict[int, int] = dict(rows)
        return tuple(found.get(partition, 0) for partition in range(partitions))

    return ask


def new_database(dsn: str, name: str) -> str:
    """Make a database; its DSN."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return f"{dsn.rpartition('/')[0]}/{name}"


@dataclass(frozen=True, slots=True)
class Look:
    """At `at` (unix seconds) all below these offsets could be queried."""

    at: float
    offsets: Offsets


class Watch:
    """Looks at positions again and again in a thread of its own; a context."""

    def __init__(self, ask: Callable[[], Offsets | None], seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self.looks: list[Look] = []
        self.failure: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def wait_for(self, offsets: Offsets, seconds: float, check: Callable[[], None]) -> Look:
        """The first look with all of these reached. Raises `DemoError` when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            check()
            if self.failure is not None:
                raise DemoError(f"the positions cannot be read any more: {self.failure}")
            if (last := self.last) is not None and all(map(int.__ge__, last.offsets, offsets)):
                return next(look for look in self.looks if all(map(int.__ge__, look.offsets, offsets)))
            if time.monotonic() > deadline:
                raise DemoError(f"not all was counted after {seconds:.0f} s: {last} of {offsets}")
            time.sleep(LOOK_SECONDS)

    @property
    def last(self) -> Look | None:
        """The newest look."""
        return self.looks[-1] if self.looks else None

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                offsets = self._ask()
                if offsets is not None:
                    self.looks.append(Look(time.time(), offsets))
                self._closing.wait(self._seconds)
        except Exception as error:
            self.failure = error
