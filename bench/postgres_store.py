"""What a commit into PostgreSQL costs: `python -m bench.postgres_store --ids 10000000 --batch 500000`.

CPU time of this process and of the server process that serves it, per click, in a store whose day holds so
many ids already. It starts a PostgreSQL of its own and deletes it; 100 million ids take 12 GB of disk and
20 minutes.
Not a part of `make bench`, which measures the whole path.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from devstack.part import Place
from devstack.ports import free_ports
from devstack.postgres import Postgres
from devstack.process import Command
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import Flush, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source

SOURCE = Source("clicks", 0, "topic")
SCHEMA = "hotkey"

_FILL = """
    insert into {table} select hashint8extended(number, 42), number, md5(number::text)::uuid::text
    from generate_series(1, {ids}::bigint) number
"""


class LargePostgres(Postgres):
    """With memory for the index of the ids, as a server for this would have it."""

    def __init__(self, place: Place, port: int, settings: Sequence[str]) -> None:
        super().__init__(place, port)
        self._settings = settings

    def command(self) -> Command:
        given = [word for setting in self._settings for word in ("-c", setting)]
        return Command([*super().command().argv, *given], unprivileged=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU per click."""

    client: float
    server: float

    def __str__(self) -> str:
        return f"{self.client:.2f} + {self.server:.2f} = {self.client + self.server:.2f} us"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, as /proc tells it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_clicks(count: int, ads: int, now: int, dice: random.Random) -> Clicks:
    """80 % of one advertiser, random UUIDs, all of this minute or the one before."""
    return Clicks(
        event_ids=[str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(count)],
        advertiser_ids=[
            "nike" if dice.random() < 0.8 else f"advertiser-{dice.randrange(10_000)}" for _ in range(count)
        ],
        ad_ids=[f"ad-{dice.randrange(ads)}" for _ in range(count)],
        click_times=[now - dice.randrange(5_000) for _ in range(count)],
        costs=[dice.randrange(1_000_000) for _ in range(count)],
        digests=[dice.getrandbits(63) for _ in range(count)],
        source_of=[0] * count,
        offsets=range(count),
        sources=(SOURCE,),
    )


class Bench:
    """Flushes into one store, each timed."""

    def __init__(self, server: Postgres, ids: int, ads: int) -> None:
        self._dice = random.Random(1)
        self._ads = ads
        self._store = PostgresStore(server.dsn, schema=SCHEMA)
        self._now = int(time.time() * 1000)
        self._at: int | None = None
        self.commit(1)
        self._administrator = psycopg.connect(server.dsn, autocommit=True, options=f"-csearch_path={SCHEMA}")
        if ids:
            self._fill(ids)

    def _fill(self, ids: int) -> None:
        """Random digests by the server itself, then an index as full as random inserts leave it."""
        row = self._administrator.execute(
            "select 'ids_' || to_char(day, 'YYYYMMDD') from days where kind = 'ids'"
        ).fetchone()
        assert row is not None
        for statement in (
            f"drop index {row[0]}_digest",
            _FILL.format(table=row[0], ids=ids),
            "set maintenance_work_mem = '1GB'",
            f"create unique index {row[0]}_digest on {row[0]} (digest) with (fillfactor = 70)",
            f"select sum(digest) from {row[0]}",
        ):
            self._administrator.execute(statement.encode())

    def commit(self, size: int) -> Cost:
        """One flush of so many clicks with new ids."""
        clicks = make_clicks(size, self._ads, self._now, self._dice)
        reached = Position((self._at or 0) + size)
        flush = Flush(clicks, moves=(OffsetMove(SOURCE, self._at, reached),), now=self._now)
        pid = self._store._connections._connected().info.backend_pid
        before = time.process_time(), cpu_seconds(pid)
        self._store.commit(flush)
        client, server = time.process_time() - before[0], cpu_seconds(pid) - before[1]
        self._at = reached.next_offset
        return Cost(client / size * 1e6, server / size * 1e6)

    def bytes_per_id(self) -> float:
        """On disk, table and index."""
        row = self._administrator.execute(
            "select sum(pg_total_relation_size(inhrelid)) / (select count(*) from ids)"
            " from pg_inherits where inhparent = 'ids'::regclass"
        ).fetchone()
        assert row is not None
        return float(row[0])

    def close(self) -> None:
        self._administrator.close()
        self._store.close()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=0, help="how many ids are there already")
    parser.add_argument("--batch", type=int, nargs="+", default=[50_000, 500_000], help="clicks of a flush")
    parser.add_argument("--ads", type=int, default=1_000, help="how many ads there are clicks of")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=["shared_buffers=3GB", "max_wal_size=4GB"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), tied=True)
        place.make()
        server = LargePostgres(place, free_ports(1, random.Random())[0], given.set)
        server.start()
        try:
            bench = Bench(server, given.ids, given.ads)
            for number in range(given.rounds):
                for size in given.batch:
                    print(
                        f"round {number + 1}, {size} clicks: client + server {bench.commit(size)}", flush=True
                    )
            print(f"{bench.bytes_per_id():.0f} bytes an id")
            bench.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
