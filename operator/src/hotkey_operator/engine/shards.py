"""Shard ids are searched, not counted: an id is taken because murmur2 puts `key:id` where the plan wants."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hotkey_sdk.routing.partitioner import Prefix
from hotkey_sdk.routing.table import Route, Shard, shard_key

KEY_BYTES_AT_MOST = 16 * 1024  # of a key that is spread: it stands in the table that all clients read
TRIES_PER_PARTITION = 60  # an id misses one partition of n with (1-1/n)^60n, about e^-60


def find_shards(
    key: bytes, wanted: Collection[int], partitions: int, taken: Collection[bytes], previous: Route | None
) -> dict[int, Shard]:
    """A shard for each wanted partition: the previous one where it still lands there, else the smallest id.

    `taken`: record keys that mean something else (natural keys seen, other routes' shards). A partition for
    which no id was found within the tries is left out.
    """
    prefix = Prefix(key + b":")
    found = {
        shard.partition: shard
        for shard in (previous.shards if previous else ())
        if shard.partition in wanted
        and prefix.partition_for(b"%d" % shard.id, partitions) == shard.partition
        and shard_key(key, shard.id) not in taken
    }
    missing = set(wanted) - set(found)
    for shard_id in range(TRIES_PER_PARTITION * partitions + len(taken)):
        if not missing:
            break
        partition = prefix.partition_for(b"%d" % shard_id, partitions)
        if partition in missing and shard_key(key, shard_id) not in taken:
            found[partition] = Shard(shard_id, partition)
            missing.discard(partition)
    return found


def record_keys(routes: Iterable[Route]) -> set[bytes]:
    """The record keys that these routes write, whether Composite or not (Preserve may become Composite)."""
    return {shard_key(route.key, shard.id) for route in routes for shard in route.shards}
