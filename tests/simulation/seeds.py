"""Many seeds, one after the other or in several processes, and what to say of one that failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from tests.simulation.run import Report, simulate

CHUNK = 5  # seeds that a process is given at once


def run_seeds(first: int, count: int, jobs: int = 1) -> Iterator[Report]:
    """The reports of `count` seeds from `first` on, in order, without their traces."""
    seeds = range(first, first + count)
    if jobs == 1:
        yield from map(without_trace, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(without_trace, seeds, chunksize=CHUNK)


def without_trace(seed: int) -> Report:
    return replace(simulate(seed), trace=[])


def idle_processors() -> int:
    """As many as there are, less those that others keep busy; at least one."""
    return max(1, round((os.cpu_count() or 1) - os.getloadavg()[0]))


def replay(seed: int) -> str:
    """The one command that runs a seed again and prints what happened."""
    return f"python -m tests.simulation --from {seed} --seeds 1 --trace"


def explained(report: Report) -> str:
    """The problems of a run, its faults, and the command that replays it."""
    faults = "\n".join(
        f"    {fault.at:6.2f} s  {fault.kind}" + (f", for {fault.seconds:.1f} s" if fault.seconds else "")
        for fault in report.faults
    )
    problems = "\n".join(f"  {problem}" for problem in report.problems)
    return f"seed {report.seed} failed:\n{problems}\n  faults:\n{faults}\n  replay: {replay(report.seed)}"
