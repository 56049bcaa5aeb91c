"""What waits for a flush, and from where each partition goes on."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.events import Click, Reason, encode
from hotkey_aggregator.pending import FUTURE_MILLISECONDS, Jump, Pending
from hotkey_aggregator.store import HOUR_MILLISECONDS, DeadLetter, Flush, Keeping, OffsetMove, Position
from hotkey_aggregator.windows import Source

NOW = 1_800_000_000_000
P0, P1 = Source("clicks", 0, "id-1"), Source("clicks", 1, "id-1")
DAY = 24 * HOUR_MILLISECONDS
P0_ANEW = Source("clicks", 0, "id-2")


@dataclass(frozen=True)
class Read:
    """A record as the Kafka client hands it out."""

    place: Source
    at: int
    body: bytes | None
    epoch: int | None = 3
    sent: int = NOW

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.partition

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"nike:7"

    def value(self) -> bytes | None:
        return self.body

    def headers(self) -> list[tuple[str, bytes | str | None]]:
        return [("trace", b"1"), ("none", None)]

    def timestamp(self) -> tuple[int, int]:
        return (1, self.sent)

    def leader_epoch(self) -> int | None:
        return self.epoch


def value(event_id: str, time: int = NOW, cost: float | None = None) -> bytes:
    return encode(Click(event_id, "nike", "ad", "user", time, cost=cost))


def read(source: Source, *event_ids: str, start: int = 0) -> list[Read]:
    return [Read(source, offset, value(event_id)) for offset, event_id in enumerate(event_ids, start)]


def assigned(*sources: Source, stored: Position | None = None) -> Pending:
    pending = Pending()
    for source in sources:
        pending.assign(source, stored)
    return pending


def where(flush: Flush) -> dict[str, tuple[Source, int]]:
    """Each id's source and offset."""
    columns = flush.clicks
    return {
        event_id: (columns.sources[number], offset)
        for event_id, number, offset in zip(
            columns.event_ids, columns.source_of, columns.offsets, strict=True
        )
    }


def test_a_flush_moves_each_partition_from_the_stored_offset_to_the_next_one() -> None:
    pending = assigned(P0)
    pending.assign(P1, Position(5))
    pending.take([*read(P0, "a", "b"), *read(P1, "c", start=5)], NOW)

    flush = pending.flush(NOW)

    assert set(flush.moves) == {
        OffsetMove(P0, None, Position(2, leader_epoch=3, event_time=NOW)),
        OffsetMove(P1, 5, Position(6, leader_epoch=3, event_time=NOW)),
    }
    assert where(flush) == {"a": (P0, 0), "b": (P0, 1), "c": (P1, 5)}
    assert flush.now == NOW


def test_the_next_flush_starts_where_the_last_one_ended_though_that_is_still_on_its_way() -> None:
    pending = assigned(P0)
    pending.take(read(P0, "a"), NOW)
    pending.flush(NOW)
    assert (pending.events, pending.value_bytes) == (0, 0)

    pending.take(read(P0, "b", start=1), NOW)
    flush = pending.flush(NOW)
    assert [(move.expected, move.position.next_offset) for move in flush.moves] == [(1, 2)]
    assert list(flush.clicks.event_ids) == ["b"]


def test_records_of_many_partitions_keep_their_columns_together() -> None:
    pending = assigned(P0, P1)
    mixed = [
        Read(P0, 0, value("a", NOW - 5, cost=0.5)),
        Read(P1, 0, value("b", NOW - 9)),
        Read(P0, 1, value("c", NOW - 7, cost=2)),
    ]
    pending.take(mixed, NOW)
    columns = pending.flush(NOW).clicks
    assert list(columns.click_times) == [NOW - 5, NOW - 9, NOW - 7]
    assert list(columns.costs) == [500_000, 0, 2_000_000]
    assert [columns.sources[number] for number in columns.source_of] == [P0, P1, P0]
    assert (set(columns.advertiser_ids), set(columns.ad_ids)) == ({"nike"}, {"ad"})


@dataclass(frozen=True)
class Keyed(Read):
    """A record under any key."""

    record_key: bytes | None = None

    def key(self) -> bytes | None:  # type: ignore[override]
        return self.record_key


@pytest.mark.parametrize("key", [b"nike", b"nike:7", b"adidas", b"adidas:1", b"a:1", b"", b"\xff", None])
def test_whose_a_click_is_says_its_value_whatever_its_key(key: bytes | None) -> None:
    pending = assigned(P0)
    clicks = [Click(f"{name}:1", name, "ad:2", "user", NOW) for name in ("a:1", "nike")]

    pending.take([Keyed(P0, at, encode(click), record_key=key) for at, click in enumerate(clicks)], NOW)

    columns = pending.flush(NOW).clicks
    assert list(columns.event_ids) == ["a:1:1", "nike:1"]
    assert list(columns.advertiser_ids) == ["a:1", "nike"]
    assert list(columns.ad_ids) == ["ad:2", "ad:2"]


def test_payloads_of_one_id_have_the_same_digest_only_if_they_are_the_same() -> None:
    pending = assigned(P0)
    bodies = [value("a"), value("a"), value("a", cost=1)]
    pending.take([Read(P0, offset, body) for offset, body in enumerate(bodies)], NOW)
    first, second, other = pending.flush(NOW).clicks.digests
    assert first == second != other


def test_a_bad_record_moves_the_offset_and_is_kept_whole() -> None:
    pending = assigned(P0)
    pending.take([Read(P0, 0, b"bad"), *read(P0, "a", start=1), Read(P0, 2, None)], NOW)

    flush = pending.flush(NOW)

    assert [(one.offset, one.reason) for one in flush.dead] == [(0, Reason.NOT_JSON), (2, Reason.EMPTY)]
    assert flush.dead[0] == DeadLetter(
        P0,
        0,
        Reason.NOT_JSON,
        flush.dead[0].detail,
        b"nike:7",
        b"bad",
        (("trace", b"1"), ("none", None)),
        NOW,
        3,
    )
    assert [move.position.next_offset for move in flush.moves] == [3]
    assert where(flush) == {"a": (P0, 1)}


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (NOW - HOUR_MILLISECONDS, None),
        (NOW - HOUR_MILLISECONDS - 1, Reason.OUT_OF_RETENTION),
        (0, Reason.OUT_OF_RETENTION),
        (NOW + FUTURE_MILLISECONDS, None),
        (NOW + FUTURE_MILLISECONDS + 1, Reason.FROM_THE_FUTURE),
    ],
)
def test_a_click_older_than_the_windows_or_of_a_time_to_come_is_no_click_to_count(
    time: int, reason: Reason | None
) -> None:
    pending = Pending(Keeping(windows=HOUR_MILLISECONDS))
    pending.assign(P0, None)
    pending.take([*read(P0, "a"), Read(P0, 1, value("b", time)), *read(P0, "c", start=2)], NOW)
    flush = pending.flush(NOW)
    assert [letter.reason for letter in flush.dead] == ([] if reason is None else [reason])
    assert list(flush.clicks.event_ids) == (["a", "b", "c"] if reason is None else ["a", "c"])


def test_what_waits_is_bounded_by_events_and_by_their_bytes_and_by_all_that_dead_letters_keep() -> None:
    pending = assigned(P0)
    pending.take([*read(P0, "a"), Read(P0, 1, b"bad")], NOW)
    kept = len(b"nike:7" + b"trace" + b"1" + b"none")
    assert (pending.events, pending.value_bytes) == (2, len(value("a")) + 3 + kept)


def test_records_of_a_partition_that_is_not_assigned_are_left_out() -> None:
    pending = assigned(P0)
    pending.take([*read(P1, "x"), *read(P0, "a"), *read(P1, "y", start=1)], NOW)
    flush = pending.flush(NOW)
    assert where(flush) == {"a": (P0, 0)}
    assert [move.source for move in flush.moves] == [P0]


def test_what_waits_of_a_partition_goes_with_it_and_the_rest_stays() -> None:
    pending = assigned(P0, P1)
    pending.take([*read(P0, "a"), *read(P1, "b"), Read(P0, 1, b"bad"), Read(P1, 1, b"bad")], NOW)

    pending.release([P0])

    flush = pending.flush(NOW)
    assert where(flush) == {"b": (P1, 0)}
    assert [letter.source for letter in flush.dead] == [P1]
    assert [move.source for move in flush.moves] == [P1]
    assert set(pending.sources) == {P1}


def test_several_partitions_are_given_up_at_once() -> None:
    pending = assigned(P0, P1)
    pending.take([*read(P0, "a"), *read(P1, "b")], NOW)
    pending.release([P0, P1])
    flush = pending.flush(NOW)
    assert (pending.events, flush.moves, len(flush.clicks)) == (0, (), 0)


def test_a_topic_made_anew_is_another_source_and_what_was_read_of_the_old_one_is_kept() -> None:
    pending = assigned(P0, stored=Position(70))
    pending.take(read(P0, "a", start=70), NOW)

    pending.assign(P0_ANEW, None)
    jumps = pending.take(read(P0_ANEW, "b"), NOW)

    flush = pending.flush(NOW)
    assert (jumps, where(flush)) == ([], {"a": (P0, 70), "b": (P0_ANEW, 0)})
    assert {(move.source, move.expected) for move in flush.moves} == {(P0, 70), (P0_ANEW, None)}
    assert set(pending.sources) == {P0_ANEW}
    pending.take(read(P0_ANEW, "c", start=1), NOW)
    assert [move.source for move in pending.flush(NOW).moves] == [P0_ANEW]


def test_a_log_that_was_taken_for_another_one_in_between_goes_on_as_it_was() -> None:
    # given a log of which a broker said once that it was made anew
    pending = assigned(P0, stored=Position(70))
    pending.take(read(P0, "a", start=70), NOW)
    pending.assign(P0_ANEW, None)

    # when it is known to be the one that it was
    pending.assign(P0, Position(70))
    pending.take(read(P0, "a", "b", start=70), NOW)

    # then it is read and flushed on
    flush = pending.flush(NOW)
    assert [(move.source, move.expected, move.position.next_offset) for move in flush.moves] == [(P0, 70, 72)]
    assert set(pending.sources) == {P0}
    pending.take(read(P0, "c", start=72), NOW)
    assert [move.expected for move in pending.flush(NOW).moves] == [72]


def test_what_is_dropped_is_not_flushed_and_nothing_is_assigned() -> None:
    pending = assigned(P0)
    pending.take(read(P0, "a"), NOW)
    pending.drop()
    assert (pending.flush(NOW).moves, pending.events, set(pending.sources)) == ((), 0, set())


def test_records_that_do_not_follow_on_are_taken_and_told() -> None:
    pending = assigned(P0, stored=Position(10))
    pending.assign(P1, None)
    assert pending.take(read(P0, "a", start=10), NOW) == []
    gap = [*read(P0, "b", start=15), *read(P1, "x", "y", start=7), *read(P0, "c", start=16)]
    assert pending.take(gap, NOW) == [Jump(P0, expected=11, found=15)]
    back = [*read(P0, "d", start=3), *read(P1, "z", start=10)]
    assert pending.take(back, NOW) == [Jump(P0, 17, 3), Jump(P1, 9, 10)]
    assert set(where(pending.flush(NOW))) == set("abcdxyz")


def test_a_partition_read_to_its_end_goes_on_in_time_without_records() -> None:
    pending = assigned(P0, P1)
    pending.take(read(P0, "a"), NOW)
    pending.flush(NOW)

    pending.advance(P0, 1, NOW + 1000)
    pending.advance(P1, 0, NOW + 1000)

    moves = {move.source: (move.expected, move.position) for move in pending.flush(NOW).moves}
    assert moves == {
        P0: (1, Position(1, 3, NOW + 1000)),
        P1: (None, Position(0, event_time=NOW + 1000)),
    }
    pending.advance(P0, 1, NOW)  # nothing goes back
    assert pending.flush(NOW).moves == ()


def test_the_end_of_a_log_may_lie_behind_markers_that_are_no_records() -> None:
    pending = assigned(P0)
    pending.take(read(P0, "a"), NOW)
    pending.advance(P0, 3, NOW)
    assert pending.take(read(P0, "b", start=3), NOW) == []


def test_a_partition_can_be_set_to_another_place() -> None:
    pending = assigned(P0, stored=Position(10, 4, NOW - 1))
    pending.reposition(P0, 25)
    assert pending.take(read(P0, "a", start=25), NOW) == []
    assert [(m.expected, m.position.next_offset) for m in pending.flush(NOW).moves] == [(10, 26)]


@pytest.mark.parametrize("ahead", [1, DAY // 2, DAY])
def test_a_click_of_a_clock_that_runs_ahead_does_not_complete_a_backlog_that_was_not_read(ahead: int) -> None:
    # given a backlog of yesterday, in which one click was made by a clock that was ahead
    pending, yesterday = assigned(P0), NOW - DAY
    times = [yesterday, yesterday + 5, yesterday + ahead, yesterday + 7, yesterday + 8]
    backlog = [
        Read(P0, offset, value(f"e{offset}", time), sent=yesterday + 10 * offset)
        for offset, time in enumerate(times)
    ]

    # when
    pending.take(backlog, NOW)

    # then the log is read up to when the last of it was sent, at most
    (move,) = pending.flush(NOW).moves
    assert move.position.event_time == min(max(times), yesterday + 40)


def test_a_record_that_bears_no_time_bounds_no_mark() -> None:
    pending = assigned(P0)
    pending.take([Read(P0, 0, value("a", NOW - 9), sent=-1)], NOW)
    assert [move.position.event_time for move in pending.flush(NOW).moves] == [NOW - 9]


def test_a_clock_that_runs_ahead_does_not_complete_a_time_that_has_not_come() -> None:
    pending = assigned(P0)
    pending.take([Read(P0, 0, value("a", NOW + HOUR_MILLISECONDS))], NOW)
    assert [move.position.event_time for move in pending.flush(NOW).moves] == [NOW]


bodies = st.sampled_from([b"bad", None, value("a"), value("old", 5), value("b"), value("c", NOW - 9)])


@given(st.lists(st.lists(st.tuples(st.sampled_from([P0, P1]), bodies), max_size=12), max_size=5), st.data())
def test_every_record_is_in_a_flush_exactly_once(
    batches: list[list[tuple[Source, bytes | None]]], data: st.DataObject
) -> None:
    # given batches that are flushed at any moments
    pending, flushes = assigned(P0, P1), []
    offsets = {P0: itertools.count(), P1: itertools.count()}
    taken: list[tuple[Source, int]] = []
    for batch in batches:
        records = [Read(source, next(offsets[source]), body) for source, body in batch]
        taken += [(record.place, record.at) for record in records]
        assert pending.take(records, NOW) == []
        if data.draw(st.booleans()):
            flushes.append(pending.flush(NOW))
    flushes.append(pending.flush(NOW))

    # then clicks and dead letters together are what was taken, and the moves follow on each other
    found = Counter((letter.source, letter.offset) for flush in flushes for letter in flush.dead)
    for flush in flushes:
        columns = flush.clicks
        found.update(
            (columns.sources[number], offset)
            for number, offset in zip(columns.source_of, columns.offsets, strict=True)
        )
    assert found == Counter(taken)
    for source in (P0, P1):
        moves = [move for flush in flushes for move in flush.moves if move.source == source]
        assert [move.expected for move in moves[1:]] == [move.position.next_offset for move in moves[:-1]]


def test_a_batch_of_several_topics_counts_each_record_for_its_own_partition() -> None:
    hot = Source("clicks.hot", 1, "id-9")
    unknown = Source("clicks.hot", 0, "id-9")
    pending = assigned(P0, P1, hot)

    pending.take(
        [
            *read(P1, "a"),
            *read(hot, "b"),
            *read(unknown, "not assigned"),
            *read(P0, "c"),
            *read(hot, "d", start=1),
        ],
        NOW,
    )

    assert where(pending.flush(NOW)) == {"a": (P1, 0), "b": (hot, 0), "c": (P0, 0), "d": (hot, 1)}


def test_records_of_another_topic_alone_are_not_taken_for_the_assigned_one() -> None:
    pending = assigned(P0)

    assert pending.take(read(Source("other", 0, "id-9"), "a"), NOW) == []

    assert pending.events == 0
    assert pending.flush(NOW).moves == ()


def test_giving_partitions_up_leaves_the_clicks_of_the_others_whole() -> None:
    pending = assigned(P0, P1)
    pending.take([*read(P0, "a"), *read(P1, "b"), *read(P0, "c", start=1)], NOW)

    pending.release([P0])
    pending.take(read(P1, "d", start=1), NOW)

    flush = pending.flush(NOW)
    assert where(flush) == {"b": (P1, 0), "d": (P1, 1)}
    assert [list(column) for column in (flush.clicks.advertiser_ids, flush.clicks.ad_ids)] == [
        ["nike", "nike"],
        ["ad", "ad"],
    ]
