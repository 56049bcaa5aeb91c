"""Reads a policy's dimensions out of sampled records, the way the policy says where they stand.

It must not know Kafka's client. What cannot be read is absent, never an error: records are other people's.

`jsonPath` is a small subset of JSONPath: `$`, then members `.name` or `['name']` and indices `[0]`, for
example `$.user.ids[0]`. No wildcards, slices, filters or recursion: a dimension is one value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hotkey_sdk.routing.router import time_bucket
from hotkey_sdk.routing.table import Dimension

_STEP = re.compile(r"""\.([^.\[\]'"\s]+)|\[(\d+)\]|\['([^']*)'\]|\["([^"]*)"\]""")


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it stands in Kafka, as far as a dimension may look; `timestamp_ms` is unix milliseconds."""

    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int | None


def parse_json_path(path: str) -> tuple[str | int, ...]:
    """Member names and indices of a path such as `$.a.b[0]`. Raises `ValueError`."""
    if not path.startswith("$"):
        raise ValueError(
            f"jsonPath {path!r} does not start with $, expected for example $.user_id or $.a.b[0]"
        )
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            raise ValueError(
                f"jsonPath {path!r} is not understood at {path[position:]!r}: "
                "expected members and indices only, such as $.user_id or $.a.b[0]"
            )
        name, index, single, double = found.groups()
        steps.append(int(index) if index is not None else name or single or double or "")
        position = found.end()
    return tuple(steps)


class DimensionReader:
    """The values of some dimensions of one record after another. `undecodable` counts broken payloads."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.undecodable = 0
        self._paths = {d.name: parse_json_path(d.json_path) for d in dimensions if d.json_path is not None}
        self._plain = {d.name: reader for d in dimensions if (reader := _plain_reader(d)) is not None}

    def read(self, record: RawRecord) -> dict[str, str]:
        """The dimensions that the record carries, as text."""
        values = {name: reader(record) for name, reader in self._plain.items()}
        if self._paths:
            payload = self._payload(record.value)
            values.update({name: _text(_follow(payload, path)) for name, path in self._paths.items()})
        return {name: value for name, value in values.items() if value is not None}

    def _payload(self, value: bytes | None) -> Any:
        if value is None:
            return None
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.undecodable += 1
            return None


def _plain_reader(dimension: Dimension) -> Callable[[RawRecord], str | None] | None:
    header, width = dimension.header, dimension.time_bucket_seconds
    if header is not None:
        return lambda record: _header(record.headers, header)
    if width is not None:
        return lambda record: _bucket(record.timestamp_ms, width)
    return None


def _bucket(timestamp_ms: int | None, width_seconds: int) -> str | None:
    try:
        return None if timestamp_ms is None else time_bucket(timestamp_ms, width_seconds)
    except OverflowError:
        return None  # beyond the calendar: as good as no timestamp, as in the SDK


def _header(headers: Sequence[tuple[str, bytes | None]], name: str) -> str | None:
    """The last header of that name, as the SDK reads it."""
    value = next((value for header, value in reversed(headers) if header == name), None)
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _follow(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return None
            value = value[step]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def _text(value: Any) -> str | None:
    """As the SDK hashes it: text as it is, numbers and booleans as Python writes them, all else absent."""
    return str(value) if isinstance(value, str | int | float) else None
