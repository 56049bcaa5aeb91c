"""A PostgreSQL store that holds ids already, made in bulk: what a day of arrival leaves, in minutes.

Segments as `hotkey_aggregator.postgres_segments` makes them, all but the newest closed; their ids are no ids
of clicks. Closed tables are not written to the server's log: nothing writes to them again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from bench.processes import cpu_seconds
from devstack.part import Place
from devstack.postgres import Postgres
from devstack.process import Command
from hotkey_aggregator.postgres_segments import begin, segments
from hotkey_aggregator.store import HOUR_MILLISECONDS

HOURS = 24
"""Closed segments; one more is open."""

PORTION = 65_536

_FILL = """
    drop index ids_{number}_digest;
    alter table ids_{number} set {logged};
    alter table digests_{number} set {logged};
    insert into ids_{number} select hashint8extended(n, 42), n, lpad(n::text, 36, '0')
        from generate_series({first}::bigint, {last}::bigint) n;
    -- As full as inserts in random order leave it.
    create unique index ids_{number}_digest on ids_{number} (digest) with (fillfactor = 70);
    insert into digests_{number} select string_agg(int8send(hashint8extended(n, 42)), '')
        from generate_series({first}::bigint, {last}::bigint) n group by n / {portion};
    select sum(digest) from ids_{number};
"""


class LargePostgres(Postgres):
    """With settings as a server for much traffic would have them, such as `shared_buffers=3GB`."""

    def __init__(self, place: Place, port: int, settings: tuple[str, ...]) -> None:
        super().__init__(place, port)
        self._settings = settings

    def command(self) -> Command:
        given = [word for setting in self._settings for word in ("-c", setting)]
        return Command([*super().command().argv, *given], unprivileged=True)

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, those that have ended too."""
        return cpu_seconds(self._running_record().pid)


def fill(dsn: str, schema: str, ids: int, now: int, say: Callable[[str], None] = lambda _: None) -> None:
    """Give the store of this schema, which must be there, so many ids of the last `HOURS` hours.

    `now`: unix milliseconds. 100 million take 12 GB of disk. As the store's user, while no member runs.
    """
    options = f"-csearch_path={schema} -cmaintenance_work_mem=512MB"
    with psycopg.connect(dsn, options=options) as connection:
        hour = now // HOUR_MILLISECONDS
        for ends in range(hour - HOURS + 1, hour + 2):
            for newest in segments(connection)[:1]:
                newest.close(connection)
            begin(connection, ends * HOUR_MILLISECONDS)
        made = segments(connection)[: HOURS + 1]
    share = ids // len(made)

    def fill_one(number: int, place: int, *, is_open: bool) -> None:
        first = place * share + 1
        script = _FILL.format(
            number=number,
            logged="logged" if is_open else "unlogged",
            first=first,
            last=first + share - 1,
            portion=PORTION,
        )
        with psycopg.connect(dsn, options=options, autocommit=True) as connection:
            for statement in script.split(";")[:-1]:
                connection.execute(statement.encode())
            if not is_open:
                connection.execute("update segments set ids = %s where number = %s", [share, number])
        say(f"filled {place + 1} of {len(made)} segments with {share} ids")

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        filling = [
            threads.submit(fill_one, segment.number, place, is_open=segment.is_open)
            for place, segment in enumerate(made)
        ]
    for each in filling:
        each.result()
