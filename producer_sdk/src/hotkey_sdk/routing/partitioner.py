"""Kafka's default partitioner (Java's murmur2), so that a plan knows where a key lands.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`;
librdkafka's `murmur2_random` is the same function.
"""

from __future__ import annotations

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The unsigned 32-bit murmur2 hash of `data` with Kafka's seed."""
    return _finished(_SEED ^ len(data), data)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition, 0 <= p < `partitions`, that Kafka's default partitioner gives `key`."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Prefix:
    """The start of many keys, hashed once for each length of what follows (the hash is seeded with it)."""

    def __init__(self, data: bytes) -> None:
        whole = len(data) & ~3
        self._length = len(data)
        self._words, self._rest = data[:whole], data[whole:]
        self._states: dict[int, int] = {}

    def partition_for(self, suffix: bytes, partitions: int) -> int:
        """`partition_for(prefix + suffix, partitions)`."""
        length = self._length + len(suffix)
        state = self._states.get(length)
        if state is None:
            state = self._states[length] = _mixed(_SEED ^ length, self._words)
        return (_finished(state, self._rest + suffix) & 0x7FFFFFFF) % partitions


def _mixed(h: int, words: bytes) -> int:
    for i in range(0, len(words), 4):
        k = int.from_bytes(words[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    return h


def _finished(h: int, data: bytes) -> int:
    whole = len(data) & ~3
    h = _mixed(h, data[:whole])
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)
