"""How a producer takes one route: the hash of the record's dimensions, or one slot for as long as a batch.

It counts, and it may read the monotonic clock; it must not know Kafka.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hotkey_sdk.routing.router import Destination, Dimensions, Headers, RoutePlan, Router

_MINIMUM_SECONDS = 0.005
_GOLDEN = 0.6180339887  # a step of this share of the slots spreads even a few turns over all of them


@dataclass(frozen=True, slots=True)
class Batch:
    """When the Kafka client would send a batch; a route without an order stays on a slot as long as that."""

    seconds: float = _MINIMUM_SECONDS
    records: int = 10_000
    size_bytes: int = 1_000_000

    @classmethod
    def of(cls, kafka: Mapping[str, Any]) -> Batch:
        """The batch that a producer with this configuration builds (librdkafka's defaults where unset)."""
        linger = kafka.get("linger.ms", kafka.get("queue.buffering.max.ms", 5))
        return cls(
            seconds=max(_MINIMUM_SECONDS, float(linger) / 1000),
            records=int(kafka.get("batch.num.messages", 10_000)),
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


class StickyLane:
    """A route without an order: one slot for a batch, so that spreading does not cut batches into pieces.

    Slots are taken in a fixed stride from a random start: every slot comes up equally often, and two
    producers do not move in step.
    """

    __slots__ = (
        "_batch",
        "_bytes_left",
        "_clock",
        "_current",
        "_plan",
        "_records_left",
        "_slot",
        "_stride",
        "_until",
    )

    def __init__(
        self,
        plan: RoutePlan,
        batch: Batch,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[int], int] = random.randrange,
    ) -> None:
        size = len(plan.destinations)
        self._plan = plan
        self._batch = batch
        self._clock = clock
        self._stride = stride_of(size)
        self._slot = start(size)
        self._current = plan.at(self._slot)
        self._until = float("-inf")
        self._records_left = self._bytes_left = 0

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

    def _next(self, now: float) -> None:
        self._slot += self._stride
        self._current = self._plan.at(self._slot)
        self._until = now + self._batch.seconds
        self._records_left = self._batch.records
        self._bytes_left = self._batch.size_bytes


def stride_of(size: int) -> int:
    """By how much a lane without an order goes on: odd, so it meets every one of a power of two slots."""
    return int(size * _GOLDEN) | 1


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
        start: Callable[[int], int] = random.randrange,
    ) -> Lane:
        """A lane for a route without an order."""
        return StickyLane(plan, batch, clock, start)

    def lanes(self, lanes: Mapping[bytes | str, Lane]) -> Lanes:
        """The lanes of one topic."""
        return Lanes(lanes)

    def recent(self) -> Any:
        """What a producer remembers of the topics it has written to last, with `clear()`; None: nothing."""
        return None


def lanes_of(router: Router, batch: Batch, counts: Any, path: Path) -> Lanes:
    """A lane for each route of the table, found under the key as text and as bytes."""
    made = {
        id(plan): path.hashed(plan, counts) if plan.ordered else path.sticky(plan, batch, counts)
        for plan in router.plans.values()
    }
    return path.lanes({key: made[id(plan)] for key, plan in router.plans.items()})
