"""What the operator needs of the outside world. Adapters and the simulation's in-memory parts implement it.

Every method may raise `Unavailable`; anything else that it raises is a defect of the adapter. All are
coroutines, so that a simulation can interleave, delay and crash at each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hotkey_operator.engine.model import EndOffsets, PartitionSample, StoredTable, TopicFacts, Unreadable
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import Dimension, Stream, Table


class Unavailable(Exception):
    """The other side did not answer in time, or answered that it cannot; worth another try next turn."""


class NamespaceTerminating(Unavailable):
    """The namespace is being deleted, or is gone: nothing can be created in it any more."""


class Conflict(Exception):
    """The object was written by someone else since it was read."""


@dataclass(frozen=True, slots=True)
class SampleBudget:
    """Bounds of one sampling: records and runs per partition, and seconds for all of it."""

    records_per_partition: int = 1_000
    runs_per_partition: int = 20
    seconds: float = 1.0


class Brokers(Protocol):
    """A Kafka cluster."""

    async def topic(self, name: str) -> TopicFacts | None:
        """Facts of the topic, or None when it does not exist."""
        ...

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        """End offsets of partitions 0..`partitions`-1."""
        ...

    async def sample(
        self,
        name: str,
        windows: Mapping[int, tuple[int, int]],
        dimensions: Sequence[Dimension],
        budget: SampleBudget,
        seed: int,
    ) -> tuple[PartitionSample, ...]:
        """Runs of records at random offsets of each partition's window [first, end).

        A partition whose window is empty, or that gave nothing in time, is left out.
        """
        ...


@dataclass(frozen=True, slots=True)
class PublishedEnvelope:
    """What stands at a stream's table key. `envelope` None: it is too big, of a wrong type, or stands
    beside the digest of another one.

    `digest`: SHA-256 in hex of the envelope, or another stable fingerprint of what stands there instead.
    """

    epoch: int | None
    digest: str
    envelope: bytes | None


class Distribution(Protocol):
    """The place that clients read tables from (Redis)."""

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        """What is published, unless it is longer than any envelope may be; None when nothing is."""
        ...

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        """Publish and hint; True when `envelope` is what stands there afterwards.

        Accepts a higher epoch, or the same epoch with the same digest. `over`: the fingerprint of garbage
        that may be replaced whatever its epoch.
        """
        ...

    async def reports(self, stream: Stream) -> tuple[ClientReport, ...]:
        """The reports of all clients; what cannot be decoded is left out."""
        ...

    async def forget(self, stream: Stream, client_ids: Sequence[str]) -> None:
        """Remove the reports of clients that are long gone."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class PolicyRef:
    """A policy by namespace and name; its RoutingTable object has the same.

    `uid`: that of the policy object, for the ownerReference of what is written for it; it is not compared.
    """

    namespace: str
    name: str
    uid: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Tables(Protocol):
    """RoutingTable objects in Kubernetes: the truth."""

    async def read(self, ref: PolicyRef) -> StoredTable | Unreadable | None:
        """The table, what is wrong with the object, or None when there is no object."""
        ...

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        """Create (`resource_version` None) or replace the table. Raises `Conflict` when it lost the race.

        Raises `NamespaceTerminating` when it can never be created, `ValueError` for one no reader accepts.
        `tombstone`: the policy is being deleted; the object must outlive it, so it gets no owner.
        """
        ...

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        """Delete the object. Raises `Conflict` when it is at another version; no error when it is gone."""
        ...


class Signer(Protocol):
    """Turns a table into its signed envelope, and verifies one."""

    def seal(self, table: Table) -> bytes:
        """The signed envelope of `table`; the same bytes for the same table."""
        ...

    def open(self, envelope: bytes, stream: Stream) -> Table:
        """The table of a validly signed envelope of `stream`. Raises `ValueError` saying what is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of the outside that one turn of a policy's loop needs."""

    brokers: Brokers
    distribution: Distribution
    tables: Tables
    signer: Signer
