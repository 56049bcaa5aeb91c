"""`python -m tests.simulation --seeds N --from K [--jobs J] [--trace]`: runs seeds, tells how to replay."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.run import simulate
from tests.simulation.seeds import explained, idle_processors, run_seeds

__all__ = ["explained", "main"]

TELL_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="simulate seeded faults")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: as many as are idle)")
    parser.add_argument("--trace", action="store_true", help="print what happened, event by event")
    arguments = parser.parse_args()
    if arguments.trace:
        return _traced(arguments.first, arguments.seeds)
    return _told(arguments.first, arguments.seeds, arguments.jobs or idle_processors())


def _traced(first: int, seeds: int) -> int:
    failed = False
    for seed in range(first, first + seeds):
        report = simulate(seed)
        print("\n".join(report.trace))
        print(explained(report) if report.problems else f"seed {seed} held")
        failed = failed or bool(report.problems)
    return int(failed)


def _told(first: int, seeds: int, jobs: int) -> int:
    started = told_at = time.monotonic()
    failed = records = dedicated = resent = 0
    for done, report in enumerate(run_seeds(first, seeds, jobs), 1):
        records, dedicated = records + report.records, dedicated + report.dedicated
        resent += report.resent
        if report.problems:
            failed += 1
            print(explained(report), flush=True)
        if time.monotonic() - told_at >= TELL_SECONDS:
            told_at = time.monotonic()
            print(f"{done} of {seeds} seeds, {failed} failed, {_rate(done, started)}", flush=True)
    sent = f"{records:,} records, {dedicated:,} to dedicated topics, {resent:,} of those sent again to base"
    print(f"{seeds - failed} of {seeds} seeds held ({_rate(seeds, started)}, {jobs} processes; {sent})")
    return 1 if failed else 0


def _rate(seeds: int, since: float) -> str:
    return f"{60 * seeds / (time.monotonic() - since):.0f} seeds a minute"


if __name__ == "__main__":
    sys.exit(main())
