"""A mutant: the product with one invariant of the design switched off, and which checks have to notice.

It is broken from outside, by patches of the product's functions and by parts of the simulation that are
exchanged: the product itself has no switch.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any
from unittest.mock import patch

from tests.simulation import scenario as scenarios
from tests.simulation.faults import Fault, Kind, draw
from tests.simulation.parts import REAL, Parts
from tests.simulation.scenario import Bystander, Shape

Patch = AbstractContextManager[object]

INVARIANTS = range(1, 13)
PRODUCT = ("hotkey_operator", "hotkey_sdk", "hotkey_aggregator")


class On(StrEnum):
    """Which seeds are run: those of the policies that can show the mutant at all."""

    ANY = "any policy"
    DEDICATED = "policies with dedicated topics"
    PER_KEY = "policies with an order per key"
    UNLISTED = "policies that do not name a group"
    NOT_FOLLOWING = "policies with a group that does not follow"

    def has(self, seed: int) -> bool:
        scenario = scenarios.of(seed)
        match self:
            case On.PER_KEY:
                return scenario.shape is Shape.PER_KEY
            case On.UNLISTED:
                return scenario.dedicates and scenario.bystander is Bystander.UNLISTED
            case On.NOT_FOLLOWING:
                return scenario.dedicates and scenario.bystander is Bystander.DOES_NOT_FOLLOW
        return scenario.dedicates or self is On.ANY


@dataclass(frozen=True, slots=True)
class Seeded:
    """That the simulation finds a mutant: by a problem with any of the words of `says`.

    To find it sooner, other seeds than those of `on` are passed over, and only faults of the kinds `only` are
    drawn; empty: of all kinds, as ever.
    """

    says: tuple[str, ...]
    on: On = On.ANY
    only: frozenset[Kind] = frozenset()

    def faults(self, seed: int) -> tuple[Fault, ...] | None:
        """Those of a seed; None: the ones that it has in every other run."""
        scenario = scenarios.of(seed)
        kinds = self.only - scenario.never
        if not self.only:
            return None
        return draw(Random(seed), scenario.seasons, set(Kind) - kinds, scenario.thaw_at) if kinds else ()

    def run(self, seeds: range) -> int:
        """How many of them are not passed over."""
        return sum(self.on.has(seed) for seed in seeds)

    @property
    def bias(self) -> str:
        """In words for people; empty where there is none."""
        on = () if self.on is On.ANY else (str(self.on),)
        kinds = (f"faults only: {', '.join(sorted(self.only))}",) if self.only else ()
        return "; ".join((*on, *kinds))


def said(*words: str, on: On = On.ANY, only: tuple[Kind, ...] = ()) -> Seeded:
    """Found by a problem with any of these words."""
    return Seeded(words, on, frozenset(only))


@dataclass(frozen=True, slots=True)
class Mutant:
    """One thing that is broken. `breaks`: what, in a sentence; `test`: a pytest node that fails of it.

    `patch` holds while it is entered. `parts`: of the simulation. `seeded` None: the simulation is not what
    finds it, and `unseen` says why.
    """

    name: str
    invariant: int
    breaks: str
    test: str
    patch: Callable[[], Patch] = nullcontext
    parts: Parts = field(default=REAL)
    seeded: Seeded | None = None
    unseen: str = ""


@contextlib.contextmanager
def all_of(*patches: Patch) -> Iterator[None]:
    """Several patches at once."""
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield


@contextlib.contextmanager
def everywhere(function: Callable[..., Any], by: Callable[..., Any]) -> Iterator[None]:
    """Replace a function of the product under every name by which its modules call it.

    The simulation's own checks keep the real one, or they would judge by what is broken.
    """
    found = [
        (module, name)
        for package, module in list(sys.modules.items())
        if package.split(".")[0] in PRODUCT
        for name, value in list(vars(module).items())
        if value is function
    ]
    assert found, f"nothing calls {function}"
    with ExitStack() as stack:
        for module, name in found:
            stack.enter_context(patch.object(module, name, by))
        yield


def method(of: type, name: str, by: Callable[..., Any]) -> Patch:
    """Replace a method; its name has to exist, so that no mutant is empty once the product was changed."""
    return patch.object(of, name, by)


def returning(value: Any) -> Callable[..., Any]:
    """A function that answers with this, whatever it is asked."""
    return lambda *_, **__: value
