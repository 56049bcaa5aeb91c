"""What a dedicated topic refuses goes to the base topic: once, in order, and what it has taken does not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk.routing.resend import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    STRIKES,
    Fate,
    Resends,
    Way,
)

TOPIC = "clicks.hot.1.g1"


@dataclass
class World:
    """A producer that sends numbers to partition 0, and what has become of each."""

    resends: Resends[int] = field(default_factory=lambda: Resends(1_000, 1_000_000))
    room: int = 10**9  # of the Kafka client's queue
    now: float = 0.0
    next: int = 0
    base: list[int] = field(default_factory=list)
    dedicated: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    open: dict[int, int] = field(default_factory=dict)  # record to its number in the queue

    def send(self, count: int = 1) -> list[Way]:
        return [self._send() for _ in range(count)]

    def _send(self) -> Way:
        queue = self.resends.queue(TOPIC, 0)
        way, number = self.resends.enter(queue, self.now)
        record, self.next = self.next, self.next + 1
        match way:
            case Way.DEDICATED:
                self.open[record] = number
            case Way.BASE:
                self.base.append(record)
            case Way.WAIT:
                self.resends.wait(queue, record)
            case Way.FULL:
                self.next -= 1
        return way

    def settle(self, record: int, fate: Fate) -> None:
        queue, number = self.resends.queue(TOPIC, 0), self.open.pop(record)
        match fate:
            case Fate.DELIVERED:
                self.dedicated.append(record)
                due = self.resends.delivered(queue)
            case Fate.FINAL:
                self.told.append(record)
                due = self.resends.ended(queue)
            case _:
                due = self.resends.refused(queue, number, record, fate, fate.value, self.now)
        if due:
            self.drain()

    def drain(self) -> bool:
        return self.resends.drain(self._to_base)

    def _to_base(self, record: int) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.base.append(record)
        return True


def test_what_is_delivered_costs_nothing_but_its_number() -> None:
    world = World()
    assert world.send(3) == [Way.DEDICATED] * 3

    for record in (0, 1, 2):
        world.settle(record, Fate.DELIVERED)

    assert (world.base, world.resends.kept, world.resends.resent) == ([], 0, 0)


def test_a_refused_record_and_all_behind_it_go_to_base_in_order() -> None:
    world = World()
    world.send(4)

    world.settle(0, Fate.UNUSABLE)
    assert world.base == [], "those behind it are still on their way"
    for record in (1, 2, 3):
        world.settle(record, Fate.UNUSABLE)

    assert world.base == [0, 1, 2, 3]


def test_answers_in_any_order_end_in_the_order_of_sending() -> None:
    world = World()
    world.send(4)

    for record in (2, 0, 3, 1):
        world.settle(record, Fate.UNUSABLE)

    assert world.base == [0, 1, 2, 3]


def test_what_the_dedicated_topic_took_is_not_sent_again() -> None:
    world = World()
    world.send(4)

    world.settle(0, Fate.REFUSED)
    world.settle(1, Fate.DELIVERED)
    world.settle(2, Fate.REFUSED)
    world.settle(3, Fate.DELIVERED)

    assert (world.base, world.dedicated) == ([0, 2], [1, 3])


def test_new_records_wait_behind_what_was_refused() -> None:
    world = World()
    world.send(3)
    world.settle(1, Fate.REFUSED)

    assert world.send(2) == [Way.WAIT, Way.WAIT]
    world.settle(0, Fate.DELIVERED)
    world.settle(2, Fate.REFUSED)

    assert world.base == [1, 2, 3, 4]


def test_after_a_single_refusal_the_dedicated_topic_is_used_again() -> None:
    world = World()
    world.send()
    world.settle(0, Fate.REFUSED)

    assert world.send() == [Way.DEDICATED]


def test_a_topic_that_refuses_again_and_again_and_takes_nothing_is_closed() -> None:
    world = World()
    for record in range(STRIKES):
        assert world.send() == [Way.DEDICATED]
        world.settle(record, Fate.REFUSED)

    assert world.send() == [Way.BASE]
    assert world.resends.closed() == {TOPIC: "Refused"}


def test_a_topic_that_takes_something_in_between_stays_open() -> None:
    world = World()
    for record in range(0, 20, 2):
        assert world.send(2) == [Way.DEDICATED] * 2
        world.settle(record, Fate.DELIVERED)
        world.settle(record + 1, Fate.REFUSED)


def test_an_unusable_topic_is_closed_at_once_and_tried_again_with_one_record() -> None:
    world = World()
    world.send()
    world.settle(0, Fate.UNUSABLE)
    assert world.send(2) == [Way.BASE] * 2

    world.now = FIRST_PAUSE_SECONDS
    assert world.send(3) == [Way.DEDICATED, Way.WAIT, Way.WAIT]
    world.settle(3, Fate.UNUSABLE)

    assert world.base == [0, 1, 2, 3, 4, 5]
    world.now += FIRST_PAUSE_SECONDS
    assert world.send() == [Way.BASE], "the second pause is longer"


def test_a_topic_that_takes_the_record_that_tries_it_is_open_again() -> None:
    world = World()
    world.send()
    world.settle(0, Fate.UNUSABLE)
    world.now = FIRST_PAUSE_SECONDS
    world.send(2)

    world.settle(1, Fate.DELIVERED)

    assert (world.resends.closed(), world.base, world.dedicated) == ({}, [0, 2], [1])
    assert world.send() == [Way.DEDICATED]


def test_a_try_that_was_not_even_queued_is_made_with_the_next_record() -> None:
    world = World()
    world.send()
    world.settle(0, Fate.UNUSABLE)
    world.now = FIRST_PAUSE_SECONDS
    queue = world.resends.queue(TOPIC, 0)
    assert world.resends.enter(queue, world.now)[0] is Way.DEDICATED

    world.resends.ended(queue)

    assert world.send() == [Way.DEDICATED]


def test_the_pause_grows_to_a_limit() -> None:
    world = World()
    pauses = []
    for _ in range(10):
        (way,) = world.send()
        assert way is Way.DEDICATED
        began = world.now
        world.settle(world.next - 1, Fate.UNUSABLE)
        while world.send() == [Way.BASE]:
            world.now += 1.0
        pauses.append(world.now - began)
        world.settle(world.next - 1, Fate.FINAL)

    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_closed_topic_lets_no_other_partition_be_overtaken() -> None:
    resends: Resends[str] = Resends(10, 10)
    one, other = resends.queue(TOPIC, 0), resends.queue(TOPIC, 1)
    _, first = resends.enter(one, 0.0)
    _, second = resends.enter(other, 0.0)
    resends.refused(one, first, "a", Fate.UNUSABLE, "gone", 0.0)

    assert resends.enter(other, 0.0)[0] is Way.WAIT
    resends.wait(other, "c")
    resends.refused(other, second, "b", Fate.UNUSABLE, "gone", 0.0)

    sent: list[str] = []
    assert resends.drain(lambda record: not sent.append(record))  # type: ignore[func-returns-value]
    assert sent == ["a", "b", "c"]


def test_a_full_client_keeps_the_order() -> None:
    world = World(room=2)
    world.send(4)
    for record in range(4):
        world.settle(record, Fate.REFUSED)
    assert world.base == [0, 1]
    assert world.send() == [Way.WAIT]

    world.room = 10
    assert world.drain()

    assert world.base == [0, 1, 2, 3, 4]
    assert world.send() == [Way.DEDICATED]


@pytest.mark.parametrize("resends", [Resends[int](3, 10**6), Resends[int](10**6, 30, lambda _: 10)])
def test_no_more_records_or_bytes_wait_than_allowed(resends: Resends[int]) -> None:
    world = World(resends)
    world.send(2)
    world.settle(0, Fate.REFUSED)

    assert world.send(3) == [Way.WAIT, Way.WAIT, Way.FULL]
    world.settle(1, Fate.REFUSED)

    assert world.base == [0, 1, 2, 3]
    assert (world.resends.kept, world.resends.kept_bytes) == (0, 0)


def test_what_is_given_up_comes_in_order_and_is_kept_no_longer() -> None:
    world = World()
    world.send(3)
    world.settle(1, Fate.REFUSED)
    world.settle(0, Fate.REFUSED)
    world.send(2)

    assert world.resends.give_up() == [0, 1, 3, 4]
    world.settle(2, Fate.FINAL)

    assert (world.resends.kept, world.base, world.told) == (0, [], [2])
    assert world.send() == [Way.DEDICATED]


def test_a_topic_that_no_route_names_is_forgotten() -> None:
    world = World()
    world.send()
    world.settle(0, Fate.UNUSABLE)
    queue = world.resends.queue(TOPIC, 0)

    world.resends.forget_others([TOPIC])
    assert (world.resends.closed(), world.resends.queue(TOPIC, 0)) == ({TOPIC: "Unusable"}, queue)
    world.resends.forget_others([])

    assert world.resends.closed() == {}
    assert world.resends.queue(TOPIC, 0) is not queue


STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 6)),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 5), st.sampled_from(Fate))),
    st.tuples(st.just("room"), st.integers(0, 4)),
    st.tuples(st.just("time"), st.sampled_from([1.0, 40.0, 700.0])),
)


@given(st.lists(STEP, max_size=60), st.integers(1, 6))
def test_whatever_happens_each_record_ends_once_and_none_overtakes_another(
    steps: list[tuple[str, object]], at_most: int
) -> None:
    world = World(Resends(at_most, 10**9), room=0)
    for what, how in steps:
        match what, how:
            case "send", int(count):
                world.send(count)
            case "answer", (int(which), Fate() as fate) if world.open:
                world.settle(sorted(world.open)[which % len(world.open)], fate)
            case "room", int(room):
                world.room = room
                world.drain()
            case "time", float(seconds):
                world.now += seconds
        assert world.base == sorted(world.base)
        assert world.resends.kept == world.next - len(world.open) - len(
            world.base + world.dedicated + world.told
        )
    for record in sorted(world.open):
        world.settle(record, Fate.REFUSED)
    world.room = 10**9

    assert world.drain()
    assert world.base == sorted(world.base)
    assert sorted(world.base + world.dedicated + world.told) == list(range(world.next))
    assert (world.resends.kept, world.resends.kept_bytes) == (0, 0)
