"""An event loop in virtual time: it never waits and reads no clock, so a seed gives the same run anywhere."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Every task waits and no timer is set: nothing can happen any more."""


class _NoFiles(selectors.BaseSelector):
    """A selector of nothing; being asked to wait, it moves the loop's time on instead."""

    def __init__(self) -> None:
        self.now = 0.0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits and no timer is set")
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Timers fire in the order of their times, ready tasks in the order in which they became ready."""

    def __init__(self) -> None:
        self._files = _NoFiles()
        super().__init__(self._files)

    def time(self) -> float:
        return self._files.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a new virtual loop, then cancel what is left."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
