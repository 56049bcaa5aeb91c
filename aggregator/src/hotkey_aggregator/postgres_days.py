"""Where counts are kept: one table for each UTC day of their minutes, dropped whole when it is past its time.

It knows SQL and nothing of flushes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from psycopg import Connection, sql

from hotkey_aggregator.events import LATEST_CLICK_TIME
from hotkey_aggregator.postgres_schema import add_to_meta
from hotkey_aggregator.store import HOUR_MILLISECONDS

DAY_MILLISECONDS = 24 * HOUR_MILLISECONDS

# Attached rather than created as a partition: that would wait for every reader of the other days.
_CREATE = """
    create table {table} (like counts including all);
    alter table counts attach partition {table}
        for values from (to_timestamp({day} * 86400.0)) to (to_timestamp(({day} + 1) * 86400.0))
"""

# Of minutes that were merged since they were last added to it is known what they hold.
_HELD = """
    with span as (select to_timestamp(%s * 86400.0) as first, to_timestamp(%s * 86400.0) as last),
         merged as (
             select sum(clicks) as clicks, sum(windows) as windows from minutes, span
             where minute >= first and minute < last and minute not in (select minute from added)),
         later as (
             select sum(clicks) as clicks, count(*) as windows
             from (select sum(clicks) as clicks from counts, span
                   where minute = any(array(select distinct minute from added))
                     and minute >= first and minute < last
                   group by minute, advertiser_id, ad_id) as held)
    select coalesce(merged.clicks, 0) + coalesce(later.clicks, 0), coalesce(merged.windows, 0) + later.windows
    from merged, later
"""

_FORGET_MINUTES = """
    delete from minutes
    where minute >= to_timestamp(%s * 86400.0) and minute < to_timestamp(%s * 86400.0)
"""

_FOREVER = (0, LATEST_CLICK_TIME // DAY_MILLISECONDS + 1)


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """One UTC day and the table of its counts."""

    number: int
    """Days since 1970-01-01."""

    @classmethod
    def of(cls, milliseconds: int) -> Day:
        return cls(milliseconds // DAY_MILLISECONDS)

    @property
    def date(self) -> date:
        return date(1970, 1, 1) + timedelta(days=self.number)

    @property
    def end(self) -> int:
        """Unix milliseconds of the midnight that ends it."""
        return (self.number + 1) * DAY_MILLISECONDS

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(f"counts_{self.date:%Y%m%d}")

    def create(self, connection: Connection[Any]) -> None:
        """Make its table, unless somebody else has."""
        row = connection.execute("insert into days values (%s) on conflict do nothing", [self.date])
        if row.rowcount:
            day = sql.Literal(self.number)
            connection.execute(sql.SQL(_CREATE).format(table=self.table, day=day))

    def drop(self, connection: Connection[Any]) -> None:
        """Let go of it and remember its clicks. In a transaction beside which no flush runs."""
        clicks, _ = held(connection, self)
        add_to_meta(connection, "expired_clicks", clicks)
        connection.execute(sql.SQL("drop table {}").format(self.table))
        connection.execute(_FORGET_MINUTES, [self.number, self.number + 1])
        connection.execute("delete from days where day = %s", [self.date])


def days(connection: Connection[Any]) -> list[Day]:
    """The days that have a table, the newest first."""
    rows = connection.execute("select day - date '1970-01-01' from days order by day desc").fetchall()
    return [Day(number) for (number,) in rows]


def held(connection: Connection[Any], day: Day | None = None) -> tuple[int, int]:
    """Clicks and windows of a day, or of all."""
    span = _FOREVER if day is None else (day.number, day.number + 1)
    row = connection.execute(_HELD, span).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])
