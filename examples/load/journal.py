"""The files in which a producer says what it sent and what was acknowledged; they outlive its kill -9.

Event ids of one producer are numbered from 0, so `.sent` needs only the last number that may have been sent,
written before the click is handed to the client, and `.acked` four bytes per acknowledged click, written
after the broker's answer. Each write is one system call: a killed process loses at most what it had not
yet written, so every id in `.acked` was acknowledged, and every id in Kafka is in `.sent`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

_BYTES = 4


def _journal(directory: Path, producer: int, kind: str) -> Path:
    return directory / f"producer-{producer}.{kind}"


class Journal:
    """One producer's files, for writing."""

    def __init__(self, directory: Path, producer: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._sent = os.open(_journal(directory, producer, "sent"), flags, 0o644)
        self._acked = os.open(_journal(directory, producer, "acked"), flags, 0o644)
        self._answered = array("I")

    def will_send(self, end: int) -> None:
        """Clicks with numbers below `end` may be sent from now on."""
        _append(self._sent, array("I", (end,)))

    def acked(self, number: int) -> None:
        """The broker acknowledged this click; it stands in the file after the next `write()`."""
        self._answered.append(number)

    def write(self) -> None:
        """Write what was acknowledged since the last call."""
        if self._answered:
            _append(self._acked, self._answered)
            self._answered = array("I")


def _append(file: int, numbers: array[int]) -> None:
    data = memoryview(numbers.tobytes())
    while data:
        data = data[os.write(file, data) :]


def _numbers(path: Path) -> array[int]:
    """The whole numbers in a file; an unfinished one at its end is left out, a missing file holds none."""
    numbers = array("I")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return numbers
    numbers.frombytes(data[: len(data) // _BYTES * _BYTES])
    return numbers


def sent_end(directory: Path, producer: int) -> int:
    """How many clicks the producer may have sent: their numbers are 0 up to this, exclusive."""
    path = _journal(directory, producer, "sent")
    try:
        size = path.stat().st_size // _BYTES * _BYTES
        with path.open("rb") as file:
            file.seek(max(0, size - _BYTES))
            last = file.read(_BYTES)
    except FileNotFoundError:
        return 0
    return array("I", last)[0] if len(last) == _BYTES else 0


def acked_count(directory: Path, producer: int) -> int:
    """How many of the producer's clicks were acknowledged."""
    path = _journal(directory, producer, "acked")
    return path.stat().st_size // _BYTES if path.exists() else 0


def acked_numbers(directory: Path, producer: int) -> Iterator[int]:
    """The numbers of the producer's acknowledged clicks, in the order of the answers."""
    return iter(_numbers(_journal(directory, producer, "acked")))
