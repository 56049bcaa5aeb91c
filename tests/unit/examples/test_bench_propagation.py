"""What the part `propagation` makes of the moments that it saw."""

from __future__ import annotations

from bench import propagation
from bench.figures import thinned
from bench.propagation import DEAF, Epoch, Propagation, deaf
from devstack.valkey import USERS


def found(*slowest: float) -> list[Epoch]:
    return [Epoch(began=-0.05, published=0.004, applied=[0.01, 0.02, last]) for last in slowest]


def test_the_goals_are_of_the_last_client_of_each_table() -> None:
    result = Propagation({"hint": found(0.1, 0.9), "blocked": found(1.2, 2.6)}, 46_000)

    told = {goal.what: (goal.found, goal.word) for goal in propagation.goals(result)}

    assert told == {
        "propagation to the last of 3 clients, with the hint, p99 of 2": (0.9, "met"),
        "propagation to the last of 3 clients, pub/sub blocked, p99 of 2": (2.6, "NOT met"),
    }


def test_a_way_that_was_not_measured_is_not_told() -> None:
    result = Propagation({"hint": found(0.1)}, 46_000)

    assert len(propagation.goals(result)) == 1
    assert "polling alone |" not in propagation.section(result)


def test_the_section_tells_each_client_and_the_last_one_apart() -> None:
    told = propagation.section(Propagation({"hint": found(0.1, 0.3)}, 46_000))

    assert "| **SDK, with the hint** | 2 | 0.020 | 0.300 | 0.300 | 0.200 | 0.300 | 0.300 |" in told
    assert "each of 3 clients" in told


def test_who_is_deaf_may_do_all_that_a_producer_may_but_subscribe_to_any_channel() -> None:
    rules = deaf(USERS.read_text())

    assert f">{DEAF}" in rules
    assert "resetchannels" in rules
    assert not [rule for rule in rules if rule.startswith("&")]
    assert [rule for rule in rules if "table" in rule and "hget" in rule]
    assert [rule for rule in rules if "reports" in rule and "hset" in rule]


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    assert thinned([3.0, 1.0, 2.0], 5) == [1.0, 2.0, 3.0]
    assert thinned([float(number) for number in range(101)], 5) == [0.0, 25.0, 50.0, 75.0, 100.0]
