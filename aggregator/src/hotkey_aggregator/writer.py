"""The one thread that writes to the store, and how it goes on when the store does not answer.

A flush is tried until the store has taken or refused it: nothing of it is ever left out. It knows no Kafka.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hotkey_aggregator.logfmt import line
from hotkey_aggregator.outage import Outages
from hotkey_aggregator.store import (
    Committed,
    Flush,
    OffsetConflictError,
    Position,
    Store,
    StoreError,
    StoreUnavailableError,
    was_committed,
)
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a flush, and where the store stood after it."""

    flush: Flush
    committed: Committed
    positions: Mapping[Source, Position]
    seconds: float
    """What the last, successful try took."""


def pause_seconds(attempt: int, dice: random.Random) -> float:
    """Seconds to wait after a failed attempt (the first is 0): doubling, bounded, jittered."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(attempt, 16))
    return float(longest * (0.5 + dice.random() / 2))


class Writer:
    """Writes to `store` in a thread of its own, in the order in which it is told to."""

    def __init__(
        self,
        store: Store,
        on_retry: Callable[[], None] = lambda: None,
        dice: random.Random | None = None,
        outages: Outages | None = None,
    ) -> None:
        self._store = store
        self._on_retry = on_retry
        self._dice = dice or random.Random()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._give_up = threading.Event()
        self._question: Future[None] | None = None
        self.outages = outages or Outages()
        """Of a store that did not take the last flush."""

    def commit(self, flush: Flush) -> Future[Written]:
        """Write a flush, however long it takes.

        The future raises what the store raised when it can not or must not do it, and `StoreUnavailableError`
        after `give_up` alone.
        """
        self._give_up.clear()
        return self._thread.submit(self._commit, flush)

    def do(self, job: Callable[[], Any]) -> Future[Any]:
        """Run another writing call of the store, once."""
        return self._thread.submit(job)

    def ask(self, now: int) -> None:
        """When the store did not answer and there is nothing to flush: ask whether it does again.

        What waited may have been given up with its partitions, and there may never be any more to tell by.
        Waits for nothing; `now` in unix milliseconds.
        """
        if self.outages.current is not None and (self._question is None or self._question.done()):
            self._question = self._thread.submit(self._ask, now)

    def give_up(self) -> None:
        """Do not try the flush again that waits for the store."""
        self._give_up.set()

    def close(self) -> None:
        """End the thread when what it does is done; what waits is left."""
        self.give_up()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _ask(self, now: int) -> None:
        try:
            self._store.commit(Flush(now=now))
        except StoreError as error:
            self.outages.note(error)
        else:
            self.outages.end()

    def _commit(self, flush: Flush) -> Written:
        attempt = 0
        while True:
            try:
                written = self._try(flush, again=attempt > 0)
            except StoreUnavailableError as error:
                self.outages.note(error)
                self._on_retry()
                if self._give_up.wait(pause_seconds(attempt, self._dice)):
                    raise
                attempt += 1
            else:
                self.outages.end()
                return written

    def _try(self, flush: Flush, *, again: bool) -> Written:
        started = time.monotonic()
        try:
            committed = self._store.commit(flush)
        except OffsetConflictError:
            # An earlier try whose answer was lost may have been done in the meantime.
            if again and was_committed(flush, positions := self._store.positions()):
                return _found(flush, positions)
            raise
        seconds = time.monotonic() - started
        return Written(flush, committed, self._store.positions(), seconds)


def _found(flush: Flush, positions: Mapping[Source, Position]) -> Written:
    """A flush that an earlier try has written, though its answer was lost: how many were new is not known."""
    log.info(line("flush_was_written", clicks=len(flush.clicks)))
    return Written(flush, Committed(len(flush.clicks), 0, len(flush.dead)), positions, 0.0)
