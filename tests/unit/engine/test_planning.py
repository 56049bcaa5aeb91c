"""What is planned, turn by turn: adoption, middling keys, rungs that go back, limits, costs and damping."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.costs import cost
from hotkey_operator.engine.flapping import FORGIVEN_SECONDS, RELEASE_AT_MOST, Flap, release_seconds
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Decision, KeyVerdict, TopicFacts, WriteTable
from hotkey_operator.engine.pressure import BALANCED
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.situation import Situation
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.unit.engine.stream import START, STREAM, ModelStream, popularity, spec, table

CHANGES_PER_HOUR_AT_MOST = 10  # docs/planning.md tells what was measured
QUIET = {b"k%d" % i: 10.0 for i in range(100)}
HOME = partition_for(b"nike", 12)
EVEN = {
    key: 30.0
    for partition in range(12)
    for key in [key for key in (b"e%d" % i for i in range(1_000)) if partition_for(key, 12) == partition][:17]
}
BY_USER_THEN_COUNTRY = {
    "dimensions": [
        {"name": "user_id", "from": {"jsonPath": "$.user_id"}},
        {"name": "country_id", "from": {"header": "x-country"}},
    ],
    "spread": {"by": [["country_id"], ["user_id", "country_id"]]},
}


def stream(rates: dict[bytes, float], **fields: object) -> ModelStream:
    """A stream that is quiet at first, then has these keys as well."""
    policy = fields.pop("policy", spec())
    model = ModelStream(policy, QUIET, **fields)  # type: ignore[arg-type]
    model.turns(3)
    model.rates = {**QUIET, **rates}
    return model


def writes(model: ModelStream) -> list[Decision]:
    """The turns that changed routes."""
    return [
        decision
        for decision in model.decisions[1:]
        if any(isinstance(action, WriteTable) for action in decision.actions)
    ]


def rungs(model: ModelStream) -> list[tuple[str, ...]]:
    return [route.by for route in model.table.routes]


def verdict(decision: Decision, key: bytes) -> KeyVerdict:
    return next(each for each in decision.verdicts if each.key == key)


@pytest.mark.parametrize("record_key", ["Composite", "Preserve"])
def test_the_table_is_planned_with_the_part_that_follows_it_and_the_share_of_the_rest_is_told(
    record_key: str,
) -> None:
    # given producers of which four in ten know no tables
    model = stream({b"nike": 4_000.0}, policy=spec(spread={"recordKey": record_key}), plain={b"nike": 0.4})

    # when
    decision = model.turns(60)

    # then what the others send goes elsewhere, and that is that
    loads = model.load()
    others = [load for partition, load in enumerate(loads) if partition != HOME]
    assert loads[HOME] <= 0.4 * 4_000 + 150
    assert max(others) * len(others) / sum(others) < BALANCED
    assert decision.reason is Reason.PARTIAL_ADOPTION, decision.message
    assert f"partition {HOME}" in decision.message
    told = verdict(decision, b"nike")
    assert told.reason is Reason.PARTIAL_ADOPTION
    assert any(f"{part} % of it does not follow" in told.message for part in range(30, 50)), told.message
    assert len(writes(model)) <= 3, [each.message for each in writes(model)]


def test_where_no_key_dominates_the_biggest_are_moved_one_shard_each_if_that_is_enough() -> None:
    # given eight keys on one partition, none of them half a mean partition
    middling = [key for key in (b"m%d" % i for i in range(1_000)) if partition_for(key, 12) == 5][:8]
    model = stream(
        {**EVEN, **dict.fromkeys(middling, 180.0)}, policy=spec(trigger={"recordsPerSecond": 1_100})
    )

    # when
    model.turns(60)

    # then as many are moved as it takes, whole, and the others stay
    routes = model.table.routes
    assert 0 < len(routes) < 8
    assert all(len(route.shards) == 1 and route.by == () for route in routes)
    assert model.load()[5] <= 1_100
    assert len(writes(model)) <= 2, [each.message for each in writes(model)]
    told = model.decisions[-1].verdicts[0]
    assert told.cost is not None
    assert told.cost.order == "order per key is kept"


def test_middling_keys_stay_where_they_are_if_moving_them_is_not_enough() -> None:
    crowd = [key for key in (b"c%d" % i for i in range(4_000)) if partition_for(key, 12) == 5][:200]
    biggest = {crowd[0]: 100.0, crowd[1]: 100.0}
    model = stream({**dict.fromkeys(crowd, 20.0), **biggest})
    decision = model.turns(20)
    assert decision.reason is Reason.NO_DOMINANT_KEY
    assert model.table.routes == ()


def test_moved_keys_are_bounded_by_the_limit_on_hot_keys() -> None:
    middling = [key for key in (b"m%d" % i for i in range(1_000)) if partition_for(key, 12) == 5][:8]
    policy = spec(trigger={"recordsPerSecond": 1_100}, limits={"maxHotKeys": 2})
    model = stream({**EVEN, **dict.fromkeys(middling, 180.0)}, policy=policy)
    assert model.turns(20).reason is Reason.NO_DOMINANT_KEY
    assert model.table.routes == ()


def test_of_two_equally_hot_keys_the_one_that_the_limit_allows_is_spread() -> None:
    model = stream({b"nike": 3_000.0, b"adidas": 3_000.0}, policy=spec(limits={"maxHotKeys": 1}))
    decision = model.turns(10)
    assert len(model.table.routes) == 1
    assert Reason.TOO_MANY_HOT_KEYS in {each.reason for each in decision.verdicts}


def test_where_the_limit_on_shards_binds_the_plan_converges() -> None:
    model = stream({b"nike": 6_000.0}, policy=spec(limits={"maxShardsPerKey": 3}))
    model.turns(120)
    assert len(model.table.routes[0].shards) == 3
    assert len(writes(model)) <= 2, [each.message for each in writes(model)]


def test_the_users_that_eight_sampled_records_name_are_placed_by_what_they_carry() -> None:
    # given users by Zipf's law, of whom the first has 7 % of the key
    policy = spec(
        dimensions=[{"name": "user_id", "from": {"jsonPath": "$.user_id"}}], spread={"by": [["user_id"]]}
    )
    keys = {b"k%d" % i: 1.0 for i in range(1_000)}
    model = ModelStream(policy, keys, users={b"nike": 100_000}, zipf=1.0, sampled=1_000)
    model.turns(3)

    # when
    model.rates = {**keys, b"nike": 4_000.0}
    model.turns(10)

    # then it is nearly even, where the three biggest users alone would leave 1.28
    assert model.imbalance() < BALANCED
    assert len(writes(model)) == 1


@pytest.mark.parametrize("partitions", [12, 96])
def test_records_that_come_by_fits_and_starts_are_no_reason_to_plan_anew(partitions: int) -> None:
    # given an even load of which a key was spread
    keys = {b"k%d" % i: 1_000.0 for i in range(10 * partitions)}
    model = ModelStream(spec(trigger={"recordsPerSecond": 20_000}), keys, partitions)
    model.turns(3)
    model.rates = {**keys, b"nike": 40_000.0 * partitions}
    model.turns(10)

    # when brokers and clients are so busy that a second's counts differ by half, for two minutes
    model.lumpy = 0.5
    model.turns(120)

    # then that is taken for what it is, but for a coincidence
    assert len(writes(model)) <= 2, [each.message for each in writes(model)]
    assert model.imbalance() < BALANCED


@pytest.mark.parametrize("record_key", list(RecordKey))
def test_a_finer_rung_is_taken_only_for_cause_and_given_back_when_the_cause_is_gone(
    record_key: RecordKey,
) -> None:
    # given a key whose records are all of one country
    policy = spec(
        **{**BY_USER_THEN_COUNTRY, "spread": {**BY_USER_THEN_COUNTRY["spread"], "recordKey": record_key}},  # type: ignore[dict-item]
        release={"for": "20s"},
    )
    model = stream({b"nike": 4_000.0}, policy=policy, users={b"nike": 1_000}, country="no")
    model.turns(15)
    assert rungs(model) == [("user_id", "country_id")]
    rejected = verdict(model.decisions[-1], b"nike").rejected
    assert (rejected[0].option, rejected[0].reason) == ("spread it by country_id", Reason.CANNOT_SPREAD)

    # when its records come from many countries for long
    model.country = "*"
    model.turns(15)
    assert rungs(model) == [("user_id", "country_id")], "too soon"
    model.turns(25)

    # then it is spread by the country alone again, and stays so
    assert rungs(model) == [("country_id",)], model.decisions[-1].message
    changes = len(writes(model))
    model.turns(30)
    assert len(writes(model)) == changes
    assert model.imbalance() < 1.5  # 500 countries are not many


def test_a_change_states_the_part_of_the_slots_that_moved_and_what_was_rejected() -> None:
    model = stream({b"nike": 4_000.0})
    spread = next(
        decision for decision in (model.turn() for _ in range(5)) if any(v.shards for v in decision.verdicts)
    )
    told = verdict(spread, b"nike")
    assert told.cost is not None
    assert told.cost.partitions == len(model.table.routes[0].shards)
    assert 0.85 < told.cost.slots_moved < 1
    assert "leave it plain" in [each.option for each in told.rejected]
    held = verdict(model.turns(10), b"nike")
    assert held.cost is not None
    assert held.cost.slots_moved == 0
    assert "merge it back" in [each.option for each in held.rejected]


def test_a_key_that_is_spread_again_soon_must_be_cool_for_twice_as_long() -> None:
    # given a key that was merged back and is hot again
    model = stream({b"nike": 4_000.0}, policy=spec(release={"for": "10s"}))
    model.turns(8)
    waited = []
    for _ in range(3):
        model.rates = QUIET
        began = len(model.decisions)
        while model.table.routes and len(model.decisions) < began + 200:
            model.turn()
        waited.append(len(model.decisions) - began)
        model.rates = {**QUIET, b"nike": 4_000.0}
        model.turns(12)

    # then each return takes about twice as long as the one before, and the key is told to flap
    assert 1.5 * waited[0] < waited[1]
    assert 1.6 * waited[1] < waited[2] < 80
    told = verdict(model.decisions[-1], b"nike")
    assert told.reason is Reason.FLAPPING
    assert "3 times" in told.message


@pytest.mark.parametrize("calm_seconds", [520, 1_030])
def test_oscillating_load_changes_the_table_a_few_times_an_hour_at_most(calm_seconds: int) -> None:
    # given a key that is hot for half a minute, then calm for so long that its return is just due
    others = {b"k": 600.0, b"l": 500.0}
    model = ModelStream(spec(), others, partitions=6, sampled=100)
    model.turns(3)

    # when that goes on for an hour
    while model.at < START + 3_600:
        model.rates = {**others, b"nike": 4_000.0}
        for _ in range(15):
            model.turn(2.0)
        model.rates = others
        for _ in range(calm_seconds // 10):
            model.turn(10.0)

    # then undamped it would be two changes a period
    assert len(writes(model)) <= CHANGES_PER_HOUR_AT_MOST


def test_doublings_of_the_release_time_are_bounded_and_forgiven_hour_by_hour() -> None:
    flap = Flap(back_at=START, times=16, flapped_at=START)
    assert release_seconds(60.0, flap, START) == RELEASE_AT_MOST
    assert release_seconds(60.0, Flap(START, 3, START), START) == 480
    assert release_seconds(60.0, Flap(START, 3, START), START + FORGIVEN_SECONDS) == 240
    assert release_seconds(60.0, Flap(START, 3, START), START + 3 * FORGIVEN_SECONDS) == 60
    assert release_seconds(7_200.0, flap, START) == 7_200
    assert release_seconds(60.0, None, START) == 60


def test_a_rung_that_is_taken_on_trust_is_said_to_be() -> None:
    # given a policy that forbids to read records
    fields = {**BY_USER_THEN_COUNTRY, "metrics": {"sampling": False}}
    s = Situation.of(spec(**fields), START, TopicFacts(STREAM, 12, compacted=False), table(), Memory())
    route = Route(b"nike", "clicks", ("country_id",), RecordKey.COMPOSITE, (Shard(0, 3), Shard(1, 4)), (0, 1))

    # then what it costs says so
    taken = cost(s, b"nike", None, route)
    assert taken.order.startswith("order is kept per country_id; ")
    assert "on trust" in taken.order
    assert taken.partitions == 2


BY_USER = {
    "dimensions": [{"name": "user_id", "from": {"jsonPath": "$.user_id"}}],
    "spread": {"by": [["user_id"]]},
}


def test_a_key_with_a_value_that_no_partition_fits_is_spread_around_it_once_and_it_is_said() -> None:
    # given users of whom the biggest is more than a partition may carry
    model = stream({b"nike": 12_000.0}, policy=spec(**BY_USER), users={b"nike": 300}, zipf=1.0)
    users, mean = popularity(300, 1.0), sum(model.rates.values()) / model.partitions
    biggest = 12_000.0 * users[0] / sum(users)

    # when
    decision = model.turns(40)

    # then
    assert rungs(model) == [("user_id",)]
    assert model.imbalance() <= 1.05 * biggest / mean, "it shares its partition with others"
    spread = [each for each in model.decisions if each.reason is Reason.SPREAD]
    assert len(spread) == 1
    assert "u0 alone is" in spread[0].message
    assert "leaves an imbalance of" in spread[0].message
    assert Reason.CANNOT_SPREAD in [each.reason for each in verdict(spread[0], b"nike").rejected]
    assert decision.reason is Reason.HOLDING, decision.message
    assert verdict(decision, b"nike").reason is Reason.CANNOT_SPREAD
    assert len(writes(model)) <= 2, [each.message for each in writes(model)]


def test_a_key_that_is_spread_unevenly_goes_to_a_finer_rung_once_that_is_visible() -> None:
    # given records that do not carry the finer rung yet
    policy = spec(
        dimensions=[
            {"name": "user_id", "from": {"jsonPath": "$.user_id"}},
            {"name": "time_bucket", "from": {"header": "x-bucket"}},
        ],
        spread={"by": [["user_id"], ["user_id", "time_bucket"]]},
    )
    model = stream({b"nike": 12_000.0}, policy=policy, users={b"nike": 300}, zipf=1.0)
    model.turns(20)
    assert rungs(model) == [("user_id",)]
    uneven = model.imbalance()

    # when they do
    model.bucketed = True
    decision = model.turns(30)

    # then
    assert rungs(model) == [("user_id", "time_bucket")], decision.message
    assert model.imbalance() < uneven / 1.5
    assert verdict(decision, b"nike").reason is not Reason.FLAPPING


def test_middling_keys_are_moved_where_a_key_that_cannot_be_spread_is_left_plain() -> None:
    # given one key of a single user, and on another partition keys of which none dominates
    middling = [key for key in (b"m%d" % i for i in range(1_000)) if partition_for(key, 12) == 5][:8]
    model = stream(
        {**EVEN, **dict.fromkeys(middling, 250.0), b"nike": 2_000.0},
        policy=spec(**BY_USER, trigger={"recordsPerSecond": 1_400}),
        users={b"nike": 1},
    )

    # when
    decision = model.turns(40)

    # then
    assert model.table.routes
    assert {route.key for route in model.table.routes} <= set(middling)
    assert model.load()[5] <= 1_400
    assert verdict(decision, b"nike").reason is Reason.CANNOT_SPREAD
