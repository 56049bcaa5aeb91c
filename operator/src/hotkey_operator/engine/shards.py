"""Shard ids are searched, not counted: an id is taken because murmur2 puts `key:id` where the plan wants."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Route, Shard, shard_key

TRIES_PER_PARTITION = 60  # an id misses one partition of n with (1-1/n)^60n, about e^-60


def find_shards(
    key: bytes, wanted: Collection[int], partitions: int, taken: Collection[bytes], previous: Route | None
) -> dict[int, Shard]:
    """A shard for each wanted partition: the previous one where it still lands there, else the smallest id.

    `taken`: record keys that mean something else (natural keys seen, other routes' shards). A partition for
    which no id was found within the tries is left out.
    """
    found = {
        shard.partition: shard
        for shard in (previous.shards if previous else ())
        if shard.partition in wanted and _fits(key, shard.id, shard.partition, partitions, taken)
    }
    missing = set(wanted) - set(found)
    for shard_id in range(TRIES_PER_PARTITION * partitions + len(taken)):
        if not missing:
            break
        partition = partition_for(shard_key(key, shard_id), partitions)
        if partition in missing and shard_key(key, shard_id) not in taken:
            found[partition] = Shard(shard_id, partition)
            missing.discard(partition)
    return found


def _fits(key: bytes, shard_id: int, partition: int, partitions: int, taken: Collection[bytes]) -> bool:
    record_key = shard_key(key, shard_id)
    return record_key not in taken and partition_for(record_key, partitions) == partition


def record_keys(routes: Iterable[Route]) -> set[bytes]:
    """The record keys that these routes write, whether Composite or not (Preserve may become Composite)."""
    return {shard_key(route.key, shard.id) for route in routes for shard in route.shards}
