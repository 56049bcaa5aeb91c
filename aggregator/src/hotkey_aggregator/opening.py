"""The store before it is open: a database that is away at the start is waited for, and said to be away.

A store that refuses (a wrong password, a file in use, another release's schema) ends the start instead.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from hotkey_aggregator.outage import Outages
from hotkey_aggregator.store import Store, StoreUnavailableError
from hotkey_aggregator.writer import pause_seconds


class Opening:
    """Opens a store by `open_store` as soon as that can be done. `close` closes it, if it came about."""

    def __init__(self, open_store: Callable[[], Store], outages: Outages) -> None:
        self._open_store = open_store
        self._outages = outages
        self._store: Store | None = None
        self._dice = random.Random()

    def store(self) -> Store:
        """For readers in any thread: the store, or StoreUnavailableError while it is not open."""
        if self._store is None:
            outage = self._outages.current
            raise StoreUnavailableError(f"the store is not open yet: {outage.reason if outage else 'wait'}")
        return self._store

    def try_once(self) -> Store | None:
        """Open it; None if it does not answer now. Raises StoreError when it will not be opened so."""
        try:
            self._store = self._open_store()
        except StoreUnavailableError as error:
            self._outages.note(error)
        else:
            self._outages.end()
        return self._store

    def wait(self, stop: threading.Event, turn: Callable[[], None]) -> Store | None:
        """Try until it is open; None when `stop` was set before. `turn` is called at each try."""
        attempt = 0
        while self._store is None and not stop.wait(pause_seconds(attempt, self._dice)):
            turn()
            self.try_once()
            attempt += 1
        return self._store

    def close(self) -> None:
        """Release the store."""
        if self._store is not None:
            self._store.close()
