"""Runs every part of the checks in order and says how long each took: what `make test` and `make lint` call.

Every part is a process of its own with a bounded time; one that fails does not keep the others from running.
It knows how to start the checkers and nothing of what they check.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TIMED_OUT = 124  # what timeout(1) returns
SLOW_FACTOR = 3  # how much longer a part may take when the slow tests run too
GRACE_SECONDS = 20.0  # for fixtures to stop what they started, before the part's processes are killed


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its commands run one after the other, or side by side, within `limit_seconds` together."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit_seconds: float
    side_by_side: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part ended: the first exit code that was not 0, and the seconds it took."""

    name: str
    code: int
    seconds: float

    @property
    def word(self) -> str:
        if self.code == 0:
            return "ok"
        return "timed out" if self.code == TIMED_OUT else f"FAILED (exit {self.code})"


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

TEST_LIMITS = {"unit": 300, "contract": 600, "simulation": 300, "chart": 600, "stack": 1500}
NAMES = ("lint", "unit", "fetch", "contract", "simulation", "chart", "stack")


# Stack tests mostly wait, so groups that take about as long run side by side, each with a stack of its own.
# In a group files run in the order of its patterns: what kills brokers before what fills them with topics.
# The engine's unit tests compute about as long as all others.
GROUPS = {
    "stack": (
        ("test_*.py", "sdk/*.py", "demo/*.py"),
        ("operator/test_[a-o]*.py", "aggregator/*.py"),
        ("operator/*.py", "*.py"),
    ),
    "unit": (("engine/*.py",), ("*.py",)),
}


def tests(name: str, slow: bool) -> Part:
    """The tests of one folder. pytest's exit code for "no tests" is a failure like any other."""
    selected = ("--hypothesis-profile=thorough",) if slow else ("-m", "not slow")
    groups = groups_of(name) if name in GROUPS else ((f"tests/{name}",),)
    command = (sys.executable, "-m", "pytest", "-q", "--durations=5", *selected)
    limit = TEST_LIMITS[name] * (SLOW_FACTOR if slow else 1)
    return Part(name, tuple((*command, *group) for group in groups), limit, side_by_side=len(groups) > 1)


def groups_of(name: str) -> tuple[tuple[str, ...], ...]:
    """Every test file below a folder of tests, once, in groups."""
    folder = ROOT / "tests" / name
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("test_*.py"))
    groups = []
    for patterns in GROUPS[name]:
        group = [file for pattern in patterns for file in left if _is_of(file, pattern)]
        left = [file for file in left if file not in group]
        groups.append(tuple(f"tests/{name}/{file}" for file in dict.fromkeys(group)))
    assert not left, f"no group of GROUPS has {left}"
    return tuple(groups)


def _is_of(file: str, pattern: str) -> bool:
    """`test_*.py` means files of the folder itself; `*.py` alone means all that is left."""
    return pattern == "*.py" or (file.count("/") == pattern.count("/") and fnmatch(file, pattern))


def part(name: str, slow: bool) -> Part:
    """The part of that name."""
    if name == "lint":
        return LINT
    return fetch(slow) if name == "fetch" else tests(name, slow)


def fetch(slow: bool) -> Part:
    """What the dev stack is made of, and promtool; the controller manager is in slow tests only."""
    more = ("--prometheus", *(("--controller-manager",) if slow else ()))
    return Part("fetch", ((sys.executable, "-m", "devstack", "fetch", *more),), FETCH_LIMIT)


def run_command(command: Sequence[str], limit_seconds: float) -> int:
    """Run one command in a process group of its own; past its limit it is asked to stop, then killed."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    with _stopped_in_the_end(process):
        return _waited_for(process, limit_seconds)


def run_side_by_side(commands: Sequence[Sequence[str]], limit_seconds: float) -> list[int]:
    """Run commands at the same time, as `run_command` does; each one's output is shown in one piece."""
    started = time.monotonic()
    codes = []
    with contextlib.ExitStack() as ended:
        running = []
        for command in commands:
            output = ended.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                command, cwd=ROOT, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
            )
            ended.enter_context(_stopped_in_the_end(process))
            running.append((process, output))
        for process, output in running:
            with _stopped_in_the_end(process):
                codes.append(_waited_for(process, started + limit_seconds - time.monotonic()))
            output.seek(0)
            print(output.read().decode("utf-8", "replace"), flush=True)
    return codes


def _waited_for(process: subprocess.Popen[bytes], limit_seconds: float) -> int:
    try:
        return process.wait(max(limit_seconds, 1.0))
    except subprocess.TimeoutExpired:
        print(f"{process.args!r} did not end within {limit_seconds:.0f} s", flush=True)
        return TIMED_OUT


@contextlib.contextmanager
def _stopped_in_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for signal_number in (signal.SIGINT, signal.SIGKILL):
            if process.poll() is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)


def run_part(part: Part) -> Outcome:
    """Run all commands of a part, also those after one that failed."""
    print(f"\n=== {part.name}", flush=True)
    started = time.monotonic()
    if part.side_by_side:
        codes = run_side_by_side(part.commands, part.limit_seconds)
        return Outcome(part.name, next(filter(None, codes), 0), time.monotonic() - started)
    codes = []
    for command in part.commands:
        codes.append(run_command(command, started + part.limit_seconds - time.monotonic()))
    return Outcome(part.name, next(filter(None, codes), 0), time.monotonic() - started)


def report(outcomes: Sequence[Outcome]) -> str:
    """The table at the end: one line a part, and the time of all."""
    lines = [f"{o.name:<12}{o.seconds:>8.1f} s  {o.word}" for o in outcomes]
    total = f"{'all':<12}{sum(o.seconds for o in outcomes):>8.1f} s"
    return "\n".join(["", "part            time", *lines, total])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named parts, or all of them; 0 only when every one of them passed."""
    parser = argparse.ArgumentParser(prog="tests/run.py", description="Runs lint and the tests by part.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--all", action="store_true", help="run the slow tests too")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(NAMES))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    # A shell without job control starts its background jobs deaf to SIGINT, and they would hand that down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [name for name in NAMES if not options.parts or name in options.parts]
    outcomes = [run_part(part(name, options.all)) for name in chosen]
    print(report(outcomes), flush=True)
    return 1 if any(outcome.code for outcome in outcomes) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
