"""The partitioner and the slot hash, against other implementations of the same functions."""

from __future__ import annotations

import confluent_kafka
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk.routing.partitioner import murmur2, partition_for
from hotkey_sdk.routing.slots import Value, slot_hash, value_bytes


@given(st.binary(max_size=300), st.integers(1, 100_000))
def test_our_murmur2_is_librdkafkas(key: bytes, partitions: int) -> None:
    assert partition_for(key, partitions) == confluent_kafka.murmur2(key, partitions)


@pytest.mark.parametrize(
    ("key", "signed"),
    # from Kafka's own UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_our_murmur2_is_javas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


values = st.text(max_size=300) | st.integers() | st.binary(max_size=300) | st.none()


@given(st.lists(values, max_size=5), st.integers(0, 2**53 - 1))
def test_the_slot_hash_is_xxh64_of_the_length_prefixed_values(given_values: list[Value], seed: int) -> None:
    packed = b"".join(
        len(data).to_bytes(4, "little") + data for data in (value_bytes(value) for value in given_values)
    )

    assert slot_hash(seed, given_values) == xxhash.xxh64(packed, seed=seed).intdigest()


def test_where_one_value_ends_and_the_next_begins_matters() -> None:
    assert slot_hash(0, ["ab", "c"]) != slot_hash(0, ["a", "bc"])
    assert slot_hash(0, ["a", ""]) != slot_hash(0, ["", "a"])


def test_text_that_no_encoding_holds_still_has_a_hash() -> None:
    assert value_bytes("\ud800") == b"\xed\xa0\x80"
