"""The planner: how even, how few shards, how few moves, and never worse than before."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotkey_operator.engine.placement import (
    SLOT_LOAD,
    SLOTS_AT_LEAST,
    SLOTS_AT_MOST,
    TARGET,
    Ground,
    HotKey,
    Plan,
    loads_now,
    moved,
    plan,
    slot_count,
    slot_loads,
)
from hotkey_operator.engine.shards import find_shards
from hotkey_sdk.routing.agreement import misplaced
from hotkey_sdk.routing.codec import decode, encode
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.slots import slot_hash
from hotkey_sdk.routing.table import RecordKey, Route, Shard, shard_key
from tests.unit.engine.stream import table

RECORDS_PER_PARTITION = 60_000
USERS = 1_000_000


def quiet(partitions: int, keys: int, total: float, name: str = "k") -> tuple[float, ...]:
    """The load of each partition from `keys` equal keys that carry `total` together."""
    loads = [0.0] * partitions
    for index in range(keys):
        loads[partition_for(f"{name}{index}".encode(), partitions)] += total / keys
    return tuple(loads)


def measured(planned: Plan, background: tuple[float, ...], hot: dict[bytes, float], seed: int) -> list[float]:
    """What the partitions would really take: users hashed into slots one by one, and counting noise."""
    chance, loads = random.Random(seed), list(background)
    hashes = [slot_hash(seed, (f"u{user}",)) for user in range(USERS)]
    for route in planned.routes:
        users = Counter(slot & (len(route.slots) - 1) for slot in hashes)
        for slot, count in users.items():
            loads[route.shards[route.slots[slot]].partition] += hot[route.key] * count / USERS
    return [chance.gauss(load, load**0.5) for load in loads]  # a Poisson count of so many is normal


@pytest.mark.parametrize(("partitions", "promised"), [(12, 1.05), (48, 1.08), (96, 1.10)])
def test_a_key_of_four_fifths_is_spread_evenly_with_the_noise_of_a_million_users(
    partitions: int, promised: float
) -> None:
    total = RECORDS_PER_PARTITION * partitions
    background = quiet(partitions, 999, total * 0.2)
    planned = plan(Ground(background, "clicks", seed=5), [HotKey(b"nike", total * 0.8, ("user_id",))])
    loads = measured(planned, background, {b"nike": total * 0.8}, seed=5)
    assert max(loads) * partitions / sum(loads) <= promised
    assert len(planned.routes[0].shards) >= 0.8 * partitions


@pytest.mark.parametrize("partitions", [2, 12, 48, 96, 1_000])
def test_several_hot_keys_together_reach_the_target(partitions: int) -> None:
    background = quiet(partitions, 20 * partitions, 0.2)
    parts = {b"nike": 0.4, b"adidas": 0.2, b"puma": 0.1, b"asics": 0.1}
    planned = plan(Ground(background, "clicks", 1), [HotKey(key, part) for key, part in parts.items()])
    assert planned.imbalance <= TARGET + SLOT_LOAD


def test_the_biggest_key_goes_last_and_fills_what_the_others_which_need_one_shard_each_leave() -> None:
    background = quiet(12, 240, 300.0)
    smaller = [b"key%d" % number for number in range(8)]
    hot = [HotKey(b"nike", 500.0), *(HotKey(key, 40.0 + place) for place, key in enumerate(smaller))]
    planned = plan(Ground(background, "clicks", 1), hot)
    shards = {route.key: len(route.shards) for route in planned.routes}
    assert {key: shards[key] for key in smaller} == dict.fromkeys(smaller, 1)
    assert planned.imbalance <= TARGET + SLOT_LOAD


def test_no_more_shards_are_used_than_the_key_needs() -> None:
    background = quiet(48, 2_000, 40.0)
    planned = plan(Ground(background, "clicks", 1), [HotKey(b"nike", 5.0)])
    mean = 45.0 / 48
    room = sorted((TARGET * mean - load for load in background), reverse=True)
    needed = next(count for count in range(1, 49) if sum(room[:count]) >= 5.0)
    assert len(planned.routes[0].shards) == needed


def test_the_coldest_partitions_are_filled_first() -> None:
    background = (10.0, 1.0, 10.0, 0.0, 10.0, 10.0)
    planned = plan(Ground(background, "clicks", 1), [HotKey(b"nike", 10.0)])
    assert {shard.partition for shard in planned.routes[0].shards} == {1, 3}


def test_a_key_that_is_the_whole_load_is_spread_evenly() -> None:
    planned = plan(Ground((0.0,) * 96, "clicks", 1), [HotKey(b"nike", 1e6)])
    assert planned.imbalance <= TARGET + SLOT_LOAD


def test_ids_that_mean_something_else_are_not_chosen() -> None:
    free = find_shards(b"nike", range(12), 12, (), None)
    taken = {shard_key(b"nike", shard.id) for shard in free.values()}
    others = find_shards(b"nike", range(12), 12, taken, None)
    assert set(others) == set(range(12))
    assert not {shard_key(b"nike", shard.id) for shard in others.values()} & taken


def test_a_key_that_is_named_like_another_ones_shard_takes_no_part_of_it() -> None:
    hot = [HotKey(b"a", 10.0), HotKey(b"a:0", 10.0), HotKey(b"a:1", 10.0)]
    planned = plan(Ground((1.0,) * 12, "clicks", 1), hot)
    names = [shard_key(route.key, shard.id) for route in planned.routes for shard in route.shards]
    assert len(names) == len(set(names))
    assert not {b"a:0", b"a:1"} & set(names)


def test_frequent_values_are_planned_for_where_their_slots_are() -> None:
    values = tuple(((f"u{i}",), 0.08) for i in range(8))
    hot = HotKey(b"nike", 12.0, ("user_id",), values=values)
    planned = plan(Ground((0.2,) * 12, "clicks", 3), [hot])
    (route,) = planned.routes
    loads = [0.2] * 12
    for slot, load in enumerate(slot_loads(hot, len(route.slots), 3)):
        loads[route.shards[route.slots[slot]].partition] += load
    assert loads == pytest.approx(list(planned.loads))
    assert planned.imbalance <= 1.1


def test_a_plan_that_still_fits_is_not_touched() -> None:
    background = quiet(12, 2_000, 20.0)
    first = plan(Ground(background, "clicks", 1), [HotKey(b"nike", 80.0)])
    again = plan(Ground(background, "clicks", 1), [HotKey(b"nike", 80.0, previous=first.routes[0])])
    assert again.routes == first.routes


def test_only_the_overflow_moves_when_a_partition_fills_up() -> None:
    background = [1.0] * 12
    first = plan(Ground(tuple(background), "clicks", 1), [HotKey(b"nike", 48.0)])
    background[4] += 2.0
    again = plan(Ground(tuple(background), "clicks", 1), [HotKey(b"nike", 48.0, previous=first.routes[0])])
    before, after = owners(first.routes[0]), owners(again.routes[0])
    moved = [slot for slot in range(len(before)) if before[slot] != after[slot]]
    each = 48.0 / len(before)
    assert {before[slot] for slot in moved} == {4}
    assert len(moved) * each <= 2.0 + each
    assert again.worst < first.worst + 2.0


def test_where_the_limit_on_shards_binds_a_colder_partition_is_taken_once_and_for_all() -> None:
    # given a key that would need more shards than it may have, and a partition of it that fills up
    background = [1.0] * 12
    ground = Ground(tuple(background), "clicks", 1, max_shards=3)
    first = plan(ground, [HotKey(b"nike", 48.0)]).routes[0]
    background[first.shards[0].partition] += 20.0
    fuller = Ground(tuple(background), "clicks", 1, max_shards=3)

    # when it is planned again, and again
    again = plan(fuller, [HotKey(b"nike", 48.0, previous=first)])
    once_more = plan(fuller, [HotKey(b"nike", 48.0, previous=again.routes[0])])

    # then one shard has moved, and stays
    old, new = set(owners(first)), set(owners(again.routes[0]))
    assert len(old & new) == 2
    assert first.shards[0].partition not in new
    assert once_more.routes == again.routes


def test_a_heavy_value_gets_a_shard_with_room_for_it_and_the_others_are_spread_around_it() -> None:
    # given two users that are each nearly a mean partition, and many small ones
    values = ((("u1",), 0.3), (("u2",), 0.25))
    hot = HotKey(b"nike", 6.0, ("user_id",), values=values)

    # when
    planned = plan(Ground((0.5,) * 24, "clicks", 3), [hot])

    # then no partition carries more than the heaviest of them and what was there
    assert planned.worst <= 0.5 + 6.0 * 0.3 * (1 + SLOT_LOAD)
    (route,) = planned.routes
    owner = {v: owners(route)[slot_hash(3, v) & (len(route.slots) - 1)] for v, _ in values}
    assert owner["u1",] != owner["u2",]
    for partition in owner.values():
        assert owners(route).count(partition) == 1


def test_a_key_that_is_moved_whole_takes_one_shard_and_stays_there() -> None:
    background = (4.0, 3.0, 0.5, 0.2, 2.0, 1.0)
    hot = HotKey(b"shop", 0.9, home=0, whole=True)
    (route,) = plan(Ground(background, "clicks", 1), [hot]).routes
    assert [shard.partition for shard in route.shards] == [3]
    warmer = (4.0, 3.0, 0.1, 0.5, 2.0, 1.0)
    again = plan(Ground(warmer, "clicks", 1), [HotKey(b"shop", 0.9, previous=route, whole=True)])
    assert again.routes == (route,)


@pytest.mark.parametrize("load", [float("nan"), -1.0, float("inf"), 1e300])
def test_a_load_that_is_no_load_breaks_no_plan(load: float) -> None:
    ground = Ground((load, 1.0, 2.0, load), "clicks", 1)
    planned = plan(ground, [HotKey(b"nike", load), HotKey(b"adidas", 3.0)])
    assert all(0 <= each < float("inf") for each in planned.loads)
    assert misplaced(table(partitions=4, routes=planned.routes)) == ()


def test_of_two_equally_hot_partitions_relieving_one_is_worth_a_plan() -> None:
    background = (10.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    planned = plan(Ground(background, "clicks", 1), [HotKey(b"nike", 9.0, home=1)])
    assert planned.gain == 0
    assert planned.relief > 0.5
    assert len(planned.routes) == 1


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        pytest.param(None, (0, 0, 1, 1), 0.5, id="spread from its home"),
        pytest.param((0, 0, 1, 1), None, 0.5, id="taken back"),
        pytest.param((0, 0, 1, 1), (0, 1, 1, 1), 0.25, id="planned again"),
        pytest.param((0, 1), (0, 1, 0, 1), 0.0, id="a finer grain"),
    ],
)
def test_the_part_of_the_slots_that_moved_is_stated(
    old: tuple[int, ...] | None, new: tuple[int, ...] | None, part: float
) -> None:
    assert moved(route_of(old), route_of(new), home=0) == part


def test_by_other_dimensions_all_moves_but_what_chance_leaves() -> None:
    assert moved(route_of((0, 1)), route_of((0, 1), by=("user_id",)), home=0) == 0.5


def route_of(slots: tuple[int, ...] | None, by: tuple[str, ...] = ()) -> Route | None:
    shards = (Shard(5, 0), Shard(6, 1))
    return Route(b"nike", "clicks", by, RecordKey.COMPOSITE, shards, slots) if slots else None


def test_a_finer_grain_keeps_every_owner() -> None:
    first = plan(Ground((5.0,) * 12, "clicks", 1), [HotKey(b"nike", 12.0)])
    again = plan(Ground((5.0,) * 12, "clicks", 1), [HotKey(b"nike", 120.0, previous=first.routes[0])])
    old, new = owners(first.routes[0]), owners(again.routes[0])
    assert len(new) > len(old)
    kept = sum(new[slot] == old[slot % len(old)] for slot in range(len(new)))
    assert kept >= 0.9 * len(new)


def owners(route: Route) -> list[int]:
    """The partition of each slot."""
    return [route.shards[index].partition for index in route.slots]


LOADS = st.floats(0, 1e9, allow_nan=False)


def _random_loads(partitions: int, seed: int) -> tuple[float, ...]:
    chance = random.Random(seed)
    return tuple(chance.random() * 100 for _ in range(partitions))


@st.composite
def grounds(draw: st.DrawFn) -> tuple[Ground, list[HotKey]]:
    """Any topic of 1 to 1,000 partitions with a few hot keys, some of them routed before."""
    partitions = draw(st.one_of(st.integers(1, 24), st.sampled_from([48, 96, 1_000])))
    background = (
        tuple(draw(st.lists(LOADS, min_size=partitions, max_size=partitions)))
        if partitions < 48
        else _random_loads(partitions, draw(st.integers(0, 99)))
    )
    ground = Ground(
        background,
        "clicks",
        seed=draw(st.integers(0, 2**53 - 1)),
        record_key=draw(st.sampled_from(RecordKey)),
        max_shards=draw(st.sampled_from([1, 3, 16, 512])),
        taken=frozenset(draw(st.lists(st.builds(shard_key, st.just(b"a"), st.integers(0, 40)), max_size=20))),
    )
    keys = draw(
        st.lists(
            st.one_of(st.sampled_from([b"a", b"a:1", b""]), st.binary(max_size=4)), max_size=4, unique=True
        )
    )
    hot = [HotKey(key, draw(LOADS)) for key in keys]
    if draw(st.booleans()):
        routes = {route.key: route for route in plan(ground, hot).routes}
        hot = [HotKey(each.key, draw(LOADS), previous=routes.get(each.key)) for each in hot]
    return ground, hot


@settings(max_examples=80)
@given(grounds())
def test_any_plan_is_valid_within_limits_deterministic_and_never_worse(
    case: tuple[Ground, list[HotKey]],
) -> None:
    ground, hot = case
    planned = plan(ground, hot)
    partitions = len(ground.background)

    assert planned == plan(ground, list(reversed(hot)))
    assert planned.worst <= max(loads_now(ground, hot)) * (1 + 1e-9)
    made = table(partitions=partitions, routes=planned.routes)
    assert decode(encode(made)) == made
    assert misplaced(made) == ()
    for route in planned.routes:
        assert len(route.shards) <= ground.max_shards
        assert len({shard.partition for shard in route.shards}) == len(route.shards)
        assert set(route.slots) == set(range(len(route.shards)))
        assert not {shard_key(route.key, shard.id) for shard in route.shards} & ground.taken
    assert sum(planned.loads) == pytest.approx(sum(ground.background) + sum(each.load for each in hot))


@settings(max_examples=30)
@given(grounds())
def test_planning_the_same_again_moves_a_slot_or_a_hundredth_at_most_also_where_the_limit_on_shards_binds(
    case: tuple[Ground, list[HotKey]],
) -> None:
    # given what was just planned
    ground, hot = case
    routes = {route.key: route for route in plan(ground, hot).routes}
    settled = [HotKey(each.key, each.load, previous=routes.get(each.key)) for each in hot]

    # when
    again = {route.key: route for route in plan(ground, settled).routes}

    # then
    for key, route in routes.items():
        old, new = owners(route), owners(again[key])
        moved = sum(new[slot] != old[slot % len(old)] for slot in range(len(new)))
        assert moved <= max(1, len(new) // 100)


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.sampled_from([0, 16, 64, 4_096]))
def test_slots_are_a_power_of_two_fine_enough_and_never_fewer(
    load: float, mean: float, previous: int
) -> None:
    count = slot_count(load, mean, previous)
    assert count & (count - 1) == 0
    assert max(SLOTS_AT_LEAST, previous) <= count <= SLOTS_AT_MOST
    if mean > 0 and load / mean < SLOT_LOAD * SLOTS_AT_MOST:
        assert load / count <= SLOT_LOAD * mean * (1 + 1e-9)


def test_a_tables_slots_survive_the_codec_with_more_than_256_shards() -> None:
    planned = plan(Ground((0.0,) * 1_000, "clicks", 1), [HotKey(b"nike", 1e6)])
    made = table(partitions=1_000, routes=planned.routes)
    assert len(planned.routes[0].shards) == 512
    assert decode(encode(made)) == made
    assert msgspec.structs.replace(made) == made
