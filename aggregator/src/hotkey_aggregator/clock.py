"""The time, and what Kafka's records tell of it: a badly set clock must not make the store forget.

A broker takes no record whose timestamp is more than an hour ahead of its own clock
(`message.timestamp.after.max.ms`). So the newest timestamp that was read tells how late it is at least.
"""

from __future__ import annotations

import time
from collections.abc import Callable

DAY_MILLISECONDS = 24 * 3_600_000
MOST_AHEAD_MILLISECONDS = 3_600_000
"""What a record may be ahead of the broker's clock."""
LONGEST_DISTRUST_MILLISECONDS = 7 * DAY_MILLISECONDS
"""Records that all bear old timestamps must not make the store keep everything for ever: after so long in one
process the time since its start is believed, which no jump of the clock is part of."""


def wall_milliseconds() -> int:
    """Unix milliseconds of this machine's clock."""
    return int(time.time() * 1000)


def steady_milliseconds() -> int:
    """Milliseconds since some moment, whatever is done to the clock."""
    return int(time.monotonic() * 1000)


class Clock:
    """Times in unix milliseconds."""

    def __init__(
        self,
        wall: Callable[[], int] = wall_milliseconds,
        steady: Callable[[], int] = steady_milliseconds,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._started, self._steady_start = wall(), steady()
        self._newest = 0

    def now(self) -> int:
        """What this machine's clock says."""
        return self._wall()

    def saw(self, timestamp: int) -> None:
        """A record bore this timestamp."""
        self._newest = max(self._newest, timestamp)

    def to_forget_by(self) -> int | None:
        """The time by which the store may let things go; None as long as no record tells anything of it.

        While no records come nothing is added either, so nothing needs to go.
        """
        if not self._newest:
            return None
        now = self.now()
        running = self._steady() - self._steady_start
        believed = self._newest
        if running >= LONGEST_DISTRUST_MILLISECONDS:
            believed = max(believed, self._started + running - LONGEST_DISTRUST_MILLISECONDS)
        return min(now, believed)

    def behind(self) -> int:
        """By how much this clock is surely behind the brokers'; 0 where that does not show."""
        difference = self._newest - self.now()
        return difference if difference > MOST_AHEAD_MILLISECONDS else 0
