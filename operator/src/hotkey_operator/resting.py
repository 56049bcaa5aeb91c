"""When a policy's loop turns: every second, but where very many partitions are governed quiet streams rest.

A resting stream is glanced at, so that a table that Redis lost is published again within 5 s. Most of its
turns only look for heat: the object and the topic, which only people change, are read now and then. Pure:
time and chance are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

TURN_SECONDS = 1.0
GLANCE_SECONDS = 3.0
FACTS_SECONDS = 30.0  # a resting stream's object and topic are read so often


class Next(StrEnum):
    """What to do now. A look is a turn that reads neither the object nor the topic's facts."""

    TURN = "turn"
    LOOK = "look"
    GLANCE = "glance"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Told:
    """What Kubernetes tells of a policy; a turn is due when it changes."""

    generation: int
    rival: str | None
    allowed_topics: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class Rest:
    """Of one policy's loop. All times are seconds of one monotonic clock."""

    told: Told | None = None  # at the last turn
    begun: bool = False
    due: float = float("-inf")
    glanced_at: float = float("-inf")
    read_at: float = float("-inf")  # the last whole turn

    def next(self, told: Told, rests: bool, now: float, pace_seconds: float, chance: float) -> Next:
        """`rests`: whether the last turn saw nothing that needs one every second; `chance`: in 0..1.

        The first pause has a random length, as else streams that were found together turn together for ever.
        """
        if not rests or told != self.told or pace_seconds <= TURN_SECONDS:
            self.begun = False
            return self._turn(told, now, now)
        if not self.begun:
            self.begun, self.due = True, now + pace_seconds * chance
        if now >= self.due:
            if now < self.read_at + FACTS_SECONDS:
                self.glanced_at, self.due = now, now + pace_seconds
                return Next.LOOK
            return self._turn(told, now, now + pace_seconds)
        if now >= self.glanced_at + GLANCE_SECONDS:
            self.glanced_at = now
            return Next.GLANCE
        return Next.NOTHING

    def _turn(self, told: Told, now: float, due: float) -> Next:
        self.told, self.glanced_at, self.due, self.read_at = told, now, due, now
        return Next.TURN
