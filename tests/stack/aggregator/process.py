"""An aggregator as people run it: a process of its own, asked over HTTP, killed or told to stop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Long enough for a machine with eight processes for each core: nothing waits longer than it has to.
READY_SECONDS = 90.0
WAIT_SECONDS = 120.0


def wait_until(
    holds: Callable[[], bool], what: str, seen: Callable[[], object], seconds: float = WAIT_SECONDS
) -> None:
    """Wait for a condition; on failure say what was seen instead."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s not: {what}; seen: {seen()}")
        time.sleep(0.05)


class AggregatorProcess:
    """`hotkey-aggregator run`, on a DuckDB file unless `store` names another; it can be started again.

    `program` is what Python runs in place of the command itself: tests that change what it goes by.
    """

    def __init__(self, folder: Path, name: str, bootstrap: str, topic: str, **flags: object) -> None:
        self.db = folder / f"{topic}.duckdb"
        self.program: tuple[str, ...] = ("-m", "hotkey_aggregator")
        self.log = folder / f"{name}.log"
        self._arguments = {
            "bootstrap-servers": bootstrap,
            "topic": topic,
            "group": f"aggregator-of-{topic}",
            "db": self.db,
            "http-port": 0,
            "flush-seconds": 0.3,
            **{name.replace("_", "-"): value for name, value in flags.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def flags(self) -> list[str]:
        """What it is started with."""
        return [f"--{name}={value}" for name, value in self._arguments.items()]

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self.program, "run", *self.flags], stdout=log, stderr=log
            )

    def start(self) -> None:
        """Start it; returns when it answers."""
        starts = self.log_text().count("event=started")
        self.launch()
        self.wait_until(lambda: self.log_text().count("event=started") > starts, "started", READY_SECONDS)

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait for a condition; the log's end tells what was seen instead."""

        def alive_and_holds() -> bool:
            assert self.process.poll() is None, f"it ended ({self.process.returncode}): {self.log_end()}"
            try:
                return holds()
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                return False  # its store does not answer yet

        wait_until(alive_and_holds, what, self.log_end, seconds)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self, signal_number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=120)

    def ensure_gone(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def is_frozen(self) -> bool:
        """Whether it got a SIGSTOP."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    @property
    def url(self) -> str:
        starts: list[str] = re.findall(r"event=(?:started|waiting_for_store) .*?http=(\S+)", self.log_text())
        return starts[-1]

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def log_end(self) -> str:
        return self.log_text()[-3000:]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def totals(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get("/totals"))
        return document

    def stored(self, topic: str) -> dict[int, int]:
        """The next offset of each partition of which anything was read, as the store has it."""
        offsets: dict[str, int] = self.totals()["offsets"].get(topic, {})
        return {int(number): offset for number, offset in offsets.items() if offset > 0}

    def ids(self) -> Counter[str]:
        return Counter(json.loads(line) for line in self.get("/ids").splitlines())

    def counts(self) -> dict[tuple[str, str, str], int]:
        document = json.loads(self.get("/counts?limit=1000000"))
        assert not document["truncated"]
        return {
            (row["advertiser_id"], row["ad_id"], row["minute"]): row["clicks"] for row in document["counts"]
        }

    def readiness(self) -> dict[str, Any]:
        """What /readyz says, ready or not."""
        try:
            body = self.get("/readyz")
        except urllib.error.HTTPError as error:
            body = error.read()
        document: dict[str, Any] = json.loads(body)
        return document

    def dead(self) -> list[dict[str, Any]]:
        document: dict[str, Any] = json.loads(self.get("/dead?limit=1000000"))
        assert not document["truncated"]
        rows: list[dict[str, Any]] = document["dead"]
        return rows

    def wait_for_metric(self, name: str, value: float) -> None:
        """Wait until a metric has a value: a flush is told a moment after it is in the store."""
        self.wait_until(lambda: self.metric(name) == value, f"{name} {value}")

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").decode(), re.MULTILINE)
        assert found is not None, f"no metric {name}"
        return float(found[1])
