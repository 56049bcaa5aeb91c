"""Kafka's default partitioner (Java's murmur2), so that a plan knows where a key lands.

Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`;
librdkafka's `murmur2_random` is the same function.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

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
        return (_finished(self._state(len(suffix)), self._rest + suffix) & 0x7FFFFFFF) % partitions

    def partitions_for(self, first: int, count: int, partitions: int) -> list[int]:
        """`partition_for` of the decimal suffixes `first`, `first + 1` and so on, `count` of them.

        Whoever searches a suffix tries thousands: what shares all but the last chunk is mixed only once.
        """
        found: list[int] = []
        for length, numbers in _by_digits(first, count):
            chunk = (len(self._rest) + length) % 4 or 4
            state = self._state(length)
            if chunk > length:
                found += _all_after(state, self._rest, length, numbers, partitions)
                continue
            for lead, ends in _by_lead(numbers, 10**chunk):
                h = _mixed(state, self._rest + (b"%d" % lead if length > chunk else b""))
                found += _all_finished(h, chunk, ends, partitions)
        return found

    def _state(self, suffix: int) -> int:
        """The hash after the prefix's whole words, for a suffix of so many bytes."""
        length = self._length + suffix
        state = self._states.get(length)
        if state is None:
            state = self._states[length] = _mixed(_SEED ^ length, self._words)
        return state


def _by_digits(first: int, count: int) -> Iterator[tuple[int, range]]:
    """The numbers from `first` on, in ranges of equally many decimal digits."""
    end = first + count
    while first < end:
        length = len(str(first))
        stop = min(end, 10**length)
        yield length, range(first, stop)
        first = stop


def _by_lead(numbers: range, size: int) -> Iterator[tuple[int, range]]:
    """The numbers as multiples of `size` and what is added to each of them."""
    for lead in range(numbers.start // size, (numbers.stop - 1) // size + 1):
        start = lead * size
        yield lead, range(max(numbers.start - start, 0), min(numbers.stop - start, size))


def _all_finished(h: int, chunk: int, ends: range, partitions: int) -> list[int]:
    """The partitions for state `h` before its last `chunk` bytes, which are the digits of each of `ends`."""
    if chunk == 4:
        h = h * _M & _MASK
        table = _chunks(4)
        hashes = [h ^ table[end] for end in ends]
    else:
        table = _chunks(chunk)
        hashes = [(h ^ table[end]) * _M & _MASK for end in ends]
    return _partitions(hashes, partitions)


def _all_after(state: int, rest: bytes, length: int, numbers: range, partitions: int) -> list[int]:
    """The partitions of numbers that share their last chunk with the end of `rest`."""
    whole = (len(rest) + length - 1) & ~3
    h, shared = _mixed(state, rest[:whole]), rest[whole:]
    words = [int.from_bytes(shared + b"%d" % number, "little") for number in numbers]
    if len(shared) + length < 4:
        return _partitions([(h ^ word) * _M & _MASK for word in words], partitions)
    h = h * _M & _MASK
    return _partitions(
        [h ^ (((k := word * _M & _MASK) ^ (k >> 24)) * _M & _MASK) for word in words], partitions
    )


def _partitions(hashes: list[int], partitions: int) -> list[int]:
    """The partitions of hashes of which only the last steps are missing."""
    return [
        (((last := (each ^ (each >> 13)) * _M & _MASK) ^ (last >> 15)) & 0x7FFFFFFF) % partitions
        for each in hashes
    ]


@cache
def _chunks(digits: int) -> tuple[int, ...]:
    """What each number of so many digits, zeros in front, does to a state; a whole word is mixed already."""
    words = [int.from_bytes(b"%0*d" % (digits, number), "little") for number in range(10**digits)]
    if digits < 4:
        return tuple(words)
    return tuple(((k := word * _M & _MASK) ^ (k >> 24)) * _M & _MASK for word in words)


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
