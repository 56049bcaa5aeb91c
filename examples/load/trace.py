"""A recorded stream to replay: a CSV file with the columns ts, key, id and dimension.

`ts` is in unix seconds (with fractions) and must not fall; each producer replays every n-th row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("ts", "key", "id", "dimension")


class TraceError(ValueError):
    """The file is no trace; the message names the line and what was expected there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recorded click, `at` seconds after the first one of the trace."""

    at: float
    key: str
    id: str
    dimension: str


def read_trace(path: Path) -> Iterator[Row]:
    """The rows of the trace in order. Raises `TraceError` for a file that cannot be replayed."""
    try:
        file = path.open(newline="", encoding="utf-8")
    except OSError as error:
        raise TraceError(f"the trace {path} cannot be read: {error.strerror}") from None
    with file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise TraceError(f"{path}: the header lacks {', '.join(missing)}; it must be {','.join(COLUMNS)}")
        first = previous = None
        for record in reader:
            ts = _seconds(path, reader.line_num, record["ts"])
            first = ts if first is None else first
            if previous is not None and ts < previous:
                raise TraceError(
                    f"{path}, line {reader.line_num}: ts {ts} is before {previous}; sort the file by ts"
                )
            previous = ts
            yield Row(ts - first, record["key"] or "", record["id"] or "", record["dimension"] or "")


def _seconds(path: Path, line: int, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise TraceError(f"{path}, line {line}: ts is {text!r}, it must be unix seconds") from None
