"""How a producer takes a route: by hash, or one slot for a batch."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotkey_sdk._lanes import Batch, Counts, HashedLane, Lane, Path, StickyLane, lanes_of
from hotkey_sdk._producer import _Lanes
from hotkey_sdk.routing.router import Destination, Dimensions, Headers, RoutePlan, Router
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.unit.sdk.tables import route, table


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def sticky(path: Path, clock: Clock, batch: Batch, shards: int = 4, slots: int = 16, start: int = 0) -> Lane:
    plan = Router(table(route(by=(), shards=shards, slots=slots))).plans[b"nike"]
    return path.sticky(plan, batch, path.counts(), clock, functools.partial(at, start))


def at(start: int, size: int) -> int:
    return start % size


def take(lane: Lane, value: bytes | None = b"x") -> int:
    return lane.choose(value, None, None, 0).partition


def test_a_batch_stays_on_one_slot_until_its_time_is_over(path: Path) -> None:
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
@given(power=st.integers(0, 10), start=st.integers(0, 65_535))
def test_every_slot_comes_up_equally_often(path: Path, power: int, start: int) -> None:
    size = 2**power
    lane = sticky(path, Clock(), Batch(seconds=60, records=1), shards=min(size, 12), slots=size, start=start)

    taken = Counter(take(lane) for _ in range(3 * size))

    expected = Counter(index % min(size, 12) for index in range(size))
    assert taken == Counter({partition: 3 * count for partition, count in expected.items()})


def test_shards_are_weighted_by_their_slots_already_after_a_few_batches(path: Path) -> None:
    slots = (0,) * 48 + (1,) * 16
    shards = (Shard(1, 0), Shard(2, 1))
    plan = Router(table(Route(b"nike", "clicks", (), RecordKey.COMPOSITE, shards, slots))).plans[b"nike"]

    for start in range(64):
        one_each = Batch(seconds=60, records=1)
        lane = path.sticky(plan, one_each, path.counts(), Clock(), functools.partial(at, start))
        taken = Counter(take(lane) for _ in range(8))
        assert 1 <= taken[1] <= 3, (start, taken)


def test_the_batch_is_the_kafka_clients() -> None:
    assert Batch.of({}) == Batch(seconds=0.005, records=10_000, size_bytes=1_000_000)
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
