"""The click: its schema on the wire and how the values of Kafka records become columns of clicks.

This is the only place that knows JSON fields. It must not know Kafka, stores or clocks: it is given
values and answers with what is a click and with the reason why the others are none. A click is identified
by its payload alone; the record key is never looked at, because hotkey changes it (`nike:7`) and an
advertiser may rightly be called `a:1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

LATEST_CLICK_TIME = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z in unix milliseconds: the last instant that an ISO 8601 date can name."""

MAX_NAME_LENGTH = 16 * 1024
"""Characters of an id, an advertiser or an ad: what a store has to index."""

MAX_COST = 1_000_000_000
MILLIONTHS = 1_000_000

Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]


class Click(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One click as producers send it, in JSON. Fields that are not listed here are ignored.

    `event_id` is unique per click and survives a re-send: the same id is counted once, whatever
    topic, partition or epoch it arrives by. `click_time` is in unix milliseconds (UTC), an integer.
    `cost` is in the currency's unit; it is counted in millionths of it.
    """

    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    advertiser_id: Name
    ad_id: Name
    user_id: str
    click_time: Annotated[int, msgspec.Meta(ge=0, le=LATEST_CLICK_TIME)]
    country: str | None = None
    region: str | None = None
    campaign: str | None = None
    device: str | None = None
    cost: Annotated[float, msgspec.Meta(ge=0, le=MAX_COST)] | None = None


class Reason(StrEnum):
    """Why a record is not counted."""

    EMPTY = "Empty"
    """The record has no value: a tombstone, or zero bytes."""
    NOT_UTF8 = "NotUtf8"
    """A field that is needed holds bytes that are not UTF-8."""
    NOT_JSON = "NotJson"
    """The value is not one JSON document, or is nested too deeply to be read."""
    NOT_A_CLICK = "NotAClick"
    """It is JSON, but a field is missing, of the wrong type or out of its range."""
    OUT_OF_RETENTION = "OutOfRetention"
    """A click older than the windows that are kept."""
    FROM_THE_FUTURE = "FromTheFuture"
    """A click more than a day ahead of the aggregator's clock."""


class NotAClickError(ValueError):
    """A record that cannot be counted; `detail` (at most 300 characters) says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:300]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a batch of values held: the clicks in their order, and by index why the others are none."""

    clicks: Sequence[Click]
    refused: Sequence[tuple[int, NotAClickError]]


_decode = msgspec.json.Decoder(Click).decode
_REFUSALS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError)


def decode(value: bytes | None) -> Click:
    """Read a record's value, or raise `NotAClickError`; no other error leaves this function."""
    decoded = decode_all([value])
    if decoded.refused:
        raise decoded.refused[0][1]
    return decoded.clicks[0]


def decode_all(values: Sequence[bytes | None]) -> Decoded:
    """Read many values at once, about half a microsecond each."""
    clicks: list[Click] = []
    refused: list[tuple[int, NotAClickError]] = []
    remaining = map(_decode, values)  # type: ignore[arg-type]
    while True:
        try:
            # What came before an error is kept and the iterator goes on behind it, so that neither the good
            # records nor a flood of bad ones costs a turn of a Python loop each.
            clicks.extend(remaining)
        except _REFUSALS as error:
            index = len(clicks) + len(refused)
            refused.append((index, _refusal(values[index], error)))
        else:
            return Decoded(clicks, refused)


def _refusal(value: bytes | None, error: Exception) -> NotAClickError:
    if not value:
        return NotAClickError(Reason.EMPTY, "the record has no value")
    if isinstance(error, msgspec.ValidationError):
        return NotAClickError(Reason.NOT_A_CLICK, str(error))
    if isinstance(error, UnicodeDecodeError):
        return NotAClickError(Reason.NOT_UTF8, str(error))
    return NotAClickError(Reason.NOT_JSON, str(error))


def cost_in_millionths(cost: float | None) -> int:
    """The cost that is counted: exact up to a rounding to millionths."""
    return round(cost * MILLIONTHS) if cost else 0


def encode(click: Click) -> bytes:
    """The value a producer sends for this click."""
    return msgspec.json.encode(click)
