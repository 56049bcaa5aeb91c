"""A DuckDB store that holds so many ids already, made by SQL in bulk: a segment for each hour, as they would
arrive.

It knows the store's tables, and no figure.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from hotkey_aggregator.duckdb_schema import IDS
from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.store import HOUR_MILLISECONDS

SEGMENTS = 24


def fill(path: Path, ids: int, now: int, partitions: int) -> None:
    """Make it, with the last segment open at `now` (unix milliseconds)."""
    DuckDBStore(path).close()
    if not ids:
        return
    last = (now // HOUR_MILLISECONDS + 1) * HOUR_MILLISECONDS
    with duckdb.connect(path, config={"memory_limit": "1GB"}) as connection:
        connection.execute("set enable_progress_bar = false")
        connection.execute("delete from segments; drop table if exists ids_0")
        for number in range(SEGMENTS):
            ends = last - (SEGMENTS - 1 - number) * HOUR_MILLISECONDS
            connection.execute("insert into segments values (?, ?)", [number, ends])
            connection.execute(IDS.format(number=number))
            count = ids * (number + 1) // SEGMENTS - ids * number // SEGMENTS
            connection.execute(
                f"""
                insert into ids_{number}
                select id, hash(id), hash(n)::hugeint - 9223372036854775808,
                       n % {partitions}, n // {partitions}
                from (select uuid()::varchar as id, range as n from range({count}))
                """
            )
        connection.execute("insert into recent_counts values (0, 'nike', 'ad', ?, 0)", [ids])
        connection.execute("checkpoint")
