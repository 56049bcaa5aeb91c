"""The port to whatever keeps the counts, and the values that cross it.

One flush is one transaction: the deltas of the counts, the event ids that guard them, the dead letters and
the consumed offsets become visible together or not at all, and only if the offsets that the store holds are
still those that the flush started from. Everything that makes counting exact rests on this, so every store
passes the same contract suite. This module knows no database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hotkey_aggregator.events import Reason
from hotkey_aggregator.windows import Clicks, Source, Window

HOUR_MILLISECONDS = 3_600_000


class StoreError(Exception):
    """The store cannot be used; the message says which one, why, and what to do."""


class StoreInUseError(StoreError):
    """Another process has the store."""


class StoreUnavailableError(StoreError):
    """The store does not answer now (away, out of connections, out of space, a conflict that lasts): try
    again.

    Whether the transaction took place is unknown: `was_committed` tells by the offsets.
    """


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
class Position:
    """How far a source was consumed."""

    next_offset: int
    leader_epoch: int = -1
    """Of the leader that served the last record; -1 where it is not known. Lets a client see a truncated
    log."""
    event_time: int = -1
    """Unix milliseconds up to which the source's events are taken to be complete; -1: not known yet."""


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """A compare-and-set of one source's position."""

    source: Source
    expected: int | None
    """The next offset that the store held when these records were begun; None when it held nothing."""
    position: Position


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that is no click, kept whole until the dead-letter topic has it: neither blocking nor lost."""

    source: Source
    offset: int
    reason: Reason
    detail: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = -1
    """Unix milliseconds that the record bore; -1: none."""
    leader_epoch: int = -1
    """Of the leader that wrote the record; -1 where it is not known. Where a log was cut off and written anew
    another record stands at the offset, which this tells apart."""

    @property
    def place(self) -> tuple[Source, int, int]:
        """What tells it apart from every other one."""
        return self.source, self.offset, self.leader_epoch


@dataclass(frozen=True, slots=True)
class Flush:
    """All that one transaction writes."""

    clicks: Clicks = field(default_factory=Clicks)
    dead: tuple[DeadLetter, ...] = ()
    moves: tuple[OffsetMove, ...] = ()
    now: int = 0
    """Unix milliseconds when the flush was made: which segment of ids it goes into, never what is counted."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """An id that came again with another payload: counted once, as it first came."""

    event_id: str
    source: Source
    offset: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a flush."""

    counted: int
    duplicates: int
    """Clicks whose id was there already, in the store or earlier in the flush; they were not counted
    again."""
    dead: int
    """Dead letters that were new to the store."""
    conflicts: int = 0
    """How many of `duplicates` had another payload than the one that was counted."""
    examples: tuple[Conflict, ...] = ()
    """Some of them, at most ten."""


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
    """Clicks of one window and what they cost together (in millionths of the currency's unit)."""

    window: Window
    clicks: int
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole store, read in one snapshot.

    `clicks` equals `event_ids` + `forgotten`, or the store is broken.
    """

    clicks: int
    """Clicks ever counted, those of expired windows too."""
    event_ids: int
    """Rows of the table of counted event ids."""
    windows: int
    dead: int
    """Dead letters, delivered or not."""
    forgotten: int = 0
    """Ids counted and forgotten since, after the dedupe horizon."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long a store keeps what, in milliseconds."""

    ids: int = 24 * HOUR_MILLISECONDS
    """The dedupe horizon: an id that comes again within it is found. It is forgotten some time (at most a
    segment's length) later."""
    windows: int = 90 * 24 * HOUR_MILLISECONDS
    """Windows older than this (by event time) are dropped; clicks that old are dead letters."""


class Store(Protocol):
    """A store of counts. `commit` and `expire` are called by one thread; the readers by any, also meanwhile.

    Every method raises `StoreUnavailableError` when the store does not answer now, `StoreError` when it
    cannot do it at all.
    """

    def bind(self, stream: str) -> None:
        """Remember which stream (`<cluster id>/<topic>`) is counted here; refuse any other for ever.

        The offsets of one Kafka cluster mean nothing on another.
        """

    def name_topics(self, topic_ids: Mapping[str, str]) -> None:
        """Give positions that were recorded without a topic id (an older schema) the id of their topic."""

    def positions(self) -> Mapping[Source, Position]:
        """How far every source that was ever flushed was consumed."""

    def commit(self, flush: Flush) -> Committed:
        """Write all of `flush`, counting only ids that are new, or nothing at all.

        Of clicks with one id the first in the columns is the one that counts. Raises `OffsetConflictError`
        when a stored offset differs from its move's `expected`.
        """

    def counts(self, query: CountQuery) -> Sequence[Count]:
        """Windows that match, ordered by minute, advertiser and ad; at most `query.limit`."""

    def totals(self) -> Totals:
        """Sums over the whole store."""

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        """All counted ids in the store that start with `prefix`, in chunks, from one snapshot, in no
        order."""

    def dead(self, limit: int) -> Sequence[DeadLetter]:
        """Dead letters, at most `limit`, highest offsets first; those delivered without key, value,
        headers."""

    def undelivered(self, sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
        """Dead letters of these sources that the dead-letter topic does not have yet, lowest offsets
        first."""

    def delivered(self, letters: Sequence[DeadLetter]) -> None:
        """The dead-letter topic has these: forget their key, value and headers."""

    def expire(self, now: int) -> None:
        """Drop ids past the horizon and windows past their retention; `now` in unix milliseconds."""

    def close(self) -> None:
        """Release the store; what was committed stays."""


def was_committed(flush: Flush, positions: Mapping[Source, Position]) -> bool:
    """Whether a flush of unknown outcome took place: the store stands where the flush would have left it.

    If somebody else moved it there, the same records were counted: either way there is nothing left to write.
    """
    return bool(flush.moves) and all(
        (stored := positions.get(move.source)) is not None and stored.next_offset == move.position.next_offset
        for move in flush.moves
    )
