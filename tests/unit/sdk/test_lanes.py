"""How a producer takes a route: by hash, or one shard for a batch, then the one furthest behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotkey_sdk._lanes import Batch, Counts, HashedLane, Lane, Path, Shares, StickyLane, lanes_of
from hotkey_sdk._producer import PATHS, _Lanes
from hotkey_sdk.routing.router import Destination, Dimensions, Headers, RoutePlan, Router
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.unit.sdk.tables import route, table


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sticky(
    path: Path, clock: Clock, batch: Batch, shards: int = 4, slots: int = 16, seed: int | None = None
) -> Lane:
    plan = Router(table(route(by=(), shards=shards, slots=slots))).plans[b"nike"]
    return lane_of(path, plan, clock, batch, seed)


def lane_of(path: Path, plan: RoutePlan, clock: Clock, batch: Batch, seed: int | None = None) -> Lane:
    """A lane whose shards have their turn in the table's order, or in the one that the seed shuffles."""
    order = unshuffled if seed is None else random.Random(seed).shuffle
    return path.sticky(plan, batch, path.counts(), clock, order)


def unshuffled(shares: Shares) -> None:
    pass


def weighted(*slots: int) -> RoutePlan:
    """A route without an order whose shard i, on partition i, has so many slots."""
    shards = tuple(Shard(number, number) for number in range(len(slots)))
    map_ = tuple(number for number, count in enumerate(slots) for _ in range(count))
    made = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, shards, map_)
    return Router(table(made)).plans[b"nike"]


def take(lane: Lane, value: bytes | None = b"x") -> int:
    return lane.choose(value, None, None, 0).partition


def test_a_batch_stays_on_one_shard_until_its_time_is_over(path: Path) -> None:
    clock = Clock()
    lane = sticky(path, clock, Batch(seconds=0.005))
    first = {take(lane) for _ in range(100)}

    clock.now += 0.0049
    still = {take(lane) for _ in range(100)}
    clock.now += 0.0002
    then = take(lane)

    assert len(first) == 1
    assert still == first
    assert then not in first


def test_a_batch_ends_when_it_has_its_records_or_its_bytes(path: Path) -> None:
    by_records = sticky(path, Clock(), Batch(seconds=60, records=10))
    by_bytes = sticky(path, Clock(), Batch(seconds=60, size_bytes=1000))

    records = [take(by_records, None) for _ in range(20)]
    bytes_ = [take(by_bytes, b"x" * 100) for _ in range(20)]

    for taken in (records, bytes_):
        assert len(set(taken[:10])) == len(set(taken[10:])) == 1
        assert taken[0] != taken[10]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(power=st.integers(0, 10), seed=st.integers(0, 65_535))
def test_every_shard_comes_up_as_often_as_it_has_slots(path: Path, power: int, seed: int) -> None:
    size = 2**power
    lane = sticky(path, Clock(), Batch(seconds=60, records=1), shards=min(size, 12), slots=size, seed=seed)

    taken = Counter(take(lane) for _ in range(3 * size))

    expected = Counter(index % min(size, 12) for index in range(size))
    assert taken == Counter({partition: 3 * count for partition, count in expected.items()})


def test_shards_are_weighted_by_their_slots_already_after_a_few_batches(path: Path) -> None:
    for seed in range(64):
        lane = lane_of(path, weighted(48, 16), Clock(), Batch(seconds=60, records=1), seed)
        taken = Counter(take(lane) for _ in range(8))
        assert 1 <= taken[1] <= 3, (seed, taken)


def uneven(seed: int, batches: int = 200) -> Iterator[int]:
    """The records of each batch under a load that goes from one record to thousands and back."""
    chance = random.Random(seed)
    for _ in range(batches):
        yield chance.choice((1, chance.randint(1, 50), chance.randint(1, 3_000)))


def batches_taken(lane: Lane, clock: Clock, sizes: Iterator[int]) -> Iterator[tuple[int, int]]:
    """The partition and the records of each batch, when the clock alone ends them."""
    for size in sizes:
        partitions = {take(lane) for _ in range(size)}
        assert len(partitions) == 1, "a batch stays together"
        yield partitions.pop(), size
        clock.now += 0.0051


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slots", [(1,) * 8, (3,) * 4 + (2,) * 2, (1, 3), (1, 3, 1, 3), (1, 1, 1, 1, 1, 3)])
def test_however_uneven_the_batches_each_shard_is_within_one_of_its_planned_part(
    path: Path, slots: tuple[int, ...], seed: int
) -> None:
    clock = Clock()
    lane = lane_of(path, weighted(*slots), clock, Batch(), seed)
    taken: Counter[int] = Counter()
    total = biggest = 0

    for partition, size in batches_taken(lane, clock, uneven(seed)):
        taken[partition] += size
        total, biggest = total + size, max(biggest, size)
        off = {number: taken[number] - total * part / sum(slots) for number, part in enumerate(slots)}
        assert max(map(abs, off.values())) <= biggest, off

    assert total > 20 * biggest, "the load was long enough to tell"


def test_the_records_of_batches_that_end_by_their_bytes_count_too(path: Path) -> None:
    lane = sticky(path, Clock(), Batch(seconds=60, size_bytes=1_000))
    taken: Counter[int] = Counter()

    for size in (1, 500, 10, 1_000) * 200:
        taken[take(lane, b"x" * size)] += 1

    assert max(taken.values()) - min(taken.values()) <= 100, taken


def test_a_slow_producer_goes_round_all_shards(path: Path) -> None:
    clock = Clock()
    lane = sticky(path, clock, Batch(), shards=12, slots=64, seed=3)

    taken = []
    for _ in range(640):
        taken.append(take(lane))
        clock.now += 1.0

    assert set(taken[:12]) == set(range(12)), "each once before any twice"
    assert Counter(taken) == Counter({number: 60 if number < 4 else 50 for number in range(12)})


def test_producers_do_not_go_round_in_step(path: Path) -> None:
    lanes = [sticky(path, Clock(), Batch(seconds=60, records=1), 16, 16, seed) for seed in range(200)]

    turns = [tuple(take(lane) for _ in range(16)) for lane in lanes]

    firsts = Counter(turn[0] for turn in turns)
    assert len(firsts) == 16
    assert max(firsts.values()) < 200 / 16 * 3
    assert len(set(turns)) == 200


def test_lanes_made_anew_for_another_table_start_on_any_shard(path: Path) -> None:
    router = Router(table(route(by=(), shards=16, slots=16)))

    firsts = {take(lanes_of(router, Batch(), path.counts(), path)["nike"]) for _ in range(300)}

    assert firsts == set(range(16))


def test_a_record_that_the_client_had_no_room_for_is_not_counted(path: Path) -> None:
    clock = Clock()
    lane = sticky(path, clock, Batch(), shards=2, slots=2)
    taken: Counter[int] = Counter()

    for size in (300, 10, 200) * 20:
        for _ in range(size):
            taken[take(lane)] += 1
        for _ in range(1_000):  # the queue is full, and the caller offers the next one again and again
            take(lane)
            lane.refused()
        clock.now += 0.0051

    assert abs(taken[0] - taken[1]) <= 300, taken


@settings(max_examples=50)
@given(
    slots=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    batches=st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.001, 0.0051, 1.0])), max_size=60),
    seed=st.integers(0, 1_000),
)
def test_both_paths_take_the_same_shards(
    slots: list[int], batches: list[tuple[int, float]], seed: int
) -> None:
    slots[0] += (1 << (sum(slots) - 1).bit_length()) - sum(slots)
    found = []
    for each in PATHS:
        clock = Clock()
        lane = lane_of(each, weighted(*slots), clock, Batch(records=30, size_bytes=400), seed)
        taken = []
        for size, seconds in batches:
            taken += [take(lane, b"x" * (size % 30)) for _ in range(size)]
            lane.refused()
            clock.now += seconds
        found.append(taken)

    assert all(each == found[0] for each in found)


def test_the_batch_is_the_kafka_clients() -> None:
    assert Batch.of({}) == Batch(seconds=0.005, records=256, size_bytes=1_000_000)
    assert Batch.of({"batch.num.messages": 10_000}).records == 256
    assert Batch.of({"linger.ms": "50", "batch.size": 100_000, "batch.num.messages": 100}) == Batch(
        seconds=0.05, records=100, size_bytes=100_000
    )
    assert Batch.of({"queue.buffering.max.ms": 20}).seconds == 0.02
    assert Batch.of({"linger.ms": 0}).seconds == 0.005


USERS = [f"u{number}" for number in range(100)] * 2


def where_each_user_goes(lane: Lane) -> list[Destination]:
    return [lane.choose(b"x", {"user_id": user}, None, 0) for user in USERS]


def where_the_seeded_hash_says(plan: RoutePlan) -> list[Destination]:
    return [plan.hashed((user,)) for user in USERS]


def test_a_dimension_chooses_the_shard_by_the_seeded_hash(path: Path) -> None:
    router = Router(table(route(by=("user_id",))))
    lane = lanes_of(router, Batch(), path.counts(), path)[b"nike"]

    assert where_each_user_goes(lane) == where_the_seeded_hash_says(router.plans[b"nike"])


def at_random(plan: RoutePlan) -> HashedLane:
    return ChoosingLane(plan, lambda _: random.randrange(16))


def by_pythons_hash(plan: RoutePlan) -> HashedLane:
    return ChoosingLane(plan, hash)


def round_robin(plan: RoutePlan) -> StickyLane:
    return StickyLane(plan, Batch(records=1))


class ChoosingLane(HashedLane):
    """The planted bugs: a lane that lets something else than the seeded hash choose the slot."""

    def __init__(self, plan: RoutePlan, slot_of: Callable[[str], int]) -> None:
        super().__init__(plan, Counts())
        self._slot_of = slot_of

    def choose(
        self,
        value: str | bytes | None,  # noqa: ARG002
        dimensions: Dimensions | None,
        headers: Headers | None,  # noqa: ARG002
        timestamp: int,  # noqa: ARG002
    ) -> Destination:
        return self._plan.at(self._slot_of(str((dimensions or {})["user_id"])))


@pytest.mark.parametrize("broken", [at_random, by_pythons_hash, round_robin])
def test_a_lane_that_chooses_the_shard_otherwise_is_found(broken: Callable[[RoutePlan], Lane]) -> None:
    plan = Router(table(route(by=("user_id",)))).plans[b"nike"]

    assert where_each_user_goes(broken(plan)) != where_the_seeded_hash_says(plan)


def test_a_missing_dimension_is_counted(path: Path) -> None:
    counts = path.counts()
    lane = lanes_of(Router(table(route(by=("user_id", "hour")))), Batch(), counts, path)["nike"]

    lane.choose(b"x", {"user_id": "u"}, None, 0)
    assert counts.missing_dimension == 0, "the hour of now is known"
    lane.choose(b"x", None, None, 0)
    assert counts.missing_dimension == 1


def test_a_key_has_one_lane_as_text_and_as_bytes(path: Path) -> None:
    lanes = lanes_of(Router(table(route(by=()), route(b"\xff"))), Batch(), path.counts(), path)

    assert lanes["nike"] is lanes[b"nike"]
    assert type(lanes["nike"]).__name__ == "StickyLane"
    assert type(lanes[b"\xff"]).__name__ == "HashedLane"
    assert set(lanes) == {"nike", b"nike", b"\xff"}


@pytest.mark.parametrize("durable", [True, False])
def test_weak_settings_take_ordered_shards_of_the_base_topic_and_no_other_topic(
    path: Path, durable: bool
) -> None:
    elsewhere = route(b"adidas", topic="clicks.hot.x.g1", record_key=RecordKey.PRESERVE)
    lanes = _Lanes(Batch(), durable, path)

    lanes.adopt("clicks", Router(table(route(b"nike", by=("user_id",)), elsewhere)))

    assert type(lanes.by_topic["clicks"][b"nike"]).__name__ == "HashedLane"
    assert (b"adidas" in lanes.by_topic["clicks"]) is durable
    assert ("adidas" in lanes.by_topic["clicks"]) is durable
    assert lanes.counts.not_durable == (0 if durable else 1)
