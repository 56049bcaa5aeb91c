"""The peers of the imbalance benchmark, against brute force and what their papers promise."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.imbalance.draws import Mix, Users, best_imbalance, heaviest, records
from bench.imbalance.peers import (
    Chooser,
    Method,
    Pairs,
    SpaceSaving,
    candidates,
    choices_for,
    grouped,
    placed,
)
from hotkey_sdk.routing.partitioner import partition_for

KEYS = tuple(f"key{n}" for n in range(1_000))
ONE_HOT = Mix.one_hot(0.8, 1_000)


def drawn(mix: Mix, count: int) -> Sequence[int]:
    return records(mix, count, 0, 1, seed=1)


def loads(pairs: Pairs, partitions: int) -> list[int]:
    found = [0] * partitions
    for (_, partition), count in pairs.items():
        found[partition] += count
    return found


def imbalance(pairs: Pairs, partitions: int) -> float:
    return max(loads(pairs, partitions)) * partitions / sum(pairs.values())


@pytest.mark.parametrize("method", list(Method))
def test_every_record_of_every_key_is_placed_once(method: Method) -> None:
    keys = drawn(ONE_HOT, 5_000)

    pairs = placed(method, ONE_HOT.keys, keys, 12, "s", frozenset({0}))

    placed_of = Counter[int]()
    for (key, partition), count in pairs.items():
        assert 0 <= partition < 12
        placed_of[key] += count
    assert placed_of == Counter(keys)


def test_plain_keys_are_where_kafkas_partitioner_puts_them() -> None:
    pairs = placed(Method.PLAIN, KEYS, [0, 1, 1, 2], 12, "s", frozenset())

    assert pairs == Counter(
        {(k, partition_for(KEYS[k].encode(), 12)): n for k, n in ((0, 1), (1, 2), (2, 1))}
    )


def test_a_fixed_salt_reaches_the_partitions_of_its_suffixes_and_no_others() -> None:
    keys = [0] * 10_000 + [1] * 10

    pairs = placed(Method.SALT_16, KEYS, keys, 12, "s", frozenset({0}))

    assert {p for k, p in pairs if k == 0} == {partition_for(b"key0:%d" % n, 12) for n in range(16)}
    assert {p for k, p in pairs if k == 1} == {partition_for(b"key1", 12)}


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 20))
def test_partial_key_grouping_takes_the_less_loaded_of_a_keys_two_candidates(
    keys: list[int], partitions: int
) -> None:
    by_hand: Pairs = Counter()
    for number, key in enumerate(keys):
        sent = loads(grouped(KEYS[:10], keys[:number], partitions), partitions)
        first, second = candidates(KEYS[key], 2, partitions)
        by_hand[key, min(first, second, key=lambda p: (sent[p], p != first))] += 1

    assert grouped(KEYS[:10], keys, partitions) == by_hand


def test_two_choices_balance_keys_of_which_none_is_heavy_and_fail_on_one_that_is() -> None:
    even = grouped(KEYS, random.Random(1).choices(range(1_000), k=100_000), 12)
    hot = grouped(ONE_HOT.keys, drawn(ONE_HOT, 100_000), 12)

    assert imbalance(even, 12) < 1.01  # O(m/n) of the paper holds while the heaviest key has under 2/n
    assert max(Counter(key for key, _ in even).values()) <= 2
    assert imbalance(hot, 12) >= 0.8 / 2 * 12 * 0.99  # and two partitions share what one key sends


def test_w_choices_evens_a_key_out_that_two_choices_cannot() -> None:
    pairs = placed(Method.W_CHOICES, ONE_HOT.keys, drawn(ONE_HOT, 100_000), 12, "s", frozenset())

    assert imbalance(pairs, 12) < 1.01
    assert {p for k, p in pairs if k == 0} == set(range(12))


def test_the_tail_keeps_two_choices_once_the_head_is_known() -> None:
    chooser = Chooser(KEYS, 12, all_partitions=True)
    mix = Mix.one_hot(0.8, 200)
    keys = drawn(mix, 20_000)
    chooser.placed(keys[:10_000])

    later = chooser.placed(keys[10_000:])

    assert max(Counter(key for key, _ in later if key != 0).values()) <= 2


def test_d_choices_takes_fewer_partitions_than_all_where_fewer_do() -> None:
    mix = Mix(tuple(KEYS), (0.1, *[0.9 / 999] * 999))
    chooser = Chooser(mix.keys, 50, all_partitions=False)

    pairs = chooser.placed(drawn(mix, 50_000))

    assert 5 <= chooser.choices < 50
    assert imbalance(pairs, 50) < 1.05


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=4), st.integers(2, 60))
def test_d_is_the_least_that_fulfils_the_papers_constraint(weights: list[float], n: int) -> None:
    scale = max(1.0, sum(weights) / 0.95)
    head = sorted((w / scale for w in weights), reverse=True)

    found = choices_for(head, n)

    lower = max(2, math.ceil(head[0] * n))
    fitting = [d for d in range(lower, n) if constraint_holds(head, d, n)]
    assert found == min(fitting, default=n if lower < n else min(lower, n))


def constraint_holds(head: Sequence[float], d: int, n: int) -> bool:
    """The constraint as it is written in the paper, prefix by prefix."""
    for h in range(1, len(head) + 1):
        b = n - n * ((n - 1) / n) ** (h * d)
        left = sum(head[:h]) + (b / n) ** d * sum(head[h:]) + (b / n) ** 2 * (1 - sum(head))
        if left > b * (1 / n + 1e-4) + 1e-12:
            return False
    return True


@given(st.lists(st.integers(0, 30), max_size=500), st.integers(1, 12))
def test_space_saving_overestimates_by_at_most_its_share_and_misses_no_frequent_key(
    keys: list[int], counters: int
) -> None:
    sketch, true = SpaceSaving(counters), Counter(keys)
    for key in keys:
        sketch.add(key)

    slack = len(keys) / counters
    assert len(sketch.counts) <= counters
    assert all(true[key] <= count <= true[key] + slack for key, count in sketch.counts.items())
    assert {key for key, count in true.items() if count > slack} <= set(sketch.counts)


def test_all_producers_together_draw_what_was_asked_for_and_the_same_every_time() -> None:
    mix = Mix.counted(nike=80, adidas=8, puma=12)
    parts = [records(mix, 100, producer, 4, seed=3) for producer in range(4)]

    assert Counter(key for part in parts for key in part) == {0: 80, 1: 8, 2: 12}
    assert parts == [records(mix, 100, producer, 4, seed=3) for producer in range(4)]
    assert sum(len(records(ONE_HOT, 1_003, producer, 4, seed=3)) for producer in range(4)) == 1_003


def test_a_mix_of_exact_counts_refuses_another_number_of_records() -> None:
    with pytest.raises(ValueError, match="exactly 100"):
        records(Mix.counted(nike=80, adidas=20), 99, 0, 4, seed=1)


def test_zipf_users_come_as_often_as_the_law_says() -> None:
    users = Users(1.0, "seed").draw(200_000)

    expected = heaviest(1.0) * len(users)
    assert abs(users.count(0) - expected) < 6 * math.sqrt(expected)
    assert abs(users.count(1) - expected / 2) < 6 * math.sqrt(expected / 2)


@pytest.mark.parametrize(
    ("background", "hot", "value", "best"),
    [
        pytest.param((1.0, 1.0), 2.0, 0.0, 1.0, id="values so small that the mean is in reach"),
        pytest.param((1.0, 0.0), 3.0, 1.0, 1.5, id="one value that is the whole key"),
        pytest.param((3.0, 0.0), 1.0, 0.1, 1.5, id="other keys that are too much already"),
    ],
)
def test_no_plan_is_better_than_the_bound(
    background: tuple[float, ...], hot: float, value: float, best: float
) -> None:
    assert best_imbalance(background, hot, value) == pytest.approx(best)


@given(st.integers(0, 4), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_the_bound_is_below_the_best_of_all_placements(cold: int, values: list[int]) -> None:
    background, hot = (float(cold), 1.0, 0.0), float(sum(values))

    best = min(
        max(map(sum, zip(background, placement_loads(values, code), strict=True)))
        for code in range(3 ** len(values))
    )

    found = best_imbalance(background, hot, max(values) / hot)
    assert found <= best / ((sum(background) + hot) / 3) + 1e-9


def placement_loads(values: Sequence[int], code: int) -> list[float]:
    found = [0.0, 0.0, 0.0]
    for value in values:
        found[code % 3] += value
        code //= 3
    return found
