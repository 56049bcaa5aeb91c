"""Tells a waiting person what is being done, how far it is and how long it has taken.

On a terminal the line is rewritten in place; without one a new line is printed every ten seconds,
so that a log stays short.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_LINE_EVERY_SECONDS = 10.0
_REDRAW_EVERY_SECONDS = 0.2


def duration(seconds: float) -> str:
    """`7 s` or `2 min 05 s`."""
    whole = int(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def render(what: str, done: int, total: int, seconds: float) -> str:
    """One progress line; the rest is estimated from the share done, once a tenth is done."""
    if not total:
        return f"{what}: {duration(seconds)}"
    line = f"{what}: {done} of {total}, {duration(seconds)}"
    if done < total and done * 10 >= total:
        line += f", about {duration(seconds * (total - done) / done)} left"
    return line


class Step:
    """One long step; `at(done, total)` may be called from any thread."""

    def __init__(self, what: str, show: Callable[[str, bool], None], every: float) -> None:
        self.what = what
        self._show = show
        self._every = every
        self._begin = time.monotonic()
        self._shown = self._begin
        self._done = 0
        self._total = 0

    def at(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            self._show(render(self.what, self._done, self._total, now - self._begin), False)

    def end(self, result: str) -> None:
        self._show(f"{self.what}: {result} after {duration(time.monotonic() - self._begin)}", True)


class Progress:
    """Writes to `stream` (standard error by default); `quiet` keeps it to nothing."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._quiet = quiet
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        self._show(line, True)

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Announces a long step, ticks while it runs and says how it ended."""
        every = _REDRAW_EVERY_SECONDS if self._terminal else _LINE_EVERY_SECONDS
        step = Step(what, self._show, every)
        ended = threading.Event()
        ticker = threading.Thread(target=_tick, args=(step, ended, every), daemon=True)
        self._show(f"{what} ...", not self._terminal)
        ticker.start()
        result = "stopped"
        try:
            yield step
            result = "done"
        finally:
            ended.set()
            ticker.join()
            step.end(result)

    def _show(self, line: str, final: bool) -> None:
        if self._quiet:
            return
        with self._lock:
            if self._terminal:
                shown = line if final else line[: shutil.get_terminal_size().columns - 1]
                self._stream.write(f"\r\x1b[K{shown}" + ("\n" if final else ""))
            else:
                self._stream.write(f"{line}\n")
            self._stream.flush()


def _tick(step: Step, ended: threading.Event, every: float) -> None:
    while not ended.wait(every):
        step.tick()
