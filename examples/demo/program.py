"""hotkey's own processes, started as they would be anywhere: by command, flags and environment."""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack.process import Command, ProcessRecord, spawn, tail
from examples.demo.errors import DemoError

BIN = Path(sys.executable).parent
LOOK_SECONDS = 0.1
STOP_SECONDS = 30.0


class Program:
    """One process under the stack's folder: log in `logs/`, record in `run/`, where `down` finds it."""

    def __init__(
        self, name: str, root: Path, arguments: Sequence[str], environment: Mapping[str, str], tied: bool
    ) -> None:
        self.name = name
        self.log = root / "logs" / f"{name}.log"
        self._record_file = root / "run" / f"{name}.json"
        self._command = Command([str(BIN / arguments[0]), *arguments[1:]], {**_inherited(), **environment})
        self._tied = tied
        self._record: ProcessRecord | None = None

    def start(self) -> None:
        """Start it."""
        child = spawn(self._command, record=self._record_file, log=self.log, tied=self._tied)
        self._child = child
        self._record = ProcessRecord.of(child.pid, self.name)

    def check(self) -> None:
        """Raise `DemoError` when it is no longer there."""
        if self._child.poll() is not None:
            raise DemoError(
                f"{self.name} ended with {self._child.returncode}; the end of {self.log}:\n{self.tail}"
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def tail(self) -> str:
        """The end of its log."""
        return tail(self.log)

    def wait_for_http(self, url: str, wait_seconds: float) -> None:
        """Wait until a GET of `url` is answered with 200."""
        deadline = time.monotonic() + wait_seconds
        found = "it was not asked"
        while time.monotonic() < deadline:
            self.check()
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if answer.status == 200:
                        return
                    found = f"status {answer.status}"
            except (urllib.error.URLError, OSError) as error:
                found = str(error)
            time.sleep(LOOK_SECONDS)
        raise DemoError(f"{self.name} at {url} is not ready after {wait_seconds:.0f} s: {found} ({self.log})")

    def stop(self) -> None:
        """Ask it to end and wait; kill it when it does not."""
        if self._record is None:
            return
        self._record.end(seconds=STOP_SECONDS)
        self._child.wait()
        self._record_file.unlink(missing_ok=True)


def _inherited() -> dict[str, str]:
    """Our environment without settings of a hotkey that is not the demo's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOTKEY_")}


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
