"""The operator's ports in memory. The contract suites hold them to what the real parts do.

They never fail by themselves: faults are put around them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord
from hotkey_operator.engine.model import (
    EndOffsets,
    PartitionSample,
    SampledRecord,
    StoredTable,
    TopicConfig,
    TopicFacts,
    TopicSeen,
)
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import (
    Conflict,
    PolicyRef,
    PublishedEnvelope,
    SampleBudget,
    TopicRefused,
    Unavailable,
)
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES
from hotkey_sdk.routing.names import TABLE_DIGEST, TABLE_ENVELOPE, TABLE_EPOCH
from hotkey_sdk.routing.report import ClientReport, KeyReport, decode_key_report, decode_report
from hotkey_sdk.routing.table import Dimension, Stream, Table

Clock = Callable[[], float]  # unix seconds


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record of a partition; its offset is its place."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


MARKER = StoredRecord(None, b"", (), 0)


CONFIG = TopicConfig(1, 1, 604_800_000, -1, "CreateTime", False, 1_048_588)  # what a broker gives by itself


@dataclass(slots=True)
class _Topic:
    compacted: bool
    partitions: list[list[StoredRecord]]
    topic_id: str
    config: TopicConfig = CONFIG


class MemoryBrokers:
    """A Kafka cluster."""

    def __init__(self, clock: Clock, cluster_id: str = "memory-cluster") -> None:
        self._clock = clock
        self._cluster_id = cluster_id
        self._topics: dict[str, _Topic] = {}
        self._created = 0

    def create(
        self, name: str, partitions: int, *, compacted: bool = False, config: TopicConfig = CONFIG
    ) -> str:
        """Make a topic; one of that name goes with all it holds. Its id."""
        self._created += 1
        logs: list[list[StoredRecord]] = [[] for _ in range(partitions)]
        self._topics[name] = _Topic(compacted, logs, f"topic-{self._created}", config)
        return self._topics[name].topic_id

    def delete(self, name: str) -> None:
        """Delete a topic with all it holds, as a person may."""
        self._topics.pop(name, None)

    def configure(self, name: str, config: TopicConfig) -> None:
        """Change how a topic keeps records, as a person may."""
        self._topics[name].config = config

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._topics))

    def seen(self, name: str) -> TopicSeen | None:
        """The topic as brokers describe it."""
        topic = self._topics.get(name)
        return TopicSeen(topic.topic_id, len(topic.partitions), topic.config) if topic else None

    def grow(self, name: str, partitions: int) -> None:
        """Add partitions until there are so many."""
        topic = self._topics[name]
        topic.partitions += [[] for _ in range(partitions - len(topic.partitions))]

    def partitions(self, name: str) -> int:
        return len(self._topics[name].partitions)

    def append(
        self,
        name: str,
        partition: int,
        key: bytes | None,
        value: bytes = b"{}",
        headers: Mapping[str, bytes | None] | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """Append one record; its offset. Raises `LookupError` where there is no such partition."""
        log = self._topics[name].partitions[partition]
        at = int(self._clock() * 1000) if timestamp_ms is None else timestamp_ms
        log.append(StoredRecord(key, value, tuple((headers or {}).items()), at))
        return len(log) - 1

    def mark(self, name: str, partition: int) -> None:
        """Append the marker of a transaction: it has an offset and is no record."""
        self._topics[name].partitions[partition].append(MARKER)

    def read(self, name: str, partition: int, offset: int) -> Sequence[StoredRecord]:
        """The records of a partition from `offset` on."""
        return self._topics[name].partitions[partition][offset:]

    def end(self, name: str, partition: int) -> int:
        """The end offset of a partition."""
        return len(self._topics[name].partitions[partition])

    async def topic(self, name: str) -> TopicFacts | None:
        topic = self._topics.get(name)
        if topic is None:
            return None
        return TopicFacts(
            Stream(self._cluster_id, name), len(topic.partitions), topic.compacted, topic.topic_id
        )

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        logs = self._logs(name)
        return EndOffsets(self._clock(), tuple(len(logs[partition]) for partition in range(partitions)))

    def _logs(self, name: str) -> list[list[StoredRecord]]:
        if name not in self._topics:
            raise Unavailable(f"Kafka: cannot read end offsets: there is no topic {name}")
        return self._topics[name].partitions

    async def some_end_offsets(self, name: str, partitions: Collection[int]) -> tuple[float, dict[int, int]]:
        logs = self._logs(name)
        return self._clock(), {partition: len(logs[partition]) for partition in partitions}

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        reader = DimensionReader(dimensions)
        samples = []
        for partition, (first, end) in sorted(windows.items()):
            log = self._topics[name].partitions[partition]
            ranges = _runs(first, min(end, len(log)), budget.of(partition), random.Random(seed + partition))
            runs = tuple(
                tuple(_sampled(record, reader) for record in log[a:b] if record is not MARKER)
                for a, b in ranges
            )
            if any(runs):
                size = sum(record.size_bytes for run in runs for record in run)
                samples.append(PartitionSample(partition, runs, tuple(ranges), size))
        return tuple(samples)


class MemoryTopics:
    """The same cluster's topics. `brokers_there`: so many for replicas; `refusal`: of every attempt."""

    def __init__(self, brokers: MemoryBrokers, brokers_there: int = 3) -> None:
        self._brokers = brokers
        self._there = brokers_there
        self.refusal: TopicRefused | None = None

    async def describe(self, names: Collection[str]) -> dict[str, TopicSeen | None]:
        return {name: self._brokers.seen(name) for name in names}

    async def alike(self, prefix: str) -> tuple[str, ...]:
        return tuple(name for name in self._brokers.names if name.startswith(prefix))

    async def create(self, name: str, partitions: int, config: TopicConfig) -> str:
        if self.refusal is not None:
            raise self.refusal
        if self._brokers.seen(name) is not None:
            return ""
        if config.replication > self._there:
            few = f"replication factor {config.replication} is more than {self._there} brokers"
            raise TopicRefused(Reason.REPLICATION_FACTOR_TOO_HIGH, few)
        return self._brokers.create(name, partitions, config=config)


def _runs(first: int, end: int, of: tuple[int, int], chance: random.Random) -> list[tuple[int, int]]:
    """Ranges of offsets that do not overlap: one at a random place in each of equal parts of the window."""
    records, runs = of
    count = min(runs, end - first)
    if count <= 0:
        return []
    length = max(1, records // count)
    bounds = [first + (end - first) * i // count for i in range(count + 1)]
    ranges = []
    for low, high in itertools.pairwise(bounds):
        start = chance.randint(low, max(low, high - length))
        ranges.append((start, min(high, start + length)))
    return ranges


def _sampled(record: StoredRecord, reader: DimensionReader) -> SampledRecord:
    raw = RawRecord(record.value, record.headers, record.timestamp_ms)
    return SampledRecord(record.key, len(record.key or b"") + len(record.value), reader.read(raw))


@dataclass(slots=True)
class _Shelf:
    """What Redis holds for one stream. `table`: a hash, or whatever was put there."""

    table: Any = None
    reports: dict[str, bytes] = field(default_factory=dict)
    key_reports: dict[str, bytes] = field(default_factory=dict)


class MemoryDistribution:
    """A Redis. `snapshot` and `restore` are its backups; `listeners` are called with each hint."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shelves: dict[Stream, _Shelf] = {}
        self.listeners: list[Callable[[Stream, int], None]] = []

    def plant(self, stream: Stream, what: Any) -> None:
        """Put anything where the table stands: a mapping is a hash, all else is of a wrong type."""
        self._shelf(stream).table = dict(what) if isinstance(what, Mapping) else what

    def plant_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        self._shelf(stream).reports[client_id] = data

    def plant_key_report(self, stream: Stream, client_id: str, data: bytes) -> None:
        self._shelf(stream).key_reports[client_id] = data

    def wipe(self) -> None:
        self._shelves.clear()

    def snapshot(self) -> dict[Stream, _Shelf]:
        return {
            stream: _Shelf(
                dict(shelf.table) if isinstance(shelf.table, dict) else shelf.table,
                dict(shelf.reports),
                dict(shelf.key_reports),
            )
            for stream, shelf in self._shelves.items()
        }

    def restore(self, snapshot: Mapping[Stream, _Shelf]) -> None:
        self._shelves = {
            stream: _Shelf(shelf.table, dict(shelf.reports), dict(shelf.key_reports))
            for stream, shelf in snapshot.items()
        }

    def envelope(self, stream: Stream) -> bytes | None:
        """The envelope as a client reads it; None where there is none."""
        held = self._shelf(stream).table
        return _bytes(held.get(TABLE_ENVELOPE)) if isinstance(held, dict) else None

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        held = self._shelf(stream).table
        if held is None:
            return None
        envelope = _bytes(held.get(TABLE_ENVELOPE)) if isinstance(held, dict) else None
        if envelope is None or len(envelope) > MAX_ENVELOPE_BYTES:
            return PublishedEnvelope(epoch=None, digest=_fingerprint(held), envelope=None)
        digest = hashlib.sha256(envelope).hexdigest()
        agrees = isinstance(held, dict) and _bytes(held.get(TABLE_DIGEST)) == digest.encode()
        return PublishedEnvelope(_epoch(held.get(TABLE_EPOCH)), digest, envelope if agrees else None)

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        held = await self.read(stream)
        if held is not None and not _may_replace(held, epoch, envelope, over):
            return False
        digest = hashlib.sha256(envelope).hexdigest()
        self._shelf(stream).table = {TABLE_EPOCH: epoch, TABLE_DIGEST: digest, TABLE_ENVELOPE: envelope}
        for listener in self.listeners:
            listener(stream, epoch)
        return True

    async def reports(self, stream: Stream) -> tuple[ClientReport, ...]:
        found = []
        for client_id, data in self._shelf(stream).reports.items():
            try:
                found.append(msgspec.structs.replace(decode_report(data), client_id=client_id))
            except ValueError:
                continue  # whatever stands there is not a report
        return tuple(found)

    async def key_reports(self, stream: Stream) -> tuple[KeyReport, ...]:
        found = []
        for client_id, data in self._shelf(stream).key_reports.items():
            try:
                found.append(msgspec.structs.replace(decode_key_report(data), client_id=client_id))
            except ValueError:
                continue
        return tuple(found)

    async def forget(self, stream: Stream, client_ids: Sequence[str]) -> None:
        for client_id in client_ids:
            self._shelf(stream).reports.pop(client_id, None)
        await self.forget_key_reports(stream, client_ids)

    async def forget_key_reports(self, stream: Stream, client_ids: Sequence[str]) -> None:
        for client_id in client_ids:
            self._shelf(stream).key_reports.pop(client_id, None)

    def _shelf(self, stream: Stream) -> _Shelf:
        return self._shelves.setdefault(stream, _Shelf())


def _may_replace(held: PublishedEnvelope, epoch: int, envelope: bytes, over: str | None) -> bool:
    if over is not None:
        return held.digest == over
    if held.envelope is None or held.epoch is None:
        return False
    return held.epoch < epoch or (held.epoch == epoch and held.envelope == envelope)


def _bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None


def _epoch(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _fingerprint(held: Any) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True, default=repr).encode()).hexdigest()


class MemoryTables:
    """RoutingTable objects, compared and set by resource version."""

    def __init__(self) -> None:
        self._objects: dict[PolicyRef, StoredTable] = {}
        self._version = 0

    def lose(self, ref: PolicyRef) -> None:
        """Delete the object whatever its version, as a person may."""
        self._objects.pop(ref, None)

    def touch(self, ref: PolicyRef) -> None:
        """Write the object as it is, as a person who labels it does: only its version changes."""
        if ref in self._objects:
            held = self._objects[ref]
            self._objects[ref] = StoredTable(held.table, self._next_version(), held.tombstone)

    def peek(self, ref: PolicyRef) -> StoredTable | None:
        return self._objects.get(ref)

    async def read(self, ref: PolicyRef) -> StoredTable | None:
        return self._objects.get(ref)

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        held = self._objects.get(ref)
        found = held.resource_version if held else None
        if found != resource_version:
            raise Conflict(f"RoutingTable {ref} is at version {found}, expected {resource_version}")
        # Through the document and back, as the API server does.
        table = codec.from_document(json.loads(json.dumps(codec.to_document(table))))
        stored = StoredTable(table, self._next_version(), tombstone)
        self._objects[ref] = stored
        return stored

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        held = self._objects.get(ref)
        if held is None:
            return
        if held.resource_version != resource_version:
            raise Conflict(
                f"RoutingTable {ref} is at version {held.resource_version}, not {resource_version}"
            )
        del self._objects[ref]

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)
