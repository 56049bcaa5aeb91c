"""What does not follow a route: under the plain key, on other partitions, or in excess at home."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.adoption import stray, stray_by_excess

PARTS = {0: 0.25, 1: 0.25, 2: 0.5}
ERRORS = dict.fromkeys(range(5), 2.0)


def test_what_stands_under_the_plain_key_does_not_follow() -> None:
    assert stray(PARTS, {0: 400.0, 1: 100.0}, {0: 0.75}) == {0: 300.0}


def test_what_is_on_a_partition_that_the_route_does_not_name_does_not_follow() -> None:
    assert stray(PARTS, {0: 100.0, 4: 30.0}, {}) == {4: 30.0}


@pytest.mark.parametrize(
    ("at_home", "found"),
    [
        pytest.param(100.0, {}, id="as the slots say"),
        pytest.param(104.0, {}, id="within the noise"),
        pytest.param(120.0, {}, id="no more than users differ"),
        pytest.param(300.0, {0: 200.0}, id="three times what the slots say"),
    ],
)
def test_where_every_record_keeps_its_key_the_excess_at_home_does_not_follow(
    at_home: float, found: dict[int, float]
) -> None:
    assert stray_by_excess(PARTS, {0: at_home, 1: 100.0, 2: 200.0}, ERRORS, home=0) == pytest.approx(found)


def test_an_excess_needs_other_partitions_to_be_seen() -> None:
    assert stray_by_excess(PARTS, {0: 900.0}, ERRORS, home=0) == {}
    assert stray_by_excess(PARTS, {3: 900.0, 1: 100.0}, ERRORS, home=3) == {3: 900.0}
