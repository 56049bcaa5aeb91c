"""What is counted and where it came from: clicks in columns, windows, partitions.

Pure values: no clock, no Kafka, no store. Clicks stay in columns from the decoder to the database, because
a loop in Python over each record costs more than all that the database does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

WINDOW_MILLISECONDS = 60_000


class Window(NamedTuple):
    """What is counted together: one ad of one advertiser in one minute of event time."""

    advertiser_id: str
    ad_id: str
    minute: int
    """Unix milliseconds (UTC) of the start of the minute."""


class Source(NamedTuple):
    """One log of Kafka: a partition of one topic, which is another log when the topic is made anew."""

    topic: str
    partition: int
    topic_id: str = ""
    """Kafka's id of the topic; empty where it is not known (rows of an older schema)."""


@dataclass(frozen=True, slots=True)
class Clicks:
    """Clicks in columns of one length: entry i of each is click i. An id may occur more than once.

    Within one source the clicks stand in the order of their offsets.
    """

    event_ids: Sequence[str] = ()
    advertiser_ids: Sequence[str] = ()
    ad_ids: Sequence[str] = ()
    click_times: Sequence[int] = ()
    """Unix milliseconds (UTC)."""
    costs: Sequence[int] = ()
    """Millionths of the currency's unit; 0 where the click has no cost."""
    digests: Sequence[int] = ()
    """XXH3-64 of the record's value, as a signed 64-bit integer: tells one id's payloads apart."""
    source_of: Sequence[int] = ()
    """Index into `sources`."""
    offsets: Sequence[int] = ()
    sources: Sequence[Source] = field(default=())

    def __len__(self) -> int:
        return len(self.event_ids)


def minute_of(click_time: int) -> int:
    """The start of the minute that holds `click_time`; both in unix milliseconds."""
    return click_time - click_time % WINDOW_MILLISECONDS
