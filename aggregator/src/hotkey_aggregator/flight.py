"""The flush that is under way, while the next batch is read; and how long anyone waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from hotkey_aggregator.store import Flush, StoreUnavailableError
from hotkey_aggregator.writer import Writer, Written


class Flight:
    """At most one flush at a time. Called by the loop's thread."""

    def __init__(self, writer: Writer, beat: Callable[[], None]) -> None:
        self._writer = writer
        self._beat = beat
        self._future: Future[Written] | None = None
        self._cut_off = False

    @property
    def is_under_way(self) -> bool:
        """Until `land` has told what became of it."""
        return self._future is not None

    @property
    def was_cut_off(self) -> bool:
        """Whether the group took partitions from us, unasked, after the flush was begun."""
        return self._cut_off

    def begin(self, flush: Flush) -> None:
        """Send a flush off."""
        self._future, self._cut_off = self._writer.commit(flush), False

    def cut_off(self) -> None:
        """The group took partitions from us: what is under way may be refused for it."""
        self._cut_off = self._future is not None

    def land(self) -> Written | None:
        """What became of it, once it is done: None before. Raises what the store raised."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def wait(self, deadline: float) -> bool:
        """Until it is done; from `deadline` (monotonic) on it is not tried again. False if not taken.

        Where it is not done even so, the store may still take it, later.
        """
        future = self._future
        if future is None:
            return True
        while not future.done() and time.monotonic() < deadline:
            self._beat()
            wait_for([future], 0.1)
        if not future.done():
            self._writer.give_up()
            wait_for([future], 1.0)
        return future.done() and not isinstance(future.exception(), StoreUnavailableError)

    def forget(self) -> None:
        """What becomes of it is nobody's concern any more."""
        self._future = None
