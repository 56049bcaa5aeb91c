"""What the operator needs of the outside world. Adapters and the simulation's in-memory parts implement it.

Every method may raise `Unavailable`; anything else that it raises is a defect of the adapter. All are
coroutines, so that a simulation can interleave, delay and crash at each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hotkey_operator.engine.model import (
    Committed,
    EndOffsets,
    KeyTally,
    PartitionSample,
    StoredTable,
    TopicConfig,
    TopicFacts,
    TopicSeen,
    Unreadable,
)
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import Metrics
from hotkey_sdk.routing.report import ClientReport, KeyReport
from hotkey_sdk.routing.table import Dimension, Stream, Table


class Unavailable(Exception):
    """The other side did not answer in time, or answered that it cannot; worth another try next turn."""


class NamespaceTerminating(Unavailable):
    """The namespace is being deleted, or is gone: nothing can be created in it any more."""


class TopicRefused(Exception):
    """The brokers will not make a topic as it is asked for; `reason` says of which kind the refusal is."""

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class Conflict(Exception):
    """The object was written by someone else since it was read."""


@dataclass(frozen=True, slots=True)
class SampleBudget:
    """Bounds of one sampling: records and runs per partition, and seconds and bytes for all of it.

    `fewer_runs`: of partitions that are read less closely, in runs that are as long as those of the others.
    """

    records_per_partition: int = 1_000
    runs_per_partition: int = 20
    seconds: float = 1.0
    bytes: int = 2_000_000
    fewer_runs: Mapping[int, int] = field(default_factory=dict)

    def of(self, partition: int) -> tuple[int, int]:
        """The records and the runs of `partition`, at most."""
        runs = min(self.runs_per_partition, self.fewer_runs.get(partition, self.runs_per_partition))
        return self.records_per_partition * runs // self.runs_per_partition, runs


class Meter(Protocol):
    """What counts the records of a topic: Kafka itself, a Prometheus that watches it, or its producers."""

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        """A counter of each partition 0..`partitions`-1, and the time that they are of.

        Differences count records; only Kafka's are offsets for certain. Readings with an equal `at` are one
        reading. At a later `at` no counter is lower, unless the topic was made anew.
        """
        ...


class Brokers(Meter, Protocol):
    """A Kafka cluster."""

    async def topic(self, name: str) -> TopicFacts | None:
        """Facts of the topic, or None when it does not exist."""
        ...

    async def some_end_offsets(self, name: str, partitions: Collection[int]) -> tuple[float, dict[int, int]]:
        """The time (unix seconds) and the end offset of each of `partitions`."""
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

        A partition whose window is empty, or that gave nothing in time, is left out; one that Kafka refuses
        to read has a failure instead of runs. Where the bytes do not
        suffice, the first windows have precedence, and a sample that was cut is random all the same. Raises
        `Unavailable` also where all streams together have used up what may be read.
        """
        ...


class Groups(Protocol):
    """The consumer groups of a Kafka cluster."""

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        """What each of `groups` has committed on partitions 0..`partitions`-1 of `topic`, in their order.

        An unknown group has committed nothing. One that cannot be asked says so and hides no other.
        """
        ...

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """The first offset that each partition still holds; retention has deleted those before."""
        ...

    async def reading(self, topic: str, partitions: int, but: Collection[str] = ()) -> tuple[Committed, ...]:
        """Every group of the cluster but these that has committed on `topic`, and those not to be asked."""
        ...


class Topics(Protocol):
    """The topics of a Kafka cluster: told of, and made. Nothing deletes one."""

    async def describe(self, names: Collection[str]) -> dict[str, TopicSeen | None]:
        """Each of `names`; None: there is no such topic, as far as the broker that was asked knows."""
        ...

    async def alike(self, prefix: str) -> tuple[str, ...]:
        """The names of all topics that start with `prefix`, in order."""
        ...

    async def create(self, name: str, partitions: int, config: TopicConfig) -> str:
        """Make a topic; the id that it got by this call, empty where one of that name was there already.

        Raises `TopicRefused`; after `Unavailable` it may have been made, or may be yet.
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
        """The reports of all clients; what cannot be decoded is left out.

        Each is told under the name of the place where it stands, which is the client's own, whatever it says.
        """
        ...

    async def key_reports(self, stream: Stream) -> tuple[KeyReport, ...]:
        """What producers counted; what cannot be decoded, or is too much in all, is left out.

        Names are those of places here too.
        """
        ...

    async def forget(self, stream: Stream, client_ids: Sequence[str]) -> None:
        """Remove the reports of clients that are long gone, of both kinds."""
        ...

    async def forget_key_reports(self, stream: Stream, client_ids: Sequence[str]) -> None:
        """Remove what these producers counted; what they report of their tables stays."""
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

    def is_current(self, envelope: bytes) -> bool:
        """Whether `seal` would sign by the key of this envelope, and not by a newer one."""
        ...


class Sources(Protocol):
    """What a policy may name in `metrics`, beside Kafka."""

    def meter(self, metrics: Metrics, stream: Stream) -> Meter:
        """What counts the stream's records where `source` is not Kafka."""
        ...

    def log_sizes(self, metrics: Metrics) -> Meter | None:
        """The size of each partition's log in bytes, which falls when old records go; None: not asked for."""
        ...

    async def tallies(self, stream: Stream, partitions: int) -> tuple[KeyTally, ...]:
        """What producers tell of the stream's keys by now; partitions of which none does are left out."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of the outside that one turn of a policy's loop needs. `sources` None: there is Kafka alone.

    `topics` None: no dedicated topics can be used.
    """

    brokers: Brokers
    distribution: Distribution
    tables: Tables
    signer: Signer
    groups: Groups | None = None
    sources: Sources | None = None
    topics: Topics | None = None
