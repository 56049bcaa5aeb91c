"""The soak on the command line: `python -m tests.soak --help`."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack.errors import StackError
from tests.soak.programs import ROOT
from tests.soak.run import Plan, Soak, write
from tests.soak.summary import Goals
from tests.soak.world import Scale, World, new_world

FULL_SECONDS = 1_800.0
MORE_SECONDS = 120.0
"""So much longer a run goes on whose goals are not reached yet."""
SECONDS_PER_FAULT = 16.0
FULL = Goals(changes=200, own_changes=40, faults=100, records_per_second=2_000)
FOLDER = ROOT / ".soak"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Changes routes under load while processes are killed, and proves by ids that nothing is "
        "lost or counted twice. The seed draws the load and the faults.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=FULL_SECONDS, help="how long faults strike (default 1800)")
    add("--seed", type=int, default=None, help="to draw the same again (default: a new one)")
    add(
        "--rate",
        type=float,
        default=2_000.0,
        help="records/s of all producers (default 2000; more in surges)",
    )
    add("--faults", type=int, default=None, help="how many (default: one each 16 seconds)")
    add("--folder", type=Path, default=FOLDER, help="for logs and summary; emptied first (default .soak)")
    add("--summary", type=Path, default=None, help="where else to write the summary as JSON")
    return parser.parse_args(arguments)


def goals(seconds: float) -> Goals:
    """Those of a full run; a shorter one has to lose nothing, and no more."""
    return FULL if seconds >= FULL_SECONDS else Goals()


def soak(world: World, plan: Plan, options: argparse.Namespace) -> int:
    """0 when nothing is wrong with what came of it."""
    try:
        world.start()
        summary = Soak(world, plan, lambda text: print(text, flush=True)).run()
    finally:
        world.stop()
    (world.folder / "summary.json").write_bytes(write(summary))
    if options.summary is not None:
        options.summary.write_bytes(write(summary))
    print(summary.text())
    if summary.breaches:
        print(f"logs: {world.folder}; again: python -m tests.soak --seed {summary.seed} ...")
        return 1
    for data in (world.folder / "stack" / "data", world.journals):
        shutil.rmtree(data, ignore_errors=True)
    print(f"summary: {world.folder / 'summary.json'}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all held; 1: something did not; 2: it could not be started."""
    options = parse(arguments)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    count = int(options.seconds / SECONDS_PER_FAULT) if options.faults is None else options.faults
    print(f"seed {seed}: {options.seconds:.0f} s, {count} faults, {options.rate:.0f} records/s", flush=True)
    shutil.rmtree(options.folder, ignore_errors=True)
    world = new_world(options.folder.absolute(), Scale(options.rate, seed))
    plan = Plan.full(seed, options.seconds, count, goals(options.seconds), MORE_SECONDS)
    try:
        return soak(world, plan, options)
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell without job control starts its background jobs deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
