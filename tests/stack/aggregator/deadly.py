"""`hotkey-aggregator` with a SIGKILL before or after the n-th call of one of the store's methods.

python -m tests.stack.aggregator.deadly before commit 3 run --topic ...
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from hotkey_aggregator.stores import StoreAddress


class DeadlyStore:
    """Hands all on to a store, and kills its process at one call."""

    def __init__(self, store: Any, when: str, method: str, number: int) -> None:
        self._store, self._when, self._method, self._left = store, when, method, number

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._method:
            return method

        def deadly(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = method(*arguments)
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return deadly


def main() -> int:
    when, method, number = sys.argv[1:4]
    opened = StoreAddress.open

    def open_deadly(self: StoreAddress, keeping: Any) -> Any:
        return DeadlyStore(opened(self, keeping), when, method, int(number))

    StoreAddress.open = open_deadly  # type: ignore[method-assign]
    from hotkey_aggregator._cli import main as command

    return command(sys.argv[4:])


if __name__ == "__main__":
    sys.exit(main())
