"""Which records to look at this turn: sampling costs the brokers reads, so it follows the heat."""

from __future__ import annotations

from collections.abc import Iterable

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, StoredTable
from hotkey_operator.engine.pressure import Load, is_balanced, only_in_bytes, over
from hotkey_operator.engine.rates import FAST_SECONDS, STEADY_SECONDS, History, extended, fast, window_start
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.table import Table

ROUTED_SECONDS = 5.0  # partitions that carry routes: whether their keys have cooled
SIZES_SECONDS = 10.0  # one busy partition: the mean record size
EAGER_SECONDS = 10.0  # a partition is looked at every turn for so long after it went over the trigger
WINDOWS_AT_MOST = 16  # of one turn; the others wait for the next
RECORDS_AT_LEAST = 50  # a window with fewer is extended to the steady horizon


def windows_to_sample(
    spec: PolicySpec, memory: Memory, stored: StoredTable | None, ends: EndOffsets
) -> dict[int, tuple[int, int]]:
    """Partition to the window [first, end) of offsets to sample this turn; no window is empty."""
    history = extended(memory.history, ends)
    rates = fast(history)
    if rates is None:
        return {}
    load = Load.of(rates, memory.evidence)
    wanted = [
        *_hot(spec, memory, load, ends.at),
        *_routed(stored.table if stored else None, memory, ends.at),
        *_busiest(memory, load, ends.at),
    ]
    windows = {partition: _window(history, partition) for partition in dict.fromkeys(wanted)}
    filled = [(p, window) for p, window in windows.items() if window[1] > window[0]]
    return dict(filled[:WINDOWS_AT_MOST])


def _hot(spec: PolicySpec, memory: Memory, load: Load, at: float) -> Iterable[int]:
    """Partitions over the trigger, the hottest first; less often when they have long been."""
    hot = over(spec.trigger, load)
    if not hot or is_balanced(load, only_in_bytes(spec.trigger, load, hot)):
        return ()
    return (
        p
        for p in hot
        if at - memory.over_since.get(p, at) < EAGER_SECONDS or _age(memory, p, at) >= ROUTED_SECONDS
    )


def _routed(table: Table | None, memory: Memory, at: float) -> Iterable[int]:
    """Partitions that carry routes and were not looked at for a while, the longest ago first."""
    shards = {shard.partition for route in (table.routes if table else ()) for shard in route.shards}
    due = [p for p in shards if _age(memory, p, at) >= ROUTED_SECONDS]
    return sorted(due, key=lambda p: (-_age(memory, p, at), p))


def _busiest(memory: Memory, load: Load, at: float) -> Iterable[int]:
    if min((_age(memory, p, at) for p in memory.evidence), default=SIZES_SECONDS) < SIZES_SECONDS:
        return ()
    return (max(range(len(load.records)), key=lambda p: (load.records[p], -p)),)


def _age(memory: Memory, partition: int, at: float) -> float:
    seen = memory.evidence.get(partition)
    return float("inf") if seen is None or seen.at > at else at - seen.at


def _window(history: History, partition: int) -> tuple[int, int]:
    """The records of the last second or two; of the last ten where those are few."""
    end = history[-1].offsets[partition]
    for horizon in (FAST_SECONDS, STEADY_SECONDS):
        start = window_start(history, horizon)
        first = start.offsets[partition] if start else end
        if end - first >= RECORDS_AT_LEAST:
            break
    return first, end
