"""`python -m bench [PART ...]`: measures, shows progress, and writes the report: OUT/report.md, OUT/img/*.svg
and OUT/results.json with every raw value, from which `--render` makes the report again."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.machine import ROOT, machine, versions
from bench.part import PARTS, Run, measured
from bench.report import IMAGES, Measured, Report, Results, report

RESULTS, REPORT = "results.json", "report.md"
DOCS, DOCS_NAME = ROOT / "docs", "benchmarks"  # docs/benchmarks.md and .json
QUICK = Run("", quick=True, onsets=1, rounds=2, records=2_000)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="so small that it only shows that it works")
    parser.add_argument("--onsets", type=int, help=f"how many (default {Run('').onsets})")
    parser.add_argument("--rounds", type=int, help=f"of the part overhead (default {Run('').rounds})")
    parser.add_argument(
        "--records", type=int, help=f"a case and round of the part overhead (default {Run('').records})"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", help="default: bench/out")
    parser.add_argument(
        "--from", dest="source", type=Path, help="the results to tell (default OUT/results.json)"
    )
    parser.add_argument("--keep", action="store_true", help="keep what OUT holds of the other parts")
    parser.add_argument("--render", action="store_true", help="measure nothing: make OUT's report again")
    parser.add_argument(
        "--docs", action="store_true", help=f"measure nothing: write OUT's report as docs/{DOCS_NAME}.md"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.parts and (options.render or options.docs):
        parser.error(f"{'--docs' if options.docs else '--render'} takes all parts that OUT holds")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every part was measured, whatever the figures; 1 when one failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse(arguments)
    source = options.source or options.out / RESULTS
    try:
        if options.docs:
            return _publish(source)
        if not options.render:
            _measure(options)
        made = _written(_read(source), options.out, REPORT)
    except KeyboardInterrupt:
        print("interrupted: nothing was left running", file=sys.stderr)
        return 130
    except (OSError, msgspec.DecodeError) as error:
        print(f"there are no results to tell: {error}; measure first: make bench", file=sys.stderr)
        return 1
    print(f"\n{made.markdown}\nwritten to {options.out}")
    if made.failed:
        print(f"failed: {', '.join(made.failed)}", file=sys.stderr)
    return 1 if made.failed else 0


def _measure(options: argparse.Namespace) -> None:
    """Measure part by part; after each, what there is stands in OUT."""
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / RESULTS
    results = _read(file) if options.keep and file.exists() else Results()
    for name in [name for name in PARTS if name in (options.parts or PARTS)]:
        results = results.plus(_measured(name, options))
        file.write_bytes(_encoded(results))


def _measured(name: str, options: argparse.Namespace) -> Measured:
    print(f"== {name}", flush=True)
    on, made_of, started = machine(), versions(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hotkey-bench-", ignore_cleanup_errors=True) as folder:
        answer = measured(name, _run(options, Path(folder) / name))
    if answer.failure is not None:
        print(f"{name} failed: {answer.failure}", file=sys.stderr)
    took = time.monotonic() - started
    return Measured(name, _command_of(name, options), on, made_of, round(took, 1), options.quick, answer)


def _run(options: argparse.Namespace, folder: Path) -> Run:
    start = QUICK if options.quick else Run("")
    sizes = {name: getattr(options, name) for name in ("onsets", "rounds", "records")}
    given = {name: size for name, size in sizes.items() if size is not None}
    return msgspec.structs.replace(start, folder=str(folder), seed=options.seed, **given)


def _command_of(name: str, options: argparse.Namespace) -> str:
    """The command that measures this part alone in the same way."""
    words = ["python", "-m", "bench", name]
    words += ["--quick"] if options.quick else []
    for option in ("onsets", "rounds", "records"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option}", str(value)]
    words += ["--seed", str(options.seed)] if options.seed != 1 else []
    return shlex.join(words)


def _encoded(results: Results) -> bytes:
    return msgspec.json.format(msgspec.json.encode(results)) + b"\n"


def _read(file: Path) -> Results:
    return msgspec.json.decode(file.read_bytes(), type=Results)


def _written(results: Results, folder: Path, name: str) -> Report:
    made = report(results)
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(made.markdown)
    for file, svg in made.images.items():
        (folder / IMAGES / file).write_text(svg)
    return made


def _publish(source: Path) -> int:
    """Copy the results into docs/ and write the report there; nothing of a quick run or a failed part."""
    results = _read(source)
    if poor := [each.part for each in results.measured if each.quick or each.answer.failure is not None]:
        print(f"not published, these parts are quick or failed: {', '.join(poor)}", file=sys.stderr)
        return 1
    (DOCS / f"{DOCS_NAME}.json").write_bytes(_encoded(results))
    _written(results, DOCS, f"{DOCS_NAME}.md")
    print(f"written to docs/{DOCS_NAME}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
