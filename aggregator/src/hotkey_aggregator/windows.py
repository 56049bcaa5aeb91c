"""Counting: clicks per advertiser, ad and minute of event time.

Pure: no clock, no Kafka, no store. A `Batch` gathers clicks between two flushes in columns, with each
window and each partition written down once and referred to by number, because a hot advertiser
repeats the same few thousands of times. What the store finds to be counted already is given back to
`Clicks.counts`, so the deltas are right whatever arrived twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from hotkey_aggregator.events import Click

WINDOW_MILLISECONDS = 60_000


class Window(NamedTuple):
    """What is counted together: one ad of one advertiser in one minute of event time."""

    advertiser_id: str
    ad_id: str
    minute: int
    """Unix milliseconds (UTC) of the start of the minute."""


class Source(NamedTuple):
    """The partition that a click came from."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Clicks:
    """Distinct clicks in columns: entry i of each of the first four is click i."""

    event_ids: tuple[str, ...] = ()
    window_of: tuple[int, ...] = ()
    """Index into `windows`."""
    source_of: tuple[int, ...] = ()
    """Index into `sources`."""
    offsets: tuple[int, ...] = ()
    windows: tuple[Window, ...] = ()
    sources: tuple[Source, ...] = ()

    def __len__(self) -> int:
        return len(self.event_ids)

    def counts(self, without: Collection[int] = ()) -> dict[Window, int]:
        """Clicks per window, leaving out the clicks with these row numbers; no window with zero."""
        totals = Counter(self.window_of)
        totals.subtract(Counter(self.window_of[row] for row in without))
        return {self.windows[number]: clicks for number, clicks in totals.items() if clicks}


class Batch:
    """The clicks since the last flush. An id that is in it already is only counted as a repeat."""

    def __init__(self) -> None:
        self.repeats = 0
        self._rows: dict[str, int] = {}
        self._windows: dict[Window, int] = {}
        self._sources: dict[Source, int] = {}
        self._window_of: list[int] = []
        self._source_of: list[int] = []
        self._offsets: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, click: Click, source: Source, offset: int) -> None:
        """Take one click in; a repeated id leaves the batch as it is but for `repeats`."""
        rows = self._rows
        row = len(rows)
        if rows.setdefault(click.event_id, row) != row:
            self.repeats += 1
            return
        window = Window(click.advertiser_id, click.ad_id, minute_of(click.click_time))
        self._window_of.append(self._windows.setdefault(window, len(self._windows)))
        self._source_of.append(self._sources.setdefault(source, len(self._sources)))
        self._offsets.append(offset)

    def clicks(self) -> Clicks:
        """What was gathered, as a value."""
        return Clicks(
            event_ids=tuple(self._rows),
            window_of=tuple(self._window_of),
            source_of=tuple(self._source_of),
            offsets=tuple(self._offsets),
            windows=tuple(self._windows),
            sources=tuple(self._sources),
        )


def minute_of(click_time: int) -> int:
    """The start of the minute that holds `click_time`; both in unix milliseconds."""
    return click_time - click_time % WINDOW_MILLISECONDS
