"""The ids of closed segments in a member's memory, so that hardly any is asked of the database.

A closed segment never changes, so what was read of it once holds for ever. The filter is never the
authority: what it says may be in a segment is looked up there, and a segment of which it does not know all
digests yet is asked for every id. They are read in a thread of its own, while flushes go on. It knows
segments and digests, no ids.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from hotkey_aggregator.id_filter import HEADROOM, Hashes, IdFilter, name_of
from hotkey_aggregator.postgres_connections import Connections
from hotkey_aggregator.postgres_copy import Integers
from hotkey_aggregator.postgres_segments import Segment
from hotkey_aggregator.store import StoreError

ROOM, GROWTH = 16_000_000, 0.2
"""Ids that a further filter has room for, and what share of those that are held at least: a filter cannot
grow, and each one is asked for every id."""

CLOSE_SECONDS = 10.0

_SIGN = np.uint64(1 << 63)


class ClosedSegments:
    """What one member knows of the segments that take no more ids."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._filters: list[IdFilter] = []
        self._filter_of: dict[int, IdFilter] = {}
        self._known: set[int] = set()
        self._unknown: list[Segment] = []
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def unknown(self) -> Sequence[int]:
        """Numbers of the closed segments that are still to be read, as far as `follow` was told."""
        with self._lock:
            return [segment.number for segment in self._unknown]

    @property
    def nbytes(self) -> int:
        """Memory of the filters."""
        with self._lock:
            return sum(each.nbytes for each in self._filters)

    def asked(self, digests: Integers, segments: Sequence[Segment]) -> Iterator[tuple[Segment, Integers]]:
        """Segments, each with those of the digests that it may have."""
        with self._lock:
            known = set(self._known)
            found = {id(each): each.find(_hashes(digests)) for each in self._filters} if known else {}
        for segment in segments:
            if segment.number not in known:
                yield segment, digests
                continue
            rows, names = found[id(self._filter_of[segment.number])]
            suspects = np.unique(rows[names == name_of(segment.number)])
            if len(suspects):
                yield segment, digests[suspects]

    def follow(self, segments: Sequence[Segment]) -> None:
        """Forget what is gone from all `segments`, and begin to read what is new among them."""
        closed = {segment.number: segment for segment in segments if not segment.is_open and segment.listed}
        with self._lock:
            for gone in self._filter_of.keys() - closed.keys():
                self._filter_of.pop(gone).forget(gone)
                self._known.discard(gone)
            self._filters = [each for each in self._filters if len(each)] or self._filters[:1]
            # The oldest first: a filter takes and forgets them in one order.
            self._unknown = [closed[number] for number in sorted(closed.keys() - self._known)]
            idle = self._thread is None or not self._thread.is_alive()
            if self._unknown and idle and not self._closing.is_set():
                self._thread = threading.Thread(target=self._read, name="closed segments", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _read(self) -> None:
        # Until then the database is asked; the next flush begins here again.
        with suppress(StoreError):
            while (segment := self._next()) is not None:
                self._read_one(segment)

    def _next(self) -> Segment | None:
        with self._lock:
            return self._unknown[0] if self._unknown and not self._closing.is_set() else None

    def _read_one(self, segment: Segment) -> None:
        complete = False
        try:
            with self._connections.read() as connection, connection.transaction():
                for digests in segment.digests(connection):
                    if self._closing.is_set():
                        return
                    with self._lock:
                        self._room_for(segment).add(_hashes(digests), segment.number)
            complete = True
        finally:
            with self._lock:
                self._unknown = [each for each in self._unknown if each.number != segment.number]
                if complete:
                    self._known.add(segment.number)
                elif segment.number in self._filter_of:
                    self._filter_of.pop(segment.number).forget(segment.number)

    def _room_for(self, segment: Segment) -> IdFilter:
        if segment.number not in self._filter_of:
            fitting = [each for each in self._filters if each.has_room_for(segment.ids or 0)]
            if not fitting:
                missing = sum(each.ids or 0 for each in self._unknown)
                held = sum(len(each) for each in self._filters)
                fitting = [IdFilter(int(max(missing * HEADROOM, min(held, ROOM), held * GROWTH)))]
                self._filters += fitting
            self._filter_of[segment.number] = fitting[0]
        return self._filter_of[segment.number]


def _hashes(digests: Integers) -> Hashes:
    """In the same order: signed numbers begin with the negative ones."""
    return digests.view(np.uint64) ^ _SIGN
