"""How a producer takes one route: the hash of the record's dimensions, or one shard for as long as a batch.

It counts, and it may read the monotonic clock; it must not know Kafka.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hotkey_sdk.routing.router import Destination, Dimensions, Headers, RoutePlan, Router

_MINIMUM_SECONDS = 0.005
_RECORDS_AT_MOST = 256  # a batch gains little by more, and partitions are uneven by a batch of each producer

Shares = list[tuple[int, int]]  # of each shard: one of its slots, and how many it has
Shuffle = Callable[[Shares], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """When a batch is worth sending; a route without an order stays on a shard as long."""

    seconds: float = _MINIMUM_SECONDS
    records: int = 10_000
    size_bytes: int = 1_000_000

    @classmethod
    def of(cls, kafka: Mapping[str, Any]) -> Batch:
        """What a producer with this configuration sends at once; librdkafka's defaults where unset."""
        linger = kafka.get("linger.ms", kafka.get("queue.buffering.max.ms", 5))
        return cls(
            seconds=max(_MINIMUM_SECONDS, float(linger) / 1000),
            records=min(_RECORDS_AT_MOST, int(kafka.get("batch.num.messages", _RECORDS_AT_MOST))),
            size_bytes=int(kafka.get("batch.size", 1_000_000)),
        )


class Counts:
    """The producer's counters; plain attributes, because the hot path adds to them."""

    __slots__ = ("fell_back", "missing_dimension", "not_durable", "routed")

    def __init__(self) -> None:
        self.routed = self.missing_dimension = self.fell_back = self.not_durable = 0


class HashedLane:
    """A route with dimensions: the same values always take the same shard."""

    __slots__ = ("_counts", "_plan")

    def __init__(self, plan: RoutePlan, counts: Counts) -> None:
        self._plan = plan
        self._counts = counts

    def choose(
        self,
        value: str | bytes | None,  # noqa: ARG002
        dimensions: Dimensions | None,
        headers: Headers | None,
        timestamp: int,
    ) -> Destination:
        """The record's destination; `timestamp` in unix milliseconds, 0 for now."""
        plan = self._plan
        if not timestamp and plan.timed:
            timestamp = int(time.time() * 1000)
        values = plan.values(dimensions, headers, timestamp)
        if None in values:
            self._counts.missing_dimension += 1
        return plan.hashed(values)

    def refused(self) -> None:
        """Nothing: here the values choose the shard, not what it has had."""


class StickyLane:
    """A route without an order: one shard for a batch, so that spreading does not cut batches into pieces.

    When the batch is over, the next one goes to the shard that is furthest behind its part of the records,
    which is its part of the slots: batches of a busy and of a quiet moment differ a hundredfold, so that
    equally many batches would not be equally many records. Of several alike the first in a random order of
    the lane's own is taken, lest all producers start with one shard and go round in step.
    """

    __slots__ = (
        "_alike",
        "_batch",
        "_bytes_left",
        "_clock",
        "_current",
        "_records_left",
        "_size",
        "_turn",
        "_until",
    )

    def __init__(
        self,
        plan: RoutePlan,
        batch: Batch,
        clock: Callable[[], float] = time.monotonic,
        shuffle: Shuffle = random.shuffle,
    ) -> None:
        alike: dict[int, Alike] = {}
        for rank, (slot, slots) in enumerate(shares_of(plan, shuffle)):
            alike.setdefault(slots, Alike(slots)).add(rank, plan.at(slot))
        self._batch = batch
        self._clock = clock
        self._size = len(plan.destinations)
        self._alike = tuple(alike.values())
        self._turn = self._alike[0], 0
        self._current = self._alike[0].destinations[0]
        self._until = float("-inf")
        self._records_left, self._bytes_left = batch.records, batch.size_bytes

    def choose(
        self,
        value: str | bytes | None,
        dimensions: Dimensions | None,  # noqa: ARG002
        headers: Headers | None,  # noqa: ARG002
        timestamp: int,  # noqa: ARG002
    ) -> Destination:
        """The current batch's destination, or the next one's when the batch is over."""
        now = self._clock()
        if now >= self._until or self._records_left <= 0 or self._bytes_left <= 0:
            self._next(now)
        self._records_left -= 1
        if value is not None:
            self._bytes_left -= len(value)
        return self._current

    def refused(self) -> None:
        """The record chosen for last was not taken: a caller who waits for room offers it again and again."""
        self._records_left += 1

    def _next(self, now: float) -> None:
        sent = self._batch.records - self._records_left
        self._records_left = self._batch.records
        self._bytes_left = self._batch.size_bytes
        self._until = now + self._batch.seconds
        alike, at = self._turn
        alike.records[at] += sent  # of two threads that come here at once one may lose its count, no more
        total = sum(sum(each.records) for each in self._alike)
        _, _, alike, at = max(each.furthest_behind(total, self._size) for each in self._alike)
        self._turn = alike, at
        self._current = alike.destinations[at]


class Alike:
    """The shards of a route that have equally many slots: of them the one with the fewest records is due."""

    __slots__ = ("_ranks", "_slots", "destinations", "records")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._ranks: list[int] = []
        self.destinations: list[Destination] = []
        self.records: list[int] = []

    def add(self, rank: int, destination: Destination) -> None:
        """One more shard, which has had nothing; of equals the one of the lowest rank comes first."""
        self._ranks.append(rank)
        self.destinations.append(destination)
        self.records.append(0)

    def furthest_behind(self, total: int, size: int) -> tuple[int, int, Alike, int]:
        """By how much, in records times all slots, and which; the greatest of several is the one to take."""
        records = self.records.copy()  # another thread may count meanwhile
        fewest = min(records)
        at = records.index(fewest)
        return self._slots * total - size * fewest, -self._ranks[at], self, at


def shares_of(plan: RoutePlan, shuffle: Shuffle = random.shuffle) -> Shares:
    """What each shard is due of a route without an order, in the order in which equals have their turn."""
    slots = plan.route.slots
    slot_of = {shard: slot for slot, shard in enumerate(slots)}
    shares = [(slot_of[shard], count) for shard, count in Counter(slots).items()]
    shuffle(shares)
    return shares


class Lane(Protocol):
    """A HashedLane or a StickyLane, of this module or compiled."""

    def choose(
        self,
        value: str | bytes | None,
        dimensions: Dimensions | None,
        headers: Headers | None,
        timestamp: int,
        /,
    ) -> Destination:
        """Where the record goes."""
        ...

    def refused(self) -> None:
        """The Kafka client did not take the record that was chosen for last."""
        ...


class DedicatedLane:
    """A lane that leaves the base topic; another class, so that the compiled path leaves it to Python."""

    __slots__ = ("choose", "refused")

    def __init__(self, lane: Lane) -> None:
        self.choose = lane.choose
        self.refused = lane.refused


class Lanes(dict[bytes | str, Lane]):
    """A topic's lanes by record key, as text and as bytes; `index`: where the compiled path finds them."""

    __slots__ = ("index",)

    def __init__(self, lanes: Mapping[bytes | str, Lane] | None = None, index: object = None) -> None:
        # Text is met first: more producers have it, and comparing it with bytes takes long.
        super().__init__(sorted((lanes or {}).items(), key=lambda found: isinstance(found[0], bytes)))
        self.index = index


class Path:
    """What a producer makes its lanes and counters of: here in Python, in _compiled from C."""

    name = "pure"

    def counts(self) -> Any:
        """Counters at zero."""
        return Counts()

    def hashed(self, plan: RoutePlan, counts: Any) -> Lane:
        """A lane for a route with dimensions."""
        return HashedLane(plan, counts)

    def sticky(
        self,
        plan: RoutePlan,
        batch: Batch,
        counts: Any,  # noqa: ARG002
        clock: Callable[[], float] = time.monotonic,
        shuffle: Shuffle = random.shuffle,
    ) -> Lane:
        """A lane for a route without an order; `shuffle` makes the order in which equals have their turn."""
        return StickyLane(plan, batch, clock, shuffle)

    def lanes(self, lanes: Mapping[bytes | str, Lane]) -> Lanes:
        """The lanes of one topic."""
        return Lanes(lanes)

    def recent(self) -> Any:
        """What a producer remembers of the topics it has written to last, with `clear()`; None: nothing."""
        return None


def lanes_of(router: Router, batch: Batch, counts: Any, path: Path) -> Lanes:
    """A lane for each route of the table, found under the key as text and as bytes."""
    base = router.table.stream.topic
    made: dict[int, Lane] = {}
    for plan in router.plans.values():
        if id(plan) not in made:
            lane = path.hashed(plan, counts) if plan.ordered else path.sticky(plan, batch, counts)
            made[id(plan)] = lane if plan.route.topic == base else DedicatedLane(lane)
    return path.lanes({key: made[id(plan)] for key, plan in router.plans.items()})
