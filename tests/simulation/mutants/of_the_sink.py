"""Mutants of what makes counting exact: the compare-and-set, the one transaction, dedupe, identity."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec

from hotkey_aggregator import duckdb_store
from hotkey_aggregator.columns import Rows
from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.store import Committed, Conflict, Flush, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source
from tests.contract.aggregator.broken_stores import EarlyIdsStore, EarlyOffsetsStore, UncomparingStore
from tests.contract.aggregator.model_store import ModelStore
from tests.simulation.faults import Kind
from tests.simulation.mutants.mutant import Mutant, On, Patch, method, said
from tests.simulation.parts import REAL, Pause

STORE = "tests/contract/aggregator/test_store.py"
KILLS = (
    "tests/contract/aggregator/test_duckdb_file.py"
    "::test_a_kill_before_any_statement_of_a_flush_keeps_all_of_it_or_nothing"
)


class UncomparingModel(ModelStore):
    """Sets the offsets without comparing what was there."""

    def commit(self, flush: Flush) -> Committed:
        stored = self.positions()
        found = [replace(move, expected=_next(stored, move)) for move in flush.moves]
        return super().commit(replace(flush, moves=tuple(found)))


def _next(stored: Mapping[Source, Any], move: OffsetMove) -> int | None:
    return stored[move.source].next_offset if move.source in stored else None


async def offsets_first(store: ModelStore, flush: Flush, pause: Pause) -> Committed:
    """The offsets, and then in another transaction what they stand for."""
    moved = store.commit(Flush(moves=flush.moves, now=flush.now))
    await pause()
    here = tuple(replace(move, expected=move.position.next_offset) for move in flush.moves)
    return store.commit(replace(flush, moves=here)) if flush.clicks or flush.dead else moved


async def ids_first(store: ModelStore, flush: Flush, pause: Pause) -> Committed:
    """The dedupe rows, and then in another transaction the counts that they guard, with the offsets."""
    clicks = flush.clicks
    fresh = [row for row, event_id in enumerate(clicks.event_ids) if event_id not in store._ids]
    for row in fresh:
        store._ids[clicks.event_ids[row]] = clicks.digests[row], flush.now
    await pause()
    for row in fresh:
        store._ids.pop(clicks.event_ids[row], None)
    return store.commit(flush)


class TopicwiseModel(ModelStore):
    """An id that came by another topic is no duplicate: each topic has rows of its own."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._of_topic: dict[str, dict[str, tuple[int, int]]] = {}

    def _count(self, flush: Flush) -> list[Conflict]:
        everything, new, conflicts = self._ids, 0, []
        for topic in sorted({source.topic for source in flush.clicks.sources}):
            self._ids = self._of_topic.setdefault(topic, {})
            conflicts += super()._count(replace(flush, clicks=_of(topic, flush.clicks)))
            everything.update(self._ids)
            new += self._new
        self._ids, self._new = everything, new
        return conflicts


def _of(topic: str, clicks: Clicks) -> Clicks:
    rows = [row for row, number in enumerate(clicks.source_of) if clicks.sources[number].topic == topic]
    return Clicks(
        [clicks.event_ids[row] for row in rows],
        [clicks.advertiser_ids[row] for row in rows],
        [clicks.ad_ids[row] for row in rows],
        [clicks.click_times[row] for row in rows],
        [clicks.costs[row] for row in rows],
        [clicks.digests[row] for row in rows],
        [clicks.source_of[row] for row in rows],
        [clicks.offsets[row] for row in rows],
        clicks.sources,
    )


def renamed(key: bytes | str | None, value: bytes | str | None) -> bytes:
    """A click's value with the advertiser that its key names."""
    text = key.decode(errors="replace") if isinstance(key, bytes) else key
    data = value.encode() if isinstance(value, str) else value or b""
    with contextlib.suppress(msgspec.DecodeError):
        said = msgspec.json.decode(data)
        if isinstance(said, dict) and text:
            return msgspec.json.encode({**said, "advertiser_id": text.rpartition(":")[0] or text})
    return data


def by_the_key() -> Patch:
    """The advertiser is what the record key says before its last colon."""
    decode = Pending._decode

    def of_keys(pending: Pending, rows: Rows) -> None:
        rows.values = [renamed(record.key(), record.value()) for record in rows.records]
        decode(pending, rows)

    return method(Pending, "_decode", of_keys)


def instead(broken: type[DuckDBStore]) -> Callable[[], Patch]:
    """A broken store in the place of DuckDB's, for whoever asks for it from now on."""
    return lambda: patch.object(duckdb_store, "DuckDBStore", broken)


def ids_by_topic() -> Patch:
    columns = duckdb_store._columns

    def with_topic(clicks: Clicks) -> dict[str, Any]:
        topics = [clicks.sources[number].topic for number in clicks.source_of]
        ids = [f"{topic} {event_id}" for topic, event_id in zip(topics, clicks.event_ids, strict=True)]
        return columns(replace(clicks, event_ids=ids))

    return patch.object(duckdb_store, "_columns", with_topic)


def nameless_logs() -> Patch:
    """The store knows a log by its topic's name alone: one that was made anew is the same to it."""
    commit = DuckDBStore.commit

    def nameless(store: DuckDBStore, flush: Flush) -> Committed:
        return commit(store, without_ids(flush))

    return method(DuckDBStore, "commit", nameless)


class NamelessModel(ModelStore):
    """Hands out the position of any log that had that name and number."""

    def positions(self) -> Mapping[Source, Position]:
        return Nameless(super().positions())

    def commit(self, flush: Flush) -> Committed:
        for move in flush.moves:
            self._take_over(move.source)
        return super().commit(flush)

    def _take_over(self, source: Source) -> None:
        former = _of_that_name(self._positions, source)
        if former is not None and former != source:
            self._positions[source] = self._positions.pop(former)


class Nameless(dict[Source, Position]):
    """Positions that are found whatever the topic's id."""

    def get(self, source: Source, default: Any = None) -> Any:
        found = _of_that_name(self, source)
        return default if found is None else dict.__getitem__(self, found)

    def __getitem__(self, source: Source) -> Position:
        found = _of_that_name(self, source)
        return dict.__getitem__(self, source if found is None else found)

    def __contains__(self, source: object) -> bool:
        return isinstance(source, Source) and _of_that_name(self, source) is not None


def _of_that_name(positions: Iterable[Source], source: Source) -> Source | None:
    return next((each for each in positions if each[:2] == source[:2]), None)


def without_ids(flush: Flush) -> Flush:
    """The flush as it is where topics have no ids."""
    sources = tuple(source._replace(topic_id="") for source in flush.clicks.sources)
    moves = tuple(replace(move, source=move.source._replace(topic_id="")) for move in flush.moves)
    return replace(flush, clicks=replace(flush.clicks, sources=sources), moves=moves)


MUTANTS = (
    Mutant(
        "offsets-without-topic-id",
        3,
        "stored offsets are those of a name: a topic that was made anew goes on at the old one's offset",
        f"{STORE}::test_a_topic_made_anew_is_another_source_and_the_old_position_stays[duckdb]",
        nameless_logs,
        replace(REAL, make_store=NamelessModel),
        unseen="a shorter log is read again, as if cut off: it takes one that outgrows the old one unread",
    ),
    Mutant(
        "sink-compare-and-set-off",
        10,
        "a flush sets the offsets without comparing what was there",
        f"{STORE}::test_a_flush_that_expects_another_offset_is_refused_whole[duckdb-1]",
        instead(UncomparingStore),
        replace(REAL, make_store=UncomparingModel),
        seeded=said("was taken at", only=(Kind.MEMBER_FROZEN, Kind.MEMBER_FROZEN_FLUSHING)),
    ),
    Mutant(
        "offsets-in-another-transaction",
        10,
        "the offsets are committed before the counts that they stand for",
        KILLS,
        instead(EarlyOffsetsStore),
        replace(REAL, commit=offsets_first),
        seeded=said("are not counted", only=(Kind.MEMBER_KILLED_FLUSHING,)),
    ),
    Mutant(
        "dedupe-row-in-another-transaction",
        11,
        "the dedupe rows are committed before the counts that they guard",
        KILLS,
        instead(EarlyIdsStore),
        replace(REAL, commit=ids_first),
        seeded=said("are not counted", only=(Kind.MEMBER_KILLED_FLUSHING,)),
    ),
    Mutant(
        "dedupe-by-topic",
        11,
        "an id that came by another topic is no duplicate",
        f"{STORE}::test_an_id_is_counted_once_whichever_topic_and_partition_it_comes_from_again[duckdb]",
        ids_by_topic,
        replace(REAL, make_store=TopicwiseModel),
        seeded=said("counted more than once", on=On.DEDICATED, only=(Kind.LEADERS, Kind.PRODUCER_FROZEN)),
    ),
    Mutant(
        "identity-from-the-key",
        12,
        "the advertiser is what the record key says before its last colon",
        "tests/unit/aggregator/test_pending.py"
        "::test_whose_a_click_is_says_its_value_whatever_its_key[nike:7]",
        by_the_key,
        seeded=said("counted under another key"),
    ),
)
