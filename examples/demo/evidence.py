"""What the records in Kafka tell of a run: who was routed when, how even it was, what is to be counted.

Pure: it is fed record by record. It asks neither the operator nor the SDK, so it can contradict them.
A record counts as routed when its key is not the one that its payload names.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec

from examples.load.clicks import Click
from examples.load.settings import KeyField

BIN_MILLISECONDS = 100
MINUTE_MILLISECONDS = 60_000

Window = tuple[str, str, int]  # advertiser, ad, minute of event time in unix milliseconds


@dataclass(frozen=True, slots=True)
class Span:
    """From one instant to another, both in unix milliseconds."""

    begin: int
    end: int


class Evidence:
    """Gathers a topic's records; every time is the record's own, in unix milliseconds."""

    def __init__(self, partitions: int, key_field: KeyField = KeyField.ADVERTISER) -> None:
        self.partitions = partitions
        self.ids: set[str] = set()
        self.repeats = 0  # records whose event id was there before
        self.windows: Counter[Window] = Counter()
        self.first_routed: dict[str, int] = {}  # by producer
        self.last_routed: dict[str, int] = {}
        self.routed: Counter[str] = Counter()  # by the key that was routed
        self._bins: Counter[tuple[int, int]] = Counter()
        self._key_field = key_field
        self._decode = msgspec.json.Decoder(Click).decode

    def add(self, partition: int, at: int, key: bytes | None, value: bytes) -> None:
        """Take one record in, in any order between partitions."""
        click = self._decode(value)
        self._bins[at // BIN_MILLISECONDS, partition] += 1
        if click.event_id in self.ids:
            self.repeats += 1
        else:
            self.ids.add(click.event_id)
            self.windows[click.advertiser_id, click.ad_id, _minute(click.click_time)] += 1
        natural = click.key(self._key_field)
        if key != natural.encode():
            self._add_routed(click.event_id.rpartition("-")[0], natural, at)

    def _add_routed(self, producer: str, key: str, at: int) -> None:
        self.routed[key] += 1
        self.first_routed[producer] = min(at, self.first_routed.get(producer, at))
        self.last_routed[producer] = max(at, self.last_routed.get(producer, at))

    @property
    def span(self) -> Span | None:
        """The time from the first record to the last; None without any."""
        if not self._bins:
            return None
        bins = [number for number, _ in self._bins]
        return Span(min(bins) * BIN_MILLISECONDS, (max(bins) + 1) * BIN_MILLISECONDS)

    def imbalance(self, span: Span) -> float | None:
        """max/mean of the records appended per partition within `span`; None when there were none."""
        totals: Counter[int] = Counter()
        for (number, partition), records in self._bins.items():
            if span.begin <= number * BIN_MILLISECONDS < span.end:
                totals[partition] += records
        return max(totals.values()) * self.partitions / totals.total() if totals else None

    def overload(self, records_per_second: float) -> int | None:
        """When a partition went over this rate for a second; None when none ever did.

        It is the first tenth of the first such second that is over the rate itself.
        """
        width = 1000 // BIN_MILLISECONDS
        limit = records_per_second / width
        over = sorted(each for each, records in self._bins.items() if records > limit)
        for number, partition in over:
            if sum(self._bins[number + i, partition] for i in range(width)) > records_per_second:
                return number * BIN_MILLISECONDS
        return None

    def spread_at(self, producers: int) -> int | None:
        """When the slowest of so many producers first routed a record; None when one never did."""
        if len(self.first_routed) < producers:
            return None
        return max(self.first_routed.values())


def _minute(click_time: int) -> int:
    return click_time - click_time % MINUTE_MILLISECONDS
