"""Bounds the CPU time of processes, as the CPU limit of a Kubernetes container does, but without a cgroup.

The kernel gives a container `share * period` of CPU time in each period and stops it for the rest of the
period when that is used up. So does this, with SIGSTOP and SIGCONT; what a process took too much, because it
was looked at too late, is missing in its next periods. So over seconds the bound holds, whatever the number
of threads. Any user may do it, on Linux.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PERIOD_SECONDS = 0.1  # Kubernetes' as well
LOOK_SECONDS = 0.002


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process; its CPU clock's id is made as clock_getcpuclockid(3) does."""
    return time.clock_gettime(~pid << 3 | 2)


@dataclass(slots=True)
class Allowance:
    """What one process may use. It is pure: times come in, in seconds."""

    share: float
    used: float
    left: float = 0.0

    def refill(self) -> None:
        """A period begins. What was not used is lost; what was used too much is missing."""
        self.left = min(self.share * PERIOD_SECONDS, self.left + self.share * PERIOD_SECONDS)

    def take(self, used: float) -> bool:
        """`used`: the CPU time of its life. Whether it may run on."""
        self.left -= used - self.used
        self.used = used
        return self.left > 0


class CpuLimit:
    """Bounds each of some processes to `share` of a core while the context is open."""

    def __init__(self, pids: Sequence[int], share: float) -> None:
        self._allowances = {pid: Allowance(share, cpu_seconds(pid)) for pid in pids}
        self._stopped: set[int] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu-limit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            period = time.monotonic()
            while not self._closing.wait(LOOK_SECONDS):
                if time.monotonic() >= period:
                    period = max(period + PERIOD_SECONDS, time.monotonic())
                    for allowance in self._allowances.values():
                        allowance.refill()
                for pid, allowance in self._allowances.items():
                    self._let(pid, runs=allowance.take(cpu_seconds(pid)))
        except (ProcessLookupError, OSError):
            return  # one has ended: whoever owns it says why
        finally:
            for pid in self._stopped.copy():
                self._let(pid, runs=True)

    def _let(self, pid: int, *, runs: bool) -> None:
        if runs == (pid not in self._stopped):
            return
        try:
            os.kill(pid, signal.SIGCONT if runs else signal.SIGSTOP)
        except ProcessLookupError:
            self._stopped.discard(pid)
            raise
        (self._stopped.discard if runs else self._stopped.add)(pid)
