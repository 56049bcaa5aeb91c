"""What a client tells of itself: which epoch it applies, so that status can say `applied by 37/40`.

A producer may tell what it sends, too: its records per partition and its heavy keys. Reports are not signed.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec


class Role(StrEnum):
    PRODUCER = "producer"
    CONSUMER = "consumer"


REPORT_BYTES_AT_MOST = 4_096
CLIENT_ID_AT_MOST = 1_024  # characters

_ClientId = Annotated[str, msgspec.Meta(max_length=CLIENT_ID_AT_MOST)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class ClientReport(msgspec.Struct, frozen=True):
    """One client of one stream. `at`: unix seconds on the client's clock (never trusted for safety)."""

    client_id: _ClientId
    role: Role
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    at: _Seconds
    group: Annotated[str, msgspec.Meta(max_length=1_024)] | None = None


def encode_report(report: ClientReport) -> bytes:
    """The report as JSON."""
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> ClientReport:
    """The report in `data`. Raises `ValueError`, as `msgspec.DecodeError` is one."""
    _check_size(data, REPORT_BYTES_AT_MOST)
    return _decoded(data, _client_report)


_Report = TypeVar("_Report")


def _decoded(data: bytes, decode: Callable[[bytes], _Report]) -> _Report:
    try:
        return decode(data)
    except RecursionError:
        raise ValueError("a report that is nested too deeply") from None


def _check_size(data: bytes, at_most: int) -> None:
    if len(data) > at_most:
        raise ValueError(f"a report of {len(data)} bytes, at most {at_most} are allowed")


KEY_REPORT_BYTES_AT_MOST = 256 * 1024
KEY_REPORTS_STAND_SECONDS = 300  # of a stream of which nobody reports any more
KEY_BYTES_AT_MOST = 249  # of a key that is named in a report; records of longer ones are counted all the same
KEYS_AT_MOST = 256  # in one report,
KEYS_OF_A_PARTITION_AT_MOST = 8  # on one partition of it
PARTITIONS_AT_MOST = 2_000  # in one report

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class HeavyKey(msgspec.Struct, frozen=True, array_like=True):
    """One key on one partition: what was counted under it in the window, and the most that it may lack.

    `missed`: the key sent between `records` and `records + missed`.
    """

    key: Annotated[bytes, msgspec.Meta(max_length=KEY_BYTES_AT_MOST)]
    records: _Count
    missed: _Count
    size_bytes: _Count


class PartitionCount(msgspec.Struct, frozen=True, array_like=True):
    """What one producer sent to one partition: `records` since it began to count, and in the last window.

    `samples`: the records of the window that were looked at. `unlisted`: the most records of the window that
    any key has which is not in `keys`. Sizes are of keys and values.
    """

    partition: Annotated[int, msgspec.Meta(ge=0, le=100_000)]
    records: _Count
    window_records: _Count = 0
    window_bytes: _Count = 0
    samples: _Count = 0
    unlisted: _Count = 0
    keys: Annotated[tuple[HeavyKey, ...], msgspec.Meta(max_length=KEYS_OF_A_PARTITION_AT_MOST)] = ()


class KeyReport(msgspec.Struct, frozen=True):
    """What one producer counted on one stream, up to `at`: unix seconds on its clock.

    `started`: another value means that the counters began at zero again. `window_seconds`: the time that
    ended at `at` in which the windows' records were sent.
    """

    client_id: _ClientId
    started: _Seconds
    at: _Seconds
    window_seconds: _Seconds
    partitions: Annotated[tuple[PartitionCount, ...], msgspec.Meta(max_length=PARTITIONS_AT_MOST)] = ()

    def __post_init__(self) -> None:
        keys = sum(len(partition.keys) for partition in self.partitions)
        if keys > KEYS_AT_MOST:
            raise ValueError(f"a report of {keys} keys, at most {KEYS_AT_MOST} are allowed")


def encode_key_report(report: KeyReport) -> bytes:
    """The report as JSON, keys in base64."""
    return msgspec.json.encode(report)


def decode_key_report(data: bytes) -> KeyReport:
    """The report in `data`. Raises `ValueError`, as `msgspec.DecodeError` is one."""
    _check_size(data, KEY_REPORT_BYTES_AT_MOST)
    return _decoded(data, _key_report)


_client_report = msgspec.json.Decoder(ClientReport).decode
_key_report = msgspec.json.Decoder(KeyReport).decode
