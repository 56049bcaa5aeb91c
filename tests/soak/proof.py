"""The proof at the end of a soak, by ids: what was acknowledged, what was counted, how often.

Ids of one run are numbers of numbered producers, so a byte for each number holds millions of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from examples.load.clicks import event_id
from examples.load.journal import acked_numbers, sent_end

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Proof:
    """`lost`: acknowledged, not counted. `doubled`: ids that stand there twice. `unknown`: counted, never
    sent. Of each some are named."""

    acked: int
    counted: int
    lost: int
    doubled: int
    unknown: int
    named: tuple[str, ...] = ()


def prove(run: str, journals: Path, producers: Iterable[int], counted: Iterable[str]) -> Proof:
    """Hold every counted id against what the producers wrote down."""
    times = {number: bytearray(sent_end(journals, number)) for number in producers}
    named: list[str] = []
    unknown = doubled = total = 0
    for name in counted:
        total += 1
        place = _place(run, name, times)
        if place is None:
            unknown += 1
            if len(named) < SHOWN:
                named.append(f"unknown {name}")
            continue
        number, at = place
        if times[number][at]:
            doubled += 1
            if len(named) < SHOWN:
                named.append(f"doubled {name}")
        times[number][at] = 1
    acked = lost = 0
    for number, seen in times.items():
        for at in acked_numbers(journals, number):
            acked += 1
            if not seen[at]:
                lost += 1
                if len(named) < SHOWN:
                    named.append(f"lost {event_id(run, number, at)}")
    return Proof(acked, total, lost, doubled, unknown, tuple(named))


def _place(run: str, name: str, times: dict[int, bytearray]) -> tuple[int, int] | None:
    """The producer and the number of an id; None for one that nobody sent."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] != run or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    number, at = int(parts[1]), int(parts[2])
    return (number, at) if number in times and at < len(times[number]) else None
