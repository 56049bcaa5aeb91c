"""The home partition's background: its own estimate where that is sure, the others' where it is not."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.background import believed

LOADS = [90.0, 110.0, 100.0, 100.0, 700.0]


def test_a_sure_estimate_stands() -> None:
    assert believed(LOADS, 4, 0.0, ()) == 700.0
    assert believed(LOADS, 4, 0.1, ()) == pytest.approx(700.0, abs=1)


def test_an_unsure_one_gives_way_to_what_the_others_carry() -> None:
    assert believed(LOADS, 4, 600.0, ()) == pytest.approx(100.0, abs=1)


def test_partitions_that_are_unsure_themselves_tell_nothing() -> None:
    assert believed([*LOADS, -5_000.0], 4, 600.0, {4, 5}) == pytest.approx(100.0, abs=1)


def test_too_few_others_tell_nothing() -> None:
    assert believed([100.0, 120.0, 700.0], 2, 600.0, ()) == 700.0


def test_equal_others_are_believed() -> None:
    assert believed([100.0] * 5 + [700.0], 5, 1.0, ()) == pytest.approx(100.0)
