"""How a stream is counted: what people set and the loop goes by. Values alone."""

from __future__ import annotations

from dataclasses import dataclass

from hotkey_aggregator.store import Keeping


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """When what was counted goes to the store: at the latest after `seconds`, earlier when it is much."""

    seconds: float = 5.0
    events: int = 200_000
    bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rules:
    """How a stream is counted."""

    topic: str
    limits: FlushLimits
    keeping: Keeping
    lateness_milliseconds: int
    """What a click may take from its time until it is in Kafka, for a log without news to be complete."""
