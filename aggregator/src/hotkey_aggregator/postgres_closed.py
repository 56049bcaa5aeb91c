"""The ids of closed segments in a member's memory, so that hardly any is asked of the database.

A closed segment never changes, so what was read of it once holds for ever. The filter is never the
authority: what it says may be in a segment is looked up there, and a segment of which it does not know all
digests yet is asked for every id. They are read in a thread of its own, while flushes go on. It knows
segments and digests, no ids.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from hotkey_aggregator.id_filter import HEADROOM, Hashes, IdFilter, name_of
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.postgres_connections import Connections
from hotkey_aggregator.postgres_copy import Integers
from hotkey_aggregator.postgres_segments import Segment
from hotkey_aggregator.store import StoreError

ROOM, GROWTH = 16_000_000, 0.2
"""Ids that a further filter has room for, and what share of those that are held at least: a filter cannot
grow, and each one is asked for every id."""

ASKED_IDS_A_READ_ONE = 40
"""Reading an id of a closed segment takes 0.1 us, asking for one 0.3 us and more: a segment is waited for if
this and the next dozen flushes would take longer to ask it."""
WAIT_SECONDS = 10.0
CLOSE_SECONDS = 10.0
TOLD_SECONDS = 1.0
"""How long reading takes that is worth a line in the log."""

log = logging.getLogger("hotkey_aggregator")

_SIGN = np.uint64(1 << 63)


class ClosedSegments:
    """What one member knows of the segments that take no more ids."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._filters: list[IdFilter] = []
        self._filter_of: dict[int, IdFilter] = {}
        self._known: dict[int, int | None] = {}  # how many ids each held when it was read
        self._unknown: list[Segment] = []
        self._thread: threading.Thread | None = None
        self._reading = False
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
            known = dict(self._known)
            found = {id(each): each.find(_hashes(digests)) for each in self._filters} if known else {}
        for segment in segments:
            # A server that went back in time may close a segment again, with other ids.
            if segment.is_open or known.get(segment.number) != segment.ids:
                yield segment, digests
                continue
            if segment.number not in self._filter_of:
                continue  # it holds no ids
            rows, names = found[id(self._filter_of[segment.number])]
            suspects = np.unique(rows[names == name_of(segment.number)])
            if len(suspects):
                yield segment, digests[suspects]

    def follow(self, segments: Sequence[Segment]) -> None:
        """Forget what is gone from all `segments`, and begin to read what is new among them."""
        closed = {segment.number: segment for segment in segments if not segment.is_open and segment.listed}
        with self._lock:
            for number in self._known.keys() | self._filter_of.keys():
                held = closed.get(number)
                if held is None or self._known.get(number, held.ids) != held.ids:
                    self._forget(number)
            self._filters = [each for each in self._filters if len(each)] or self._filters[:1]
            # The oldest first: a filter takes and forgets them in one order.
            self._unknown = [closed[number] for number in sorted(closed.keys() - self._known)]
            if self._unknown and not self._reading and not self._closing.is_set():
                self._reading = True
                self._thread = threading.Thread(target=self._read, name="closed segments", daemon=True)
                self._thread.start()

    def wait(self, ids: int) -> None:
        """Give those that are being read a moment, where a flush of so many ids is better off for it."""

        def paid() -> bool:
            left = [each for each in self._unknown if (each.ids or 0) <= ids * ASKED_IDS_A_READ_ONE]
            return not left or not self._reading

        with self._changed:
            self._changed.wait_for(paid, WAIT_SECONDS)

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _read(self) -> None:
        began, ids = time.monotonic(), 0
        try:
            # When the database cannot be read now, it is asked, and the next flush begins here again.
            with suppress(StoreError):
                while (segment := self._next()) is not None:
                    self._read_one(segment)
                    ids += segment.ids or 0
        finally:
            with self._changed:
                self._reading = False
                self._changed.notify_all()
        if (seconds := time.monotonic() - began) > TOLD_SECONDS:
            log.info(line("ids_read", ids=ids, seconds=f"{seconds:.1f}"))

    def _next(self) -> Segment | None:
        with self._lock:
            return self._unknown[0] if self._unknown and not self._closing.is_set() else None

    def _read_one(self, segment: Segment) -> None:
        complete, ids = False, 0
        try:
            with self._connections.read(own=True) as connection, connection.transaction():
                for digests in segment.digests(connection):
                    if self._closing.is_set():
                        return
                    with self._lock:
                        self._room_for(segment).add(_hashes(digests), segment.number)
                    ids += len(digests)
            # A standby that lags may have answered: what it has not got yet is asked for.
            complete = ids == segment.ids
        finally:
            with self._lock:
                self._unknown = [each for each in self._unknown if each.number != segment.number]
                if complete:
                    self._known[segment.number] = segment.ids
                else:
                    self._forget(segment.number)
                self._changed.notify_all()

    def _forget(self, number: int) -> None:
        self._known.pop(number, None)
        if number in self._filter_of:
            self._filter_of.pop(number).forget(number)

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
