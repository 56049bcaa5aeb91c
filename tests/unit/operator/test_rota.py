"""Clients that are kept: none is made anew while they suffice, and all names have their turn where not."""

from __future__ import annotations

from collections import Counter

from hotkey_operator.adapters.rota import Full, Rota


class Clients:
    """A rota of so many, asked for names once every three seconds."""

    def __init__(self, at_most: int) -> None:
        self.now = 0.0
        self.rota = Rota(lambda name: [name], at_most, 0.5, lambda: self.now)

    def round(self, names: list[str]) -> set[str]:
        """The names that had a client."""
        self.now += 3.0
        return {name for name in names if self._has(name)}

    def _has(self, name: str) -> bool:
        try:
            return self.rota.of(name) == [name]
        except Full:
            return False


def test_as_many_names_as_are_kept_never_need_a_second_client() -> None:
    clients, names = Clients(16), [str(i) for i in range(16)]
    for _ in range(50):
        assert clients.round(names) == set(names)
    assert clients.rota.made == len(names)


def test_with_one_name_too_many_few_clients_are_made_and_every_name_has_its_turn() -> None:
    clients, names = Clients(16), [str(i) for i in range(17)]
    turns: Counter[str] = Counter()
    for _ in range(200):
        found = clients.round(names)
        assert len(found) >= 15
        turns.update(found)
    assert clients.rota.made <= 16 + 0.5 * clients.now + 1
    assert turns.keys() == set(names)
    assert min(turns.values()) > 100


def test_with_many_names_too_many_every_name_has_its_turn() -> None:
    clients, names = Clients(16), [str(i) for i in range(64)]
    turns: Counter[str] = Counter()
    for _ in range(400):
        turns.update(clients.round(names))
    assert turns.keys() == set(names)
    assert min(turns.values()) > max(turns.values()) / 3


def test_a_name_that_waited_and_is_asked_for_no_more_holds_no_other_up() -> None:
    clients = Clients(1)
    assert clients.round(["a"]) == {"a"}
    clients.rota._rate = 0.0
    assert clients.round(["b", "c"]) == set()
    clients.rota._rate = 0.5
    for _ in range(60):
        clients.round(["c"])
    assert clients.rota.of("c") == ["c"]


def test_what_is_drained_is_kept_no_more() -> None:
    clients = Clients(2)
    clients.round(["a", "b"])
    assert sorted(clients.rota.drained()) == [["a"], ["b"]]
    assert clients.rota.drained() == []
