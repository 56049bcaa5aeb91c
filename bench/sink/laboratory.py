"""The broker, the server, the filled stores, and the rounds in which every row is measured."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bench import duckdb_fill, postgres_fill
from bench.aggregators import new_database
from bench.part import Run
from bench.postgres_fill import LargePostgres
from bench.sink.events import Traffic, send
from bench.sink.rows import INSTALL_QUIX, Counter, Ground, Held, Plain, Quix, Sink
from bench.sink.watching import Measure, Stretch, Topic, measured
from devstack import Stack
from devstack.part import Place
from devstack.ports import free_ports
from hotkey_aggregator.postgres_store import PostgresStore
from hotkey_aggregator.stores import SCHEMA

PARTITIONS, TOPIC = 48, "clicks"
MILLION = 1_000_000
SIZES = {"0": 0, "10M": 10 * MILLION, "100M": 100 * MILLION}
SETTINGS = (
    "shared_buffers=4GB",
    "fsync=on",
    "full_page_writes=on",
    "max_wal_size=16GB",
    "checkpoint_timeout=30min",
)
"""As docs/postgres-store.md would have a server for 100 million ids; durable, other than the development
stack's."""

ALL_ROWS = (
    "duckdb-0",
    "duckdb-10M",
    "duckdb-100M",
    "postgres-0",
    "postgres-10M",
    "postgres-100M",
    "quix",
    "plain",
    "plain-ids",
)
QUICK_ROWS = ("duckdb-0", "duckdb-10M", "postgres-10M", "quix", "plain-ids")


class Plan(msgspec.Struct, frozen=True):
    """Which rows, how often, over how many events. `once`: rows that are measured in the first round only.
    `count`: events of a round; those from the first commit with `warm` of them to the last but `tail` are
    measured, and must be `least`. `scale`: of the ids that are there already. `flags`: more flags of every
    aggregator. `commit_seconds`: of Quix Streams; `commit_events`: of the plain loops."""

    rows: tuple[str, ...] = ALL_ROWS
    rounds: int = 3
    count: int = 3_400_000
    warm: int = 400_000
    tail: int = 400_000
    least: int = 2_000_000
    once: tuple[str, ...] = ("quix",)
    scale: float = 1.0
    flags: tuple[str, ...] = ()
    commit_seconds: float = 5.0
    commit_events: int = 100_000

    @classmethod
    def quick(cls) -> Self:
        """Seconds."""
        return cls(
            rows=QUICK_ROWS,
            rounds=1,
            count=60_000,
            warm=10_000,
            tail=10_000,
            least=20_000,
            scale=0.001,
            flags=("--flush-seconds=0.3", "--max-pending=5000"),
            commit_seconds=0.2,
            commit_events=5_000,
        )

    def ids(self, row: str) -> int:
        """How many ids a row's store holds before the first round; the same number in each of 25 segments."""
        return int(SIZES.get(row.partition("-")[2], 0) * self.scale) // 25 * 25

    @property
    def stretch(self) -> Stretch:
        """Of each round."""
        return Stretch(self.warm, self.least, self.tail)

    def wants(self, kind: str) -> list[str]:
        """Its rows of a kind."""
        return [row for row in self.rows if row.partition("-")[0] == kind]


class Laboratory:
    """A context: all that it starts ends with it."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run, self._plan = run, plan
        self._opened = ExitStack()
        self._kept: dict[str, Sink] = {}
        self._server: LargePostgres | None = None
        self.missing: dict[str, str] = {}
        self.value_bytes = 0.0
        self.quix = Quix.version() if "quix" in plan.rows else None

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            stack = opening.enter_context(
                Stack(self._run.root / "stack", kubernetes=False, redis=False, busy_brokers=True)
            )
            self._ground = Ground(stack.root, stack.kafka.bootstrap, TOPIC, PARTITIONS)
            if self._plan.wants("postgres"):
                self._server = self._postgres()
                opening.callback(self._server.stop)
            self._topic = Topic(stack.kafka.bootstrap, TOPIC, PARTITIONS)
            self._topic.create()
            self._opened = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def measures(self) -> list[Measure]:
        """Every row in every round."""
        self._fill_stores()
        found = list[Measure]()
        for number in range(self._plan.rounds):
            self._fill_topic(number)
            for counter in self._counters(number):
                one = measured(counter, self._topic, self._plan.stretch)
                self._run.say(
                    f"round {number + 1}, {one.row}: {one.steady.cpu_per_million:.2f} CPU s a million, "
                    f"{one.steady.per_wall_second:,.0f} events/s, {one.peak_megabytes:,.0f} MB"
                )
                found.append(one)
        return found

    def _fill_topic(self, number: int) -> None:
        began = time.monotonic()
        self._topic.clear()
        start = int(time.time() * 1000) - 60_000
        count = self._plan.count
        size = send(
            self._ground.bootstrap, TOPIC, Traffic(PARTITIONS, count, start, seed=self._run.seed + number)
        )
        self.value_bytes = round(size / count, 1)
        self._run.say(
            f"{count:,} clicks of {self.value_bytes} bytes sent in {time.monotonic() - began:.0f} s"
        )

    def _counters(self, number: int) -> Iterator[Counter]:
        for row in self._plan.rows:
            if row == "quix":
                if self.quix is None:
                    self.missing[row] = INSTALL_QUIX
                elif not number or row not in self._plan.once:
                    yield Quix(row, f"{row}-{number}", self._ground, self._plan.commit_seconds)
            elif row in ("plain", "plain-ids"):
                ids = row == "plain-ids"
                yield Plain(row, f"{row}-{number}", self._ground, self._plan.commit_events, ids)
            else:
                yield self._kept.get(row) or self._fresh(row, number)

    def _fresh(self, row: str, number: int) -> Sink:
        """A store that holds nothing."""
        if row.startswith("duckdb"):
            return self._on_duckdb(row, self._run.root / f"{row}-{number}.duckdb", Held())
        return self._on_postgres(row, new_database(self._postgres_server.dsn, f"{row}-{number}"), Held())

    def _on_duckdb(self, row: str, path: Path, held: Held) -> Sink:
        return Sink(row, self._ground, f"duckdb:{path}", held, self._plan.flags)

    def _on_postgres(self, row: str, dsn: str, held: Held) -> Sink:
        return Sink(row, self._ground, dsn, held, self._plan.flags, self._postgres_server)

    @property
    def _postgres_server(self) -> LargePostgres:
        assert self._server is not None, "no row needs a server"
        return self._server

    def _postgres(self) -> LargePostgres:
        place = Place(self._run.root / "server", tied=True)
        place.make()
        server = LargePostgres(place, free_ports(1, random.Random())[0], SETTINGS)
        server.start()
        return server

    def _fill_stores(self) -> None:
        """Stores that hold ids: DuckDB files and PostgreSQL databases side by side."""
        now, began = int(time.time() * 1000), time.monotonic()
        filling = dict[str, Future[None]]()
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for row in self._plan.rows:
                ids = self._plan.ids(row)
                if ids and row.startswith("duckdb"):
                    path = self._run.root / f"{row}.duckdb"
                    filling[row] = pool.submit(duckdb_fill.fill, path, ids, now, PARTITIONS)
                    self._kept[row] = self._on_duckdb(row, path, Held(ids, ids))
                elif ids:
                    dsn = new_database(self._postgres_server.dsn, row)
                    filling[row] = pool.submit(_fill_postgres, dsn, ids, now)
                    self._kept[row] = self._on_postgres(row, dsn, Held(0, ids))
            for row, filled in filling.items():
                filled.result()
                self._run.say(
                    f"{row}: {self._plan.ids(row):,} ids there after {time.monotonic() - began:.0f} s"
                )


def _fill_postgres(dsn: str, ids: int, now: int) -> None:
    PostgresStore(dsn).close()  # it makes the schema
    postgres_fill.fill(dsn, SCHEMA, ids, now)
