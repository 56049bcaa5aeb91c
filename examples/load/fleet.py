"""The producer processes of one load: started, told what to do, stopped, and asked which ids they sent."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import msgspec

from examples.load.clicks import event_id
from examples.load.journal import acked_count, acked_numbers, sent_end
from examples.load.settings import FLUSH_SECONDS, SETTINGS_FILE, Command, LoadOptions, LoadSettings

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 30.0
LOOK_SECONDS = 0.02


class LoadError(RuntimeError):
    """The load did not do what it was told; the message names the producer and its log."""


class Load:
    """A load of several producer processes on one topic; `LoadSettings` explains the options.

    `directory` must not yet hold a load. It keeps each producer's journals and log, also after `stop()`.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        redis_url: str | None,
        public_keys: str | None,
        directory: Path,
        **options: Unpack[LoadOptions],
    ) -> None:
        options.setdefault("run", secrets.token_hex(4))
        self.settings = LoadSettings(
            bootstrap=bootstrap, topic=topic, redis_url=redis_url, public_keys=public_keys, **options
        )
        self.directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def start(self, wait_seconds: float = START_SECONDS) -> None:
        """Start the producers and wait until each has had an acknowledgement (not at all when 0 seconds)."""
        self.directory.mkdir(parents=True, exist_ok=True)
        settings_file = self.directory / SETTINGS_FILE
        if settings_file.exists():
            raise LoadError(
                f"{self.directory} already holds a load: use a new directory, ids must not repeat"
            )
        self.settings.save(settings_file)
        for number in range(self.settings.producers):
            self._spawn(number)
        if wait_seconds:
            try:
                self.wait_for_acks(wait_seconds)
            except BaseException:
                self.kill()
                raise

    def _spawn(self, number: int) -> None:
        settings_file = str(self.directory / SETTINGS_FILE)
        command = [sys.executable, "-m", "examples.load.producer", settings_file, str(number)]
        with self.log(number).open("ab") as log:
            self._processes[number] = subprocess.Popen(
                command,
                bufsize=0,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def add_producer(self) -> int:
        """Start one more producer, under a number not used before, as after a crash; returns the number."""
        number = max(self._processes) + 1
        self._spawn(number)
        return number

    def log(self, number: int) -> Path:
        """Where a producer writes what went wrong."""
        return self.directory / f"producer-{number}.log"

    def wait_for_acks(self, wait_seconds: float, each: int = 1) -> None:
        """Wait until every producer has had at least `each` acknowledgements in all."""
        deadline = time.monotonic() + wait_seconds
        while waiting := [n for n in self._processes if acked_count(self.directory, n) < each]:
            self._raise_for_dead(waiting)
            if time.monotonic() > deadline:
                raise LoadError(
                    f"no {each} acknowledgements within {wait_seconds:.0f} s for producer {waiting[0]}: "
                    f"look at {self.log(waiting[0])}"
                )
            time.sleep(LOOK_SECONDS)

    def _raise_for_dead(self, numbers: list[int]) -> None:
        for number in numbers:
            code = self._processes[number].poll()
            if code is not None:
                tail = self.log(number).read_text(errors="replace").strip().splitlines()[-1:]
                raise LoadError(f"producer {number} ended with {code}: {' '.join(tail)} ({self.log(number)})")

    @property
    def pids(self) -> dict[int, int]:
        """The process id of each producer that runs, by its number."""
        return {number: p.pid for number, p in self._processes.items() if p.poll() is None}

    @property
    def running(self) -> bool:
        """Whether any producer still runs: a bounded load and a trace end by themselves."""
        return bool(self.pids)

    def set_hot_share(self, share: float) -> None:
        """From now on this part, 0..1, of all clicks is the hot key's."""
        self._tell(Command(hot_share=share))

    def set_hot_key(self, key: str) -> None:
        """From now on the hot share goes to this key."""
        self._tell(Command(hot_key=key))

    def set_records_per_second(self, rate: float) -> None:
        """From now on all producers together send this many clicks a second."""
        self._tell(Command(records_per_second=rate / max(1, len(self.pids))))

    def _tell(self, command: Command) -> None:
        line = msgspec.json.encode(command) + b"\n"
        for process in self._processes.values():
            if process.stdin is not None and not process.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(line)

    def stop(self, wait_seconds: float = FLUSH_SECONDS + 5) -> None:
        """Let every producer send what it holds and end. Raises when one did not end well."""
        self._tell(Command(stop=True))
        late = self._wait_for_end(wait_seconds)
        failed = [n for n, p in self._processes.items() if p.returncode not in (0, -signal.SIGKILL)]
        self.kill()
        if late or failed:
            number = (late or failed)[0]
            raise LoadError(f"producer {number} did not end well: look at {self.log(number)}")

    def wait_until_done(self, wait_seconds: float) -> None:
        """Wait for a bounded load, or a trace, to come to its own end. Raises when it does not."""
        if late := self._wait_for_end(wait_seconds):
            raise LoadError(f"producer {late[0]} still sends after {wait_seconds:.0f} s")
        self.stop()

    def _wait_for_end(self, wait_seconds: float) -> list[int]:
        deadline = time.monotonic() + wait_seconds
        late = []
        for number, process in self._processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(number)
        return late

    def kill(self, *numbers: int) -> None:
        """kill -9 these producers, or all that run."""
        for number in numbers or self._processes:
            process = self._processes[number]
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def terminate(self, number: int) -> None:
        """SIGTERM one producer and wait until it has sent what it holds."""
        process = self._processes[number]
        process.terminate()
        process.wait(FLUSH_SECONDS + 5)

    @property
    def sent_count(self) -> int:
        """How many clicks may have been sent so far."""
        return sum(sent_end(self.directory, n) for n in self._processes)

    @property
    def acked_count(self) -> int:
        """How many clicks were acknowledged so far."""
        return sum(acked_count(self.directory, n) for n in self._processes)

    def sent_ids(self) -> set[str]:
        """The ids of all clicks that may have been sent: no others of this run can be in Kafka."""
        return {
            event_id(self.settings.run, n, number)
            for n in self._processes
            for number in range(sent_end(self.directory, n))
        }

    def acked_ids(self) -> set[str]:
        """The ids of all clicks that the brokers acknowledged: none of these may be lost."""
        return {
            event_id(self.settings.run, n, number)
            for n in self._processes
            for number in acked_numbers(self.directory, n)
        }
