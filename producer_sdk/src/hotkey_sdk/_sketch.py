"""The heaviest of very many keys in a fixed number of counters, with a bound on what each may lack.

Space-Saving: Metwally, Agrawal, El Abbadi, Efficient Computation of Frequent and Top-k Elements in Data
Streams (ICDT 2005), with weights. It must not know Kafka, clocks or reports.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

CAPACITY = 1_024  # counters, of about 0.4 KB with a key of 100 bytes

Item = tuple[int, bytes]  # partition, key


@dataclass(slots=True)
class Counter:
    """One item's weight since it took the counter; `missed`: what the counter held before it.

    The item's true weight lies between `weight` and `weight + missed`.
    """

    weight: int = 0
    size_bytes: int = 0
    missed: int = 0


class Sketch:
    """At most `capacity` items. After a total weight of W, `missed` is at most W / capacity.

    So is the weight of any item that is not there.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._counters: dict[Item, Counter] = {}
        # Each item once, by what its counter held when it was last looked at: it may hold more by now.
        self._order: list[tuple[int, int, Item]] = []
        self._taken = 0

    def add(self, item: Item, weight: int, size_bytes: int) -> None:
        """Count `weight` records of `item`, of `size_bytes` together."""
        counter = self._counters.get(item)
        if counter is None:
            counter = self._take(item)
        counter.weight += weight
        counter.size_bytes += size_bytes

    @property
    def least(self) -> int:
        """The most weight that an item may have which is not there."""
        if len(self._counters) < self._capacity:
            return 0
        return min(counter.weight + counter.missed for counter in self._counters.values())

    def __iter__(self) -> Iterator[tuple[Item, Counter]]:
        return iter(self._counters.items())

    def _take(self, item: Item) -> Counter:
        """A counter for a new item: a free one, or that of the item with the least."""
        self._taken += 1
        made = self._counters[item] = Counter()
        if len(self._counters) <= self._capacity:
            heapq.heappush(self._order, (0, self._taken, item))
            return made
        made.missed = self._give_way(item)
        return made

    def _give_way(self, item: Item) -> int:
        """Replace the lightest item; returns what its counter held."""
        while True:
            known, order, lightest = self._order[0]
            counter = self._counters[lightest]
            held = counter.weight + counter.missed
            if held == known:
                del self._counters[lightest]
                heapq.heapreplace(self._order, (held, self._taken, item))
                return held
            heapq.heapreplace(self._order, (held, order, lightest))
