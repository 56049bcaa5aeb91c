"""Which faults are in force, and the operator's ports in that weather.

A fault may strike before a call or after it took effect: the caller cannot tell which, as in life.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hotkey_operator.engine.model import (
    Committed,
    EndOffsets,
    PartitionSample,
    StoredTable,
    TopicConfig,
    TopicFacts,
    TopicSeen,
    Unreadable,
)
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import (
    Brokers,
    Conflict,
    Distribution,
    Groups,
    PolicyRef,
    PublishedEnvelope,
    SampleBudget,
    Tables,
    TopicRefused,
    Topics,
    Unavailable,
)
from hotkey_sdk.routing.report import ClientReport, KeyReport
from hotkey_sdk.routing.table import Dimension, Stream, Table
from tests.simulation.faults import Fault, Kind

T = TypeVar("T")

DELAYED = 0.5  # of the calls, before and after: the others answer at once
REFUSALS = (Reason.TOPIC_QUOTA_EXCEEDED, Reason.NOT_AUTHORIZED, Reason.REPLICATION_FACTOR_TOO_HIGH)


class Killed(BaseException):
    """The process is gone; nothing of it may catch this."""


class Watching(Protocol):
    """Whoever wants to know what the operator has done, at the moment when it took effect."""

    def written(self, table: Table) -> None: ...
    def published(self, epoch: int, envelope: bytes) -> None: ...
    def created(self, name: str) -> None: ...


@dataclass
class Weather:
    """Which faults are in force. `now` is in seconds of the run. `killed_in`: so many calls of the operator
    are made before it is killed."""

    faults: Sequence[Fault]
    chance: random.Random
    now: Callable[[], float]
    tell: Callable[[str], None]
    kill_after_write: bool = False
    killed_in: int | None = None

    def __post_init__(self) -> None:
        self._windows: dict[Kind, list[tuple[float, float]]] = {}
        for fault in self.faults:
            if fault.seconds:
                self._windows.setdefault(fault.kind, []).append((fault.at, fault.ends))
        self._windows.setdefault(Kind.DENIED, []).extend(self._windows.get(Kind.TOPIC_DENIED_DELETED, []))

    def is_on(self, kind: Kind) -> bool:
        windows = self._windows.get(kind)
        if windows is None:
            return False
        now = self.now()
        return any(since <= now < until for since, until in windows)

    async def call(self, gone: Kind, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call as this weather lets it be."""
        await self._delay()
        kills = self._kills()
        if kills and self.chance.random() < 0.5:
            self.tell(f"operator is killed before its call {what}")
            raise Killed
        if self.is_on(gone) and self.chance.random() < 0.9:
            if self.chance.random() < 0.3:
                await call()  # it took effect, and the answer was lost
            if kills:
                raise Killed
            raise Unavailable(f"{what}: {gone.value}")
        answer = await call()
        if kills:
            self.tell(f"operator is killed after its call {what}")
            raise Killed
        await self._delay()
        return answer

    def _kills(self) -> bool:
        if self.killed_in is None:
            return False
        self.killed_in -= 1
        if self.killed_in > 0:
            return False
        self.killed_in = None
        return True

    async def _delay(self) -> None:
        if self.is_on(Kind.SLOW):
            await asyncio.sleep(self.chance.uniform(0, 2.0))
        elif self.chance.random() < DELAYED:
            await asyncio.sleep(self.chance.uniform(0, 0.02))


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

    async def reading(self, topic: str, partitions: int, but: Collection[str] = ()) -> tuple[Committed, ...]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "reading", lambda: self._inner.reading(topic, partitions, but)
        )

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        return await self._weather.call(
            Kind.KAFKA_GONE, "starts", lambda: self._inner.starts(topic, partitions)
        )


class FaultyDistribution:
    def __init__(self, inner: Distribution, weather: Weather, watching: Watching) -> None:
        self._inner, self._weather, self._watching = inner, weather, watching

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        return await self._weather.call(Kind.REDIS_GONE, "read", lambda: self._inner.read(stream))

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        async def publish() -> bool:
            accepted = await self._inner.publish(stream, epoch, envelope, over)
            if accepted:
                self._watching.published(epoch, envelope)
            return accepted

        accepted = await self._weather.call(Kind.REDIS_GONE, "publish", publish)
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
    def __init__(self, inner: Tables, weather: Weather, watching: Watching) -> None:
        self._inner, self._weather, self._watching = inner, weather, watching

    async def read(self, ref: PolicyRef) -> StoredTable | Unreadable | None:
        return await self._weather.call(Kind.API_GONE, "read", lambda: self._inner.read(ref))

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        async def write() -> StoredTable:
            if self._weather.is_on(Kind.CONFLICT) and self._weather.chance.random() < 0.5:
                raise Conflict(f"RoutingTable {ref} was written by somebody else")
            stored = await self._inner.write(ref, table, resource_version, tombstone=tombstone)
            self._watching.written(stored.table)
            return stored

        stored = await self._weather.call(Kind.API_GONE, "write", write)
        self._weather.tell(f"operator writes epoch {table.epoch} with {described(table)}")
        if self._weather.kill_after_write:
            self._weather.kill_after_write = False
            self._weather.tell("operator is killed between the object and Redis")
            raise Killed
        return stored

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        await self._weather.call(Kind.API_GONE, "delete", lambda: self._inner.delete(ref, resource_version))


class FaultyTopics:
    def __init__(self, inner: Topics, weather: Weather, watching: Watching) -> None:
        self._inner, self._weather, self._watching = inner, weather, watching

    async def describe(self, names: Collection[str]) -> dict[str, TopicSeen | None]:
        return await self._weather.call(Kind.KAFKA_GONE, "describe", lambda: self._inner.describe(names))

    async def alike(self, prefix: str) -> tuple[str, ...]:
        return await self._weather.call(Kind.KAFKA_GONE, "list topics", lambda: self._inner.alike(prefix))

    async def create(self, name: str, partitions: int, config: TopicConfig) -> str:
        async def create() -> str:
            if self._weather.is_on(Kind.CREATION_REFUSED):
                raise TopicRefused(self._weather.chance.choice(REFUSALS), "the brokers refuse to make it")
            made = await self._inner.create(name, partitions, config)
            if made:
                self._watching.created(name)
            return made

        return await self._weather.call(Kind.KAFKA_GONE, "create a topic", create)


def described(table: Table) -> str:
    """The routes and topics of a table, in few words."""
    base = table.stream.topic
    routes = [
        f"{route.key.decode()}x{len(route.shards)}"
        + ("" if route.topic == base else f" on {_short(route.topic)}")
        for route in table.routes
    ]
    topics = [
        f"{_short(topic.name)} {topic.phase.value}" + (f" of {topic.key.decode()}" if topic.key else "")
        for topic in table.topics
    ]
    more = f"; topics: {', '.join(topics)}" if topics else ""
    return f"routes {', '.join(routes) or 'none'}{more}"


def _short(topic: str) -> str:
    """The last part of a dedicated topic's name, which is its own."""
    return topic.rpartition(".")[2]
