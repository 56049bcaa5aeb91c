"""The thread that writes: a flush is tried until the store has taken or refused it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from hotkey_aggregator.store import (
    Committed,
    Flush,
    OffsetConflictError,
    OffsetMove,
    Position,
    StoreError,
    StoreUnavailableError,
)
from hotkey_aggregator.windows import Clicks, Source
from hotkey_aggregator.writer import LONGEST_PAUSE_SECONDS, Writer, pause_seconds
from tests.contract.aggregator.model_store import ModelStore

P0 = Source("clicks", 0, "id-1")
FLUSH = Flush(
    Clicks(["a"], ["nike"], ["ad"], [0], [0], [1], [0], [0], [P0]), moves=(OffsetMove(P0, None, Position(1)),)
)
AWAY = StoreUnavailableError("the database is away")
NO_PAUSES = random.Random(0)


class FaultyStore(ModelStore):
    """Fails its commits as told, before or after they took place."""

    def __init__(self, *faults: Callable[[], None]) -> None:
        super().__init__()
        self.before: list[Callable[[], None]] = list(faults)
        self.after: list[Callable[[], None]] = []
        self.tries = 0

    def commit(self, flush: Flush) -> Committed:
        self.tries += 1
        if self.before:
            self.before.pop(0)()
        committed = super().commit(flush)
        if self.after:
            self.after.pop(0)()
        return committed


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@contextmanager
def writing_to(store: ModelStore, retries: list[int] | None = None) -> Iterator[Writer]:
    writer = Writer(store, on_retry=lambda: (retries if retries is not None else []).append(1))
    yield writer
    writer.close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotkey_aggregator.writer.pause_seconds", lambda *_: 0.0)


def test_a_flush_is_written_and_told_with_the_positions_after_it() -> None:
    with writing_to(ModelStore()) as writer:
        written = writer.commit(FLUSH).result(10)
    assert (written.committed, dict(written.positions)) == (Committed(1, 0, 0), {P0: Position(1)})


def test_a_store_that_does_not_answer_is_asked_again_until_it_does() -> None:
    store, retries = FaultyStore(*[fail_with(AWAY)] * 3), list[int]()
    with writing_to(store, retries) as writer:
        assert writer.commit(FLUSH).result(10).committed.counted == 1
        assert (store.tries, len(retries), writer.outages.current) == (4, 3, None)
    assert store.totals().clicks == 1


def test_what_the_store_says_is_known_while_it_is_away() -> None:
    away, back = threading.Event(), threading.Event()

    def fail_once_seen() -> None:
        away.set()
        back.wait(10)

    store = FaultyStore(fail_with(AWAY), fail_once_seen)
    with writing_to(store) as writer:
        flight = writer.commit(FLUSH)
        assert away.wait(10)
        assert writer.outages.current is not None
        assert writer.outages.current.reason == "the database is away"
        back.set()
        flight.result(10)
        assert writer.outages.current is None


def test_a_commit_whose_answer_was_lost_is_refused_the_second_time_and_found() -> None:
    store = FaultyStore()
    store.after = [fail_with(AWAY)]
    with writing_to(store) as writer:
        written = writer.commit(FLUSH).result(10)
    assert (store.tries, store.totals().clicks) == (2, 1)
    assert written.positions == {P0: Position(1)}


def test_a_commit_that_was_still_under_way_when_it_was_tried_again_is_found() -> None:
    # given a first try that fails here and takes place there after the positions were asked
    store = FaultyStore(fail_with(AWAY))
    late = ModelStore.commit

    def take_place_late() -> None:
        late(store, FLUSH)

    store.before.append(take_place_late)

    # when, then
    with writing_to(store) as writer:
        assert writer.commit(FLUSH).result(10).positions == {P0: Position(1)}
    assert store.totals().clicks == 1


@pytest.mark.parametrize("error", [OffsetConflictError(P0, None, 7), StoreError("the file is broken")])
def test_what_will_not_pass_is_not_tried_again(error: StoreError) -> None:
    store = FaultyStore(fail_with(error))
    with writing_to(store) as writer:
        refused = writer.commit(FLUSH).exception(10)
    assert (refused, store.tries) == (error, 1)


def test_a_conflict_after_a_retry_is_a_conflict_all_the_same() -> None:
    store = FaultyStore(fail_with(AWAY))
    ModelStore.commit(store, Flush(moves=(OffsetMove(P0, None, Position(9)),)))
    with writing_to(store) as writer:
        assert isinstance(writer.commit(FLUSH).exception(10), OffsetConflictError)


def test_a_flush_that_is_given_up_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotkey_aggregator.writer.pause_seconds", lambda *_: 60.0)
    store = FaultyStore(*[fail_with(AWAY)] * 99)
    with writing_to(store) as writer:
        flight = writer.commit(FLUSH)
        writer.give_up()
        assert flight.exception(10) is AWAY


def test_a_store_that_was_away_for_a_flush_that_was_given_up_is_asked_whether_it_answers_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given an outage in which the flush was given up with its partitions
    monkeypatch.setattr("hotkey_aggregator.writer.pause_seconds", lambda *_: 60.0)
    store = FaultyStore(*[fail_with(AWAY)] * 2)
    with writing_to(store) as writer:
        flight = writer.commit(FLUSH)
        writer.give_up()
        assert flight.exception(10) is AWAY

        # when it is asked while it is away, and again
        seen = []
        for _ in range(2):
            writer.ask(now=7)
            writer.do(lambda: None).result(10)
            seen.append(writer.outages.current is None)

        # then the end of the outage is known, and nothing was written
        assert seen == [False, True]
        assert store.totals() == ModelStore().totals()

        # and there is nothing to ask any more
        writer.ask(now=7)
        writer.do(lambda: None).result(10)
        assert store.tries == 3


def test_one_question_at_a_time_waits_for_a_store_that_does_not_answer() -> None:
    # given a store that hangs
    hangs, back = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        back.wait(10)

    store = FaultyStore(hang)
    with writing_to(store) as writer:
        writer.outages.note(AWAY)
        writer.ask(now=7)
        assert hangs.wait(10)

        # when it is asked again and again
        for _ in range(5):
            writer.ask(now=7)
        back.set()
        writer.do(lambda: None).result(10)

    # then
    assert store.tries == 1


def test_writing_calls_are_done_one_after_the_other() -> None:
    order: list[str] = []

    class Noting(ModelStore):
        def positions(self) -> Mapping[Source, Position]:
            order.append("commit")
            return super().positions()

    with writing_to(Noting()) as writer:
        writer.commit(FLUSH)
        writer.do(lambda: order.append("expire")).result(10)
    assert order == ["commit", "expire"]


def test_pauses_double_up_to_a_bound_and_are_spread() -> None:
    dice = random.Random(1)
    longest = [max(pause_seconds(attempt, dice) for _ in range(50)) for attempt in range(40)]
    shortest = [min(pause_seconds(attempt, dice) for _ in range(50)) for attempt in range(40)]
    assert all(
        0.1 <= low < high <= LONGEST_PAUSE_SECONDS for low, high in zip(shortest, longest, strict=True)
    )
    assert longest[3] > 2 * longest[1]
