"""The proof that nothing was lost and nothing counted twice: by ids and cells, never by totals. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import TypeVar

SHOWN = 5

Cell = TypeVar("Cell")


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the clicks: how many were sent, acknowledged and counted, and the ids that stand wrong.

    `lost`: acknowledged, not counted. `doubled`: counted more than once. `unknown`: counted, never sent.
    A click that was sent but not acknowledged may be counted or not; it must not be counted twice.
    """

    sent: int
    acked: int
    counted: int
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """True when every acknowledged click was counted exactly once and none that was never sent."""
        return not (self.lost or self.doubled or self.unknown)

    def __str__(self) -> str:
        wrong = [
            f"{len(ids)} {name} (such as {', '.join(ids[:SHOWN])})"
            for name, ids in (("lost", self.lost), ("doubled", self.doubled), ("unknown", self.unknown))
            if ids
        ]
        result = "; ".join(wrong) or "0 lost, 0 doubled, 0 unknown"
        return f"{self.sent} sent, {self.acked} acknowledged, {self.counted} counted: {result}"


def prove(sent: Set[str], acked: Set[str], counted: Iterable[str]) -> Proof:
    """Hold the ids that were counted (each as often as it was) against those sent and acknowledged."""
    times = Counter(counted)
    return Proof(
        sent=len(sent),
        acked=len(acked),
        counted=sum(times.values()),
        lost=tuple(sorted(acked - times.keys())),
        doubled=tuple(sorted(name for name, n in times.items() if n > 1)),
        unknown=tuple(sorted(times.keys() - sent)),
    )


def wrong_cells(expected: Mapping[Cell, int], counted: Mapping[Cell, int]) -> dict[Cell, tuple[int, int]]:
    """The cells, such as (advertiser, minute), that differ, each with what was expected and what counted."""
    return {
        cell: (expected.get(cell, 0), counted.get(cell, 0))
        for cell in expected.keys() | counted.keys()
        if expected.get(cell, 0) != counted.get(cell, 0)
    }
