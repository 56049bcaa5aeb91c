"""CPU time and memory of processes as /proc tells them. It knows no figure and ends nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*roots: int) -> float:
    """CPU time of these processes, of all that they started and of those that have ended meanwhile."""
    return sum(_ticks(pid) for root in roots for pid in family(root)) / TICKS


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # that thread has ended
            continue
        for child in found:
            yield from family(int(child))


def peak_megabytes(pid: int) -> float:
    """The most memory (10^6 bytes) that a process has had at once."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"process {pid} has no memory"
    return int(found[1]) * 1024 / 1e6


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended: its parent has its time
        return 0
    return sum(map(int, fields[11:15]))
