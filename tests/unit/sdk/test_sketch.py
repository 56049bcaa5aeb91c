"""The sketch's promise: no key that is heavy is missing, and no count is off by more than it says."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk._sketch import Sketch

ITEMS = st.integers(0, 12).map(lambda n: (n % 3, b"k%d" % n))


@given(st.lists(st.tuples(ITEMS, st.integers(1, 9)), max_size=200), st.integers(1, 8))
def test_the_truth_lies_between_a_count_and_what_it_may_have_missed(
    added: list[tuple[tuple[int, bytes], int]], capacity: int
) -> None:
    sketch, truth = Sketch(capacity), Counter[tuple[int, bytes]]()
    for item, weight in added:
        sketch.add(item, weight, 10 * weight)
        truth[item] += weight

    found = dict(sketch)

    total = sum(truth.values())
    assert len(found) <= capacity
    assert sketch.least <= total / capacity
    for item, counter in found.items():
        assert counter.weight <= truth[item] <= counter.weight + counter.missed
        assert counter.missed <= total / capacity
        assert counter.size_bytes == 10 * counter.weight
    for item, weight in truth.items():
        assert item in found or weight <= sketch.least


def test_a_key_of_more_than_its_share_is_there_among_very_many() -> None:
    chance, sketch = random.Random(7), Sketch(64)
    for number in range(50_000):
        key = b"nike" if chance.random() < 0.05 else b"%d" % number
        sketch.add((0, key), 1, 1)
    heaviest = max(sketch, key=lambda found: found[1].weight)
    assert heaviest[0] == (0, b"nike")
