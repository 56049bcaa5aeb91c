"""Flushes as the tests of the stores write them: clicks row by row, as the port wants them in columns."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

from hotkey_aggregator.store import Flush, Keeping, OffsetMove, Position, Store
from hotkey_aggregator.windows import Clicks, Source

P0, P1 = Source("clicks", 0, "topic-id-1"), Source("clicks", 1, "topic-id-1")
HOT = Source("clicks.hot.1234abcd.g7", 0, "topic-id-2")

DEFAULT = Keeping()


class OpenStore(Protocol):
    """Opens the same store again and again: what one has committed the next one finds."""

    def __call__(self, keeping: Keeping = DEFAULT) -> Store: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One click of a test."""

    event_id: str
    advertiser_id: str = "nike"
    ad_id: str = "ad"
    time: int = 0
    cost: int = 0
    payload: str = ""
    """Whatever else its record says: another payload under the same id is a conflict."""

    @property
    def digest(self) -> int:
        """Of all that the record says; negative for about half of them, as a real one is."""
        return zlib.crc32(repr(self).encode(errors="surrogatepass")) - 2**31


def clicks(*rows: Row, source: Source = P0, first_offset: int = 0) -> Clicks:
    """Rows of one partition, one after the other."""
    return Clicks(
        event_ids=[row.event_id for row in rows],
        advertiser_ids=[row.advertiser_id for row in rows],
        ad_ids=[row.ad_id for row in rows],
        click_times=[row.time for row in rows],
        costs=[row.cost for row in rows],
        digests=[row.digest for row in rows],
        source_of=[0 for _ in rows],
        offsets=list(range(first_offset, first_offset + len(rows))),
        sources=(source,),
    )


def move(source: Source, expected: int | None, next_offset: int) -> tuple[OffsetMove, ...]:
    """One partition's compare-and-set."""
    return (OffsetMove(source, expected, Position(next_offset)),)


def flush(*rows: Row, at: int | None = None, source: Source = P0, now: int = 0) -> Flush:
    """Rows that go on at offset `at` of a partition; None: from 0, and the store knows nothing of it yet."""
    first = at or 0
    return Flush(
        clicks(*rows, source=source, first_offset=first),
        moves=move(source, at, first + len(rows)),
        now=now,
    )
