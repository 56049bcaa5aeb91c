"""What a commit into PostgreSQL costs: `python -m bench.postgres_store --ids 10000000 --batch 500000`.

CPU time of this process and of all processes of the server, per click, in a store that holds so many ids of
the last day already. It starts a PostgreSQL of its own and deletes it; 100 million ids take 12 GB of disk.
Not a part of `make bench`, which measures the whole path.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.postgres_fill import LargePostgres, fill
from devstack.part import Place
from devstack.ports import free_ports
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.store import Flush, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source

SCHEMA = "hotkey"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds and clicks."""

    client: float
    server: float
    seconds: float
    clicks: int

    def __str__(self) -> str:
        client, server = (spent / self.clicks * 1e6 for spent in (self.client, self.server))
        return (
            f"{client:.2f} + {server:.2f} = {client + server:.2f} us, "
            f"{self.clicks / self.seconds:,.0f} clicks/s by the clock"
        )

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.client + other.client,
            self.server + other.server,
            self.seconds + other.seconds,
            self.clicks + other.clicks,
        )


def make_clicks(count: int, ads: int, now: int, dice: random.Random, source: Source) -> Clicks:
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
        sources=(source,),
    )


class Member:
    """One that flushes into the store."""

    def __init__(self, dsn: str, number: int, ads: int) -> None:
        self.store = PostgresStore(dsn, schema=SCHEMA)
        self._dice = random.Random(number)
        self._source = Source("clicks", number, "topic")
        self._ads = ads
        self._at: int | None = None

    def flush(self, size: int) -> Flush:
        """The next one, of new ids."""
        now = int(time.time() * 1000)
        clicks = make_clicks(size, self._ads, now, self._dice, self._source)
        expected, self._at = self._at, (self._at or 0) + size
        return Flush(clicks, moves=(OffsetMove(self._source, expected, Position(self._at)),), now=now)


class Bench:
    """Flushes into one store, each timed."""

    def __init__(self, server: LargePostgres, ids: int, ads: int, members: int) -> None:
        self._server = server
        self._members = [Member(server.dsn, number, ads) for number in range(members)]
        if ids:
            before = time.monotonic()
            fill(server.dsn, SCHEMA, ids, int(time.time() * 1000))
            print(f"filled in {time.monotonic() - before:.0f} s", flush=True)

    def load(self) -> None:
        """Let the members read what is in closed segments."""
        before = time.process_time(), self._server.cpu_seconds(), time.monotonic()
        for member in self._members:
            member.store.bind("bench")
        while any(member.store.closed_segments.unknown for member in self._members):
            time.sleep(0.05)
        client, server = time.process_time() - before[0], self._server.cpu_seconds() - before[1]
        held = sum(member.store.closed_segments.nbytes for member in self._members) / 1e6
        print(
            f"closed segments read in {time.monotonic() - before[2]:.1f} s, "
            f"client {client:.1f} + server {server:.1f} CPU s, {held:.0f} MB of filters",
            flush=True,
        )

    def commit(self, size: int) -> Cost:
        """One flush of so many clicks with new ids by each member at once."""
        flushes = [member.flush(size) for member in self._members]
        before = time.process_time(), self._server.cpu_seconds(), time.monotonic()
        with ThreadPoolExecutor(len(flushes)) as threads:
            for each in [
                threads.submit(member.store.commit, flush)
                for member, flush in zip(self._members, flushes, strict=True)
            ]:
                assert each.result().counted == size
        return Cost(
            time.process_time() - before[0],
            self._server.cpu_seconds() - before[1],
            time.monotonic() - before[2],
            size * len(flushes),
        )

    def bytes_per_id(self) -> float:
        """On disk: table, index, packed digests."""
        with psycopg.connect(self._server.dsn, options=f"-csearch_path={SCHEMA}") as connection:
            row = connection.execute(
                "select sum(pg_total_relation_size(oid)) / (select count(*) from ids) from pg_class"
                " where relkind = 'r' and relname ~ '^(ids|digests)_[0-9]+$'"
            ).fetchone()
        assert row is not None
        return float(row[0])

    def close(self) -> None:
        """Close the members."""
        for member in self._members:
            member.store.close()


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=0, help="how many ids are there already")
    parser.add_argument("--batch", type=int, nargs="+", default=[50_000, 500_000], help="clicks of a flush")
    parser.add_argument("--ads", type=int, default=1_000, help="how many ads there are clicks of")
    parser.add_argument("--members", type=int, default=1, help="how many flush at once")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--set", nargs="*", default=["shared_buffers=3GB", "max_wal_size=4GB"])
    measure(parser.parse_args())


def measure(given: argparse.Namespace) -> None:
    """Print what each flush and all together cost."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), tied=True)
        place.make()
        server = LargePostgres(place, free_ports(1, random.Random())[0], tuple(given.set))
        server.start()
        try:
            bench = Bench(server, given.ids, given.ads, given.members)
            bench.load()
            print_costs(bench, given.batch, given.rounds)
            print(f"{bench.bytes_per_id():.0f} bytes an id")
            print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB of memory at most")
            bench.close()
        finally:
            server.stop()


def print_costs(bench: Bench, batches: Sequence[int], rounds: int) -> None:
    """Flush by flush, then by size."""
    for size in batches:
        costs = [bench.commit(size) for _ in range(rounds)]
        for number, cost in enumerate(costs):
            print(f"round {number + 1}, {size} clicks: client + server {cost}", flush=True)
        print(f"all of {size} clicks: client + server {sum(costs[1:], costs[0])}", flush=True)


if __name__ == "__main__":
    main()
