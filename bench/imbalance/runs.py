"""Measures the part: hotkey on every load with the real operator, then the peers with the same records."""

from __future__ import annotations

from collections.abc import Iterator

from bench.imbalance import rivals, trial
from bench.imbalance.draws import USERS, Mix
from bench.imbalance.rows import Imbalance, Row, Workload
from bench.imbalance.trial import PRODUCERS, Trial
from bench.part import Run
from examples.demo.system import System

SHARE, KEYS, ZIPF = 0.8, 1_000, 1.0
BY_USER = "user_id"
TEXTBOOK = Mix.counted(nike=80_000, adidas=8_000, puma=12_000)
TEXTBOOK_PARTITIONS = 3


class Sizes:
    """How much is sent where: of the full run, or of a quick one."""

    def __init__(self, *, quick: bool) -> None:
        self.partitions = (6,) if quick else (12, 48, 96)
        self.zipf_partitions = (6,) if quick else (12, 48)
        self.textbook_by = ("",) if quick else ("", BY_USER)
        self.each = 2_000 if quick else 60_000
        self.zipf_each = 2_000 if quick else 20_000
        self.live_rate = 800.0 if quick else 400.0  # records/s per partition, of all producers together
        self.least_rate = 5_000.0
        self.settled_seconds = 3.0 if quick else 10.0

    def live(self, partitions: int) -> float:
        """Records per second of a whole live load."""
        return max(self.least_rate, self.live_rate * partitions)


def measure(run: Run) -> Imbalance:
    """All rows, shown as they are measured."""
    sizes, rows = Sizes(quick=run.quick), []
    for row in _rows(run, sizes):
        of = f"{row.workload}, {row.partitions} partitions, {row.method}{' by ' + row.by if row.by else ''}"
        run.say(f"{of}: imbalance {row.imbalance:.3f}, {row.pairs} pairs")
        rows.append(row)
    return Imbalance(
        rows=tuple(rows),
        share=SHARE,
        keys=KEYS,
        users=USERS,
        zipf=ZIPF,
        producers=PRODUCERS,
        records_per_partition=sizes.each,
        zipf_records_per_partition=sizes.zipf_each,
        live_rate=sizes.live_rate,
        settled_seconds=sizes.settled_seconds,
    )


def _rows(run: Run, sizes: Sizes) -> Iterator[Row]:
    system = System(run.root / "stack")
    try:
        system.start()
        system.start_operator()
        for each in trials(sizes, run.seed):
            yield trial.row(system, each)
        even = Mix.one_hot(SHARE, KEYS)
        for n in sizes.partitions:
            yield from rivals.rows(system, Workload.ONE_HOT, even, n, n * sizes.each, run.seed)
        count = int(sum(TEXTBOOK.parts))
        yield from rivals.rows(system, Workload.TEXTBOOK, TEXTBOOK, TEXTBOOK_PARTITIONS, count, run.seed)
    finally:
        system.stop()


def trials(sizes: Sizes, seed: int) -> Iterator[Trial]:
    """hotkey's loads."""

    def trial(workload: Workload, partitions: int, mix: Mix, by: str, count: int) -> Trial:
        live = sizes.live(partitions)
        return Trial(workload, partitions, mix, by, count, live, sizes.settled_seconds, seed)

    even, zipf = Mix.one_hot(SHARE, KEYS), Mix.one_hot(SHARE, KEYS, ZIPF)
    for n in sizes.partitions:
        for by in ("", BY_USER):
            yield trial(Workload.ONE_HOT, n, even, by, n * sizes.each)
    for n in sizes.zipf_partitions:
        yield trial(Workload.ZIPF, n, zipf, BY_USER, n * sizes.zipf_each)
    count = int(sum(TEXTBOOK.parts))
    for by in sizes.textbook_by:
        yield trial(Workload.TEXTBOOK, TEXTBOOK_PARTITIONS, TEXTBOOK, by, count)
