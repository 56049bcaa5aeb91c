"""A process of a run: it can be frozen for a while, as by SIGSTOP, or be gone; what is due then waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Process:
    """What one process does passes through here, so that none of it happens while it is frozen or gone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.gone = False
        self.on_thaw: Callable[[], None] = lambda: None  # before what was held up
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._awake = asyncio.Event()
        self._awake.set()

    @property
    def is_frozen(self) -> bool:
        return not self._awake.is_set()

    def freeze(self) -> None:
        self._awake.clear()

    def thaw(self) -> None:
        """Go on, with what has become due first."""
        if self._awake.is_set():
            return
        self._awake.set()
        held, self._held = self._held, []
        if not self.gone:
            self.on_thaw()
        for do, arguments in held:
            self._do(do, *arguments)

    def later(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Do something in `seconds`, or as soon after that as the process can."""
        asyncio.get_running_loop().call_later(seconds, self._do, do, *arguments)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._awake.is_set():
            await self._awake.wait()

    def _do(self, do: Callable[..., None], *arguments: Any) -> None:
        if self.gone:
            return
        if self._awake.is_set():
            do(*arguments)
        else:
            self._held.append((do, arguments))
