"""Which ids a store may already hold, in memory, so that nearly every new id is known to be new at once.

It answers "certainly not" or "perhaps, in these segments"; the store's rows decide. It is a hash table of
32-bit slots, 32 to a block: 26 bits of the id's hash beside 6 bits that name the segment it is in. Bloom
filters of the same ids would take half the memory, but with one per segment a new id meets 24 of them, and
looking their false answers (some per cent of all ids) up costs more than the rest of a flush. Here a new id
meets another's 26 bits once in three million times.

Each block is a ring: segments are added and forgotten in the same order, so the next slot to fill is always
the oldest one, free if its segment was forgotten. It knows hashes and numbers of segments, no ids, no SQL.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SEGMENTS = 63
"""Segments that can be told apart: 6 bits, less the value that an empty slot has."""

LEAST_CAPACITY = 4_000_000
HEADROOM = 1.1
"""Room beyond what is there when a filter is made, before it must be made anew from the store."""
DOUBLED = 64_000_000
"""Up to this capacity there is twice the room: to read all ids anew costs more than memory does there."""

_SLOTS = 32
_LOAD = 0.75
"""Share of slots in use when full: one block in twenty then has more ids than slots (Poisson, mean 24)."""
_NAME = np.uint32(0x3F)
_FINGERPRINT = np.uint64(0xFFFFFFC0)
_CHUNK = 8_192
"""Hashes handled together: their blocks (1 MiB) stay in the processor's cache from one step to the next."""


class IdFilter:
    """A set of 64-bit hashes, each in a numbered segment; false answers are all of the kind "perhaps"."""

    def __init__(self, capacity: int = 0) -> None:
        self.capacity = max(LEAST_CAPACITY, capacity)
        blocks = int(self.capacity / (_SLOTS * _LOAD)) + 1
        self._blocks = np.uint64(blocks)
        self._slots = np.zeros((blocks, _SLOTS), np.uint32)
        self._next = np.zeros(blocks, np.uint8)
        self._overfull = np.zeros(blocks, np.bool_)
        self._spilled: dict[int, int] = {}
        self._live = np.zeros(SEGMENTS + 1, np.bool_)
        self._added: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(self._added.values())

    @property
    def spilled(self) -> int:
        """Hashes that found their block full; they are kept in a dict."""
        return len(self._spilled)

    @property
    def nbytes(self) -> int:
        """Memory of the tables, without the spilled hashes (about 150 bytes each)."""
        return self._slots.nbytes + self._next.nbytes + self._overfull.nbytes

    def has_room_for(self, hashes: int) -> bool:
        """Whether so many more keep it within its capacity."""
        return len(self) + hashes <= self.capacity

    def add(self, hashes: Hashes, segment: int) -> None:
        """Put hashes, in ascending order, into a segment."""
        self._added[segment] = self._added.get(segment, 0) + len(hashes)
        self._live[name_of(segment)] = True
        for start in range(0, len(hashes), _CHUNK):
            self._add(hashes[start : start + _CHUNK], name_of(segment))

    def find(self, hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where hashes may be: rows of `hashes`, and beside each the name of one segment."""
        pairs = [pair for start in range(0, len(hashes), _CHUNK) for pair in self._find(hashes, start)]
        if not pairs:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate([rows for rows, _ in pairs]), np.concatenate([names for _, names in pairs])

    def forget(self, segment: int) -> None:
        """Let a segment go. Its slots are filled again in their turn."""
        self._added.pop(segment, None)
        gone = name_of(segment)
        if any(name_of(other) == gone for other in self._added):
            return
        self._live[gone] = False
        keep = ~(1 << gone)
        self._spilled = {value: names & keep for value, names in self._spilled.items() if names & keep}
        self._overfull[:] = False
        self._overfull[self._block(np.fromiter(self._spilled, np.uint64))] = True

    def _add(self, hashes: Hashes, name: int) -> None:
        slots, block = self._slots.reshape(-1), self._block(hashes)
        rank = _rank(block)
        target = block * _SLOTS + ((self._next[block] + rank) & (_SLOTS - 1))
        free = ~self._live[slots[target] & _NAME] & (rank < _SLOTS)
        slots[target[free]] = (_fingerprint(hashes) | np.uint32(name))[free]
        # Of the entries of one block the last one stays.
        self._next[block[free]] = (target[free] + 1) & (_SLOTS - 1)
        for value in hashes[~free].tolist():
            self._spilled[value] = self._spilled.get(value, 0) | 1 << name
        self._overfull[block[~free]] = True

    def _find(self, hashes: Hashes, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        part = hashes[start : start + _CHUNK]
        block = self._block(part)
        found = np.take(self._slots, block, axis=0)
        np.bitwise_xor(found, _fingerprint(part)[:, None], out=found)
        # Eight answers are read as one number: nearly all of them are no.
        eights = np.flatnonzero((found <= _NAME).view(np.uint64))
        if len(eights):
            among = np.unique(eights // (_SLOTS // 8))
            row, slot = np.nonzero(found[among] <= _NAME)
            names = found[among[row], slot].astype(np.int64)
            live = self._live[names]
            yield (among[row] + start)[live], names[live]
        if self._spilled:
            yield from self._find_spilled(part, np.flatnonzero(self._overfull[block]), start)

    def _find_spilled(
        self, part: Hashes, rows: NDArray[np.int64], start: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for row, value in zip(rows.tolist(), part[rows].tolist(), strict=True):
            names = self._spilled.get(value, 0)
            for name in range(1, SEGMENTS + 1) if names else ():
                if names >> name & 1:
                    yield np.array([row + start]), np.array([name])

    def _block(self, hashes: Hashes) -> NDArray[np.int64]:
        # The high half of the hash, scaled to the number of blocks: ascending where the hashes are.
        return ((hashes >> np.uint64(32)) * self._blocks >> np.uint64(32)).astype(np.int64)


def room_for(ids: int) -> int:
    """The capacity of a filter that is made for a store which has so many ids, and gets more."""
    return max(int(ids * HEADROOM), min(2 * ids, DOUBLED))


def name_of(segment: int) -> int:
    """What a segment is called in the filter, 1 to `SEGMENTS`; segments that many apart share one."""
    return segment % SEGMENTS + 1


def _rank(block: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many entries before this one are of the same block; blocks are ascending."""
    place = np.arange(len(block))
    starts = np.where(np.r_[True, block[1:] != block[:-1]], place, 0)
    return place - np.maximum.accumulate(starts)


def _fingerprint(hashes: Hashes) -> NDArray[np.uint32]:
    # From the low half: blocks are chosen by the high one.
    return (hashes & _FINGERPRINT).astype(np.uint32)
