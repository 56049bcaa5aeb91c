"""The port to whatever keeps the counts, and the values that cross it.

One flush is one transaction: the deltas of the counts, the event ids that guard them, the rejected
records and the consumed offsets become visible together or not at all, and only if the offsets that
the store holds are still those that the flush started from. Everything that makes counting exact
rests on this, so every store passes the same contract suite. This module knows no database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hotkey_aggregator.events import Reason
from hotkey_aggregator.windows import Clicks, Source, Window


class StoreError(Exception):
    """The store cannot be used; the message says which one, why, and what to do."""


class StoreInUseError(StoreError):
    """Another process has the store."""


class OffsetConflictError(StoreError):
    """The stored offset is not the one that the flush started from: somebody else consumed on."""

    def __init__(self, source: Source, expected: int | None, found: int | None) -> None:
        super().__init__(
            f"partition {source.partition} of topic {source.topic!r}: the stored offset is {_named(found)}, "
            f"expected {_named(expected)}: another aggregator writes to this store, or the offsets were "
            "changed by hand. Nothing of this flush was kept. Stop the other one, then start again"
        )
        self.source = source


def _named(offset: int | None) -> str:
    return "absent" if offset is None else str(offset)


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """A compare-and-set of one partition's offset, the offset of the next record to read."""

    source: Source
    expected: int | None
    """What the store held when these records were begun; None when it held nothing."""
    next_offset: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no click, kept so that it is neither blocking nor lost in silence."""

    source: Source
    offset: int
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Flush:
    """All that one transaction writes."""

    clicks: Clicks = field(default_factory=Clicks)
    rejected: tuple[Rejected, ...] = ()
    moves: tuple[OffsetMove, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a flush."""

    counted: int
    duplicates: int
    """Clicks whose id the store held already; they were not counted again."""
    rejected: int
    """Rejected records that were new to the store."""


@dataclass(frozen=True, slots=True)
class CountQuery:
    """Which windows to return; minutes are unix milliseconds, `minute_to` is excluded."""

    advertiser_id: str | None = None
    ad_id: str | None = None
    minute_from: int | None = None
    minute_to: int | None = None
    limit: int = 10_000


@dataclass(frozen=True, slots=True)
class Count:
    """Clicks of one window."""

    window: Window
    clicks: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole store, read in one snapshot: `clicks` equals `event_ids` or the store is broken."""

    clicks: int
    """Sum of all counts."""
    event_ids: int
    """Rows of the table of counted event ids."""
    windows: int
    rejected: int


class Store(Protocol):
    """A store of counts. `commit` is called by one thread; the readers by any, also during a commit.

    Every method raises `StoreError` when the store cannot do it.
    """

    def bind(self, stream: str) -> None:
        """Remember which stream (`<cluster id>/<topic>`) is counted here; refuse any other for ever.

        The offsets of one Kafka cluster mean nothing on another.
        """

    def offsets(self) -> Mapping[Source, int]:
        """The next offset to read of every partition that was ever flushed."""

    def commit(self, flush: Flush) -> Committed:
        """Write all of `flush`, counting only ids that are new, or nothing at all.

        Raises `OffsetConflictError` when a stored offset differs from its move's `expected`.
        """

    def counts(self, query: CountQuery) -> Sequence[Count]:
        """Windows that match, ordered by minute, advertiser and ad; at most `query.limit`."""

    def totals(self) -> Totals:
        """Sums over the whole store."""

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """All counted ids that start with `prefix`, in chunks, from one snapshot, in no order."""

    def rejected(self, limit: int) -> Sequence[Rejected]:
        """Records that were rejected, at most `limit`, highest offsets first."""

    def close(self) -> None:
        """Release the store; what was committed stays."""
