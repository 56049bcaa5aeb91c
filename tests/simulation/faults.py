"""What goes wrong in a run, and when: drawn from the seed, put around the in-memory ports.

A fault may strike before a call or after it took effect: the caller cannot tell which, as in life.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from hotkey_operator.engine.model import (
    Committed,
    EndOffsets,
    PartitionSample,
    StoredTable,
    TopicFacts,
    Unreadable,
)
from hotkey_operator.ports import (
    Brokers,
    Conflict,
    Distribution,
    Groups,
    PolicyRef,
    PublishedEnvelope,
    SampleBudget,
    Tables,
    Unavailable,
)
from hotkey_sdk.routing.report import ClientReport, KeyReport
from hotkey_sdk.routing.table import Dimension, Stream, Table

T = TypeVar("T")

FIRST, LAST = 3.0, 32.0  # seconds of the run within which faults of the hot phase begin
COOL_FIRST, COOL_LAST = 56.0, 66.0  # and those of the cool phase


class Kind(StrEnum):
    CRASH = "the operator is killed"
    CRASH_BETWEEN = "the operator is killed after its next write of the object, before it publishes"
    SLOW = "every call takes up to two seconds"
    REDIS_WIPED = "Redis loses everything"
    REDIS_OLDER = "Redis falls back to an older copy"
    REDIS_GONE = "Redis does not answer"
    GARBAGE = "somebody writes garbage into Redis"
    HINTS_LOST = "hints are lost"
    KAFKA_GONE = "Kafka does not answer the operator"
    API_GONE = "the API server does not answer"
    CONFLICT = "somebody else writes the object again and again"
    OBJECT_LOST = "somebody deletes the object"
    TWO_OPERATORS = "a second operator runs"
    PRODUCER_RESTARTS = "a producer is restarted"
    PARTITIONS_ADDED = "the topic gets more partitions"


WINDOWS = frozenset(
    {
        Kind.SLOW,
        Kind.REDIS_GONE,
        Kind.HINTS_LOST,
        Kind.KAFKA_GONE,
        Kind.API_GONE,
        Kind.CONFLICT,
        Kind.TWO_OPERATORS,
    }
)
TRUTH_LOST = frozenset({Kind.REDIS_WIPED, Kind.REDIS_OLDER, Kind.OBJECT_LOST, Kind.GARBAGE})
APART_SECONDS = 12.0  # between two losses of a copy: the other must be repaired before it is lost as well


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at` seconds, for `seconds` where it lasts."""

    at: float
    kind: Kind
    seconds: float = 0.0

    @property
    def ends(self) -> float:
        return self.at + self.seconds


def draw(chance: random.Random) -> tuple[Fault, ...]:
    """The faults of one run, in the order of their times."""
    times = [chance.uniform(FIRST, LAST) for _ in range(chance.randint(2, 7))]
    times += [chance.uniform(COOL_FIRST, COOL_LAST) for _ in range(chance.randint(0, 3))]
    faults: list[Fault] = []
    for at in sorted(times):
        kind = chance.choice(list(Kind))
        lost_lately = any(f.kind in TRUTH_LOST and at - f.at < APART_SECONDS for f in faults)
        if kind in TRUTH_LOST and lost_lately:
            continue
        if kind is Kind.PARTITIONS_ADDED and any(f.kind is kind for f in faults):
            continue
        faults.append(Fault(at, kind, chance.uniform(0.5, 6.0) if kind in WINDOWS else 0.0))
    return tuple(faults)


class Killed(BaseException):
    """The operator's process is gone; nothing of it may catch this."""


@dataclass
class Weather:
    """Which faults are in force. `now` is in seconds of the run."""

    faults: Sequence[Fault]
    chance: random.Random
    now: Callable[[], float]
    tell: Callable[[str], None]
    written: set[tuple[int, bytes]] = field(default_factory=set)
    kill_after_write: bool = False

    def is_on(self, kind: Kind) -> bool:
        return any(f.kind is kind and f.at <= self.now() < f.ends for f in self.faults)

    async def call(self, gone: Kind, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call as this weather lets it be."""
        await self._delay()
        if self.is_on(gone) and self.chance.random() < 0.9:
            if self.chance.random() < 0.3:
                await call()  # it took effect, and the answer was lost
            raise Unavailable(f"{what}: {gone.value}")
        answer = await call()
        await self._delay()
        return answer

    async def _delay(self) -> None:
        slow = self.is_on(Kind.SLOW)
        await asyncio.sleep(self.chance.uniform(0, 2.0) if slow else self.chance.uniform(0, 0.01))


class FaultyBrokers:
    def __init__(self, inner: Brokers, weather: Weather) -> None:
        self._inner, self._weather = inner, weather

    async def topic(self, name: str) -> TopicFacts | None:
        return await self._weather.call(Kind.KAFKA_GONE, "topic", lambda: self._inner.topic(name))

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        return await self._weather.call(
            Kind.KAFKA_GONE, "end offsets", lambda: self._inner.end_offsets(name, partitions)
        )

    async def some_end_offsets(self, name: str, partitions: Collection[int]) -> tuple[float, dict[int, int]]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "end offsets", lambda: self._inner.some_end_offsets(name, partitions)
        )

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        return await self._weather.call(
            Kind.KAFKA_GONE,
            "sample",
            lambda: self._inner.sample(name, windows, dimensions, budget, seed),
        )


class FaultyGroups:
    def __init__(self, inner: Groups, weather: Weather) -> None:
        self._inner, self._weather = inner, weather

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "committed", lambda: self._inner.committed(topic, partitions, groups)
        )

    async def reading(self, topic: str, partitions: int) -> tuple[Committed, ...]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "reading", lambda: self._inner.reading(topic, partitions)
        )

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "starts", lambda: self._inner.starts(topic, partitions)
        )


class FaultyDistribution:
    def __init__(self, inner: Distribution, weather: Weather) -> None:
        self._inner, self._weather = inner, weather

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        return await self._weather.call(Kind.REDIS_GONE, "read", lambda: self._inner.read(stream))

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        accepted = await self._weather.call(
            Kind.REDIS_GONE, "publish", lambda: self._inner.publish(stream, epoch, envelope, over)
        )
        self._weather.tell(f"operator publishes epoch {epoch}: {'accepted' if accepted else 'refused'}")
        return accepted

    async def reports(self, stream: Stream) -> tuple[ClientReport, ...]:
        return await self._weather.call(Kind.REDIS_GONE, "reports", lambda: self._inner.reports(stream))

    async def key_reports(self, stream: Stream) -> tuple[KeyReport, ...]:
        return await self._weather.call(
            Kind.REDIS_GONE, "key reports", lambda: self._inner.key_reports(stream)
        )

    async def forget(self, stream: Stream, client_ids: Sequence[str]) -> None:
        await self._weather.call(Kind.REDIS_GONE, "forget", lambda: self._inner.forget(stream, client_ids))

    async def forget_key_reports(self, stream: Stream, client_ids: Sequence[str]) -> None:
        await self._weather.call(
            Kind.REDIS_GONE, "forget", lambda: self._inner.forget_key_reports(stream, client_ids)
        )


class FaultyTables:
    def __init__(self, inner: Tables, weather: Weather, written: Callable[[Table], None]) -> None:
        self._inner, self._weather, self._written = inner, weather, written

    async def read(self, ref: PolicyRef) -> StoredTable | Unreadable | None:
        return await self._weather.call(Kind.API_GONE, "read", lambda: self._inner.read(ref))

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        async def write() -> StoredTable:
            if self._weather.is_on(Kind.CONFLICT) and self._weather.chance.random() < 0.5:
                raise Conflict(f"RoutingTable {ref} was written by somebody else")
            stored = await self._inner.write(ref, table, resource_version, tombstone=tombstone)
            self._written(stored.table)
            return stored

        stored = await self._weather.call(Kind.API_GONE, "write", write)
        self._weather.tell(f"operator writes epoch {table.epoch} with routes {_keys(table)}")
        if self._weather.kill_after_write:
            self._weather.kill_after_write = False
            self._weather.tell("operator is killed between the object and Redis")
            raise Killed
        return stored

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        await self._weather.call(Kind.API_GONE, "delete", lambda: self._inner.delete(ref, resource_version))


def _keys(table: Table) -> str:
    return ", ".join(f"{r.key.decode()}x{len(r.shards)}" for r in table.routes) or "none"
