"""The click: its schema on the wire and how one Kafka record becomes one.

This is the only place that knows JSON fields. It must not know Kafka, stores or clocks: it is given
a record's value and answers with a `Click` or with the reason why it is none. A click is identified
by its payload alone; the record key is never looked at, because hotkey changes it (`nike:7`) and an
advertiser may rightly be called `a:1`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

LATEST_CLICK_TIME = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z in unix milliseconds: the last instant that an ISO 8601 date can name."""


class Click(msgspec.Struct, frozen=True, gc=False):
    """One click as producers send it, in JSON. Fields that are not listed here are ignored.

    `event_id` is unique per click and survives a re-send: the same id is counted once, whatever
    topic, partition or epoch it arrives by. `click_time` is in unix milliseconds (UTC), an integer.
    """

    event_id: Annotated[str, msgspec.Meta(min_length=1)]
    advertiser_id: str
    ad_id: str
    user_id: str
    click_time: Annotated[int, msgspec.Meta(ge=0, le=LATEST_CLICK_TIME)]


class Reason(StrEnum):
    """Why a record is not a click."""

    EMPTY = "Empty"
    """The record has no value: a tombstone, or zero bytes."""
    NOT_UTF8 = "NotUtf8"
    """A field that is needed holds bytes that are not UTF-8."""
    NOT_JSON = "NotJson"
    """The value is not one JSON document, or is nested too deeply to be read."""
    NOT_A_CLICK = "NotAClick"
    """It is JSON, but a field is missing, of the wrong type or out of its range."""


class NotAClickError(ValueError):
    """A record that cannot be counted; `detail` (at most 300 characters) says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:300]


_decoder = msgspec.json.Decoder(Click)


def decode(value: bytes | None) -> Click:
    """Read a record's value, or raise `NotAClickError`; no other error leaves this function."""
    if not value:
        raise NotAClickError(Reason.EMPTY, "the record has no value")
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise NotAClickError(Reason.NOT_A_CLICK, str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotAClickError(Reason.NOT_JSON, str(error)) from None
    except UnicodeDecodeError as error:
        raise NotAClickError(Reason.NOT_UTF8, str(error)) from None


def encode(click: Click) -> bytes:
    """The value a producer sends for this click."""
    return msgspec.json.encode(click)
