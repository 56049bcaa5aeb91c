"""Up to which event time the counts are complete, as far as Kafka can tell.

Pure: no clock, no Kafka, no store. A source's own mark is the newest click that was read of it, or, where all
of it was read, the moment when it was asked for its end less the time that a click may take to get there. The
stream's watermark is the oldest mark of its sources, and what was told once is never taken back: when a hot
key's topic is merged back, a new topic joins, or another member takes a partition over, it waits instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hotkey_aggregator.store import Position
from hotkey_aggregator.windows import Source

UNKNOWN = -1


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

    def observe(self, positions: Mapping[Source, Position], living: Collection[Source]) -> int | None:
        """Take in the positions that the store holds; returns what is told now.

        `living` are all logs of the stream's topics as they are now, whoever reads them: logs that are gone
        hold nothing back, those that the store does not know yet do.
        """
        marks = [_mark(positions.get(source)) for source in living]
        if marks and min(marks) != UNKNOWN:
            self._told = max(min(marks), UNKNOWN if self._told is None else self._told)
        return self._told


def _mark(position: Position | None) -> int:
    return UNKNOWN if position is None else position.event_time
