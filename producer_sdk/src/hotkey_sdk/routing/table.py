"""The routing table as a value: which keys of a stream are routed, where to, and what consumers read.

Pure data; it knows neither JSON nor signatures (codec, envelope) nor how a record is routed (router).
The words are those of docs/concepts.md.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class RecordKey(StrEnum):
    """What becomes of the caller's key on a routed record."""

    COMPOSITE = "Composite"  # "{key}:{shard_id}"; the default partitioner agrees with the plan
    PRESERVE = "Preserve"  # the caller's key; only the partition is set


class Phase(StrEnum):
    """What a dedicated topic is used for. Consumers read it in every phase."""

    PREPARE = "Prepare"  # it is being made, or waits until every group follows; nobody may write to it
    ACTIVE = "Active"  # the only phase in which a route may name it
    RETURN = "Return"  # writes have gone back to the base topic; stragglers may still come
    IDLE = "Idle"  # nobody writes; free for the next key that it fits


class Stream(msgspec.Struct, frozen=True, order=True):
    """One Kafka base topic, named by the id of its cluster and its own name."""

    cluster_id: str
    topic: str

    def __str__(self) -> str:
        return f"{self.cluster_id}/{self.topic}"


class Dimension(msgspec.Struct, frozen=True):
    """A named attribute of a record beside its key, and where a record carries it.

    `header`: name of the record header that the SDK reads. `json_path`: for the operator's samples only.
    `time_bucket_seconds`: derived from the record's timestamp in UTC. All None: only the caller of
    `produce(dimensions=...)` knows it.
    """

    name: str
    header: str | None = None
    json_path: str | None = None
    time_bucket_seconds: int | None = None


class Shard(msgspec.Struct, frozen=True):
    """One piece of a hot key: `id` is the suffix of its record key, `partition` where it goes."""

    id: int
    partition: int


class Route(msgspec.Struct, frozen=True):
    """Where the records of one hot key go.

    `slots` has a power-of-two length; each entry is an index into `shards`. A record's slot is the low bits
    of the seeded hash of its `by` dimensions. An empty `by` means that no order was asked for: any slot may
    be taken.
    """

    key: bytes
    topic: str
    by: tuple[str, ...]
    record_key: RecordKey
    shards: tuple[Shard, ...]
    slots: tuple[int, ...]


class DedicatedTopic(msgspec.Struct, frozen=True):
    """A topic of the stream that was made for single hot keys, beside the base topic.

    `topic_id`: the brokers' id of it (base64, as Kafka writes it), empty until it is known: a topic of that
    name with another id is another topic. `key`: whose it is, or was last; None: of no key yet.
    """

    name: str
    partitions: int
    phase: Phase
    topic_id: str = ""
    key: bytes | None = None


class Table(msgspec.Struct, frozen=True):
    """All routes of a stream and the topics that its consumers must read, under one epoch.

    `seed` is below 2**53, so that every JSON reader keeps it exact. `partitions` are those of the base topic;
    `topics` says those of every dedicated one. All of them are in `read_set`.
    """

    stream: Stream
    partitions: int
    epoch: int
    seed: int
    read_set: tuple[str, ...]
    dimensions: tuple[Dimension, ...] = ()
    routes: tuple[Route, ...] = ()
    topics: tuple[DedicatedTopic, ...] = ()

    @classmethod
    def empty(cls, stream: Stream, *, partitions: int, epoch: int, seed: int) -> Table:
        """A table that routes nothing: every key goes to the base topic under its own name."""
        return cls(stream=stream, partitions=partitions, epoch=epoch, seed=seed, read_set=(stream.topic,))

    def route(self, key: bytes) -> Route | None:
        """The route of `key`, or None when it is a plain key."""
        return next((route for route in self.routes if route.key == key), None)

    def dedicated(self, name: str) -> DedicatedTopic | None:
        """The dedicated topic of that name, or None where the table lists none."""
        return next((topic for topic in self.topics if topic.name == name), None)

    def partitions_of(self, topic: str) -> int | None:
        """How many partitions the plan assumes of a topic, or None where the table does not say."""
        if topic == self.stream.topic:
            return self.partitions
        dedicated = self.dedicated(topic)
        return dedicated.partitions if dedicated else None


def shard_key(key: bytes, shard_id: int) -> bytes:
    """The record key of a shard: `nike` and 7 give `nike:7`.

    Never parse one back: `a:1` may be a natural key.
    """
    return b"%b:%d" % (key, shard_id)
