"""What was consumed and is not in the store yet, and from where to go on.

Pure bookkeeping between the consumer and the store: it decodes records, counts clicks, keeps those
that are none, and knows for each assigned partition what the store holds and what comes next, so
that a flush is a compare-and-set. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hotkey_aggregator.events import NotAClickError, decode
from hotkey_aggregator.store import Flush, OffsetMove, Rejected
from hotkey_aggregator.windows import Batch, Source


@dataclass(frozen=True, slots=True)
class Jump:
    """A partition did not go on where it was expected to.

    Forward: records were removed (retention, compaction) or are transaction markers. Backward: the
    topic was made again or truncated, or its offsets were rewound; ids are counted once all the same.
    """

    source: Source
    expected: int
    found: int


class Pending:
    """Un-flushed clicks, rejected records and positions of the assigned partitions."""

    def __init__(self) -> None:
        self._batch = Batch()
        self._rejected: list[Rejected] = []
        self._bytes = 0
        self._stored: dict[Source, int | None] = {}
        self._next: dict[Source, int] = {}

    @property
    def events(self) -> int:
        """Clicks and rejected records that wait for the next flush."""
        return len(self._batch) + len(self._rejected)

    @property
    def value_bytes(self) -> int:
        """Size of the values that they were read from: an upper bound of the ids that are held."""
        return self._bytes

    @property
    def repeats(self) -> int:
        """Clicks left out because their id waits already."""
        return self._batch.repeats

    @property
    def partitions(self) -> int:
        """How many partitions are assigned."""
        return len(self._stored)

    @property
    def stored(self) -> dict[Source, int]:
        """Offset in the store of each assigned partition that has one."""
        return {source: offset for source, offset in self._stored.items() if offset is not None}

    def assign(self, source: Source, stored: int | None) -> None:
        """Take on a partition that the store holds up to `stored`; None when it holds nothing of it."""
        self._stored[source] = stored
        self._next.pop(source, None)

    def forget(self, sources: Iterable[Source]) -> None:
        """Give partitions up. Call it after a flush: their records that still wait would be flushed too."""
        for source in sources:
            self._stored.pop(source, None)
            self._next.pop(source, None)

    def take(self, source: Source, offset: int, value: bytes | None) -> Jump | None:
        """Take the next record of a partition; a `Jump` when it does not follow on the last one.

        Records of partitions that are not assigned are left out: whoever has them reads them again.
        """
        if source not in self._stored:
            return None
        expected = self._next.get(source, self._stored[source])
        try:
            self._batch.add(decode(value), source, offset)
        except NotAClickError as error:
            self._rejected.append(Rejected(source, offset, error.reason, error.detail))
        self._bytes += len(value or b"")
        self._next[source] = offset + 1
        return None if expected is None or offset == expected else Jump(source, expected, offset)

    def flush(self) -> Flush:
        """All that waits, with the moves of the offsets that it takes."""
        moves = tuple(
            OffsetMove(source, self._stored[source], next_offset)
            for source, next_offset in self._next.items()
        )
        return Flush(self._batch.clicks(), tuple(self._rejected), moves)

    def flushed(self) -> None:
        """The store has committed `flush()`: start the next batch from there."""
        self._stored.update(self._next)
        self.drop()

    def drop(self) -> None:
        """Let go of all that waits; positions go back to what the store holds."""
        self._next.clear()
        self._batch = Batch()
        self._rejected = []
        self._bytes = 0
