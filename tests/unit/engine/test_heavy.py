"""Heavy keys from samples: whose a record is, how big a part, how sure, and what its dimensions show."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.heavy import (
    RECORDS_OF_ONE_BATCH,
    Attribution,
    Fraction,
    digest,
    key_loads,
    top_values,
    visibility,
)
from hotkey_operator.engine.model import PartitionSample, SampledRecord
from hotkey_sdk.routing.table import RecordKey, Route, Shard, shard_key
from tests.unit.engine.stream import table

NOBODY = Attribution({})
NIKE = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3), Shard(9, 5)), (0, 0, 0, 1))


def sample(keys: Sequence[bytes | None], run: int = 50, partition: int = 3) -> PartitionSample:
    records = [SampledRecord(key, 100) for key in keys]
    return PartitionSample(partition, tuple(tuple(records[i : i + run]) for i in range(0, len(records), run)))


def with_users(users: Sequence[Mapping[str, str]]) -> PartitionSample:
    return PartitionSample(3, (tuple(SampledRecord(b"nike", 100, found) for found in users),) * 2)


def test_a_shards_record_is_its_keys_through_the_table() -> None:
    whose = Attribution.of([table(routes=(NIKE,))])
    assert whose.key_of(b"nike:7") == b"nike"
    assert whose.key_of(b"nike") == b"nike"


def owners_of_keys_with_a_colon(kind: type[Attribution]) -> list[bytes]:
    """Whose `nike:8` and `a:1` are, where a table made `nike:7` and `nike:9` alone."""
    whose = kind.of([table(routes=(NIKE,))])
    return [whose.key_of(b"nike:8"), whose.key_of(b"a:1")]


def test_a_key_with_a_colon_that_no_table_made_is_a_key_of_its_own() -> None:
    assert owners_of_keys_with_a_colon(Attribution) == [b"nike:8", b"a:1"]


class SplittingAttribution(Attribution):
    """The planted bug: a shard is what has a colon."""

    def key_of(self, record_key: bytes) -> bytes:
        return record_key.split(b":")[0]


def test_an_attribution_that_splits_at_the_colon_is_found() -> None:
    assert owners_of_keys_with_a_colon(SplittingAttribution) != [b"nike:8", b"a:1"]


def test_the_newest_table_says_whose_a_shard_is() -> None:
    other = Route(b"nike:7", "clicks", (), RecordKey.COMPOSITE, (Shard(1, 0),), (0,))
    older = Route(b"nik", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3),), (0,))
    whose = Attribution.of([table(routes=(older, other)), table(routes=(NIKE,))])
    assert whose.key_of(b"nike:7") == b"nike"
    assert whose.key_of(b"nik:7") == b"nik"


def test_a_preserved_key_makes_no_shard_names() -> None:
    kept = Route(b"nike", "clicks", (), RecordKey.PRESERVE, (Shard(7, 3),), (0,))
    assert Attribution.of([table(routes=(kept,))]).owners == {}


def test_shards_and_stragglers_count_as_one_key() -> None:
    whose = Attribution.of([table(routes=(NIKE,))])
    found = digest(sample([b"nike:7", b"nike", b"nike:9", b"other"] * 100), 0, whose, ())
    assert found is not None
    assert found.keys[b"nike"].records.value == pytest.approx(0.75)


def test_null_keys_count_in_the_whole_and_are_nobodys() -> None:
    found = digest(sample([None, b"a"] * 100), 0, NOBODY, ())
    assert found is not None
    assert list(found.keys) == [b"a"]
    assert found.keys[b"a"].records.value == pytest.approx(0.5)


def test_an_empty_sample_says_nothing() -> None:
    assert digest(PartitionSample(0, ()), 0, NOBODY, ()) is None
    assert digest(PartitionSample(0, ((), ())), 0, NOBODY, ()) is None


def test_the_true_share_lies_within_the_bound_nearly_always() -> None:
    chance, missed = random.Random(1), 0
    for _ in range(200):
        keys = [b"nike" if chance.random() < 0.3 else b"other" for _ in range(400)]
        found = digest(sample(keys, run=20), 0, NOBODY, ())
        assert found is not None
        part = found.keys[b"nike"].records
        missed += abs(part.value - 0.3) > part.bound
    assert missed <= 200 * 0.12  # 5 % are expected


def test_runs_of_one_key_widen_the_bound() -> None:
    mixed = digest(sample([b"a", b"b"] * 200, run=20), 0, NOBODY, ())
    clumped = digest(sample(([b"a"] * 20 + [b"b"] * 20) * 10, run=20), 0, NOBODY, ())
    assert mixed is not None
    assert clumped is not None
    assert clumped.keys[b"a"].records.error > 3 * mixed.keys[b"a"].records.error


def test_a_single_run_is_not_taken_for_many_observations() -> None:
    one = digest(sample([b"a", b"b"] * 50, run=1_000), 0, NOBODY, ())
    many = digest(sample([b"a", b"b"] * 50, run=10), 0, NOBODY, ())
    assert one is not None
    assert many is not None
    assert one.keys[b"a"].records.error > 5 * many.keys[b"a"].records.error


def neighbours(keys: Sequence[bytes], gap: int, run: int = 10) -> PartitionSample:
    """Runs of so many records with `gap` offsets between them."""
    found = sample(keys, run=run)
    starts = [number * (run + gap) for number in range(len(found.runs))]
    return replace(found, spans=tuple((start, start + run) for start in starts))


def batches(chance: random.Random, length: int) -> list[bytes]:
    """200 records in batches of one key each; `nike` has three tenths."""
    found: list[bytes] = []
    while len(found) < 200:
        found += [b"nike" if chance.random() < 0.3 else b"other"] * length
    return found[:200]


def missed(length: int, gap: int) -> int:
    """How often of 300 times the true part lies outside its bound."""
    chance, found = random.Random(5), 0
    for _ in range(300):
        seen = digest(neighbours(batches(chance, length), gap), 0, NOBODY, ())
        assert seen is not None
        part = seen.keys[b"nike"].records if b"nike" in seen.keys else Fraction(0.0, 1 / 202)
        found += abs(part.value - 0.3) > part.bound
    return found


def test_runs_that_may_be_of_one_batch_are_not_taken_for_many_batches() -> None:
    near, far = missed(length=40, gap=0), missed(length=40, gap=RECORDS_OF_ONE_BATCH)
    assert near < 0.6 * far


def test_neighbours_that_are_not_of_one_batch_are_hardly_less_sure() -> None:
    chance, widened = random.Random(6), []
    for _ in range(100):
        keys = batches(chance, 1)
        near, far = (digest(neighbours(keys, gap), 0, NOBODY, ()) for gap in (0, RECORDS_OF_ONE_BATCH))
        assert near is not None
        assert far is not None
        widened.append(near.keys[b"nike"].records.error / far.keys[b"nike"].records.error)
    assert min(widened) >= 1.0
    assert sum(widened) / len(widened) < 1.3


def test_the_offsets_that_a_sample_was_read_through_are_kept_with_it() -> None:
    found = digest(replace(neighbours([b"a", b"b"] * 10, gap=0), spans=((0, 20), (30, 50))), 0, NOBODY, ())
    assert found is not None
    assert (found.records, found.offsets) == (20, 40)


def test_a_run_that_holds_only_markers_counts_for_its_offsets_alone() -> None:
    record = SampledRecord(b"a", 100)
    runs = PartitionSample(0, ((record,), (), (record,)), ((0, 1), (5, 6), (9, 10)))
    found = digest(runs, 0, NOBODY, ())
    assert found is not None
    assert (found.records, found.offsets, found.keys[b"a"].records.value) == (2, 3, 1.0)


def test_a_key_is_summed_over_its_partitions_and_scaled_to_those_not_sampled() -> None:
    whose = Attribution.of([table(routes=(NIKE,))])
    found = digest(sample([b"nike:7"] * 50 + [b"x"] * 50, partition=3), 0, whose, ())
    assert found is not None
    loads = key_loads({3: found}, [0, 0, 0, 300.0, 0, 100.0], False, {b"nike": NIKE})
    assert loads[b"nike"].on == {3: pytest.approx(150.0)}
    assert loads[b"nike"].total == pytest.approx(200.0)  # partition 3 holds three of its four slots

    other = digest(sample([b"nike"] * 25 + [b"x"] * 75, partition=0), 0, whose, ())
    assert other is not None
    plain = key_loads({3: found, 0: other}, [100.0, 0, 0, 300.0], False, {})[b"nike"]
    assert plain.on == {3: pytest.approx(150.0), 0: pytest.approx(25.0)}
    assert plain.total == pytest.approx(175.0)


def test_a_routed_key_that_no_sample_shows_carries_about_nothing() -> None:
    found = digest(sample([b"x"] * 400), 0, NOBODY, ())
    assert found is not None
    load = key_loads({3: found}, [100.0] * 6, False, {b"nike": NIKE})[b"nike"]
    assert load.total == 0
    assert 0 < load.at_most < 2


def test_bytes_are_shared_by_size_not_by_count() -> None:
    records = (SampledRecord(b"big", 900), SampledRecord(b"small", 100)) * 100
    found = digest(PartitionSample(0, tuple(records[i : i + 20] for i in range(0, 200, 20))), 0, NOBODY, ())
    assert found is not None
    assert found.keys[b"big"].records.value == pytest.approx(0.5)
    assert found.keys[b"big"].bytes.value == pytest.approx(0.9)
    assert found.mean_bytes == 500


def test_dimensions_that_are_not_in_the_records_are_not_visible() -> None:
    found = digest(with_users([{"user": "1"}, {}, {}, {}] * 50), 0, NOBODY, [("user",), ("user", "country")])
    assert found is not None
    seen = visibility({3: found}, b"nike", ("user",))
    assert seen is not None
    assert seen.value == pytest.approx(0.25)
    both = visibility({3: found}, b"nike", ("user", "country"))
    assert both is not None
    assert both.value == 0


def test_the_biggest_value_of_a_rung_is_found_with_the_missing_one_as_empty_text() -> None:
    found = digest(
        with_users([{"user": "1"}] * 60 + [{"user": "2"}] * 10 + [{}] * 30), 0, NOBODY, [("user",)]
    )
    assert found is not None
    load = key_loads({3: found}, [0, 0, 0, 100.0], False, {})[b"nike"]
    values = top_values({3: found}, load, ("user",))
    assert [(value.values, round(value.part.value, 2)) for value in values] == [
        (("1",), 0.6),
        (("",), 0.3),
        (("2",), 0.1),
    ]


def test_shard_names_are_those_of_the_sdk() -> None:
    assert set(Attribution.of([table(routes=(NIKE,))]).owners) == {
        shard_key(b"nike", 7),
        shard_key(b"nike", 9),
    }


@given(
    st.lists(
        st.lists(st.tuples(st.none() | st.binary(max_size=3), st.integers(0, 2**31)), max_size=6), max_size=6
    )
)
def test_parts_of_any_sample_are_between_none_and_all_with_a_finite_error(
    runs: list[list[tuple[bytes | None, int]]],
) -> None:
    found = digest(
        PartitionSample(0, tuple(tuple(SampledRecord(k, size) for k, size in run) for run in runs)),
        0,
        NOBODY,
        (),
    )
    for seen in found.keys.values() if found else ():
        for part in (seen.records, seen.bytes):
            assert 0 <= part.value <= 1
            assert 0 <= part.error <= 1
