"""The filter in front of the ids: it may say "perhaps" wrongly, and seldom does; never "no"."""

from __future__ import annotations

import numpy as np
import pytest

from hotkey_aggregator import id_filter
from hotkey_aggregator.id_filter import SEGMENTS, Hashes, IdFilter, name_of, room_for


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_filter, "LEAST_CAPACITY", 1)


def hashes(seed: int, count: int) -> Hashes:
    return np.sort(np.random.default_rng(seed).integers(0, 2**64 - 1, count, dtype=np.uint64))


def found(ids: IdFilter, wanted: Hashes) -> set[tuple[int, int]]:
    """Pairs of a hash and the name of a segment where it may be."""
    rows, names = ids.find(wanted)
    return set(zip(wanted[rows].tolist(), names.tolist(), strict=True))


def pairs(wanted: Hashes, segment: int) -> set[tuple[int, int]]:
    return {(value, name_of(segment)) for value in wanted.tolist()}


def test_an_empty_filter_finds_nothing() -> None:
    assert found(IdFilter(), hashes(1, 1_000)) == set()
    assert found(IdFilter(), np.zeros(1, np.uint64)) == set()


def test_every_hash_is_found_in_its_segment_and_hardly_any_other() -> None:
    # given
    ids, old, new = IdFilter(200_000), hashes(1, 90_000), hashes(2, 90_000)
    ids.add(old, 4)
    ids.add(new, 5)

    # then
    assert found(ids, old) >= pairs(old, 4)
    assert found(ids, new) >= pairs(new, 5)
    assert len(found(ids, hashes(3, 100_000))) < 10


@pytest.mark.parametrize("count", [24, 32, 100, 5_000])
def test_a_filter_that_holds_more_than_it_has_slots_for_still_finds_all(small: None, count: int) -> None:
    ids, many = IdFilter(24), hashes(1, count)
    for part in np.array_split(many, 3):
        ids.add(part, 0)
    assert found(ids, many) >= pairs(many, 0)
    assert ids.spilled >= count - 64
    assert not ids.has_room_for(1)


def test_a_segment_that_was_forgotten_is_not_found_and_its_slots_are_used_again(small: None) -> None:
    # given as many ids as there is room for
    ids, parts = IdFilter(1_000), [hashes(seed, 100) for seed in range(200)]
    spilled = []

    # when each tenth segment that comes, the first of the ten before is forgotten
    for segment, part in enumerate(parts):
        ids.add(part, segment)
        if segment >= 9:
            ids.forget(segment - 9)
            assert not found(ids, parts[segment - 9]) & pairs(parts[segment - 9], segment - 9)
        for kept in range(max(0, segment - 8), segment + 1):
            assert found(ids, parts[kept]) >= pairs(parts[kept], kept)
        spilled.append(ids.spilled)

    # then it does not fill up
    assert len(ids) == 900
    assert max(spilled[100:]) <= max(spilled[:100]) + 50


def test_segments_that_share_a_name_are_forgotten_when_the_last_is(small: None) -> None:
    ids, first, second = IdFilter(1_000), hashes(1, 50), hashes(2, 50)
    ids.add(first, 0)
    ids.add(second, SEGMENTS)

    ids.forget(0)
    assert found(ids, second) >= pairs(second, SEGMENTS)
    ids.forget(SEGMENTS)
    assert found(ids, second) == set()


def test_one_hash_in_several_segments_is_found_in_each(small: None) -> None:
    ids, same = IdFilter(24), np.full(40, 7, np.uint64)
    for segment in (3, 4, 9):
        ids.add(same, segment)
    assert found(ids, same[:1]) == {(7, name_of(3)), (7, name_of(4)), (7, name_of(9))}


def test_a_growing_store_is_read_seldom_for_a_larger_filter() -> None:
    # given a store of no ids that gets a hundred million, and a filter made anew whenever it is full
    capacity, read = room_for(1), 0
    while capacity < 100_000_000:
        read += capacity
        capacity = room_for(capacity)

    # then ids are read seldom while they are few, and there is little room to spare when they are many
    assert read < 5 * 100_000_000
    assert capacity < 1.2 * 100_000_000
    assert room_for(3_000_000) == 6_000_000
