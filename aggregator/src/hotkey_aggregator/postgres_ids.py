"""Which clicks of a flush are new, where the store can only be asked by digest.

An id may be longer than an index takes, so the unique index of a day is on 64 bits of digest, and the text
decides: a digest that another id has taken sends an id on to its next digest, as in open addressing. Within
one day's table nothing is ever removed, so an id is absent from it as soon as one of its digests is.

Pure: how to ask the database comes in as a function.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hotkey_aggregator.postgres_copy import Hashing, Integers
from hotkey_aggregator.store import Conflict
from hotkey_aggregator.windows import Clicks

EXAMPLES = 10


class Hit(NamedTuple):
    """A row that has one of the digests that were asked for."""

    digest: int
    payload: int
    event_id: str
    current: bool
    """Whether it is in the table that the flush writes to."""


Find = Callable[[Integers], Sequence[Hit]]
"""All rows, of every day that is kept, that have one of these digests."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """What became of a flush's clicks."""

    new: Integers
    """Indices of the clicks to count."""
    digests: Integers
    """The digest under which each of `new` is to be stored; ascending, no two alike."""
    duplicates: int
    conflicts: int
    examples: tuple[Conflict, ...]


def sort_out(clicks: Clicks, payloads: Integers, hashing: Hashing, find: Find) -> Sorted:
    """Tell the clicks whose ids are new from the others; of equal ids the first is the new one."""
    first = hashing(clicks.event_ids, 0)
    order = np.argsort(first)
    ascending = first[order]
    hits = find(_distinct(ascending))
    doubtful = _doubtful(ascending, hits)
    clean = order[~doubtful]
    if len(clean) == len(order):
        return Sorted(order, ascending, 0, 0, ())
    slots = _Slots(clicks, payloads, hashing, find, ascending[~doubtful])
    slots.place(np.sort(order[doubtful]), first, hits)
    new = np.concatenate([clean, np.array(slots.rows, np.int64)])
    taken = np.concatenate([ascending[~doubtful], np.array(slots.digests, np.int64)])
    by_digest = np.argsort(taken)
    return Sorted(
        new[by_digest], taken[by_digest], len(order) - len(new), slots.conflicts, tuple(slots.examples)
    )


def _distinct(ascending: Integers) -> Integers:
    first: npt.NDArray[np.bool_] = np.ones(len(ascending), np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    return ascending[first]


def _doubtful(ascending: Integers, hits: Sequence[Hit]) -> npt.NDArray[np.bool_]:
    """Which digests occur more than once, in the flush or in the store."""
    doubtful = np.zeros(len(ascending), np.bool_)
    same = ascending[1:] == ascending[:-1]
    doubtful[1:] |= same
    doubtful[:-1] |= same
    if hits:
        doubtful |= np.isin(ascending, np.array([hit.digest for hit in hits], np.int64))
    return doubtful


@dataclass
class _Slots:
    """Goes through the clicks that need a look at their text, one by one, in their order."""

    clicks: Clicks
    payloads: Integers
    hashing: Hashing
    find: Find
    clean: Integers
    rows: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    conflicts: int = 0
    examples: list[Conflict] = field(default_factory=list)
    _taken: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Id and payload by digest of what was placed here."""

    def place(self, rows: Integers, first: Integers, hits: Sequence[Hit]) -> None:
        by_digest: dict[int, list[Hit]] = defaultdict(list)
        for hit in hits:
            by_digest[hit.digest].append(hit)
        for row, digest, payload in zip(
            rows.tolist(), first[rows].tolist(), self.payloads[rows].tolist(), strict=True
        ):
            known = self._settle(self.clicks.event_ids[row], row, payload, digest, by_digest.get(digest, ()))
            if known is not None and known != payload:
                self._report(row)

    def _settle(self, event_id: str, row: int, payload: int, digest: int, hits: Sequence[Hit]) -> int | None:
        """The payload that was counted under this id; None when the id is new, and has its place now."""
        slot: int | None = None
        for attempt in itertools.count(1):
            for hit in hits:
                if hit.event_id == event_id:
                    return hit.payload
            mate = self._taken.get(digest)
            if mate is not None and mate[0] == event_id:
                return mate[1]
            free = mate is None and not any(hit.current for hit in hits)
            # A day before today may have the id further on, although today's table has room for it here.
            if slot is None and free and (attempt == 1 or not self._is_clean(digest)):
                slot = digest
            if slot is not None and not hits:
                break
            digest = int(self.hashing([event_id], attempt)[0])
            hits = self.find(np.array([digest], np.int64))
        assert slot is not None
        self._taken[slot] = (event_id, payload)
        self.rows.append(row)
        self.digests.append(slot)
        return None

    def _is_clean(self, digest: int) -> bool:
        """Whether a click that needed no look has taken it; such a one is never this id."""
        at = int(np.searchsorted(self.clean, digest))
        return at < len(self.clean) and int(self.clean[at]) == digest

    def _report(self, row: int) -> None:
        self.conflicts += 1
        if len(self.examples) < EXAMPLES:
            source = self.clicks.sources[self.clicks.source_of[row]]
            self.examples.append(Conflict(self.clicks.event_ids[row], source, int(self.clicks.offsets[row])))
