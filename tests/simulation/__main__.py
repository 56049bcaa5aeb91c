"""`python -m tests.simulation --seeds N --from K [--trace]`: runs seeds, says how to replay a failed one."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.run import Report, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="simulate seeded faults")
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument("--trace", action="store_true", help="print what happened, event by event")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        report = simulate(seed)
        if arguments.trace:
            print("\n".join(report.trace))
        if report.problems:
            failed += 1
            print(explained(report))
    print(f"{arguments.seeds - failed} of {arguments.seeds} seeds held")
    return 1 if failed else 0


def explained(report: Report) -> str:
    """The problems of a run, its faults, and the command that replays it."""
    faults = "\n".join(f"    {fault.at:6.2f} s  {fault.kind}" for fault in report.faults)
    problems = "\n".join(f"  {problem}" for problem in report.problems)
    replay = f"python -m tests.simulation --seeds 1 --from {report.seed} --trace"
    return f"seed {report.seed} failed:\n{problems}\n  faults:\n{faults}\n  replay: {replay}"


if __name__ == "__main__":
    sys.exit(main())
