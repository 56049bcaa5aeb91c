"""Runs every part of the checks and says how long each took: what `make test` and `make lint` call.

Every part is a process of its own with a bounded time; one that fails does not keep the others from running.
It knows how to start the checkers and nothing of what they check.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests import side_by_side
from tests.side_by_side import ROOT, TIMED_OUT, Job, Outcome

BIN = Path(sys.executable).parent
SLOW_FACTOR = 3  # how much longer a job may take when the slow tests run too


@dataclass(frozen=True, slots=True)
class Part:
    """One part that must be alone: its commands run one after the other, within `limit_seconds` together."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit_seconds: float


LINT = Part(
    "lint",
    (
        (str(BIN / "ruff"), "check", "."),
        (str(BIN / "ruff"), "format", "--check", "."),
        (str(BIN / "mypy"),),
        (str(BIN / "lint-imports"), "--no-logo"),
    ),
    300,
)

# Downloads and builds once per machine; a build inside a test would look like a test that hangs.
FETCH_LIMIT = 1500


@dataclass(frozen=True, slots=True)
class Group:
    """Test files that one pytest runs, in the order of the patterns, and with one stack of its own.

    `test_*.py` means files of the part's folder itself, `*.py` alone all that no other group has.
    """

    part: str
    name: str
    patterns: tuple[str, ...]
    limit_seconds: float
    computes: bool = False  # and waits for nothing: it leaves the processors to those that do
    alone: bool = False  # after all others: it loads the machine by itself


# In the order in which they are started: the longest first, so that none is left alone at the end.
GROUPS = (
    Group(
        "stack", "operator, a to l and the plugin", ("operator/test_[a-l]*.py", "operator/test_pl*.py"), 1500
    ),
    Group("stack", "aggregator, m to z", ("aggregator/test_[mnoq-z]*.py",), 1500),
    Group("unit", "engine", ("engine/*.py",), 600, computes=True),
    Group("stack", "aggregator, a to l", ("aggregator/test_[a-l]*.py",), 1500),
    Group("stack", "operator, m to z", ("operator/*.py",), 1500),
    Group("stack", "aggregator, postgres", ("aggregator/*.py",), 1500),
    # What kills brokers runs before what fills them with topics.
    Group("stack", "devstack, sdk, demo, crds", ("test_*.py", "sdk/*.py", "demo/*.py", "*.py"), 1500),
    Group("unit", "all others", ("*.py",), 600),
    Group("contract", "", ("*.py",), 600),
    Group("chart", "", ("*.py",), 600),
    Group("simulation", "", ("*.py",), 600, computes=True),
    Group("soak", "", ("*.py",), 900, alone=True),
)
LANES = 4  # on two cores: a stack test mostly waits
NAMES = ("lint", "fetch", *dict.fromkeys(group.part for group in GROUPS))


def jobs(parts: Sequence[str], slow: bool, *, alone: bool = False) -> list[Job]:
    """The tests of those parts that run side by side, or those that run alone.

    pytest's exit code for "no tests" is a failure like any other.
    """
    files = {part: files_of(part) for part in parts}
    chosen = [group for group in GROUPS if group.part in parts and group.alone is alone]
    return [_job(group, files[group.part][group], slow) for group in chosen]


def _job(group: Group, files: Sequence[str], slow: bool) -> Job:
    selected = ("--hypothesis-profile=thorough",) if slow else ("-m", "not slow")
    told = ("-p", "tests.progress", "--progress-file", "{progress}")
    command = (sys.executable, "-m", "pytest", "-q", "--durations=5", *told, *selected, *files)
    limit = group.limit_seconds * (SLOW_FACTOR if slow else 1)
    name = f"{group.part} ({group.name})" if group.name else group.part
    return Job(name, ("nice", *command) if group.computes else command, limit)


def files_of(part: str) -> dict[Group, tuple[str, ...]]:
    """Every test file below the folder of a part, once, by group."""
    folder = ROOT / "tests" / part
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("test_*.py"))
    found = {}
    for group in (group for group in GROUPS if group.part == part):
        files = [file for pattern in group.patterns for file in left if _is_of(file, pattern)]
        left = [file for file in left if file not in files]
        found[group] = tuple(f"tests/{part}/{file}" for file in dict.fromkeys(files))
    assert not left, f"no group of GROUPS has {left}"
    return found


def _is_of(file: str, pattern: str) -> bool:
    return pattern == "*.py" or (file.count("/") == pattern.count("/") and fnmatch(file, pattern))


def fetch(slow: bool) -> Part:
    """What the dev stack is made of, and promtool; the controller manager is in slow tests only."""
    more = ("--prometheus", *(("--controller-manager",) if slow else ()))
    return Part("fetch", ((sys.executable, "-m", "devstack", "fetch", *more),), FETCH_LIMIT)


def run_command(command: Sequence[str], limit_seconds: float) -> int:
    """Run one command in a process group of its own; past its limit it is asked to stop, then killed."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(max(limit_seconds, 1.0))
    except subprocess.TimeoutExpired:
        print(f"{process.args!r} did not end within {limit_seconds:.0f} s", flush=True)
        return TIMED_OUT
    finally:
        side_by_side.stop(process, (signal.SIGINT, signal.SIGKILL))


def run_part(part: Part) -> Outcome:
    """Run all commands of a part, also those after one that failed."""
    print(f"\n=== {part.name}", flush=True)
    started = time.monotonic()
    codes = []
    for command in part.commands:
        codes.append(run_command(command, started + part.limit_seconds - time.monotonic()))
    return Outcome(part.name, next(filter(None, codes), 0), time.monotonic() - started)


def report(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The table at the end: one line for each, and the time of all, of which some ran side by side."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = [f"{o.name:<{width}}{o.seconds:>8.1f} s  {o.word}" for o in outcomes]
    return "\n".join(["", f"{'part':<{width}}    time", *lines, f"{'all':<{width}}{seconds:>8.1f} s"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named parts, or all of them; 0 only when every one of them passed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.run", description="Runs lint and the tests by part."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--all", action="store_true", help="run the slow tests too")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(NAMES))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    # A shell without job control starts its background jobs deaf to SIGINT, and they would hand that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started = time.monotonic()
    chosen = [name for name in NAMES if not options.parts or name in options.parts]
    alone = {"lint": LINT, "fetch": fetch(options.all)}
    outcomes = [run_part(alone[name]) for name in chosen if name in alone]
    outcomes += _tests([name for name in chosen if name not in alone], options.all)
    print(report(outcomes, time.monotonic() - started), flush=True)
    return 1 if any(outcome.code for outcome in outcomes) else 0


def _tests(parts: Sequence[str], slow: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for todo, lanes, how in (
        (jobs(parts, slow), LANES, "side by side"),
        (jobs(parts, slow, alone=True), 1, "alone"),
    ):
        if todo:
            names = ", ".join(dict.fromkeys(job.name.split(" (")[0] for job in todo))
            print(f"\n=== tests: {names}, {how}; what each says follows when it is done", flush=True)
            outcomes += side_by_side.run(todo, lanes)
    return outcomes


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
