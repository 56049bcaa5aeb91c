"""Shard ids are searched, not counted: an id is taken because murmur2 puts `key:id` where the plan wants."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from functools import lru_cache

from hotkey_sdk.routing.partitioner import Prefix
from hotkey_sdk.routing.table import Route, Shard, shard_key

KEY_BYTES_AT_MOST = 16 * 1024  # of a key that is spread: it stands in the table that all clients read
TRIES_PER_PARTITION = 60  # an id misses one partition of n with (1-1/n)^60n, about e^-60
BLOCK_IDS = 128  # that are hashed at once and remembered: a plan is made every second while a key is hot
BLOCKS_KEPT = 8_192  # of half a KiB each
PREFIXES_KEPT = 256


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
        if shard.partition in wanted
        and landing(key, shard.id, partitions) == shard.partition
        and shard_key(key, shard.id) not in taken
    }
    missing = set(wanted) - set(found)
    tries = TRIES_PER_PARTITION * partitions + len(taken)
    for first in range(0, tries, BLOCK_IDS):
        if not missing:
            break
        for shard_id, partition in enumerate(_landings(key, partitions, first), first):
            if partition in missing and shard_id < tries and shard_key(key, shard_id) not in taken:
                found[partition] = Shard(shard_id, partition)
                missing.discard(partition)
    return found


def landing(key: bytes, shard_id: int, partitions: int) -> int:
    """The partition that the default partitioner gives the shard's record key."""
    offset = shard_id % BLOCK_IDS
    return _landings(key, partitions, shard_id - offset)[offset]


def record_keys(routes: Iterable[Route]) -> set[bytes]:
    """The record keys that these routes write, whether Composite or not (Preserve may become Composite)."""
    return {shard_key(route.key, shard.id) for route in routes for shard in route.shards}


def forget() -> None:
    """Remember no hashes: for who measures what a first search takes."""
    _landings.cache_clear()
    _prefix.cache_clear()


@lru_cache(maxsize=PREFIXES_KEPT)
def _prefix(key: bytes) -> Prefix:
    return Prefix(key + b":")


@lru_cache(maxsize=BLOCKS_KEPT)
def _landings(key: bytes, partitions: int, first: int) -> array[int]:
    """The partitions of the ids from `first` on, BLOCK_IDS of them."""
    return array("I", _prefix(key).partitions_for(first, BLOCK_IDS, partitions))
