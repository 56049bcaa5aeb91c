"""What else spreads keys over partitions, written from the descriptions of their authors. Pure.

Each peer decides record by record, when the record is sent, and knows only what its own producer has sent so
far (its *local load estimate*); producers do not talk to each other.

- *Plain key*, *fixed salt*: Kafka's default partitioner (murmur2) of `key`, or of `key:n` with n drawn out of
  a fixed number, for the keys that are to be salted.
- *Partial key grouping*: Nasir et al., "Partial Key Grouping: Load-Balanced Partitioning of Distributed
  Streams", arXiv 1510.07623. Two hash functions name two partitions for a key; a record goes to the one to
  which this producer has sent less.
- *D-Choices*, *W-Choices*: Nasir et al., "When Two Choices Are not Enough: Balancing at Scale in Distributed
  Stream Processing", arXiv 1510.05714. Keys of the head, at least 1/(5n) of the records, which SpaceSaving
  finds, have d choices, or all n; the others have two as above.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import xxhash

from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import shard_key

EPSILON = 1e-4  # the imbalance that D-Choices tolerates, in the paper's experiments
COUNTERS_PER_PARTITION = 10  # of SpaceSaving: twice what the threshold 1/(5n) needs at the least
ANEW_EVERY = 1_000  # records between two choices of d

Pairs = Counter[tuple[int, int]]  # records by (key's index, partition)


class Method(StrEnum):
    """A peer, as it is called in the report."""

    PLAIN = "plain key"
    SALT_16 = "fixed salt 16"
    SALT_64 = "fixed salt 64"
    GROUPING = "partial key grouping"
    D_CHOICES = "D-Choices"
    W_CHOICES = "W-Choices"


SALTS = {Method.SALT_16: 16, Method.SALT_64: 64}


def placed(
    method: Method,
    keys: Sequence[str],
    drawn: Sequence[int],
    partitions: int,
    seed: str,
    salted: frozenset[int],
) -> Pairs:
    """Where one producer's records go, in the order of `drawn` (indexes into `keys`).

    `salted`: the keys that a fixed salt is applied to.
    """
    match method:
        case Method.PLAIN:
            home = [partition_for(key.encode(), partitions) for key in keys]
            return Counter({(key, home[key]): count for key, count in Counter(drawn).items()})
        case Method.SALT_16 | Method.SALT_64:
            return _salted(keys, drawn, partitions, SALTS[method], random.Random(seed), salted)
        case Method.GROUPING:
            return grouped(keys, drawn, partitions)
        case Method.D_CHOICES | Method.W_CHOICES:
            chooser = Chooser(keys, partitions, all_partitions=method is Method.W_CHOICES)
            return chooser.placed(drawn)


def _salted(
    keys: Sequence[str],
    drawn: Sequence[int],
    partitions: int,
    salts: int,
    chance: random.Random,
    salted: frozenset[int],
) -> Pairs:
    names = [
        [shard_key(key.encode(), n) for n in range(salts)] if index in salted else [key.encode()]
        for index, key in enumerate(keys)
    ]
    homes = [[partition_for(name, partitions) for name in each] for each in names]
    pairs: Pairs = Counter()
    for key, count in Counter(drawn).items():
        for home in chance.choices(homes[key], k=count):
            pairs[key, home] += 1
    return pairs


def candidates(key: str, choices: int, partitions: int) -> tuple[int, ...]:
    """The partitions that so many independent hash functions name for a key; some may be the same."""
    data = key.encode()
    return tuple(xxhash.xxh64_intdigest(data, seed) % partitions for seed in range(choices))


def grouped(keys: Sequence[str], drawn: Sequence[int], partitions: int) -> Pairs:
    """Partial key grouping of one producer's records: of two candidates the one with less of its records."""
    two = [candidates(key, 2, partitions) for key in keys]
    loads = [0] * partitions
    pairs: Pairs = Counter()
    for key in drawn:
        first, second = two[key]
        chosen = first if loads[first] <= loads[second] else second
        loads[chosen] += 1
        pairs[key, chosen] += 1
    return pairs


@dataclass(slots=True)
class SpaceSaving:
    """The frequent keys of a stream in `counters` counters (Metwally et al., 2005).

    A key's count is at least its true one and at most `seen / counters` above it; every key with more records
    than that has a counter.
    """

    counters: int
    seen: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    _least: list[tuple[int, int]] = field(default_factory=list)  # (count, key), counts may be out of date

    def add(self, key: int) -> int:
        """Count one record; the key's count."""
        self.seen += 1
        counts = self.counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < self.counters:
            counts[key] = 1
            heapq.heappush(self._least, (1, key))
        else:
            counts[key] = self._evicted() + 1
            heapq.heappush(self._least, (counts[key], key))
        return counts[key]

    def _evicted(self) -> int:
        """Forget a key with the least count; that count."""
        while True:
            count, key = self._least[0]
            current = self.counts[key]
            if current == count:
                heapq.heappop(self._least)
                del self.counts[key]
                return count
            heapq.heapreplace(self._least, (current, key))


class Chooser:
    """D-Choices and W-Choices of one producer; `choices`: of the head's keys now."""

    def __init__(self, keys: Sequence[str], partitions: int, *, all_partitions: bool) -> None:
        self._keys, self._partitions, self._all = keys, partitions, all_partitions
        self._two = [candidates(key, 2, partitions) for key in keys]
        self._several: dict[int, tuple[int, ...]] = {}
        self.threshold = 1 / (5 * partitions)
        self.sketch = SpaceSaving(COUNTERS_PER_PARTITION * partitions)
        self.loads = [0] * partitions
        self.choices = partitions if all_partitions else 2

    def placed(self, drawn: Sequence[int]) -> Pairs:
        """Where the records go, one after the other."""
        pairs: Pairs = Counter()
        loads, add, threshold, sketch = self.loads, self.sketch.add, self.threshold, self.sketch
        for number, key in enumerate(drawn, 1):
            if add(key) >= threshold * sketch.seen:
                chosen = self._of_the_head(key)
            else:
                first, second = self._two[key]
                chosen = first if loads[first] <= loads[second] else second
            loads[chosen] += 1
            pairs[key, chosen] += 1
            if not self._all and number % ANEW_EVERY == 0:
                self._choose_anew()
        return pairs

    def _of_the_head(self, key: int) -> int:
        loads = self.loads
        if self.choices >= self._partitions:
            return loads.index(min(loads))
        several = self._several.get(key)
        if several is None:
            several = self._several[key] = candidates(self._keys[key], self.choices, self._partitions)
        return min(several, key=loads.__getitem__)

    def _choose_anew(self) -> None:
        seen, least = self.sketch.seen, self.threshold * self.sketch.seen
        head = sorted((count / seen for count in self.sketch.counts.values() if count >= least), reverse=True)
        choices = choices_for(head, self._partitions)
        if choices != self.choices:
            self.choices, self._several = choices, {}


def choices_for(head: Sequence[float], partitions: int, epsilon: float = EPSILON) -> int:
    """The fewest choices d with which the head's keys, of these parts in descending order, can be balanced.

    Of the paper: for every prefix of h keys with mass P, a head of mass H and a tail of 1-H,

        P + (b/n)^d * (H-P) + (b/n)^2 * (1-H) <= b * (1/n + epsilon),    b = n - n * ((n-1)/n)^(h*d)

    where b is how many partitions h keys with d choices each are expected to reach. n when no smaller d does:
    that is W-Choices. The search begins at the lower bound, the heaviest key's part times n.
    """
    if not head:
        return 2
    d = max(2, math.ceil(head[0] * partitions))
    while d < partitions and not _balances(head, d, partitions, epsilon):
        d += 1
    return min(d, partitions)


def _balances(head: Sequence[float], d: int, n: int, epsilon: float) -> bool:
    total, prefix = sum(head), 0.0
    for h, part in enumerate(head, 1):
        prefix += part
        reached = n - n * ((n - 1) / n) ** (h * d)
        spill = (reached / n) ** d * (total - prefix) + (reached / n) ** 2 * (1 - total)
        if prefix + spill > reached * (1 / n + epsilon):
            return False
    return True
