"""What a million events cost while a consumer works steadily, of samples that were taken at its commits.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Sample:
    """At a commit: events that are committed, CPU seconds of all processes that do the work, and a clock."""

    events: int
    cpu: float
    wall: float


class Steady(msgspec.Struct, frozen=True):
    """What so many events took."""

    events: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds."""
        return self.cpu_seconds / self.events * 1e6

    @property
    def per_wall_second(self) -> float:
        """Events."""
        return self.events / self.wall_seconds


class NotSteadyError(ValueError):
    """There were too few events between the warm-up and the end."""


def steady(samples: Sequence[Sample], warm: int, until: int, least: int) -> Steady:
    """From the first commit with `warm` events to the last with no more than `until`, at least `least`
    between.

    What is read ahead of a commit is about as much at both ends, so it cancels out; therefore the end must be
    one at which there was still something to read.
    """
    inner = [sample for sample in samples if warm <= sample.events <= until]
    if not inner or inner[-1].events - inner[0].events < least:
        seen = [sample.events for sample in samples]
        raise NotSteadyError(
            f"expected commits that are {least:,} events apart between {warm:,} and {until:,}, found {seen}"
        )
    first, last = inner[0], inner[-1]
    return Steady(
        last.events - first.events, round(last.cpu - first.cpu, 3), round(last.wall - first.wall, 3)
    )
