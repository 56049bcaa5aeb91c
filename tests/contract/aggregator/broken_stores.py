"""Stores that break an invariant each, and are as the real one otherwise: the suite must find them."""

from __future__ import annotations

from collections.abc import Sequence

from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.store import Committed, Flush, OffsetMove


class UncomparingStore(DuckDBStore):
    """Sets the offsets without comparing what was there."""

    def _move_offsets(self, moves: Sequence[OffsetMove]) -> None:
        found = self.offsets()
        super()._move_offsets([OffsetMove(m.source, found.get(m.source), m.next_offset) for m in moves])


class EarlyOffsetsStore(DuckDBStore):
    """Commits the offsets before the clicks that they stand for."""

    def commit(self, flush: Flush) -> Committed:
        with self._transaction("flush"):
            self._move_offsets(flush.moves)
        here = [OffsetMove(m.source, m.next_offset, m.next_offset) for m in flush.moves]
        return super().commit(Flush(flush.clicks, flush.rejected, tuple(here)))


class EarlyIdsStore(DuckDBStore):
    """Commits the event ids before the counts that they guard; the offsets come last."""

    def commit(self, flush: Flush) -> Committed:
        with self._transaction("flush"):
            duplicates = self._insert_events(flush.clicks)
        with self._transaction("flush"):
            self._add_counts(flush.clicks.counts(without=duplicates))
            rejected = self._insert_rejected(flush.rejected)
            self._move_offsets(flush.moves)
        return Committed(len(flush.clicks) - len(duplicates), len(duplicates), rejected)
