"""What a part of the benchmarks is, and how one is run: in a process of its own, so that no part's threads,
memory or failure touch another's.

A part is a module, found by its name in `PARTS`, with

    measure(run: Run) -> R            R: a frozen msgspec Struct that keeps the raw values
    section(result: R) -> str         its Markdown, from `## Title` on: how, the figures, what they mean

and, where it has them,

    goals(result: R) -> Sequence[Goal]    figures with the most that they may be, for met or NOT met
    plots(result: R) -> Sequence[Plot]    pictures, shown after the section
    headline(result: R) -> str            Markdown for the top of the report

`section`, `goals`, `plots` and `headline` are pure: `python -m bench --render` calls them on stored results.
This module knows no part.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import msgspec

from bench.machine import ROOT
from devstack import StackError
from devstack.process import launcher
from examples.demo.errors import DemoError
from examples.load import LoadError

PARTS = {
    "imbalance": "bench.imbalance",
    "onset": "bench.onset",
    "overhead": "bench.overhead",
    "operator": "bench.operator_cost",
    "planner": "bench.planner",
    "sink": "bench.sink",
    "stability": "bench.stability",
    "members": "bench.members",
    "freshness": "bench.freshness",
    "propagation": "bench.propagation",
    "dedicated": "bench.dedicated",
    "resend": "bench.resend",
}
ANSWER = "answer.json"  # what a part's process leaves in its folder


class Run(msgspec.Struct, frozen=True):
    """How to measure. `folder`: an empty one, for all that a part starts; it is deleted afterwards.

    `quick`: so small that it only shows that the part works (seconds, for tests); the report says so.
    `onsets`, `rounds`, `records`: the sizes of the parts `onset` and `overhead`.
    """

    folder: str
    seed: int = 1
    quick: bool = False
    onsets: int = 40
    rounds: int = 140
    records: int = 10_000

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def say(self, text: str) -> None:
        """Show progress: one line."""
        print(text, flush=True)


class Goal(msgspec.Struct, frozen=True):
    """A figure and the most that it may be, both in `unit`."""

    what: str
    found: float
    at_most: float
    unit: str = ""

    @property
    def word(self) -> str:
        """Whether it was reached."""
        return "met" if self.found <= self.at_most else "NOT met"


class Plot(msgspec.Struct, frozen=True):
    """A picture. `name`: of its file, without the ending; `alt`: what it shows, for who cannot see it."""

    name: str
    alt: str
    svg: str


class Answer(msgspec.Struct, frozen=True):
    """What came of a part: its result, or why there is none."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: str | None = None


def _nothing(_: Any) -> Sequence[Any]:
    return ()


def _silent(_: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part's functions; those that it does not have give nothing. `result`: the type of its results."""

    name: str
    result: type[msgspec.Struct]
    measure: Callable[[Run], msgspec.Struct]
    section: Callable[[Any], str]
    goals: Callable[[Any], Sequence[Goal]]
    plots: Callable[[Any], Sequence[Plot]]
    headline: Callable[[Any], str]

    @classmethod
    def load(cls, name: str) -> Self:
        """The part of this name. Raises `ImportError` when its module is not there."""
        module = import_module(PARTS[name])
        return cls(
            name=name,
            result=typing.get_type_hints(module.measure)["return"],
            measure=module.measure,
            section=module.section,
            goals=getattr(module, "goals", _nothing),
            plots=getattr(module, "plots", _nothing),
            headline=getattr(module, "headline", _silent),
        )


def measured(name: str, run: Run) -> Answer:
    """Measure a part in a process of its own and wait for it, whatever becomes of it."""
    run.root.mkdir(parents=True)
    command = [sys.executable, "-m", "bench.part", name, msgspec.json.encode(run).decode()]
    tied = launcher("-", os.getpid(), "keep", command)
    process = subprocess.Popen(tied, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()  # it stops what it started
        process.wait()
        raise
    try:
        return msgspec.json.decode((run.root / ANSWER).read_bytes(), type=Answer)
    except FileNotFoundError:
        return Answer(failure=f"its process ended with {code} and left no result")


def main() -> int:
    """The process of one part."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name, run = sys.argv[1], msgspec.json.decode(sys.argv[2], type=Run)
    try:
        answer = Answer(result=msgspec.Raw(msgspec.json.encode(Part.load(name).measure(run))))
    except KeyboardInterrupt:
        return 130
    except (DemoError, LoadError, StackError, ImportError) as error:
        answer = Answer(failure=str(error))
    except Exception as error:
        traceback.print_exc()
        answer = Answer(failure=f"{type(error).__name__}: {error}")
    (run.root / ANSWER).write_bytes(msgspec.json.encode(answer))
    return 0 if answer.failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
