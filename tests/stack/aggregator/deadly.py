"""`hotkey-aggregator` with a SIGKILL before or after the n-th call of one of the store's methods.

Aggregators are forked off one process that has imported all they need, which is most of what a start takes:
`Deaths` starts it and tells it what to run next.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from hotkey_aggregator import _cli
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


class Deaths:
    """Runs aggregators one after the other until each has died. To be used in a `with` statement."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def run(self, flags: Sequence[str], when: str, method: str, number: int, seconds: float = 120) -> int:
        """The exit code of `hotkey-aggregator run` with these flags; negative: by a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([when, method, number, flags]).encode() + b"\n")
        self._process.stdin.flush()
        answered, _, _ = select.select([self._process.stdout], [], [], seconds)
        assert answered, f"alive after {seconds} s: {self._log.read_text()[-3000:]}"
        return int(self._process.stdout.readline())


def run(when: str, method: str, number: int, flags: Sequence[str]) -> int:
    """`hotkey-aggregator run`, up to the call that kills it."""
    opened = StoreAddress.open

    def open_deadly(self: StoreAddress, keeping: Any) -> Any:
        return DeadlyStore(opened(self, keeping), when, method, number)

    StoreAddress.open = open_deadly  # type: ignore[method-assign]
    return _cli.main(["run", *flags])


def main() -> None:
    """Fork an aggregator for each line, and answer with its exit code."""
    import hotkey_aggregator.duckdb_store
    import hotkey_aggregator.postgres_store  # noqa: F401

    for line in sys.stdin:
        when, method, number, flags = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            os._exit(run(when, method, number, flags))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
