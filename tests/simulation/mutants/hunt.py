"""Looks for a mutant: runs seeds on it until one shows the problem that it has to, and its plain test.

Nothing counts that a sound product shows too: the same seed has to hold, and the same test to pass, without
the mutant.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutants.catalogue import MUTANTS
from tests.simulation.mutants.mutant import Mutant, Seeded
from tests.simulation.run import Report, simulate

ROOT = Path(__file__).parents[3]
TEST_SECONDS = 300.0
PLUGIN = "tests.simulation.mutants.plugin"


@dataclass(frozen=True, slots=True)
class Found:
    """A seed that shows the mutant, and the words that do."""

    seed: int
    problem: str


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of a mutant's plain test; `words`: the first of its failure."""

    failed: bool
    words: str


def replay(mutant: Mutant, seed: int) -> Report:
    """One seed on the mutant."""
    faults = mutant.seeded.faults(seed) if mutant.seeded else None
    with mutant.patch():
        return simulate(seed, mutant.parts, faults)


def hunt(name: str, seeds: range) -> Found | None:
    """The first of the seeds that shows the mutant of that name and holds without it."""
    mutant = MUTANTS[name]
    if mutant.seeded is None:
        return None
    for seed in filter(mutant.seeded.on.has, seeds):
        problem = _shown(mutant.seeded, replay(mutant, seed).problems)
        if problem is not None and not simulate(seed, faults=mutant.seeded.faults(seed)).problems:
            return Found(seed, problem)
    return None


def _shown(seeded: Seeded, problems: Collection[str]) -> str | None:
    return next((each for each in problems if any(words in each for words in seeded.says)), None)


def command_of(mutant: Mutant, seed: int) -> str:
    """What replays a seed on the mutant, with its trace."""
    return f"python -m tests.simulation.mutants {mutant.name} --from {seed} --seeds 1 --trace"


def tested(name: str) -> Tested:
    """Run the plain test of the mutant of that name on it."""
    code, words = _pytest(["--mutant", name, "-x", MUTANTS[name].test])
    return Tested(code == 1, words)


def passes(nodes: Collection[str]) -> Tested:
    """Run plain tests on the sound product, where none may fail."""
    code, words = _pytest(sorted(nodes))
    return Tested(code != 0, words)


def _pytest(arguments: Collection[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", PLUGIN, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TEST_SECONDS
    )
    lines = done.stdout.splitlines()
    said = [line[1:].strip() for line in lines if line.startswith("E ")] or lines[-1:] or [done.stderr[-300:]]
    return done.returncode, said[0]
