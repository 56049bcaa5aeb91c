"""What a client tells of itself: which epoch it applies, so that status can say `applied by 37/40`."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    PRODUCER = "producer"
    CONSUMER = "consumer"


class ClientReport(msgspec.Struct, frozen=True):
    """One client of one stream. `at`: unix seconds on the client's clock (never trusted for safety)."""

    client_id: str
    role: Role
    epoch: int
    at: float
    group: str | None = None


def encode_report(report: ClientReport) -> bytes:
    """The report as JSON."""
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> ClientReport:
    """The report in `data`. Raises `msgspec.DecodeError` or `msgspec.ValidationError` (a `ValueError`)."""
    return msgspec.json.decode(data, type=ClientReport)
