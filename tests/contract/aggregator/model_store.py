"""A store in plain dicts: what the port means, in the fewest words. The contract suite holds it to that."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from hotkey_aggregator.store import (
    Committed,
    Conflict,
    Count,
    CountQuery,
    DeadLetter,
    Flush,
    Keeping,
    OffsetConflictError,
    Position,
    StoreError,
    Totals,
)
from hotkey_aggregator.windows import Source, Window, minute_of

ID_CHUNK = 20_000


class ModelStore:
    """`Store` in memory; one lock makes each call a transaction."""

    def __init__(self, keeping: Keeping | None = None) -> None:
        self.keeping = keeping or Keeping()
        self._lock = threading.RLock()
        self._stream: str | None = None
        self._positions: dict[Source, Position] = {}
        self._ids: dict[str, tuple[int, int]] = {}  # digest, and when it arrived
        self._windows: dict[Window, tuple[int, int]] = defaultdict(lambda: (0, 0))
        self._dead: dict[tuple[Source, int, int], DeadLetter] = {}
        self._undelivered: set[tuple[Source, int, int]] = set()
        self._clicks = self._forgotten = 0

    def opened_again(self, keeping: Keeping) -> ModelStore:
        """The same store, as whoever opens it next finds it."""
        self.keeping = keeping
        return self

    def bind(self, stream: str) -> None:
        if self._stream not in (None, stream):
            raise StoreError(f"the store counts the stream {self._stream!r}, asked for was {stream!r}")
        self._stream = stream

    def name_topics(self, topic_ids: Mapping[str, str]) -> None:
        with self._lock:
            self._positions = {
                source
                if source.topic_id
                else source._replace(topic_id=topic_ids.get(source.topic, "")): position
                for source, position in self._positions.items()
            }

    def positions(self) -> Mapping[Source, Position]:
        with self._lock:
            return dict(self._positions)

    def commit(self, flush: Flush) -> Committed:
        with self._lock:
            for move in flush.moves:
                stored = self._positions.get(move.source)
                found = None if stored is None else stored.next_offset
                if found != move.expected:
                    raise OffsetConflictError(move.source, move.expected, found)
            self._positions.update({move.source: move.position for move in flush.moves})
            conflicts = self._count(flush)
            duplicates = len(flush.clicks) - self._new
            return Committed(
                self._new, duplicates, self._bury(flush.dead), len(conflicts), tuple(conflicts[:10])
            )

    def _count(self, flush: Flush) -> list[Conflict]:
        clicks, conflicts, self._new = flush.clicks, [], 0
        for row, event_id in enumerate(clicks.event_ids):
            known = self._ids.get(event_id)
            if known is not None:
                if known[0] != clicks.digests[row]:
                    source = clicks.sources[clicks.source_of[row]]
                    conflicts.append(Conflict(event_id, source, clicks.offsets[row]))
                continue
            self._ids[event_id] = (clicks.digests[row], flush.now)
            minute = minute_of(clicks.click_times[row])
            window = Window(clicks.advertiser_ids[row], clicks.ad_ids[row], minute)
            number, cost = self._windows[window]
            self._windows[window] = (number + 1, cost + clicks.costs[row])
            self._new += 1
        self._clicks += self._new
        return conflicts

    def _bury(self, dead: Sequence[DeadLetter]) -> int:
        new = {letter.place: letter for letter in dead}
        new = {place: letter for place, letter in new.items() if place not in self._dead}
        self._dead.update(new)
        self._undelivered |= new.keys()
        return len(new)

    def counts(self, query: CountQuery) -> Sequence[Count]:
        with self._lock:
            rows = [
                Count(window, *self._windows[window])
                for window in sorted(
                    self._windows, key=lambda one: (one.minute, one.advertiser_id, one.ad_id)
                )
                if query.advertiser_id in (None, window.advertiser_id)
                and query.ad_id in (None, window.ad_id)
                and (query.minute_from is None or window.minute >= query.minute_from)
                and (query.minute_to is None or window.minute < query.minute_to)
            ]
        return rows[: query.limit]

    def totals(self) -> Totals:
        with self._lock:
            return Totals(self._clicks, len(self._ids), len(self._windows), len(self._dead), self._forgotten)

    def event_ids(self, prefix: str = "") -> Iterator[Sequence[str]]:
        with self._lock:
            found = [event_id for event_id in self._ids if event_id.startswith(prefix)]
        for start in range(0, len(found), ID_CHUNK):
            yield found[start : start + ID_CHUNK]

    def dead(self, limit: int) -> Sequence[DeadLetter]:
        with self._lock:
            letters = sorted(self._dead.values(), key=lambda letter: -letter.offset)
        return letters[:limit]

    def undelivered(self, sources: Collection[Source], limit: int) -> Sequence[DeadLetter]:
        with self._lock:
            places = sorted(self._undelivered, key=lambda place: place[1])
            return [self._dead[place] for place in places if place[0] in sources][:limit]

    def delivered(self, letters: Sequence[DeadLetter]) -> None:
        with self._lock:
            for letter in letters:
                self._undelivered.discard(letter.place)
                self._dead[letter.place] = replace(self._dead[letter.place], key=None, value=None, headers=())

    def expire(self, now: int) -> None:
        with self._lock:
            kept = {one: row for one, row in self._ids.items() if row[1] > now - self.keeping.ids}
            self._forgotten += len(self._ids) - len(kept)
            self._ids = kept
            for window in [one for one in self._windows if one.minute < now - self.keeping.windows]:
                del self._windows[window]

    def close(self) -> None:
        """Nothing to release: what was committed stays."""
