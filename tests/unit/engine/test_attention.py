"""Which records are looked at: where the heat is, where routes may cool, and now and then for their size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotkey_operator.engine.attention import (
    COLD_SIZE_SECONDS,
    OWN_SIZE_SECONDS,
    RECORDS_AT_LEAST,
    RECORDS_FOR_SIZE,
    RUNS_AT_LEAST,
    SIZES_SECONDS,
    TURN_RUNS,
    WINDOWS_AT_MOST,
    awake,
    fewer_runs,
    is_quiet,
    quiet_seconds,
    unread,
    windows_to_sample,
)
from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, StoredTable, TopicFacts
from hotkey_operator.engine.rates import History, extended
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.unit.engine.stream import START, STREAM, spec, table

Window = tuple[int, int]


def watched(rates: list[int], **fields: object) -> tuple[Memory, EndOffsets]:
    """Twenty turns of a stream with these rates, and the newest reading; sizes were sampled just now."""
    history = History.of(
        *(EndOffsets(START + second, tuple(rate * second for rate in rates)) for second in range(20))
    )
    seen = {p: Evidence(START + 19, 100, 100.0, {}) for p in range(len(rates))}
    memory = Memory(**{"history": history, "evidence": seen, **fields})  # type: ignore[arg-type]
    return memory, EndOffsets(START + 20, tuple(rate * 20 for rate in rates))


def windows(rates: list[int], **fields: object) -> dict[int, Window]:
    memory, ends = watched(rates, **fields)
    return windows_to_sample(spec(), memory, None, ends)


def test_a_quiet_stream_is_not_looked_at() -> None:
    assert windows([100] * 12) == {}


def test_a_partition_over_the_trigger_is_looked_at_over_its_last_second() -> None:
    assert windows([100] * 11 + [4_000]) == {11: (4_000 * 19, 4_000 * 20)}


def test_the_hottest_come_first_and_no_more_than_so_many() -> None:
    found = windows([100] * 100 + [4_000 + i for i in range(30)])
    assert next(iter(found)) == 129
    assert len(found) == WINDOWS_AT_MOST


def test_a_balanced_stream_over_the_trigger_is_not_looked_at_every_turn() -> None:
    assert windows([4_000] * 12) == {}


@pytest.mark.parametrize(("age", "expected"), [(1.0, False), (5.0, True)])
def test_a_partition_that_has_long_been_hot_is_looked_at_less_often(age: float, expected: bool) -> None:
    seen = {1: Evidence(START + 20 - age, 100, 100.0, {})}
    found = windows([100, 4_000] + [100] * 10, evidence=seen, over_since={1: START})
    assert (1 in found) is expected


def test_partitions_that_carry_routes_are_looked_at_every_few_seconds() -> None:
    memory, ends = watched([100] * 12, evidence={0: Evidence(START + 19, 100, 100.0, {})})
    route = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3), Shard(9, 5)), (0, 1))
    stored = StoredTable(table(routes=(route,)), "v")
    assert [*windows_to_sample(spec(), memory, stored, ends)][:2] == [3, 5]


def test_the_busiest_partition_is_looked_at_now_and_then_for_the_size_of_its_records() -> None:
    old = {p: Evidence(START + 20 - SIZES_SECONDS, 100, 100.0, {}) for p in range(12)}
    assert set(windows([100] * 11 + [300], evidence=old)) == {11}
    assert next(iter(windows([100] * 11 + [300], evidence={}))) == 11


def test_no_record_is_read_where_the_policy_forbids_it() -> None:
    memory, ends = watched([100] * 11 + [4_000], evidence={})
    assert windows_to_sample(spec(metrics={"sampling": False}), memory, None, ends) == {}


def test_a_partition_of_which_the_size_of_records_is_not_known_is_looked_at_in_its_turn() -> None:
    seen = {p: Evidence(START + 19, 100, 100.0, {}) for p in range(11)}
    assert windows([100] * 12, evidence=seen) == {11: (2_000 - RECORDS_FOR_SIZE, 2_000)}


BYTES = {"bytesPerSecond": 100_000}


@pytest.mark.parametrize(
    ("size", "age", "due"),
    [
        (900.0, OWN_SIZE_SECONDS - 1, False),
        (900.0, OWN_SIZE_SECONDS, True),
        (90.0, OWN_SIZE_SECONDS, False),
        (90.0, COLD_SIZE_SECONDS, True),
    ],
)
def test_the_size_of_records_is_looked_at_more_often_near_the_trigger(
    size: float, age: float, due: bool
) -> None:
    seen = {p: Evidence(START + 20 - (age if p == 5 else 1), 100, size, {}) for p in range(12)}
    memory, ends = watched([100] * 12, evidence=seen)
    assert (5 in windows_to_sample(spec(trigger=BYTES), memory, None, ends)) is due


def test_partitions_that_were_not_read_are_not_sampled() -> None:
    memory, ends = watched([100] * 11 + [4_000])
    stale = EndOffsets(ends.at, ends.offsets, frozenset({11}))
    assert windows_to_sample(spec(), memory, None, stale) == {}


@pytest.mark.parametrize(
    ("partitions", "expected"), [(12, 1.0), (1_000, 1.0), (5_000, 5.0), (10_000, 10.0), (99_999, 10.0)]
)
def test_quiet_partitions_are_read_less_often_only_where_there_are_very_many(
    partitions: int, expected: float
) -> None:
    assert quiet_seconds(partitions) == expected


def read_over(turns: int, pace: float, rates: list[int], **fields: object) -> list[set[int]]:
    """The partitions that are read in each of so many turns, a second apart."""
    memory, _ = watched(rates, **fields)
    facts, found = TopicFacts(STREAM, len(rates), False), []
    for second in range(20, 20 + turns):
        at = START + second + 0.01 * (second % 7)
        idle = unread(spec(), memory, facts, None, at, pace)
        ends = EndOffsets(at, tuple(int(rate * second) for rate in rates), idle)
        memory = replace(memory, history=extended(memory.history, ends))
        found.append(set(range(len(rates))) - idle)
    return found


def test_at_a_slow_pace_each_quiet_partition_is_read_once_a_round_and_about_as_many_each_turn() -> None:
    rounds = read_over(30, 10.0, [100] * 200)
    assert all(15 <= len(each) <= 25 for each in rounds)
    for start in (0, 10, 20):
        assert set().union(*rounds[start : start + 10]) == set(range(200))


def test_a_partition_above_half_the_trigger_is_read_every_turn_at_any_pace() -> None:
    rounds = read_over(12, 10.0, [100] * 20 + [700])
    assert all(20 in each for each in rounds)


def test_a_quiet_partition_that_turns_hot_is_read_every_turn_from_then_on() -> None:
    memory, _ = watched([100] * 20)
    facts, read = TopicFacts(STREAM, 20, False), []
    for second in range(20, 45):
        at, records = START + second, [100 * second] * 19 + [100 * second + max(0, second - 25) * 4_000]
        idle = unread(spec(), memory, facts, None, at, 10.0)
        known = memory.history.offsets
        offsets = tuple(known[p] if p in idle else records[p] for p in range(20))
        memory = replace(memory, history=extended(memory.history, EndOffsets(at, offsets, idle)))
        read.append(19 not in idle)
    first_seen = next(second for second in range(6, 25) if read[second])
    assert first_seen <= 16
    assert all(read[first_seen + 1 :])


@pytest.mark.parametrize(
    "facts",
    [TopicFacts(STREAM, 13, False), TopicFacts(STREAM, 12, False, "another")],
    ids=["partitions were added", "it was made anew"],
)
def test_every_partition_is_read_of_a_topic_that_changed(facts: TopicFacts) -> None:
    memory, _ = watched([100] * 12, topic_id="one")
    assert unread(spec(), memory, facts, None, START + 21, 10.0) == frozenset()


@pytest.mark.parametrize(
    ("rates", "fields", "expected"),
    [
        ([100] * 12, {}, True),
        ([100] * 11 + [501], {}, False),
        ([100] * 12, {"over_since": {3: START + 19}}, False),
        ([100] * 12, {"changed_at": {b"nike": START + 19}}, False),
        ([100] * 12, {"history": History()}, False),
    ],
    ids=["all cold", "one warm", "one lately hot", "a route changed", "not measured"],
)
def test_a_stream_is_quiet_when_nothing_of_it_needs_a_turn_every_second(
    rates: list[int], fields: dict[str, object], expected: bool
) -> None:
    memory, _ = watched(rates, **fields)
    assert is_quiet(spec(), memory, None) is expected


def test_a_stream_with_routes_is_not_quiet() -> None:
    memory, _ = watched([100] * 12)
    route = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3),), (0,))
    assert not is_quiet(spec(), memory, table(routes=(route,)))
    assert awake(spec(), memory, table(routes=(route,))) == {3}


def test_a_window_with_few_records_reaches_further_back() -> None:
    for window in windows([7] * 12, evidence={}).values():
        assert window[1] - window[0] >= RECORDS_AT_LEAST


def test_an_empty_window_is_left_out() -> None:
    assert windows([0] * 12, evidence={}) == {}


def test_nothing_is_looked_at_before_there_is_a_rate() -> None:
    assert windows_to_sample(spec(), Memory(), None, EndOffsets(START, (5, 5))) == {}


def carried(partitions: int) -> StoredTable:
    """A table whose one route has a shard on each partition."""
    shards = tuple(Shard(p, p) for p in range(partitions))
    route = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, shards, tuple(range(partitions)))
    return StoredTable(table(partitions=partitions, routes=(route,)), "v")


@pytest.mark.parametrize("partitions", [12, 30, 48, 96, 150])
def test_up_to_150_partitions_that_carry_routes_are_looked_at_in_time_within_the_bytes(
    partitions: int,
) -> None:
    memory, stored, looked = watched([200] * partitions)[0], carried(partitions), list[set[int]]()
    for second in range(20, 40):
        at = START + second
        ends = EndOffsets(at, (200 * second,) * partitions)
        runs = fewer_runs(spec(), memory, stored, ends)
        # the adapter reads the first windows, as many as the bytes do for
        left, chosen = TURN_RUNS, []
        for p in windows_to_sample(spec(), memory, stored, ends):
            left -= runs.get(p, 20)
            chosen += [p] if left >= 0 else []
        seen = {p: Evidence(at, 100, 100.0, {}) for p in chosen}
        memory = replace(memory, history=extended(memory.history, ends), evidence={**memory.evidence, **seen})
        looked.append(set(chosen))
    for start in range(5, len(looked) - 5):
        assert set().union(*looked[start : start + 6]) == set(range(partitions)), start


def test_a_partition_over_the_trigger_is_looked_at_in_all_runs_however_many_carry_routes() -> None:
    memory, ends = watched([200] * 95 + [4_000])
    found = fewer_runs(spec(), memory, carried(96), ends)
    assert found.keys() == set(range(95))
    assert all(runs >= RUNS_AT_LEAST for runs in found.values())


def test_many_partitions_over_the_trigger_alike_are_looked_at_less_closely() -> None:
    memory, ends = watched([4_000] * 96)
    assert fewer_runs(spec(), memory, carried(96), ends).keys() == set(range(96))


def test_few_partitions_that_carry_routes_are_looked_at_in_all_runs() -> None:
    memory, ends = watched([200] * 30)
    assert fewer_runs(spec(), memory, carried(30), ends) == {}
