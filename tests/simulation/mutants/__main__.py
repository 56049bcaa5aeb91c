"""`make mutants`: breaks each invariant in turn; ends with 1 when one is not found by what has to find it.

`python -m tests.simulation.mutants [NAME ...] [--seeds N] [--from K] [--jobs N] [--trace | --docs]`
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

from tests.simulation.__main__ import explained
from tests.simulation.mutants.catalogue import MUTANTS
from tests.simulation.mutants.hunt import Found, Tested, command_of, hunt, passes, replay, tested
from tests.simulation.mutants.mutant import Mutant
from tests.simulation.mutants.table import Row, as_text, write_docs

CHUNK = 20  # seeds of one mutant at a time


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when every mutant was found."""
    options = _parser().parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS.values() if not options.names or mutant.name in options.names]
    if options.trace:
        for mutant in chosen:
            report = replay(mutant, options.first)
            print("\n".join(report.trace))
            print(explained(report) if report.problems else f"seed {report.seed} holds on {mutant.name}")
        return 0
    began = time.monotonic()
    rows = find(chosen, range(options.first, options.first + options.seeds), options.jobs)
    print(as_text(rows))
    if options.docs:
        write_docs(rows)
    survived = [row.mutant.name for row in rows if not row.is_found]
    told = f"; these survived: {', '.join(survived)}" if survived else ""
    print(
        f"{len(rows) - len(survived)} of {len(rows)} mutants found in {time.monotonic() - began:.0f} s{told}"
    )
    return 1 if survived else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.mutants", description="find every mutant"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MUTANTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many at most")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--trace", action="store_true", help="replay the first seed only, event by event")
    parser.add_argument("--docs", action="store_true", help="write the table to docs/invariants.md")
    return parser


def find(mutants: Sequence[Mutant], seeds: range, jobs: int) -> list[Row]:
    """Run the simulation and the plain test of each mutant; in the order of the mutants."""
    sound = passes({mutant.test for mutant in mutants})
    if sound.failed:
        raise SystemExit(f"the plain tests do not even pass without a mutant: {sound.words}")
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return _Search(pool, mutants, seeds).rows()


class _Search:
    """Hands out tests and seeds: of each mutant one part at a time, lest seeds are run for nothing."""

    def __init__(self, pool: ProcessPoolExecutor, mutants: Sequence[Mutant], seeds: range) -> None:
        self._pool = pool
        self._mutants = mutants
        self._seeds = seeds
        self._began = time.monotonic()
        self._tests: dict[Future[Tested], Mutant] = {pool.submit(tested, m.name): m for m in mutants}
        self._hunts: dict[Future[Found | None], tuple[Mutant, range]] = {}
        self._tested: dict[str, Tested] = {}
        self._found: dict[str, Found] = {}
        for mutant in mutants:
            if mutant.seeded is not None:
                self._go_on(mutant, seeds.start)

    def rows(self) -> list[Row]:
        while self._tests or self._hunts:
            under_way: list[Future[Any]] = [*self._tests, *self._hunts]
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for each in [each for each in self._tests if each in done]:
                self._take_test(each)
            for one in [one for one in self._hunts if one in done]:
                self._take_hunt(one)
        return [
            Row(mutant, self._tested[mutant.name], self._found.get(mutant.name), self._seeds)
            for mutant in self._mutants
        ]

    def _go_on(self, mutant: Mutant, first: int) -> None:
        part = range(first, min(first + CHUNK, self._seeds.stop))
        if part:
            self._hunts[self._pool.submit(hunt, mutant.name, part)] = mutant, part
        else:
            self._tell(mutant, f"NOT found in {len(self._seeds)} seeds")

    def _take_test(self, done: Future[Tested]) -> None:
        mutant, outcome = self._tests.pop(done), done.result()
        self._tested[mutant.name] = outcome
        what = "its plain test fails" if outcome.failed else "its plain test does NOT fail"
        self._tell(mutant, f"{what}: {outcome.words[:120]}")

    def _take_hunt(self, done: Future[Found | None]) -> None:
        mutant, part = self._hunts.pop(done)
        found = done.result()
        if found is None:
            self._tell(mutant, f"not in seeds {part.start} to {part.stop - 1}")
            self._go_on(mutant, part.stop)
            return
        self._found[mutant.name] = found
        self._tell(
            mutant, f"seed {found.seed}: {found.problem[:120]}; again: {command_of(mutant, found.seed)}"
        )

    def _tell(self, mutant: Mutant, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.0f} s  {mutant.name}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
