"""A store that does not answer: since when and why, told by one line when it begins and one when it ends."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from hotkey_aggregator.logfmt import line

log = logging.getLogger("hotkey_aggregator")


@dataclass(frozen=True, slots=True)
class Outage:
    """Since when (monotonic seconds) the store does not answer, and what it said last."""

    since: float
    reason: str


class Outages:
    """The outage that lasts, if one does. One thread at a time notes; any reads."""

    def __init__(self) -> None:
        self._current: Outage | None = None

    @property
    def current(self) -> Outage | None:
        """None while the store answers."""
        return self._current

    def note(self, error: Exception) -> None:
        """The store did not answer."""
        before = self._current
        if before is None:
            log.warning(line("store_unavailable", detail=error, then="it is tried again until it answers"))
        self._current = Outage(time.monotonic() if before is None else before.since, str(error))

    def end(self) -> None:
        """The store answered."""
        if self._current is not None:
            log.info(line("store_available", seconds=f"{time.monotonic() - self._current.since:.1f}"))
            self._current = None
