"""What a soak tells its producers while they run: one file, written whole, that each looks at all the time.

A producer that is started anew finds there what holds now. A clock that is wrong is wrong by this file too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

LOOK_SECONDS = 0.1


class Orders(msgspec.Struct, frozen=True):
    """`rate`: records/s of each producer, of which the keys of `shares` have their part, 0..1. By name of
    process: `skews`, by how many seconds its clock is wrong; `bursts`, how many records it was told so far to
    send at once. `stop`: producers send what they hold and end."""

    rate: float = 0.0
    shares: dict[str, float] = {}
    skews: dict[str, float] = {}
    bursts: dict[str, int] = {}
    stop: bool = False

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        partial = path.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self))
        partial.replace(path)


class Reader:
    """The orders that hold now, read again when the file has changed, at most every `LOOK_SECONDS`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = float("-inf")
        self._stamp = 0
        self._orders = Orders()

    def now(self) -> Orders:
        if (at := time.monotonic()) - self._looked >= LOOK_SECONDS:
            self._looked = at
            if (stamp := self._path.stat().st_mtime_ns) != self._stamp:
                self._stamp = stamp
                self._orders = msgspec.json.decode(self._path.read_bytes(), type=Orders)
        return self._orders


def skew_clock(reader: Reader, name: str) -> None:
    """From now on this process's `time.time` is as wrong as the orders say."""
    right = time.time

    def wrong() -> float:
        return right() + reader.now().skews.get(name, 0.0)

    clock: Callable[[], float] = wrong
    time.time = clock
