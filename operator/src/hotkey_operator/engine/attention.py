"""What to look at this turn: end offsets and records cost the brokers and us, so it follows the heat."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hotkey_operator.engine import sizes
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, StoredTable, TopicFacts
from hotkey_operator.engine.pressure import Load, is_balanced, only_in_bytes, over, warm
from hotkey_operator.engine.rates import FAST_SECONDS, STEADY_SECONDS, Column, Rates, extended, fast
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.table import Table

ROUTED_SECONDS = 5.0  # partitions that carry routes: whether their keys have cooled
SIZES_SECONDS = 10.0  # one busy partition: the mean record size
OWN_SIZE_SECONDS = 60.0  # every partition: its own
COLD_SIZE_SECONDS = 600.0  # one far from the trigger
FAR = 0.125  # of the trigger in bytes
EAGER_SECONDS = 10.0  # a partition is looked at every turn for so long after it went over the trigger
WINDOWS_AT_MOST = 16  # of one turn; the others wait for the next
ROUTED_AT_MOST = 30  # beside those over the trigger, where more than 80 partitions carry routes
RUNS = 20  # of a partition
RUNS_AT_LEAST = 4  # of one that carries routes and is not over the trigger
TURN_RUNS = 120  # fetches of 16 KiB that the bytes of one sampling do for
SIZES_AT_MOST = 2  # of them
RECORDS_AT_LEAST = 50  # a window with fewer is extended to the steady horizon
RECORDS_FOR_SIZE = 100  # the newest of them tell the size of records

QUIET_SECONDS = 10.0  # at most, between two readings of a partition that is under half the trigger
PARTITIONS_PER_SECOND = 1_000  # quiet ones, of all streams: what asking for more costs is felt


def quiet_seconds(partitions: int) -> float:
    """How often a quiet partition is read where `partitions` are governed in all.

    Every second as long as that costs next to nothing, so that an onset is seen at once.
    """
    return min(QUIET_SECONDS, max(1.0, partitions / PARTITIONS_PER_SECOND))


def awake(spec: PolicySpec, memory: Memory, table: Table | None) -> frozenset[int]:
    """The partitions to be read every turn: above half the trigger, lately over it, or with routes."""
    rates = fast(memory.history)
    hot = warm(spec.trigger, _load(rates, memory)) if rates is not None else frozenset()
    return hot | memory.over_since.keys() | routed(table)


def _load(rates: Rates, memory: Memory) -> Load:
    return Load.of(rates, memory.evidence, sizes.growth(memory.log_sizes, sizes.FAST_SECONDS))


def is_quiet(spec: PolicySpec, memory: Memory, table: Table | None) -> bool:
    """Whether nothing of the stream needs a turn every second."""
    if spec.trigger.lag_seconds is not None or fast(memory.history) is None or memory.changed_at:
        return False
    return not awake(spec, memory, table)


def unread(
    spec: PolicySpec,
    memory: Memory,
    topic: TopicFacts,
    table: Table | None,
    at: float,
    pace_seconds: float,
) -> frozenset[int]:
    """The partitions whose end offset need not be asked for at `at`, where quiet ones have this pace.

    Each has a phase of its own, so that not all are due in the same turn.
    """
    columns = memory.history.columns
    is_known = len(columns) == topic.partitions and topic.topic_id == memory.topic_id
    if pace_seconds <= 1 or not is_known or fast(memory.history) is None:
        return frozenset()
    busy = awake(spec, memory, table)
    if memory.over_since or memory.changed_at:
        pace_seconds = min(pace_seconds, STEADY_SECONDS / 2)
    return frozenset(
        p
        for p, column in enumerate(columns)
        if p not in busy and not _is_due(column.times[-1], at, pace_seconds, p / len(columns))
    )


def _is_due(last: float, at: float, pace: float, phase: float) -> bool:
    return last > at or math.floor(at / pace - phase) > math.floor(last / pace - phase)


def windows_to_sample(
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    ends: EndOffsets,
    now: float | None = None,
) -> dict[int, tuple[int, int]]:
    """Partition to the window [first, end) of offsets to sample this turn; no window is empty.

    The most urgent come first. None at all where the policy forbids to read records. `now`: of the turn,
    where `ends` are from before it.
    """
    at = ends.at if now is None else now
    if not spec.metrics.sampling:
        return {}
    history = extended(memory.history, ends)
    rates = fast(history)
    if rates is None:
        return {}
    load = _load(rates, memory)
    table = stored.table if stored else None
    hot, carrying = list(_hot(spec, memory, load, at)), _routed(table, memory, at)
    at_most = max(WINDOWS_AT_MOST, min(len(hot), WINDOWS_AT_MOST) + _routed_at_once(table))
    windows = {p: _window(history.columns[p]) for p in dict.fromkeys([*hot[:WINDOWS_AT_MOST], *carrying])}
    windows |= {p: window for p, window in _waiting(memory, ends).items() if p in windows}
    for partition in _for_size(spec, memory, load, at):
        windows.setdefault(partition, _newest(history.columns[partition]))
    readable = [(p, w) for p, w in windows.items() if w[1] > w[0] and p not in ends.unread]
    return dict(readable[:at_most])


def fewer_runs(
    spec: PolicySpec, memory: Memory, stored: StoredTable | None, ends: EndOffsets
) -> dict[int, int]:
    """Partition to its runs, of those that are read in fewer than `RUNS`.

    Where so many carry routes that the bytes do not suffice to look at each every few seconds, those that are
    not over the trigger are looked at less closely: whether a key has cooled needs no tight bounds.
    """
    carrying = routed(stored.table if stored else None)
    runs = max(RUNS_AT_LEAST, int(TURN_RUNS * ROUTED_SECONDS / max(1, len(carrying))))
    rates = fast(extended(memory.history, ends)) if runs < RUNS else None
    if rates is None:
        return {}
    hot = _over(spec, memory, _load(rates, memory), ends.at)
    return dict.fromkeys(carrying.difference(hot), runs)


def _routed_at_once(table: Table | None) -> int:
    """How many partitions that carry routes are looked at in one turn, so that all are in their time."""
    return min(ROUTED_AT_MOST, math.ceil(len(routed(table)) / ROUTED_SECONDS))


def _hot(spec: PolicySpec, memory: Memory, load: Load, at: float) -> Iterable[int]:
    """Partitions over the trigger, the hottest first; less often when they have long been."""
    return (
        p
        for p in _over(spec, memory, load, at)
        if at - memory.over_since.get(p, at) < EAGER_SECONDS or _age(memory, p, at) >= ROUTED_SECONDS
    )


def _over(spec: PolicySpec, memory: Memory, load: Load, at: float) -> Sequence[int]:
    """Partitions over the trigger, the hottest first; none where the load lies evenly on all."""
    hot = over(spec.trigger, load, memory.lagging(at))
    return () if not hot or is_balanced(load, only_in_bytes(spec.trigger, load, hot)) else hot


def _waiting(memory: Memory, ends: EndOffsets) -> dict[int, tuple[int, int]]:
    """The records that a consumer group has yet to read, of the partitions that are hot because it lags."""
    return {p: (heat.first, ends.offsets[p]) for p, heat in memory.lagging(ends.at).items()}


def routed(table: Table | None) -> frozenset[int]:
    """The partitions of the base topic that carry shards."""
    if table is None:
        return frozenset()
    base = (route for route in table.routes if route.topic == table.stream.topic)
    return frozenset(shard.partition for route in base for shard in route.shards)


def _routed(table: Table | None, memory: Memory, at: float) -> Iterable[int]:
    """Partitions that carry routes and were not looked at for a while, the longest ago first."""
    partitions = len(memory.history.columns)
    due = [p for p in routed(table) if p < partitions and _age(memory, p, at) >= ROUTED_SECONDS]
    return sorted(due, key=lambda p: (-_age(memory, p, at), p))


def _for_size(spec: PolicySpec, memory: Memory, load: Load, at: float) -> list[int]:
    """The busiest partition where no size is fresh, and those whose own was not looked at for long.

    A partition of big records may be the hottest in bytes and among the coldest in records.
    """
    ages = [_age(memory, p, at) for p in range(len(load.records))]
    far = FAR * (spec.trigger.bytes_per_second or math.inf)
    due = [
        p
        for p, (rate, age) in enumerate(zip(load.records, ages, strict=True))
        if rate > 0 and age >= (COLD_SIZE_SECONDS if load.bytes and load.bytes[p] < far else OWN_SIZE_SECONDS)
    ]
    due.sort(key=lambda p: (-ages[p], -load.records[p], p))
    if min(ages, default=0.0) < SIZES_SECONDS:
        return due[:1]
    busiest = max(range(len(ages)), key=lambda p: (load.records[p], -p))
    return list(dict.fromkeys([busiest, *due]))[:SIZES_AT_MOST]


def _age(memory: Memory, partition: int, at: float) -> float:
    seen = memory.evidence.get(partition)
    return float("inf") if seen is None or seen.at > at else at - seen.at


def _window(column: Column) -> tuple[int, int]:
    """The records of the last second or two; of the last ten where those are few."""
    end = first = column.offsets[-1]
    for horizon in (FAST_SECONDS, STEADY_SECONDS):
        start = column.start(horizon)
        first = column.offsets[start] if start is not None else end
        if end - first >= RECORDS_AT_LEAST:
            break
    return first, end


def _newest(column: Column) -> tuple[int, int]:
    first, end = _window(column)
    return max(first, end - RECORDS_FOR_SIZE), end
