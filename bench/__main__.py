"""`python -m bench`: measures, shows progress, writes bench/out/report.md and bench/out/results.json."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import onset, overhead
from bench.figures import Cost, Onset
from bench.machine import ROOT, machine, versions
from bench.report import Results, markdown
from devstack import StackError
from examples.demo.errors import DemoError
from examples.load import LoadError

PARTS = ("onset", "overhead")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--onsets", type=int, default=24, help="how many (default 24)")
    parser.add_argument("--rounds", type=int, default=9, help="paired rounds of the CPU figures (default 9)")
    parser.add_argument(
        "--records", type=int, default=100_000, help="records a case and round (default 100000)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the moments of onset and the order of the cases"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", help="default: bench/out")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def run(options: argparse.Namespace, root: Path, command: str) -> Results:
    """Measure what was asked for; everything that is started lives under `root` and is stopped again."""
    parts, on, made_of = options.parts or PARTS, machine(), versions()
    onsets = _onsets(root / "onset", options.onsets, options.seed) if "onset" in parts else []
    costs = _costs(root / "overhead", options) if "overhead" in parts else []
    return Results(command, on, made_of, onsets, costs, overhead.PEERS)


def _onsets(root: Path, count: int, seed: int) -> list[Onset]:
    onsets = []
    for number, figure in enumerate(onset.measure(root, count, seed), 1):
        print(f"onset {number} of {count}: spread after {figure.slowest_producer:.2f} s", flush=True)
        onsets.append(figure)
    return onsets


def _costs(root: Path, options: argparse.Namespace) -> list[list[Cost]]:
    rounds = []
    for costs in overhead.measure(root, options.rounds, options.records, options.seed):
        rounds.append(costs)
        shown = ", ".join(f"{cost.case} {cost.process:.2f}" for cost in costs)
        print(f"round {len(rounds)} of {options.rounds}, CPU us per record: {shown}", flush=True)
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything was measured, whatever the figures."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "bench", *given])
    try:
        with tempfile.TemporaryDirectory(prefix="hotkey-bench-") as root:
            results = run(options, Path(root), command)
    except (DemoError, LoadError, StackError) as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was left running", file=sys.stderr)
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    report = markdown(results)
    (options.out / "report.md").write_text(report)
    print(f"\n{report}\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
