"""`python -m bench.sink --rows duckdb-0 postgres-0`: some rows of the part `sink` alone, for who works on
them."""

from __future__ import annotations

import argparse
import signal
import tempfile

import msgspec

from bench.part import Run
from bench.sink import section, sinks
from bench.sink.laboratory import ALL_ROWS, Plan


def main() -> None:
    """Measure as the command line says and print the table."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=__doc__)
    parser.add_argument("--rows", nargs="+", default=list(ALL_ROWS), choices=ALL_ROWS, help="default: all")
    parser.add_argument("--rounds", type=int, default=1, help="default 1")
    parser.add_argument("--events", type=int, default=plan.count, help=f"of a round (default {plan.count:,})")
    parser.add_argument("--scale", type=float, default=1.0, help="of the ids that are there (default 1)")
    parser.add_argument("--flag", action="append", default=[], help="one more flag of every aggregator")
    given = parser.parse_args()
    plan = msgspec.structs.replace(
        plan,
        rows=tuple(given.rows),
        rounds=given.rounds,
        count=given.events,
        least=min(plan.least, (given.events - plan.warm - plan.tail) // 2),
        scale=given.scale,
        flags=tuple(given.flag),
    )
    with tempfile.TemporaryDirectory(prefix="hotkey-sink-", ignore_cleanup_errors=True) as folder:
        print(section(sinks(Run(folder), plan)))


if __name__ == "__main__":
    main()
