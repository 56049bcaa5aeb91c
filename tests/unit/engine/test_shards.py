"""The search for shard ids: the same as hashing each record key whole, without hashing it whole each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST, find_shards
from hotkey_sdk.routing import partitioner
from hotkey_sdk.routing.partitioner import Prefix, partition_for


@given(st.binary(max_size=40), st.lists(st.binary(max_size=9), min_size=1, max_size=4), st.integers(1, 1_000))
def test_a_key_in_two_parts_lands_where_the_whole_does(
    start: bytes, ends: list[bytes], partitions: int
) -> None:
    prefix = Prefix(start)
    for end in ends:
        assert prefix.partition_for(end, partitions) == partition_for(start + end, partitions)


def test_a_long_key_is_hashed_once_for_each_number_of_digits_and_not_for_each_id_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a count of the bytes that are hashed
    hashed: list[int] = []
    mixed = partitioner._mixed

    def counted(h: int, words: bytes) -> int:
        hashed.append(len(words))
        return mixed(h, words)

    monkeypatch.setattr(partitioner, "_mixed", counted)
    # when ids are searched for so many partitions that hundreds are tried
    key = b"x" * KEY_BYTES_AT_MOST
    found = find_shards(key, range(100), 100, (), None)
    # then the whole key was hashed once for ids of one digit, of two, of three and perhaps of four
    assert len(found) == 100
    assert sum(length >= len(key) for length in hashed) <= len(str(max(s.id for s in found.values())))
