"""Which records are looked at: where the heat is, where routes may cool, and now and then for their size."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.attention import (
    RECORDS_AT_LEAST,
    ROUTED_SECONDS,
    SIZES_SECONDS,
    WINDOWS_AT_MOST,
    windows_to_sample,
)
from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, StoredTable
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.unit.engine.stream import START, spec, table

Window = tuple[int, int]


def watched(rates: list[int], **fields: object) -> tuple[Memory, EndOffsets]:
    """Twenty turns of a stream with these rates, and the newest reading; sizes were sampled just now."""
    history = tuple(
        EndOffsets(START + second, tuple(rate * second for rate in rates)) for second in range(20)
    )
    seen = {0: Evidence(START + 19, 100, 100.0, {})}
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


@pytest.mark.parametrize(("age", "expected"), [(1.0, False), (ROUTED_SECONDS, True)])
def test_a_partition_that_has_long_been_hot_is_looked_at_less_often(age: float, expected: bool) -> None:
    seen = {1: Evidence(START + 20 - age, 100, 100.0, {})}
    found = windows([100, 4_000] + [100] * 10, evidence=seen, over_since={1: START})
    assert (1 in found) is expected


def test_partitions_that_carry_routes_are_looked_at_every_few_seconds() -> None:
    memory, ends = watched([100] * 12)
    route = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3), Shard(9, 5)), (0, 1))
    stored = StoredTable(table(routes=(route,)), "v")
    assert set(windows_to_sample(spec(), memory, stored, ends)) == {3, 5}


def test_the_busiest_partition_is_looked_at_now_and_then_for_the_size_of_its_records() -> None:
    old = {0: Evidence(START + 20 - SIZES_SECONDS, 100, 100.0, {})}
    assert set(windows([100] * 11 + [300], evidence=old)) == {11}
    assert set(windows([100] * 11 + [300], evidence={})) == {11}


def test_a_window_with_few_records_reaches_further_back() -> None:
    (window,) = windows([7] * 12, evidence={}).values()
    assert window[1] - window[0] >= RECORDS_AT_LEAST


def test_an_empty_window_is_left_out() -> None:
    assert windows([0] * 12, evidence={}) == {}


def test_nothing_is_looked_at_before_there_is_a_rate() -> None:
    assert windows_to_sample(spec(), Memory(), None, EndOffsets(START, (5, 5))) == {}
