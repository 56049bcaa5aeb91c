"""What waits for a flush, and from where each partition goes on."""

from __future__ import annotations

from hotkey_aggregator.events import Click, Reason, encode
from hotkey_aggregator.pending import Jump, Pending
from hotkey_aggregator.store import OffsetMove
from hotkey_aggregator.windows import Source

P0, P1 = Source("clicks", 0), Source("clicks", 1)


def value(event_id: str) -> bytes:
    return encode(Click(event_id, "nike", "ad", "user", 0))


def test_a_flush_moves_each_partition_from_the_stored_offset_to_the_next_one() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    pending.assign(P1, stored=5)
    pending.take(P0, 0, value("a"))
    pending.take(P0, 1, value("b"))
    pending.take(P1, 5, value("c"))

    flush = pending.flush()

    assert set(flush.moves) == {OffsetMove(P0, None, 2), OffsetMove(P1, 5, 6)}
    assert flush.clicks.event_ids == ("a", "b", "c")


def test_after_a_flush_the_next_one_starts_where_it_ended() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    pending.take(P0, 0, value("a"))
    pending.flushed()
    assert (pending.events, pending.value_bytes, pending.stored) == (0, 0, {P0: 1})

    pending.take(P0, 1, value("b"))
    assert pending.flush().moves == (OffsetMove(P0, 1, 2),)
    assert pending.flush().clicks.event_ids == ("b",)


def test_a_bad_record_moves_the_offset_and_is_kept() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    pending.take(P0, 0, b"bad")
    pending.take(P0, 1, None)

    flush = pending.flush()

    assert [(one.offset, one.reason) for one in flush.rejected] == [(0, Reason.NOT_JSON), (1, Reason.EMPTY)]
    assert flush.moves == (OffsetMove(P0, None, 2),)
    assert pending.events == 2


def test_what_waits_is_bounded_by_events_and_by_their_bytes() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    pending.take(P0, 0, value("a"))
    pending.take(P0, 1, b"bad")
    assert (pending.events, pending.value_bytes) == (2, len(value("a")) + 3)


def test_repeated_ids_wait_once_and_are_told() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    for offset in range(3):
        pending.take(P0, offset, value("a"))
    assert (pending.events, pending.repeats, pending.flush().moves) == (1, 2, (OffsetMove(P0, None, 3),))


def test_records_of_a_partition_that_is_not_assigned_are_left_out() -> None:
    pending = Pending()
    pending.assign(P0, stored=None)
    pending.forget([P0])
    pending.take(P0, 0, value("a"))
    assert (pending.events, pending.flush().moves, pending.partitions) == (0, (), 0)


def test_records_that_do_not_follow_on_are_taken_and_told() -> None:
    pending = Pending()
    pending.assign(P0, stored=10)
    pending.assign(P1, stored=None)
    assert pending.take(P0, 10, value("a")) is None
    assert pending.take(P0, 15, value("b")) == Jump(P0, expected=11, found=15)
    assert pending.take(P0, 3, value("c")) == Jump(P0, expected=16, found=3)
    assert pending.take(P1, 7, value("d")) is None  # the first record ever may have any offset
    assert pending.flush().clicks.event_ids == ("a", "b", "c", "d")


def test_what_is_dropped_is_not_flushed_and_the_offset_stays() -> None:
    pending = Pending()
    pending.assign(P0, stored=4)
    pending.take(P0, 4, value("a"))
    pending.drop()
    assert (pending.flush().moves, pending.events, pending.stored) == ((), 0, {P0: 4})
