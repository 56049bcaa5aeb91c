"""What keeps the PostgreSQL store small: windows merged into a row each, past days and segments dropped.

Nothing that is counted depends on when it is done, or whether.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from hotkey_aggregator.postgres_days import Day, days
from hotkey_aggregator.postgres_segments import Segment, segments
from hotkey_aggregator.store import Keeping

# As in `postgres_windows`: costs beyond 2**62 go into further rows, without clicks.
_MERGE = """
    with deleted as (delete from added where minute < 'epoch'::timestamptz + %s * interval '1 ms'
                     returning minute),
         held as materialized (
             select minute, sum(clicks) as clicks, sum(cost) as cost, advertiser_id, ad_id, count(*) as rows
             from counts where minute = any(array(select distinct minute from deleted))
             group by minute, advertiser_id, ad_id),
         remembered as (
             insert into minutes
             select minute, sum(clicks), count(*) from held group by minute
             on conflict (minute) do update set clicks = excluded.clicks, windows = excluded.windows),
         several as (select * from held where rows > 1),
         merged as (
             delete from counts using several
             where counts.minute = any(array(select distinct minute from deleted))
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


@dataclass(frozen=True, slots=True)
class Past:
    """What is past its time."""

    segments: tuple[Segment, ...]
    days: tuple[Day, ...]

    def __bool__(self) -> bool:
        return bool(self.segments or self.days)

    def drop(self, connection: Connection[Any]) -> None:
        """Drop it. In a transaction beside which no flush runs."""
        for segment in self.segments:
            segment.drop(connection)
        for day in self.days:
            day.drop(connection)


def past(connection: Connection[Any], now: int, keeping: Keeping) -> Past:
    """What is to be dropped at this time (unix milliseconds), in the order in which readers lock tables."""
    return Past(
        tuple(each for each in reversed(segments(connection)) if each.ends + keeping.ids <= now),
        tuple(each for each in days(connection) if each.end + keeping.windows <= now),
    )
