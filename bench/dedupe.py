"""`python -m bench.dedupe`: what a flush into a DuckDB store costs, by its size and the ids that are there.

Prints Markdown. Each store is made by SQL, with ids spread over 24 hours, and measured in a process
of its own. CPU is that of the whole process, DuckDB's threads and a last checkpoint included, and not what
makes the clicks; memory is the most that the process had, the clicks of this benchmark included.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import tempfile
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import msgspec

from bench.duckdb_fill import SEGMENTS, fill
from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.store import HOUR_MILLISECONDS, Flush, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source

PARTITIONS, ADVERTISERS, ADS = 48, 5_000, 2_000
HOT_SHARE = 0.8
START = 472_222 * HOUR_MILLISECONDS
SOURCES = tuple(Source("clicks", partition, "bench") for partition in range(PARTITIONS))


class Figures(msgspec.Struct):
    """Of one store."""

    ids: int
    bytes_an_id: float
    open_seconds: float
    open_cpu_seconds: float
    open_mib: float
    flushes: dict[str, tuple[float, float]]
    """CPU microseconds a click and the most memory (MiB) until then, by what was flushed."""
    merge_microseconds: float = 0.0
    """CPU for each click that was flushed."""


@dataclass
class Meter:
    """CPU seconds of this process while it was on."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def on(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.monotonic()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.monotonic() - wall


@dataclass
class Stream:
    """Clicks as a flush has them: UUIDs, 80 % of one advertiser."""

    dice: random.Random = field(default_factory=lambda: random.Random(1))
    at: int = 0
    now: int = START

    def flush(self, size: int) -> Flush:
        digits, draw = os.urandom(16 * size).hex(), self.dice.random
        first, self.at = self.at, self.at + -(-size // PARTITIONS)
        self.now += 5_000
        clicks = Clicks(
            event_ids=[uuid(digits, 32 * n) for n in range(size)],
            advertiser_ids=[
                "nike" if draw() < HOT_SHARE else f"advertiser-{int(draw() * ADVERTISERS)}"
                for _ in range(size)
            ],
            ad_ids=[f"ad-{int(draw() * ADS)}" for _ in range(size)],
            click_times=array("q", [self.now - int(draw() * 5_000) for _ in range(size)]),
            costs=array("q", bytes(8 * size)),
            digests=array("q", os.urandom(8 * size)),
            source_of=array("q", [n % PARTITIONS for n in range(size)]),
            offsets=array("q", [first + n // PARTITIONS for n in range(size)]),
            sources=SOURCES,
        )
        return Flush(clicks, moves=moves(first or None, self.at), now=self.now)


def uuid(digits: str, at: int) -> str:
    """A random UUID as text, of 32 hexadecimal digits."""
    a, b, c, d = at + 8, at + 12, at + 16, at + 20
    return f"{digits[at:a]}-{digits[a:b]}-{digits[b:c]}-{digits[c:d]}-{digits[d : at + 32]}"


def moves(expected: int | None, to: int) -> tuple[OffsetMove, ...]:
    """All partitions from one offset to another."""
    return tuple(OffsetMove(source, expected, Position(to)) for source in SOURCES)


def measured(path: Path, ids: int, bytes_an_id: float, sizes: list[int], clicks: int) -> Figures:
    """Open a store and flush into it."""
    opening = Meter()
    with opening.on():
        store = DuckDBStore(path)
    figures = Figures(ids, bytes_an_id, opening.wall, opening.cpu, most_mib(), {})
    stream, flush = Stream(), Flush()
    for size in sizes:
        meter, rounds = Meter(), max(1, clicks // size)
        for _ in range(rounds):
            flush = stream.flush(size)
            with meter.on():
                store.commit(flush)
        with meter.on():
            store._file.connection.execute("checkpoint")
        figures.flushes[f"{size:,}"] = meter.cpu / (rounds * size) * 1e6, most_mib()
    for name, again in (
        ("1 in 1,000 of them of the last flush", old_ids(store, sizes[-1] // 1_000, 1)),
        ("1 in 1,000 of them of all hours", old_ids(store, sizes[-1] // 1_000, SEGMENTS + 1)),
        ("all of them of the last flush", list(flush.clicks.event_ids)),
    ):
        meter, fresh = Meter(), stream.flush(sizes[-1])
        mixed = replace(fresh.clicks, event_ids=[*again, *fresh.clicks.event_ids[len(again) :]])
        with meter.on():
            committed = store.commit(replace(fresh, clicks=mixed))
        assert committed.duplicates == len(again), committed
        figures.flushes[f"{sizes[-1]:,}, {name}"] = meter.cpu / sizes[-1] * 1e6, most_mib()
    meter = Meter()
    with meter.on():
        store.expire(stream.now)
    figures.merge_microseconds = meter.cpu / (len(sizes) * clicks) * 1e6
    store.close()
    return figures


def old_ids(store: DuckDBStore, ids: int, segments: int) -> list[str]:
    """Ids that the store has, of its last segments."""
    numbers = [n for (n,) in store._file.rows("select number from segments order by number desc")][:segments]
    each = -(-ids // len(numbers))
    taken = [store._file.rows(f"select event_id from ids_{n} using sample {each} rows") for n in numbers]
    return [event_id for rows in taken for (event_id,) in rows][:ids]


def most_mib() -> float:
    """The most memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(all_figures: list[Figures]) -> str:
    """The figures in Markdown."""
    heads = [f"{figures.ids:,} ids there" for figures in all_figures]
    lines = [["", *heads], ["---", *("---:" for _ in heads)]]
    for name in all_figures[0].flushes:
        cells = [f"{f.flushes[name][0]:.2f} µs, {f.flushes[name][1]:,.0f} MiB" for f in all_figures]
        lines.append([f"flushes of {name}", *cells])
    merged = [f"{f.merge_microseconds:.2f} µs" for f in all_figures]
    lines.append(["merging their counts, for each click", *merged])
    opened = [
        f"{f.open_seconds:.1f} s ({f.open_cpu_seconds:.1f} s CPU), {f.open_mib:,.0f} MiB" for f in all_figures
    ]
    lines.append(["opening", *opened])
    lines.append(["bytes of the file an id", *(f"{f.bytes_an_id:.1f}" for f in all_figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure each number of ids in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.dedupe", description=__doc__)
    parser.add_argument("--ids", type=int, nargs="+", default=[0, 10_000_000, 100_000_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 100_000, 200_000, 500_000])
    parser.add_argument("--clicks", type=int, default=2_000_000, help="of each size (default 2,000,000)")
    options = parser.parse_args()
    spawn, all_figures = get_context("spawn"), []
    for ids in options.ids:
        with tempfile.TemporaryDirectory(prefix="hotkey-dedupe-") as folder:
            path = Path(folder) / "counts.duckdb"
            with ProcessPoolExecutor(1, spawn) as making:
                making.submit(fill, path, ids, START, PARTITIONS).result()
            bytes_an_id = path.stat().st_size / ids if ids else 0.0
            with ProcessPoolExecutor(1, spawn) as measuring:
                sought = measuring.submit(measured, path, ids, bytes_an_id, options.sizes, options.clicks)
                all_figures.append(sought.result())
    print(table(all_figures))


if __name__ == "__main__":
    main()
