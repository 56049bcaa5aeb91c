"""Up to which event time the counts are complete, as far as Kafka can tell.

Pure: no clock, no Kafka, no store. A source's own mark is the newest click that was read of it, or, where all
of it was read, the moment when it was asked for its end less the time that a click may take to get there. The
stream's watermark is the oldest mark of its sources, and what was told once is never taken back: when a hot
key's topic is merged back, a new topic joins, or another member takes a partition over, it waits instead.
A mark of a time to come was made by a clock that was ahead: it is not believed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from hotkey_aggregator.store import Position
from hotkey_aggregator.windows import Source

UNKNOWN = -1
TOLERANCE_MILLISECONDS = 60_000
"""How far the clocks of a group's members may be apart."""


def complete_up_to(next_offset: int, end: int, asked_at: int, lateness: int) -> int | None:
    """The mark of a source that has nothing left to read; None when it has.

    `end` is the source's high watermark as a broker gave it after `asked_at`, never one from a cache: a
    source that is not reached looks as quiet as an empty one. Times in unix milliseconds, `lateness` in
    milliseconds.
    """
    return asked_at - lateness if next_offset >= end else None


class Watermark:
    """The oldest mark of all sources of a stream, which only grows."""

    def __init__(self) -> None:
        self._told: int | None = None

    @property
    def told(self) -> int | None:
        """Unix milliseconds; None as long as a source is without a mark."""
        return self._told

    def observe(
        self, positions: Mapping[Source, Position], living: Collection[Source], now: int
    ) -> int | None:
        """Take in the positions that the store holds; returns what is told now, never later than `now`.

        `living` are all logs of the stream's topics as they are now, whoever reads them: logs that are gone
        hold nothing back, those that the store does not know yet do. What was told is taken back only when
        the clock was put back behind it.
        """
        if self._told is not None and is_to_come(self._told, now):
            self._told = None
        marks = [_mark(positions.get(source), now) for source in living]
        if marks and min(marks) != UNKNOWN:
            self._told = max(min(marks), UNKNOWN if self._told is None else self._told)
        return self._told


def is_to_come(mark: int, now: int) -> bool:
    """Whether only a clock that was ahead can have made this mark."""
    return mark > now + TOLERANCE_MILLISECONDS


def believed(position: Position | None, now: int) -> Position | None:
    """A stored position, without a mark that cannot be believed."""
    if position is None or not is_to_come(position.event_time, now):
        return position
    return replace(position, event_time=UNKNOWN)


def _mark(position: Position | None, now: int) -> int:
    found = believed(position, now)
    return UNKNOWN if found is None else min(found.event_time, now)
