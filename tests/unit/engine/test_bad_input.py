"""What comes out when what goes in is bad: offsets, clocks, samples and topics of every unlikely kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord
from hotkey_operator.engine.decide import decide
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import (
    Committed,
    CountedKey,
    Decision,
    EmitEvent,
    EndOffsets,
    KeyTally,
    Observation,
    PartitionSample,
    Progress,
    Published,
    PublishTable,
    SampledRecord,
    StoredTable,
    TopicFacts,
    WriteTable,
)
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.codec import encode
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, Table, shard_key
from tests.unit.engine.stream import START, STREAM, ModelStream, spec

PARTITIONS = 12
HOME = partition_for(b"nike", PARTITIONS)
QUIET = {b"k%d" % i: 1.0 for i in range(300)}
NIKE = {**QUIET, b"nike": 4_000.0}
BY_USER: dict[str, Any] = {
    "dimensions": [{"name": "user_id", "from": {"jsonPath": "$.user_id"}}],
    "spread": {"by": [["user_id"]]},
}


@dataclass
class Watched:
    """A stream of which each turn's observation is written by hand; tables are stored as they are written."""

    spec: PolicySpec = field(default_factory=spec)
    partitions: int = PARTITIONS
    memory: Memory = field(default_factory=Memory)
    table: Table | None = None

    def turn(
        self,
        at: float,
        offsets: Sequence[int],
        *samples: PartitionSample,
        read_at: float | None = None,
        **beside: Any,
    ) -> Decision:
        """One turn. `beside`: other fields of the observation."""
        stored = StoredTable(self.table, "v") if self.table else None
        observation = Observation(
            at=at,
            topic=TopicFacts(STREAM, self.partitions, compacted=False),
            ends=EndOffsets(at if read_at is None else read_at, tuple(offsets)),
            samples=samples,
            stored=stored,
            published=Published(True, self.table),
            **beside,
        )
        decision, self.memory = decide(self.spec, observation, self.memory)
        for action in decision.actions:
            if isinstance(action, WriteTable):
                self.table = action.table
        assert_sound(decision, self.partitions)
        return decision

    @property
    def routed(self) -> set[bytes]:
        return {route.key for route in self.table.routes} if self.table else set()


def assert_sound(decision: Decision, partitions: int) -> None:
    """What every decision owes, whatever was observed: valid tables, finite figures, sentences."""
    for action in decision.actions:
        match action:
            case WriteTable(table) | PublishTable(table):
                encode(table)
                for route in table.routes:
                    for shard in route.shards:
                        assert 0 <= shard.partition < partitions
                        if route.record_key is RecordKey.COMPOSITE:
                            placed = partition_for(shard_key(route.key, shard.id), partitions)
                            assert placed == shard.partition
            case EmitEvent():
                assert action.message
    figures = decision.summary
    assert figures.records_per_second is None or 0 <= figures.records_per_second < math.inf
    assert figures.imbalance is None or 1 <= figures.imbalance < math.inf
    for verdict in decision.verdicts:
        for number in (verdict.records_per_second, verdict.share, verdict.share_error):
            assert math.isfinite(number), verdict
            assert number >= 0, verdict
        assert verdict.share <= 1
        assert verdict.share_error <= 1
    assert decision.message
    assert "nan" not in decision.message.lower().split()


def sample(partition: int, keys: Mapping[bytes | None, int], **record: Any) -> PartitionSample:
    """Twenty runs that each hold so many records of each key."""
    run = tuple(
        SampledRecord(key, **{"size_bytes": 100, **record}) for key, n in keys.items() for _ in range(n)
    )
    return PartitionSample(partition, (run,) * 20)


def rising(second: int, hot: int = 4_000, quiet: int = 30) -> list[int]:
    """End offsets of a stream of which one partition is hot."""
    return [(hot if p == HOME else quiet) * second for p in range(PARTITIONS)]


# Clocks and offsets


@pytest.mark.parametrize("read_at", [float("nan"), float("inf"), float("-inf")])
def test_a_reading_without_a_time_is_as_if_it_had_not_been_made(read_at: float) -> None:
    watched, other = Watched(), Watched()
    for second in range(8):
        reason = watched.turn(START + second, rising(second, 40)).reason
        assert other.turn(START + second, rising(second, 40)).reason is reason
    odd = watched.turn(START + 8, rising(9_999), read_at=read_at)
    assert odd.reason is Reason.STEADY
    assert watched.memory.history == other.memory.history


def test_a_clock_that_goes_back_starts_the_measuring_anew_and_moves_nothing() -> None:
    watched = Watched()
    for second in range(8):
        watched.turn(START + second, rising(second, 40))
    assert watched.turn(START - 3_600, rising(8, 40)).reason is Reason.WAITING
    assert watched.turn(START - 3_599, rising(9, 40)).reason is Reason.STEADY
    assert watched.routed == set()


@pytest.mark.parametrize("offset", [-1, -1_001, -(2**63)])
def test_a_negative_offset_is_a_topic_that_was_made_anew_and_no_load(offset: int) -> None:
    watched = Watched()
    for second in range(8):
        watched.turn(START + second, rising(second, 40))
    assert watched.turn(START + 8, [offset] * PARTITIONS).reason is Reason.WAITING
    rate = watched.turn(START + 9, rising(9, 40)).summary.records_per_second
    assert rate is None or rate >= 0
    assert watched.routed == set()


def test_an_offset_of_all_that_fits_is_heat_without_evidence_and_moves_nothing() -> None:
    watched = Watched()
    for second in range(8):
        watched.turn(START + second, rising(second, 40))
    for second in range(8, 12):
        ends = rising(second, 40)
        ends[HOME] = 2**63 - 1
        watched.turn(START + second, ends)
    assert watched.routed == set()


def test_more_or_fewer_offsets_than_partitions_is_not_measured() -> None:
    watched = Watched()
    for second in range(8):
        assert watched.turn(START + second, rising(second)[:-1]).reason is Reason.WAITING
    for second in range(8, 16):
        assert watched.turn(START + second, [*rising(second), 5]).reason is Reason.WAITING


# Samples

EMPTY: dict[str, tuple[PartitionSample, ...]] = {
    "none": (),
    "no run": (PartitionSample(HOME, ()),),
    "runs without a record": (PartitionSample(HOME, ((), (), ())),),
    "of a partition that is not there": (sample(PARTITIONS + 7, {b"nike": 20}),),
    "of another partition": (sample((HOME + 1) % PARTITIONS, {b"nike": 20}),),
}


@pytest.mark.parametrize("case", EMPTY)
def test_without_a_sample_of_the_hot_partition_it_is_being_sampled_and_nothing_moves(case: str) -> None:
    watched = Watched()
    decisions = [watched.turn(START + second, rising(second), *EMPTY[case]) for second in range(8)]
    assert decisions[-1].reason is Reason.SAMPLING
    assert watched.routed == set()


def test_a_sample_of_records_without_a_key_has_no_key_to_spread() -> None:
    watched = Watched()
    found = [watched.turn(START + second, rising(second), sample(HOME, {None: 20})) for second in range(8)]
    assert found[-1].reason is Reason.NO_DOMINANT_KEY
    assert watched.routed == set()


@pytest.mark.parametrize("size", [0, -5, 2**62], ids=["none", "negative", "huge"])
def test_sizes_that_cannot_be_change_nothing_for_a_key_that_is_hot_in_records(size: int) -> None:
    watched = Watched(spec(trigger={"recordsPerSecond": 1_000}))
    for second in range(8):
        watched.turn(START + second, rising(second), sample(HOME, {b"nike": 19, b"k": 1}, size_bytes=size))
    assert watched.routed == {b"nike"}


def test_records_of_no_size_are_never_too_many_bytes() -> None:
    watched = Watched(spec(trigger={"bytesPerSecond": 1_000}))
    for second in range(8):
        watched.turn(START + second, rising(second), sample(HOME, {b"nike": 20}, size_bytes=0))
    assert watched.routed == set()


@pytest.mark.parametrize("key", [b"", b"\xff\xfe\x00", b"a:1", b"x" * 1_000, b"nike:7:7"])
def test_a_key_of_any_kind_is_spread_as_it_is(key: bytes) -> None:
    home = partition_for(key, PARTITIONS)
    watched = Watched()
    for second in range(8):
        ends = [(4_000 if p == home else 30) * second for p in range(PARTITIONS)]
        watched.turn(START + second, ends, sample(home, {key: 19, b"k": 1}))
    assert watched.routed == {key}


# What is told beside the samples

ODD = [float("nan"), float("inf"), -1.0, 0.0, 1e300]


@pytest.mark.parametrize("number", ODD)
def test_a_tally_with_a_total_that_cannot_be_is_as_if_nobody_had_told_it(number: float) -> None:
    watched = Watched()
    for second in range(8):
        counted = CountedKey(records_per_second=3_800.0, bytes_per_second=1e6, missed=0.0)
        tally = KeyTally(HOME, START, number, 1e6, 1_000, 0.0, {b"nike": counted})
        decision = watched.turn(START + second, rising(second), tallies=(tally,))
    assert decision.reason is (Reason.NO_DOMINANT_KEY if number == 1e300 else Reason.SAMPLING)
    assert watched.routed == set()


@pytest.mark.parametrize("number", ODD)
def test_a_key_that_is_told_to_carry_what_cannot_be_is_left_out_of_the_tally(number: float) -> None:
    odd = CountedKey(records_per_second=number, bytes_per_second=number, missed=number)
    sound = CountedKey(records_per_second=3_800.0, bytes_per_second=380_000.0, missed=0.0)
    watched = Watched()
    for second in range(8):
        tally = KeyTally(HOME, START, 4_000.0, 400_000.0, 1_000, 0.0, {b"odd": odd, b"nike": sound})
        watched.turn(START + second, rising(second), tallies=(tally,))
    assert watched.routed >= ({b"nike"} if number <= 0 or math.isnan(number) else set())


AMOUNTS = st.one_of(st.sampled_from(ODD), st.floats())


@given(
    st.lists(AMOUNTS, min_size=3, max_size=3),
    st.integers(-5, 2**40),
    st.lists(st.builds(CountedKey, AMOUNTS, AMOUNTS, AMOUNTS), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_no_tally_makes_it_raise(totals: list[float], samples: int, counted: list[CountedKey]) -> None:
    records, size, unlisted = totals
    keys = {b"k%d" % number: each for number, each in enumerate(counted)}
    watched = Watched()
    for second in range(3):
        tally = KeyTally(HOME, START, records, size, samples, unlisted, keys)
        watched.turn(START + second, rising(second), tallies=(tally,))


def test_a_tally_of_a_partition_that_is_not_there_is_nobodys() -> None:
    watched = Watched()
    counted = CountedKey(records_per_second=3_800.0, bytes_per_second=1e6, missed=0.0)
    for second in range(8):
        tally = KeyTally(PARTITIONS + 7, START, 4_000.0, 1e6, 1_000, 0.0, {b"nike": counted})
        decision = watched.turn(START + second, rising(second), tallies=(tally,))
    assert decision.reason is Reason.SAMPLING


@pytest.mark.parametrize("size", [-1, 2**63, 0])
def test_log_sizes_that_cannot_be_do_not_keep_a_key_from_being_spread_for_its_records(size: int) -> None:
    watched = Watched(spec(trigger={"recordsPerSecond": 1_000}))
    for second in range(8):
        sizes = EndOffsets(START + second, (size * second % 2**63,) * (PARTITIONS + second % 2))
        watched.turn(START + second, rising(second), sample(HOME, {b"nike": 19, b"k": 1}), log_sizes=sizes)
    assert watched.routed == {b"nike"}


def test_commits_that_cannot_be_make_nothing_hot_and_nobody_slow() -> None:
    watched = Watched(spec(trigger={"lagSeconds": 5}, consumers={"groups": ["g"]}))
    for second in range(0, 60, 3):
        offsets = {p: (-1_001, 2**63 - 1, -(2**63))[p % 3] for p in range(-3, 40)}
        progress = Progress((Committed("g", offsets), Committed("h", {}, "no")), {HOME: -5, 99: 2**63})
        decision = watched.turn(START + second, rising(second, 40), progress=progress)
        assert decision.reason in (Reason.STEADY, Reason.WAITING)
    assert watched.routed == set()


# Topics


@pytest.mark.parametrize("partitions", [1, 2, 3, 5, 7, 12, 31, 97, 256, 360, 1_000])
def test_a_key_with_most_of_the_load_is_spread_evenly_over_any_number_of_partitions(partitions: int) -> None:
    quiet = {b"k%d" % i: 5.0 for i in range(2 * partitions)}
    policy = spec(limits={"maxShardsPerKey": 1_000})
    model = ModelStream(policy, {**quiet, b"nike": 3_000.0 * partitions}, partitions=partitions)
    model.turns(8)
    for decision in model.decisions:
        assert_sound(decision, partitions)
    if partitions == 1:
        assert model.decisions[-1].reason is Reason.ONE_PARTITION
        assert model.table.routes == ()
        return
    assert [route.key for route in model.table.routes] == [b"nike"]
    assert model.imbalance() < 1.1


def test_a_key_that_is_all_of_the_load_is_spread_evenly() -> None:
    model = ModelStream(spec(), {b"nike": 5_000.0})
    model.turns(8)
    (route,) = model.table.routes
    assert {shard.partition for shard in route.shards} == set(range(PARTITIONS))
    assert model.imbalance() < 1.05


def test_of_a_thousand_hot_keys_at_once_the_biggest_are_spread_and_the_others_are_told_to_be_too_many() -> (
    None
):
    # given 200 of 1,000 partitions with 5 keys each, every one of which makes a mean partition
    partitions, homes = 1_000, 200
    keys: dict[int, list[bytes]] = {p: [] for p in range(homes)}
    for number in range(20 * partitions):
        home = partition_for(b"key-%d" % number, partitions)
        if home < homes and len(keys[home]) < 5:
            keys[home].append(b"key-%d" % number)
    hot = [key for there in keys.values() for key in there]
    assert len(hot) == 1_000
    model = ModelStream(
        spec(), {key: 1_000.0 + number for number, key in enumerate(hot)}, partitions=partitions
    )
    before = model.imbalance()

    # when the operator has had its time
    model.turns(6)

    # then as many are spread as the policy allows, and it is said why not more
    for decision in model.decisions:
        assert_sound(decision, partitions)
    assert 0 < len(model.table.routes) <= model.spec.limits.max_hot_keys
    assert model.imbalance() <= before
    told = {verdict.reason for decision in model.decisions for verdict in decision.verdicts}
    assert Reason.TOO_MANY_HOT_KEYS in told


# Dimensions


def _read(policy: PolicySpec, values: Sequence[bytes]) -> tuple[SampledRecord, ...]:
    """The records as the adapter reads their dimensions, from their payloads."""
    reader = DimensionReader(policy.dimensions)
    return tuple(SampledRecord(b"nike", 100, reader.read(RawRecord(value, (), None))) for value in values)


def _decided(policy: PolicySpec, values: Sequence[bytes]) -> tuple[Decision, Watched]:
    """What becomes of a key whose records have these payloads."""
    watched = Watched(policy)
    records = _read(policy, values)
    runs = tuple(records[number::20] for number in range(20))
    for second in range(8):
        decision = watched.turn(START + second, rising(second), PartitionSample(HOME, runs))
        if watched.routed:
            break
    return decision, watched


def _user(number: int) -> bytes:
    return b'{"user_id": "u%d"}' % number


PAYLOADS: dict[str, tuple[list[bytes], Reason]] = {
    "all there": ([_user(i) for i in range(400)], Reason.SPREAD),
    "missing in a few": ([_user(i) if i % 50 else b"{}" for i in range(400)], Reason.SPREAD),
    "missing in a third": ([_user(i) if i % 3 else b"{}" for i in range(400)], Reason.SPREAD),
    "missing in most": ([b"{}" if i % 3 else _user(i) for i in range(400)], Reason.DIMENSIONS_NOT_VISIBLE),
    "a path that matches nothing": ([b'{"other": 1}'] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "no JSON": ([b"\xff\x00nonsense"] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "nothing": ([b""] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "deep nonsense": ([b"[" * 5_000] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "an object where a value should be": ([b'{"user_id": {"a": 1}}'] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "no number": ([b'{"user_id": NaN}'] * 400, Reason.DIMENSIONS_NOT_VISIBLE),
    "one value": ([_user(1)] * 400, Reason.CANNOT_SPREAD),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_a_rung_is_taken_only_where_the_records_carry_it_and_it_spreads(case: str) -> None:
    values, reason = PAYLOADS[case]
    decision, watched = _decided(spec(**BY_USER), values)
    assert decision.reason is reason, decision.message
    assert watched.routed == ({b"nike"} if reason is Reason.SPREAD else set())


def test_payloads_that_cannot_be_read_do_not_keep_a_key_from_being_spread_where_no_dimension_is_asked() -> (
    None
):
    decision, watched = _decided(spec(), [b"\xff\x00nonsense"] * 400)
    assert decision.reason is Reason.SPREAD
    assert watched.routed == {b"nike"}


# Anything

KEYS = st.one_of(st.none(), st.binary(max_size=12), st.sampled_from([b"nike", b"nike:1", b"a:1"]))
RECORDS = st.builds(
    SampledRecord,
    key=KEYS,
    size_bytes=st.integers(-10, 2**62),
    dimensions=st.dictionaries(st.sampled_from(["user_id", "odd"]), st.text(max_size=5), max_size=2),
)
SAMPLES = st.builds(
    PartitionSample,
    partition=st.integers(-1, 5),
    runs=st.lists(st.lists(RECORDS, max_size=6).map(tuple), max_size=4).map(tuple),
)
STEPS = st.tuples(
    st.one_of(st.floats(0.0, 5.0), st.sampled_from([float("nan"), float("inf"), -100.0, 1e9])),
    st.lists(st.integers(-10, 20_000), min_size=4, max_size=4),
    st.lists(SAMPLES, max_size=3),
    st.booleans(),
)


@given(st.lists(STEPS, min_size=1, max_size=12), st.sampled_from([spec(), spec(**BY_USER)]))
@settings(max_examples=25, deadline=None)
def test_no_run_of_turns_makes_it_raise_or_write_what_no_client_accepts(
    steps: list[tuple[float, list[int], list[PartitionSample], bool]], policy: PolicySpec
) -> None:
    watched, at, ends = Watched(policy, 4), START, [0, 0, 0, 0]
    for seconds, grown, samples, jumps in steps:
        read_at = at + seconds
        if math.isfinite(seconds):
            at += seconds
        ends = grown if jumps else [end + more for end, more in zip(ends, grown, strict=True)]
        watched.turn(at, ends, *samples, read_at=read_at)
