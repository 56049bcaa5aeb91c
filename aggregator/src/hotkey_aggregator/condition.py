"""How the running aggregator is: told by its loop, read by the HTTP server's threads."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """One moment's state. Times in unix milliseconds."""

    partitions: int = 0
    joined: bool = False
    """Whether the group has given out partitions, were it none."""
    lag_records: int | None = None
    """Records of the assigned partitions that were not read yet; None: not known yet."""
    watermark: int | None = None
    committed_at: int | None = None
    """When the store last took a flush."""
    paused: bool = False
    store_outage: str | None = None
    """What the store said last, while it does not answer."""
    kafka_silent: bool = False
    """Whether Kafka has told nothing for some time."""
    unplaced: int = 0
    """Assigned partitions of which it is not known yet where to read on."""

    @property
    def not_ready_because(self) -> tuple[str, ...]:
        """Why no one should rely on the counts getting newer; empty when all is well."""
        reasons = []
        if self.store_outage is not None:
            reasons.append(f"the store does not answer: {self.store_outage}")
        if not self.joined:
            reasons.append("Kafka has given no partitions to this member of the group yet")
        if self.kafka_silent:
            reasons.append("Kafka does not answer: what it holds is not read")
        if self.unplaced:
            reasons.append(f"of {self.unplaced} partitions it is not known where to read on: see the log")
        return tuple(reasons)


class Told:
    """The latest condition, and when the loop last turned."""

    def __init__(self) -> None:
        self.condition = Condition()
        self._last = time.monotonic()

    def beat(self) -> None:
        """The loop turned."""
        self._last = time.monotonic()

    @property
    def age_seconds(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._last
