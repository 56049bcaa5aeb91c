"""A bounded number of kept clients, each for one name; where there are more names they take turns.

It must not know what a client is. A client costs threads, connections and a second until it may be asked, so
throwing away the one that was not asked for longest would make all of them anew in every round that asks for
one name too many. Instead those that wait are served in the order in which they came, a few at a time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_C = TypeVar("_C")
_WAITED_SECONDS = 120.0  # without asking again: it waits no more


class Full(Exception):
    """So many clients are kept already; the name has its turn later."""


class Rota(Generic[_C]):
    """Clients made by `make` for names. `made`: so far. Any thread may ask.

    `at_once`: so many changes at most are saved up, by default a sixteenth of the clients.
    """

    def __init__(
        self,
        make: Callable[[str], _C],
        at_most: int,
        changes_per_second: float,
        clock: Callable[[], float] = time.monotonic,
        at_once: float | None = None,
    ) -> None:
        self.made = 0
        self._at_once = max(1.0, at_most / 16) if at_once is None else at_once
        self._make = make
        self._at_most = at_most
        self._rate = changes_per_second
        self._clock = clock
        self._changes, self._changes_at = 0.0, clock()
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _C] = OrderedDict()  # the one made first comes first
        self._waiting: OrderedDict[str, float] = OrderedDict()  # the longest waiting comes first

    def of(self, name: str) -> _C:
        """The client of `name`. Raises `Full` while others have their turn."""
        gone: _C | None = None
        with self._lock:
            if name not in self._kept:
                if len(self._kept) >= self._at_most:
                    self._take_turn(name)
                    gone = self._kept.popitem(last=False)[1]
                self._kept[name] = self._make(name)
                self.made += 1
            found = self._kept[name]
        del gone  # outside the lock: it leaves the cluster here, or where the last call that uses it ends
        return found

    def drained(self) -> list[_C]:
        """All clients; they are kept no more."""
        with self._lock:
            found = list(self._kept.values())
            self._kept.clear()
        return found

    def _take_turn(self, name: str) -> None:
        """Raises `Full` unless `name` is the one that waits longest, and a change is due."""
        now = self._clock()
        due = self._changes + self._rate * (now - self._changes_at)
        self._changes = min(self._at_once, due)
        self._changes_at = now
        self._waiting[name] = now  # keeps its place where it has one
        while now - next(iter(self._waiting.values())) > _WAITED_SECONDS:
            self._waiting.popitem(last=False)
        if self._changes < 1 or next(iter(self._waiting)) != name:
            raise Full(name)
        self._changes -= 1
        del self._waiting[name]
