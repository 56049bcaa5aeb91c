"""What keeps the PostgreSQL store small: windows merged into a row each, past days dropped.

Nothing that is counted depends on when it is done, or whether.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from hotkey_aggregator.postgres_schema import Day, add_to_meta, days
from hotkey_aggregator.store import Keeping

# As in `postgres_windows`: costs beyond 2**62 go into further rows, without clicks.
_MERGE = """
    with minutes as (delete from added where minute < 'epoch'::timestamptz + %s * interval '1 ms'
                     returning minute),
         several as materialized (
             select minute, sum(clicks) as clicks, sum(cost) as cost, advertiser_id, ad_id
             from counts where minute = any(array(select distinct minute from minutes))
             group by minute, advertiser_id, ad_id having count(*) > 1),
         merged as (
             delete from counts using several
             where counts.minute = any(array(select distinct minute from minutes))
               and counts.minute = several.minute and counts.advertiser_id = several.advertiser_id
               and counts.ad_id = several.ad_id)
    insert into counts
    select minute, case part when 0 then clicks else 0 end,
           case part when 0 then mod(cost, 2::numeric ^ 62) else 2::numeric ^ 62 end, advertiser_id, ad_id
    from several, generate_series(0, div(cost, 2::numeric ^ 62)) as part
"""

# A hash in memory; a merge join would sort the whole day.
_MERGING = "set local statement_timeout = 0; set local work_mem = '64MB'; set local enable_mergejoin = off"


def merge(connection: Connection[Any], before: int) -> None:
    """Make one row of each window of minutes before this time (unix milliseconds) that has several.

    In a transaction that lets no day be dropped, and that no other one merges beside.
    """
    connection.execute(_MERGING)
    connection.execute(_MERGE, [before])


def past(connection: Connection[Any], now: int, keeping: Keeping) -> dict[Day, int | None]:
    """The days that are to be dropped, and how many ids those hold that no flush adds to any more."""
    newest = max(days(connection, "ids"), default=None)
    ids = [day for day in days(connection, "ids") if day.end + keeping.ids <= now]
    counts = [day for day in days(connection, "counts") if day.end + keeping.windows <= now]
    # Counted before flushes have to wait: it is a look at every row.
    held: dict[Day, int | None] = {day: _sum(connection, "count(*)", day) for day in ids if day != newest}
    return {**dict.fromkeys([*ids, *counts]), **held}


def drop(connection: Connection[Any], to_drop: dict[Day, int | None]) -> None:
    """Drop days, and remember how much they held. In a transaction beside which no flush runs."""
    still = {*days(connection, "ids"), *days(connection, "counts")}
    for day in still.intersection(to_drop):
        if day.kind == "ids":
            held = to_drop[day]
            add_to_meta(
                connection, "forgotten_ids", _sum(connection, "count(*)", day) if held is None else held
            )
        else:
            add_to_meta(connection, "expired_clicks", _sum(connection, "sum(clicks)", day))
        day.drop(connection)


def _sum(connection: Connection[Any], what: str, day: Day) -> int:
    statement = sql.SQL("select coalesce({}, 0) from {}").format(sql.SQL(what), day.table)
    row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])
