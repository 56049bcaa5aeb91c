"""The search for shard ids: the same as hashing each record key whole, without hashing it whole each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST, find_shards, landing
from hotkey_sdk.routing import partitioner
from hotkey_sdk.routing.partitioner import Prefix, partition_for
from hotkey_sdk.routing.table import Shard, shard_key


@given(st.binary(max_size=40), st.lists(st.binary(max_size=9), min_size=1, max_size=4), st.integers(1, 1_000))
def test_a_key_in_two_parts_lands_where_the_whole_does(
    start: bytes, ends: list[bytes], partitions: int
) -> None:
    prefix = Prefix(start)
    for end in ends:
        assert prefix.partition_for(end, partitions) == partition_for(start + end, partitions)


@given(st.binary(max_size=9), st.integers(0, 2_000_000), st.integers(1, 400), st.integers(1, 1_000))
def test_many_numbers_at_once_land_where_each_of_them_does(
    start: bytes, first: int, count: int, partitions: int
) -> None:
    each = [partition_for(start + b"%d" % number, partitions) for number in range(first, first + count)]
    assert Prefix(start).partitions_for(first, count, partitions) == each


@given(
    st.binary(max_size=6), st.sets(st.integers(0, 99), max_size=12), st.sampled_from([1, 12, 100]), st.data()
)
def test_the_search_finds_the_ids_that_trying_one_after_the_other_finds(
    key: bytes, wanted: set[int], partitions: int, data: st.DataObject
) -> None:
    wanted = {partition % partitions for partition in wanted}
    taken = {shard_key(key, data.draw(st.integers(0, 300))) for _ in range(5)}
    slowly: dict[int, Shard] = {}
    for number in range(60 * partitions + len(taken)):
        partition = partition_for(shard_key(key, number), partitions)
        if partition in wanted and partition not in slowly and shard_key(key, number) not in taken:
            slowly[partition] = Shard(number, partition)
    assert find_shards(key, wanted, partitions, taken, None) == slowly
    assert all(landing(key, shard.id, partitions) == shard.partition for shard in slowly.values())


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
    found = find_shards(key, range(400), 400, (), None)
    # then the whole key was hashed once for ids of one digit, of two, of three and perhaps of four
    assert len(found) == 400
    assert sum(length >= len(key) for length in hashed) <= len(str(max(s.id for s in found.values())))
