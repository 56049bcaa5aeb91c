"""What one producer sends, counted: records and bytes per partition, and its heavy keys, per topic.

Of many records only some are looked at, and count for those between them, so that the cost of counting does
not grow with the rate. It must not know Kafka; the time is handed in.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from hotkey_sdk._sketch import Counter, Sketch
from hotkey_sdk.routing.report import (
    KEY_BYTES_AT_MOST,
    KEYS_AT_MOST,
    KEYS_OF_A_PARTITION_AT_MOST,
    PARTITIONS_AT_MOST,
    HeavyKey,
    KeyReport,
    PartitionCount,
)

TOPICS_AT_MOST = 32  # others are not counted
SAMPLES_PER_SECOND = 1_000  # about so many are looked at, however many are sent
SAMPLES_AT_ONCE = 2_000  # looked at since the last report, before fewer are
WEIGHT_AT_MOST = 1_024  # records that one counts for


@dataclass(slots=True)
class _Count:
    records: int = 0
    size_bytes: int = 0
    samples: int = 0

    def add(self, weight: int, size_bytes: int) -> None:
        self.records += weight
        self.size_bytes += weight * size_bytes
        self.samples += 1


@dataclass(slots=True)
class _Window:
    """Since the last report: by partition, and the sketch over (partition, key)."""

    began: float
    partitions: dict[int, _Count] = field(default_factory=lambda: defaultdict(_Count))
    sketch: Sketch = field(default_factory=Sketch)


@dataclass(slots=True)
class _Topic:
    window: _Window
    totals: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # records by partition


class KeyCounts:
    """One producer's counts; any thread may add, one reports. `started`: unix seconds, names this run of it.

    `weight`: how many records the next one that is looked at counts for, on average; a power of two.
    """

    def __init__(self, started: float, chance: Callable[[int, int], int] = random.randint) -> None:
        self.weight = 1
        self._started = started
        self._chance = chance
        self._topics: dict[str, _Topic] = {}
        self._samples = self._records = 0  # since the weight, and since the time, was last adjusted
        self._adjusted_at = started
        self._lock = threading.Lock()

    def gap(self, weight: int) -> int:
        """How many records on the next one to look at is: `weight` on average, never in step with keys."""
        return self._chance(1, 2 * weight - 1) if weight > 1 else 1

    def add(self, topic: str, key: bytes | None, partition: int, size_bytes: int, weight: int) -> None:
        """Count a record that stands for `weight` of its like; `size_bytes` of its key and value."""
        with self._lock:
            counted = self._topic(topic)
            if counted is None or partition < 0:
                return
            counted.totals[partition] += weight
            counted.window.partitions[partition].add(weight, size_bytes)
            if key is not None and len(key) <= KEY_BYTES_AT_MOST:
                counted.window.sketch.add((partition, key), weight, weight * size_bytes)
            self._samples += 1
            self._records += weight
            if self._samples >= SAMPLES_AT_ONCE and self.weight < WEIGHT_AT_MOST:
                self.weight, self._samples = 2 * self.weight, 0

    def report(self, topic: str, client_id: str, now: float) -> KeyReport | None:
        """What was counted up to `now` (unix seconds), and begin a new window; None for an unknown topic."""
        with self._lock:
            counted = self._topics.get(topic)
            if counted is None:
                return None
            window, counted.window = counted.window, _Window(now)
            totals = dict(counted.totals)
        return KeyReport(
            client_id, self._started, now, max(0.0, now - window.began), _partitions(totals, window)
        )

    def adjust(self, now: float) -> None:
        """Look at more or fewer records, by how many were sent since the last time.

        More by a step at a time: who sends in bursts is not to be looked at in full at the start of each.
        """
        with self._lock:
            seconds = now - self._adjusted_at
            if seconds > 0:
                wanted = _power_of_two(self._records / seconds / SAMPLES_PER_SECOND)
                self.weight = max(wanted, self.weight // 2, 1)
            self._samples = self._records = 0
            self._adjusted_at = now

    def _topic(self, name: str) -> _Topic | None:
        found = self._topics.get(name)
        if found is None and len(self._topics) < TOPICS_AT_MOST:
            found = self._topics[name] = _Topic(_Window(self._adjusted_at))
        return found


def _power_of_two(wanted: float) -> int:
    weight = 1
    while weight < wanted and weight < WEIGHT_AT_MOST:
        weight *= 2
    return weight


def _partitions(totals: dict[int, int], window: _Window) -> tuple[PartitionCount, ...]:
    """The partitions that got most, within the report's bounds, with their heaviest keys."""
    heavy, unlisted = _heaviest(window.sketch)
    busiest = sorted(totals, key=lambda p: (-window.partitions[p].records, p))[:PARTITIONS_AT_MOST]
    return tuple(
        PartitionCount(
            p,
            totals[p],
            window.partitions[p].records,
            window.partitions[p].size_bytes,
            window.partitions[p].samples,
            unlisted[p],
            tuple(HeavyKey(key, c.weight, c.missed, c.size_bytes) for key, c in heavy[p]),
        )
        for p in sorted(busiest)
    )


def _heaviest(sketch: Sketch) -> tuple[dict[int, list[tuple[bytes, Counter]]], dict[int, int]]:
    """The keys to list on each partition, and the most that one may have which is not."""
    listed: dict[int, list[tuple[bytes, Counter]]] = defaultdict(list)
    unlisted: dict[int, int] = defaultdict(lambda: sketch.least)
    room = KEYS_AT_MOST
    for (partition, key), counter in sorted(sketch, key=lambda found: (-found[1].weight, found[0])):
        if room and len(listed[partition]) < KEYS_OF_A_PARTITION_AT_MOST:
            listed[partition].append((key, counter))
            room -= 1
        else:
            unlisted[partition] = max(unlisted[partition], counter.weight + counter.missed)
    return listed, unlisted
