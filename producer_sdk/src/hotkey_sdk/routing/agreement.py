"""Whether a table's shards stand where the default partitioner would put their record keys.

Clients do not need it: they set the partition. Writers of tables check it, so that producers without the SDK
that know the shard keys land on the same partitions.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, Shard, Table, shard_key


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A shard whose record key hashes to `expected`, not to the partition in the table."""

    key: bytes
    shard: Shard
    expected: int

    def __str__(self) -> str:
        name = shard_key(self.key, self.shard.id)
        return f"{name!r} is planned on partition {self.shard.partition}, murmur2 puts it on {self.expected}"


def misplaced(table: Table) -> tuple[Misplaced, ...]:
    """Every shard of a Composite route that the default partitioner puts elsewhere in the route's topic."""
    found = []
    for route in table.routes:
        partitions = table.partitions_of(route.topic)
        if route.record_key is not RecordKey.COMPOSITE or partitions is None:
            continue
        for shard in route.shards:
            expected = partition_for(shard_key(route.key, shard.id), partitions)
            if expected != shard.partition:
                found.append(Misplaced(route.key, shard, expected))
    return tuple(found)
