"""Which keys are hot when, and how much is sent, as the seed draws it: routes change all the time. Pure.

A cycle has three phases. Some keys are hot, and get shards; then one is so hot that the base topic cannot
hold it with the others, and gets a topic of its own; then it is calm, and they come back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SURGE = 1.8
"""What is sent in a surge, in usual rates. The policy's trigger lies between."""
AGAIN = 0.2
"""The part of hot keys that were hot before: the operator keeps those longer, as they may flap."""


@dataclass(frozen=True, slots=True)
class Phase:
    """So many usual rates from `at` seconds on, of which each key has its share, 0..1."""

    at: float
    rate: float
    shares: Mapping[str, float]

    @property
    def is_surge(self) -> bool:
        """Whether one key needs a topic of its own."""
        return self.rate > 1.0


CALM = Phase(0.0, 1.0, {})


def phases(chance: random.Random) -> Iterator[Phase]:
    """One phase after the other, without end."""
    known: list[str] = []

    def key() -> str:
        if known and chance.random() < AGAIN:
            return chance.choice(known)
        known.append(f"hot-{len(known)}")
        return known[-1]

    at = 0.0
    while True:
        spread = {key(): round(chance.uniform(0.18, 0.26), 3) for _ in range(chance.randint(2, 3))}
        yield Phase(at, 1.0, spread)
        at += chance.uniform(8, 12)
        yield Phase(at, SURGE, {key(): round(chance.uniform(0.5, 0.6), 3)})
        at += chance.uniform(14, 18)
        yield Phase(at, 1.0, {})
        at += chance.uniform(3, 6)
