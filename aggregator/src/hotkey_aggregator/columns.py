"""Records of one batch, and the clicks that wait, in columns.

A loop in Python over each record is most of what counting costs, so each value is touched as seldom as can
be, while it is still in the processor's cache. It knows records and clicks, and nothing of what partitions
stand for: sources are numbers here.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from hotkey_aggregator.events import Click, cost_in_millionths
from hotkey_aggregator.text_column import TextColumn
from hotkey_aggregator.windows import Clicks, Source

Headers = Sequence[tuple[str, bytes | str | None]]
Figures = NDArray[np.int64]
Place = tuple[str | None, int | None]
"""Topic and partition, as a record tells them."""


class Record(Protocol):
    """What is read of a record; the Kafka client's message is one."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> bytes | str | None: ...
    def value(self) -> bytes | str | None: ...
    def headers(self) -> Headers | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def leader_epoch(self) -> int | None: ...


@dataclass(slots=True)
class Rows:
    """Records of one batch and what is known of each, in columns of one length."""

    records: Sequence[Record]
    source_of: Figures
    offsets: Figures
    values: Sequence[bytes]
    clicks: Sequence[Click] = ()

    @classmethod
    def of(cls, records: Sequence[Record], numbers: Mapping[Place, int]) -> Rows:
        """The records of sources that have a number, by topic and partition."""
        source_of = _source_of(records, numbers)
        if len(records) and source_of.min() < 0:
            kept = np.flatnonzero(source_of >= 0)
            records, source_of = [records[index] for index in kept.tolist()], source_of[kept]
        return cls(
            records,
            source_of,
            _integers([record.offset() for record in records]),  # type: ignore[misc]
            [record.value() or b"" for record in records],  # type: ignore[misc]
        )

    def drop(self, indexes: Collection[int]) -> None:
        """Take records out, before `clicks` are told."""
        kept = np.delete(np.arange(len(self.records)), list(indexes))
        self.source_of, self.offsets = self.source_of[kept], self.offsets[kept]
        self.records = [self.records[index] for index in kept.tolist()]
        self.values = [self.values[index] for index in kept.tolist()]


@dataclass(slots=True)
class Columns:
    """Clicks that wait, as `Clicks` has them, but growing."""

    event_ids: TextColumn = field(default_factory=TextColumn)
    advertiser_ids: TextColumn = field(default_factory=TextColumn)
    ad_ids: TextColumn = field(default_factory=TextColumn)
    click_times: array[int] = field(default_factory=lambda: array("q"))
    costs: array[int] = field(default_factory=lambda: array("q"))
    digests: array[int] = field(default_factory=lambda: array("q"))
    source_of: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.offsets)

    def extend(self, rows: Rows, times: Figures) -> None:
        """Put the clicks of a batch behind those that are there; `times` are theirs."""
        clicks = rows.clicks
        self.event_ids.append([click.event_id for click in clicks])
        self.advertiser_ids.append([click.advertiser_id for click in clicks])
        self.ad_ids.append([click.ad_id for click in clicks])
        _append(self.click_times, times)
        _append(self.costs, _costs(clicks))
        _append(self.digests, _digests(rows.values))
        _append(self.source_of, rows.source_of)
        _append(self.offsets, rows.offsets)

    def without(self, numbers: Collection[int]) -> Columns:
        """A copy without the clicks of some sources."""
        kept = ~np.isin(np.asarray(self.source_of), list(numbers))
        mask = pa.array(kept)

        def figures(column: array[int]) -> array[int]:
            return array("q", np.asarray(column)[kept].tobytes())

        return Columns(
            self.event_ids.filter(mask),
            self.advertiser_ids.filter(mask),
            self.ad_ids.filter(mask),
            figures(self.click_times),
            figures(self.costs),
            figures(self.digests),
            figures(self.source_of),
            figures(self.offsets),
        )

    def clicks(self, sources: Sequence[Source]) -> Clicks:
        """The same columns as a value; they must not grow any more."""
        return Clicks(
            self.event_ids,
            self.advertiser_ids,
            self.ad_ids,
            self.click_times,
            self.costs,
            self.digests,
            self.source_of,
            self.offsets,
            tuple(sources),
        )


def click_times(clicks: Sequence[Click]) -> Figures:
    """The clicks' times, in unix milliseconds."""
    return _integers([click.click_time for click in clicks])


def _source_of(records: Sequence[Record], numbers: Mapping[Place, int]) -> Figures:
    """The number of each record's source; -1 where it has none."""
    topics = {record.topic() for record in records}
    if len(topics) == 1:
        # Nearly always: no pair for each record.
        (topic,) = topics
        partitions = [record.partition() for record in records]
        number_of = {partition: numbers.get((topic, partition), -1) for partition in set(partitions)}
        return _integers([number_of[partition] for partition in partitions])
    places = [(record.topic(), record.partition()) for record in records]
    return _integers([numbers.get(place, -1) for place in places])


def _integers(values: Sequence[int]) -> Figures:
    return np.array(values, np.int64)


def _append(column: array[int], values: Figures) -> None:
    column.frombytes(values.tobytes())


def _costs(clicks: Sequence[Click]) -> Figures:
    costs = [click.cost for click in clicks]
    if any(costs):
        return _integers([cost_in_millionths(cost) for cost in costs])
    return np.zeros(len(costs), np.int64)


def _digests(values: Sequence[bytes]) -> Figures:
    return np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, values)), ">i8").astype(np.int64)
