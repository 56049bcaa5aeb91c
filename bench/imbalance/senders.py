"""The producer processes of one trial: started, told what to do, ended."""

from __future__ import annotations

import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from bench.imbalance.sender import Settings
from bench.machine import ROOT
from examples.demo.errors import DemoError

END_SECONDS = 10.0


class Senders:
    """One process for each of the settings; a context that ends them however it is left."""

    def __init__(self, settings: Sequence[Settings], log: Path) -> None:
        self._settings, self._log = settings, log
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            for each in self._settings:
                command = [
                    sys.executable, "-m", "bench.imbalance.sender", msgspec.json.encode(each).decode()
                ]  # fmt: skip
                process = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
                self._processes.append(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            _input(process).close()
        for process in self._processes:
            try:
                process.wait(END_SECONDS if kind is None else 1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _output(process).close()

    def tell(self, word: str, answer: str, seconds: float) -> None:
        """Say `word` to every process and wait for each one's `answer`. Raises `DemoError` without it."""
        for process in self._processes:
            _input(process).write(f"{word}\n")
            _input(process).flush()
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as waiting:
            for number, process in enumerate(self._processes):
                waiting.register(_output(process), selectors.EVENT_READ, number)
            while waiting.get_map():
                for key, _ in waiting.select(max(0.0, deadline - time.monotonic())):
                    self._take(process := self._processes[key.data], key.data, answer)
                    waiting.unregister(_output(process))
                if time.monotonic() > deadline and waiting.get_map():
                    raise DemoError(
                        f"{len(waiting.get_map())} senders did not say {answer} in {seconds:.0f} s"
                    )

    def _take(self, process: subprocess.Popen[str], number: int, answer: str) -> None:
        found = _output(process).readline().strip()
        if found != answer:
            log = self._log.read_text()[-2_000:]
            raise DemoError(f"sender {number} said {found!r} instead of {answer!r}; its log: {log}")


def _input(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout
