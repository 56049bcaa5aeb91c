"""One process of the stack: started, watched, killed, frozen, thawed and started again.

It knows how to treat any process and nothing of Kafka, Kubernetes, Valkey or PostgreSQL: those
say by `command` what to run and by `probe` what is still missing.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from devstack.errors import StackError
from devstack.process import Command, ProcessRecord, spawn, tail


@dataclass(frozen=True)
class Place:
    """Where a stack keeps its files, and whether its processes end with this program.

    `closing` is set when a start is given up, so that no thread starts one more process.
    """

    root: Path
    tied: bool
    closing: threading.Event = field(default_factory=threading.Event)

    def data(self, name: str) -> Path:
        return self.root / "data" / name

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        return self.root / "run" / f"{name}.json"

    def make(self) -> None:
        for name in ("data", "logs", "run"):
            (self.root / name).mkdir(parents=True, exist_ok=True)


class Part(ABC):
    """One process with a name, a data folder, a log and a port."""

    ready_seconds = 60.0
    stop_seconds = 10.0
    stop_request = signal.SIGTERM

    def __init__(self, name: str, place: Place, port: int) -> None:
        self.name = name
        self.port = port
        self._place = place
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self._place.data(self.name)

    @property
    def log(self) -> Path:
        return self._place.log(self.name)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> Command:
        """What to run; called at each start."""

    @abstractmethod
    def probe(self) -> str | None:
        """None when the part serves, else what is still missing. May raise OSError."""

    def prepare(self) -> None:
        """Makes what the first start needs in `data`; does nothing when it is there."""
        self.data.mkdir(parents=True, exist_ok=True)

    def spawn(self) -> None:
        if self._place.closing.is_set():
            raise StackError(f"{self.name} was not started: the stack is being stopped")
        self._child = spawn(
            self.command(),
            record=self._place.record(self.name),
            log=self.log,
            tied=self._place.tied,
        )

    def start(self) -> None:
        """Starts it unless it runs and blocks until it serves; a StackError shows the end of its log."""
        if not self.is_running:
            self.prepare()
            self.spawn()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_seconds
        missing = "it was not asked yet"
        while time.monotonic() < deadline:
            if not self.is_running:
                raise self._failure("ended while starting")
            try:
                found = self.probe()
            except OSError as error:
                found = str(error)
            if found is None:
                return
            missing = found
            time.sleep(0.05)
        raise self._failure(f"is not ready after {self.ready_seconds:.0f} s: {missing}")

    def _failure(self, what: str) -> StackError:
        return StackError(f"{self.name} on {self.address} {what}; the end of {self.log}:\n{tail(self.log)}")

    @property
    def record(self) -> ProcessRecord | None:
        """The process as this program started it, or as the file of an earlier one tells."""
        if self._child is not None:
            if self._child.poll() is not None:
                return None
            return ProcessRecord.of(self._child.pid, self.name)
        return ProcessRecord.read(self._place.record(self.name))

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        record = self.record
        return record is not None and record.is_running

    def stop(self) -> None:
        """Ends the process in order if it runs."""
        record = self.record
        if record is not None:
            record.end(seconds=self.stop_seconds, request=self.stop_request)
        self._reap()

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self._running_record().kill()
        self._reap()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running_record().send(signal.SIGSTOP)

    def resume(self) -> None:
        self._running_record().send(signal.SIGCONT)

    def restart(self) -> None:
        """Starts it again on the same port and data, ending it first if it runs."""
        self.stop()
        self.start()

    def _running_record(self) -> ProcessRecord:
        record = self.record
        if record is None or not record.is_running:
            raise StackError(f"{self.name} is not running: start it with restart()")
        return record

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
        self._place.record(self.name).unlink(missing_ok=True)


class Group:
    """Parts that are treated as one; started side by side, all in any order."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)

    @property
    def is_running(self) -> bool:
        return all(part.is_running for part in self.parts)

    def start(self) -> None:
        together([part.start for part in self.parts])

    def stop(self) -> None:
        together([part.stop for part in self.parts])

    def kill(self) -> None:
        for part in self.parts:
            part.kill()

    def pause(self) -> None:
        for part in self.parts:
            part.pause()

    def resume(self) -> None:
        for part in self.parts:
            part.resume()

    def restart(self) -> None:
        """Starts all again on the same ports and data, ending those that run."""
        self.stop()
        self.start()


def together(actions: Sequence[Callable[[], None]]) -> None:
    """Runs all side by side; raises the first error as soon as it is there."""
    threads = ThreadPoolExecutor(max(1, len(actions)))
    try:
        futures = [threads.submit(action) for action in actions]
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
    finally:
        threads.shutdown(wait=False)
