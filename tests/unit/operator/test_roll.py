"""Which of very many groups read a topic: asked some at a time, and none forgotten."""

from __future__ import annotations

from hotkey_operator.adapters.groups import _STRANGERS_AT_MOST, _STRANGERS_AT_ONCE, _STRANGERS_PER_SECOND
from hotkey_operator.adapters.roll import KNOWN_SECONDS, Roll
from hotkey_operator.adapters.rota import Full, Rota
from hotkey_operator.engine.model import Committed

NAMES = [f"group-{number:04}" for number in range(1_000)]


class Cluster:
    """Groups, of which some have committed and some do not answer."""

    def __init__(self, at_most: int) -> None:
        self.now = 0.0
        self.roll = Roll(at_most, lambda: self.now)
        self.readers: set[str] = set()
        self.deaf: set[str] = set()

    def round(self, names: list[str] = NAMES) -> tuple[Committed, ...]:
        self.now += 1.0
        self.roll.take([self._answer(name) for name in self.roll.due(names)])
        return self.roll.told(names)

    def _answer(self, name: str) -> Committed:
        failure = "late" if name in self.deaf else None
        return Committed(name, {0: 5} if name in self.readers and not failure else {}, failure)


def test_each_of_a_thousand_groups_has_its_turn_and_until_then_nothing_is_sure() -> None:
    cluster = Cluster(at_most=100)
    for _ in range(9):
        (left,) = cluster.round()
    assert left.failure == "Kafka: 100 of 1000 groups that the policy does not name are still to be asked"

    assert cluster.round() == ()


def test_a_group_that_begins_to_read_is_found_in_the_next_round_over_all() -> None:
    cluster = Cluster(at_most=100)
    for _ in range(10):
        cluster.round()
    cluster.readers = {NAMES[950]}
    found = [cluster.round() for _ in range(10)]

    assert found[-1] == (Committed(NAMES[950], {0: 5}),)


def test_a_new_group_comes_first() -> None:
    cluster = Cluster(at_most=100)
    for _ in range(10):
        cluster.round()
    cluster.readers = {"z-new"}

    assert cluster.round([*NAMES, "z-new"]) == (Committed("z-new", {0: 5}),)


def test_few_groups_are_all_asked_in_every_round() -> None:
    cluster = Cluster(at_most=100)
    few = NAMES[:5]
    assert cluster.round(few) == ()
    cluster.readers = {few[3]}
    assert [each.group for each in cluster.round(few)] == [few[3]]
    cluster.readers = set()
    assert cluster.round(few) == ()


def test_a_group_that_does_not_answer_is_told_by_name_and_keeps_no_other_from_its_turn() -> None:
    cluster = Cluster(at_most=100)
    cluster.deaf = {NAMES[0]}
    for _ in range(12):
        found = cluster.round()

    assert found == (Committed(NAMES[0], {}, "late"),)


def test_an_answer_stands_while_a_group_cannot_be_asked_and_no_longer_than_minutes() -> None:
    cluster = Cluster(at_most=100)
    few = NAMES[:2]
    cluster.round(few)
    cluster.deaf = {few[0]}
    assert cluster.round(few) == ()

    cluster.now += KNOWN_SECONDS

    assert cluster.round(few) == (Committed(few[0], {}, "late"),)


def test_groups_that_are_gone_are_forgotten() -> None:
    cluster = Cluster(at_most=100)
    cluster.readers = {NAMES[0]}
    cluster.round(NAMES[:2])

    assert cluster.round(NAMES[1:2]) == ()
    assert cluster.roll._answers.keys() == {NAMES[1]}


def test_two_thousand_groups_for_which_few_clients_are_kept_are_all_known_while_answers_stand() -> None:
    """As they are asked while a topic is written: once every five seconds."""
    cluster, names = Cluster(at_most=_STRANGERS_AT_MOST), [f"group-{number:04}" for number in range(2_000)]
    clients = Rota(
        lambda name: name,
        _STRANGERS_AT_MOST,
        _STRANGERS_PER_SECOND,
        lambda: cluster.now,
        at_once=_STRANGERS_AT_ONCE,
    )

    def answers(name: str) -> bool:
        try:
            return clients.of(name) == name
        except Full:
            return False

    for _ in range(120):
        cluster.now += 5.0
        cluster.roll.take([Committed(name, {}) for name in cluster.roll.due(names) if answers(name)])

    assert cluster.roll.told(names) == ()
