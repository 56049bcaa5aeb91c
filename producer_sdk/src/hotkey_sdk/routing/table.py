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


class Table(msgspec.Struct, frozen=True):
    """All routes of a stream and the topics that its consumers must read, under one epoch.

    `seed` is below 2**53, so that every JSON reader keeps it exact.
    """

    stream: Stream
    partitions: int
    epoch: int
    seed: int
    read_set: tuple[str, ...]
    dimensions: tuple[Dimension, ...] = ()
    routes: tuple[Route, ...] = ()

    @classmethod
    def empty(cls, stream: Stream, *, partitions: int, epoch: int, seed: int) -> Table:
        """A table that routes nothing: every key goes to the base topic under its own name."""
        return cls(stream=stream, partitions=partitions, epoch=epoch, seed=seed, read_set=(stream.topic,))

    def route(self, key: bytes) -> Route | None:
        """The route of `key`, or None when it is a plain key."""
        return next((route for route in self.routes if route.key == key), None)


def shard_key(key: bytes, shard_id: int) -> bytes:
    """The record key of a shard: `nike` and 7 give `nike:7`.

    Never parse one back: `a:1` may be a natural key.
    """
    return b"%b:%d" % (key, shard_id)
