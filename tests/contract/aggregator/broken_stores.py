"""Stores that break an invariant each, and are as the real one otherwise: the suite must find them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from hotkey_aggregator.duckdb_ids import CountedIds, Repeat, Sifted
from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.id_filter import IdFilter
from hotkey_aggregator.store import HOUR_MILLISECONDS, Committed, Flush, Keeping, OffsetMove
from hotkey_aggregator.windows import Source


class UncomparingStore(DuckDBStore):
    """Sets the offsets without comparing what was there."""

    def _move(self, moves: Sequence[OffsetMove], numbers: dict[Source, int]) -> None:
        found = dict(self._file.rows("select number, next_offset from sources"))
        super()._move([replace(move, expected=found[numbers[move.source]]) for move in moves], numbers)


class EarlyOffsetsStore(DuckDBStore):
    """Commits the offsets before the clicks that they stand for."""

    def commit(self, flush: Flush) -> Committed:
        super().commit(Flush(moves=flush.moves))
        here = [replace(move, expected=move.position.next_offset) for move in flush.moves]
        return super().commit(replace(flush, moves=tuple(here)))


class EarlyIdsStore(DuckDBStore):
    """Commits the event ids before the counts that they guard."""

    def _count(self, table: str, sifted: Sifted, now: int) -> None:
        nothing = self._file.connection.sql(f"select * from {table} limit 0").to_arrow_table()
        self._ids.add(table, sifted.hashes, now)
        self._file.connection.execute("commit")
        self._file.connection.execute("begin")
        with self._file.tables(nothing=nothing):
            super()._count(table, Sifted((), None, sifted.hashes[:0]), now)


class ForgetfulStore(DuckDBStore):
    """Opens without reading what it holds into the filter."""

    def __init__(self, path: Path, keeping: Keeping | None = None) -> None:
        super().__init__(path, keeping)
        self._ids._filter = IdFilter()


class FirstLastStore(DuckDBStore):
    """Counts the last of the clicks with one id in a flush, not the first."""

    def _add(self, batch: pa.Table, now: int) -> tuple[Repeat, ...]:
        return super()._add(batch.take(pa.array(range(len(batch) - 1, -1, -1))), now)


class HastyStore(DuckDBStore):
    """Forgets ids two hours before their horizon."""

    def __init__(self, path: Path, keeping: Keeping | None = None) -> None:
        kept = keeping or Keeping()
        super().__init__(path, replace(kept, ids=kept.ids - 2 * HOUR_MILLISECONDS))


class ForgivingStore(DuckDBStore):
    """Drops old windows without keeping their clicks in the total."""

    def expire(self, now: int) -> None:
        with self._file.transaction("expire"):
            for table in ("recent_counts", "merged_counts"):
                self._file.rows(f"delete from {table} where minute < ?", [now - self._keeping.windows])
        super().expire(now)


class HashTrustingIds(CountedIds):
    """Takes an id for counted when the store has its hash."""

    def _look(self, segment: int, batch: pa.Table, suspects: object) -> list[tuple[int, int | None]]:
        event_ids = batch["event_id"].take(pa.array(suspects))
        with self._file.tables(suspects=pa.table({"row": suspects, "event_id": event_ids})):
            return self._file.rows(
                f"""
                select "row", any_value(digest) from suspects s
                join ids_{segment} i on i.hash = hash(s.event_id) group by all
                """
            )
