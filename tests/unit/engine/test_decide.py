"""What the operator decides, turn by turn, over a stream in virtual time."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from hotkey_operator.engine.model import Decision, EmitEvent, StoredTable, TopicFacts, WriteTable
from hotkey_operator.engine.placement import TARGET
from hotkey_operator.engine.pressure import BALANCED, HEAVY
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, shard_key
from tests.unit.engine.stream import STREAM, ModelStream, spec

QUIET = {b"k%d" % i: 1.0 for i in range(1_000)}
WITHIN_A_PERCENT_OR_TWO = 0.05  # of noise on top of the planner's target
BY_USER = {
    "dimensions": [
        {"name": "user_id", "from": {"jsonPath": "$.user_id"}},
        {"name": "country_id", "from": {"header": "x-country"}},
    ],
    "spread": {"by": [["user_id"]]},
}


def stream(policy: PolicySpec | None = None, **fields: object) -> ModelStream:
    """A stream that has carried quiet keys for a while."""
    model = ModelStream(policy or spec(), QUIET, **fields)  # type: ignore[arg-type]
    model.turns(5)
    return model


def spread_nike(model: ModelStream, rate: float = 4_000.0) -> Decision:
    """Let `nike` become hot and be spread."""
    model.rates = {**QUIET, b"nike": rate}
    for _ in range(4):
        if model.turn().reason is Reason.SPREAD:
            return model.decisions[-1]
    raise AssertionError(f"nike was not spread: {[d.message for d in model.decisions[-4:]]}")


def verdicts(decision: Decision) -> Mapping[bytes, Reason]:
    return {verdict.key: verdict.reason for verdict in decision.verdicts}


def events(decision: Decision) -> list[Reason]:
    return [action.reason for action in decision.actions if isinstance(action, EmitEvent)]


def condition(decision: Decision, type_: ConditionType) -> tuple[bool, Reason]:
    return next((c.status, c.reason) for c in decision.conditions if c.type is type_)


def test_a_first_turn_on_a_healthy_topic_writes_and_publishes_an_empty_table() -> None:
    model = ModelStream(spec(), QUIET)
    model.turn()
    assert model.table.routes == ()
    assert model.table.read_set == ("clicks",)
    assert model.published == model.table
    assert model.table.epoch > model.at


def test_a_quiet_stream_is_left_alone_and_told_so() -> None:
    model = stream()
    decision = model.turn()
    assert (decision.reason, decision.actions) == (Reason.STEADY, ())
    assert condition(decision, ConditionType.READY) == (True, Reason.GOVERNING)
    assert condition(decision, ConditionType.HOT) == (False, Reason.NONE_SPREAD)


def test_a_hot_key_is_spread_on_the_second_turn_after_its_onset() -> None:
    model = stream()
    model.rates = {**QUIET, b"nike": 4_000.0}
    assert model.turn().reason is Reason.WAITING
    assert model.turn().reason is Reason.SPREAD
    assert model.imbalance() <= TARGET + WITHIN_A_PERCENT_OR_TWO
    assert events(model.decisions[-1]) == [Reason.SPREAD]
    assert condition(model.decisions[-1], ConditionType.HOT) == (True, Reason.SPREAD)


def test_a_decision_says_what_was_seen_and_what_it_costs() -> None:
    decision = spread_nike(stream())
    home = partition_for(b"nike", 12)
    assert decision.message.startswith(f"partition {home} takes 4,")
    assert "times the mean; key nike is 9" in decision.message
    assert "order per key is given up" in decision.message
    (verdict,) = decision.verdicts
    assert verdict.key == b"nike"
    assert verdict.share == pytest.approx(0.8, abs=0.02)
    assert 0 < verdict.share_error < 0.02
    assert verdict.shards == 12


def test_a_spread_key_is_held_while_it_is_hot() -> None:
    model = stream()
    spread_nike(model)
    table = model.table
    model.turns(100)
    assert model.table == table
    assert verdicts(model.decisions[-1]) == {b"nike": Reason.HOLDING}


def test_a_cooled_key_is_merged_back_after_the_release_time_and_no_sooner() -> None:
    model = stream(spec(release={"for": "30s"}))
    spread_nike(model)
    model.turns(10)
    model.rates = QUIET
    model.turns(25)
    assert model.table.route(b"nike") is not None
    assert verdicts(model.decisions[-1]) == {b"nike": Reason.COOLING}
    model.turns(15)
    assert model.table.routes == ()
    assert Reason.MERGED_BACK in [reason for decision in model.decisions for reason in events(decision)]


@pytest.mark.parametrize(("left", "comes_home"), [(600.0, False), (300.0, True)])
def test_a_key_comes_home_where_that_leaves_the_home_under_the_release_ratio_of_the_trigger(
    left: float, comes_home: bool
) -> None:
    model = stream(spec(trigger={"recordsPerSecond": 1_000}, release={"for": "20s", "ratio": 0.5}))
    spread_nike(model)
    model.turns(5)
    model.rates = {**QUIET, b"nike": left}  # beside 83/s of others at home
    model.turns(60)
    assert (model.table.route(b"nike") is None) is comes_home, verdicts(model.decisions[-1])


def test_turns_without_a_sample_neither_begin_nor_end_the_time_of_a_cool_key() -> None:
    busy = {
        f"shop{i}".encode(): 10.0 for i in range(400)
    }  # 4,000/s of others, on the spread key's partitions too
    model = stream(spec(release={"for": "60s"}))
    model.rates = {**busy, b"nike": 8_000.0}
    model.turns(12)
    assert model.table.route(b"nike") is not None
    model.rates = busy
    model.turns(25)
    assert verdicts(model.decisions[-1])[b"nike"] is Reason.COOLING

    model.silent = True
    model.turns(30)
    assert verdicts(model.decisions[-1])[b"nike"] is Reason.COOLING
    model.turns(30)
    assert model.table.route(b"nike") is not None, "taken back on no evidence"

    model.silent = False
    model.turns(8)
    assert model.table.routes == ()


def test_a_key_that_is_warm_again_while_it_cools_stays_spread() -> None:
    model = stream(spec(release={"for": "30s"}))
    spread_nike(model)
    for _ in range(3):
        model.rates = QUIET
        model.turns(12)
        model.rates = {**QUIET, b"nike": 4_000.0}
        model.turns(8)
    assert len(model.table.routes) == 1
    assert sum(Reason.SPREAD in events(decision) for decision in model.decisions) == 1


def test_a_key_that_hovers_at_the_trigger_does_not_flap() -> None:
    model = stream()
    model.rates = {**QUIET, b"nike": 1_000.0}
    model.turns(90)
    changes = [d for d in model.decisions if any(isinstance(a, WriteTable) for a in d.actions)]
    assert len(changes) <= 2  # the first empty table, and one spread


def test_several_hot_keys_are_spread_together() -> None:
    model = stream()
    model.rates = {**QUIET, b"nike": 4_000.0, b"adidas": 3_000.0, b"puma": 1_500.0}
    model.turns(15)
    assert {route.key for route in model.table.routes} == {b"nike", b"adidas", b"puma"}
    assert model.imbalance() <= TARGET + WITHIN_A_PERCENT_OR_TWO


def test_a_second_hot_key_is_spread_while_the_first_settles() -> None:
    model = stream()
    spread_nike(model)
    model.rates = {**model.rates, b"adidas": 6_000.0}
    model.turns(3)
    assert {route.key for route in model.table.routes} == {b"nike", b"adidas"}


def test_a_key_that_grows_keeps_its_shards_and_is_planned_anew_until_balanced() -> None:
    model = stream()
    spread_nike(model, 1_200.0)
    before = model.table.routes[0]
    model.turns(10)
    model.rates = {**QUIET, b"nike": 12_000.0}
    model.turns(15)
    after = model.table.routes[0]
    assert set(before.shards) <= set(after.shards)
    assert model.imbalance() < BALANCED


def test_a_key_that_is_the_whole_load_is_spread_over_every_partition() -> None:
    model = ModelStream(spec(), {b"nike": 50_000.0}, partitions=48)
    model.turns(8)
    assert len(model.table.routes[0].shards) >= 47  # one partition may stay empty within the target
    assert model.imbalance() <= TARGET + WITHIN_A_PERCENT_OR_TWO


def refused_streams() -> dict[Reason, ModelStream]:
    nike = {**QUIET, b"nike": 4_000.0}
    crowd = [key for key in (b"c%d" % i for i in range(10_000)) if partition_for(key, 12) == 5][:100]
    even = {b"e%d" % i: 10.0 for i in range(12_000)}
    return {
        Reason.ONE_PARTITION: ModelStream(spec(), nike, partitions=1),
        Reason.TOPIC_COMPACTED: ModelStream(spec(), nike, compacted=True),
        Reason.BALANCED: ModelStream(spec(), even),
        Reason.NO_DOMINANT_KEY: ModelStream(spec(), {**QUIET, **dict.fromkeys(crowd, 20.0)}),
        Reason.DIMENSIONS_NOT_VISIBLE: ModelStream(spec(**BY_USER), nike),
        Reason.CANNOT_SPREAD: ModelStream(spec(**BY_USER), nike, users={b"nike": 1}),
        Reason.ORDERING_FORBIDS: ModelStream(spec(spread={"ordering": "PerKey"}), nike),
        Reason.SUSPENDED: ModelStream(spec(suspend=True), nike),
        Reason.OBSERVING: ModelStream(spec(mode="Observe"), nike),
        Reason.STEADY: ModelStream(spec(trigger={"recordsPerSecond": 4_000, "skew": {"ratio": 11}}), nike),
    }


@pytest.mark.parametrize("reason", refused_streams())
def test_what_cannot_be_spread_is_left_plain_with_the_reason_named(reason: Reason) -> None:
    model = refused_streams()[reason]
    decision = model.turns(10)
    assert decision.reason is reason, decision.message
    assert model.table.routes == ()


@pytest.mark.parametrize("reason", [Reason.NO_DOMINANT_KEY, Reason.TOPIC_COMPACTED, Reason.CANNOT_SPREAD])
def test_a_refusal_is_told_once_and_not_every_turn(reason: Reason) -> None:
    model = refused_streams()[reason]
    model.turns(60)
    told = [each for decision in model.decisions for each in events(decision)]
    assert told == [reason]


def test_more_hot_keys_than_the_limit_leaves_the_smaller_ones_plain() -> None:
    model = stream(spec(limits={"maxHotKeys": 2}))
    model.rates = {**QUIET, b"nike": 4_000.0, b"adidas": 3_000.0, b"puma": 2_500.0}
    model.turns(10)
    assert {route.key for route in model.table.routes} == {b"nike", b"adidas"}
    assert verdicts(model.decisions[-1])[b"puma"] is Reason.TOO_MANY_HOT_KEYS
    assert Reason.TOO_MANY_HOT_KEYS in [r for decision in model.decisions for r in events(decision)]


def test_a_thousand_hot_keys_at_once_spread_the_biggest_within_the_limit() -> None:
    rates = {b"h%d" % i: 5_000.0 + i for i in range(1_000)}
    model = ModelStream(spec(), rates, partitions=1_000)
    model.turns(8)
    assert 0 < len(model.table.routes) <= 32
    too_many = [v for v in model.decisions[-1].verdicts if v.reason is Reason.TOO_MANY_HOT_KEYS]
    assert too_many, [d.message for d in model.decisions[-3:]]


def test_the_coarsest_rung_that_spreads_is_taken() -> None:
    finer_too = {**BY_USER, "spread": {"by": [["user_id"], ["user_id", "country_id"]]}}
    model = stream(spec(**finer_too), users={b"nike": 5_000}, country="*")
    spread_nike(model)
    (route,) = model.table.routes
    assert route.by == ("user_id",)
    assert "order is kept per user_id" in model.decisions[-1].message
    assert model.imbalance() <= TARGET + WITHIN_A_PERCENT_OR_TWO


def test_a_few_heavy_users_are_planned_for_by_their_slots() -> None:
    model = stream(spec(**BY_USER), users={b"nike": 10})
    spread_nike(model)
    model.turns(20)
    assert model.imbalance() < 1.3  # two of them on one partition would make 1.8


def test_preserve_keeps_the_callers_key_and_sets_the_partition_alone() -> None:
    model = stream(spec(spread={"recordKey": "Preserve"}))
    spread_nike(model)
    model.turns(30)
    (route,) = model.table.routes
    assert route.record_key is RecordKey.PRESERVE
    assert verdicts(model.decisions[-1]) == {b"nike": Reason.HOLDING}


def test_a_hot_key_in_bytes_alone_is_spread() -> None:
    model = stream(size_bytes=20_000)
    model.rates = {**QUIET, b"nike": 500.0}
    model.turns(6)
    assert model.table.route(b"nike") is not None, model.decisions[-1].message


@pytest.mark.parametrize(
    ("rate", "size_bytes"),
    [
        pytest.param(150.0, 10_000, id="records bigger than those of others"),
        pytest.param(20.0, 100_000, id="hardly a record, and most of the bytes"),
    ],
)
def test_a_key_of_few_big_records_stays_spread_while_its_bytes_would_be_too_many_at_home(
    rate: float, size_bytes: int
) -> None:
    model = stream(sizes={b"nike": size_bytes})
    model.rates = {**QUIET, b"nike": rate}
    model.turns(150)  # longer than `release.for`
    assert model.table.route(b"nike") is not None, model.decisions[-1].message
    assert Reason.MERGED_BACK not in [reason for decision in model.decisions for reason in events(decision)]

    model.rates = {**QUIET, b"nike": 0.05 * rate}
    model.turns(90)
    assert model.table.routes == (), model.decisions[-1].verdicts


@pytest.mark.parametrize(
    ("part", "sampled", "heavy", "perhaps"),
    [
        pytest.param(0.6, 4_000, True, False, id="surely"),
        pytest.param(0.6, 100, False, True, id="a small sample"),
        pytest.param(0.4, 4_000, False, False, id="less"),
    ],
)
def test_a_key_is_heavy_where_it_surely_carries_half_a_mean_partition(
    part: float, sampled: int, heavy: bool, perhaps: bool
) -> None:
    others = {b"k%d" % i: 10.0 for i in range(1_000)}
    nike = part * 10_000 / (12 - part)  # so that it is that part of a mean partition, with itself
    policy = spec(trigger={"recordsPerSecond": 100}, mode="Observe")
    model = ModelStream(policy, {**others, b"nike": nike}, sampled=sampled, seed=2)
    model.turns(4)

    topic = TopicFacts(STREAM, model.partitions, compacted=False)
    s = Situation.of(policy, model.at, topic, model.table, model.memory)
    assert (s.keys[b"nike"].total >= HEAVY * s.mean) is (heavy or perhaps)
    assert (b"nike" in [key.key for key in s.heavy()]) is heavy
    assert (b"nike" in [key.key for key in s.perhaps_heavy()]) is perhaps


def test_a_natural_key_that_looks_like_a_shard_is_never_taken_as_one() -> None:
    natural = {shard_key(b"nike", i): 25.0 for i in range(40)}
    model = ModelStream(spec(), {**QUIET, **natural})
    model.turns(120)  # the mean record size is sampled on the busiest partition, again and again
    seen = {key for key in natural if key in model.memory.natural_keys}
    assert seen
    model.rates = {**model.rates, b"nike": 4_000.0}
    model.turns(5)
    (route,) = model.table.routes
    assert not {shard_key(b"nike", shard.id) for shard in route.shards} & seen


def test_a_change_of_the_partition_count_plans_every_route_anew_in_one_epoch() -> None:
    model = stream()
    spread_nike(model)
    model.turns(10)
    model.partitions, model.ends = 24, [*model.ends, *([0.0] * 12)]
    model.turns(5)
    assert model.table.partitions == 24
    (route,) = model.table.routes
    assert all(partition_for(shard_key(b"nike", s.id), 24) == s.partition for s in route.shards)
    assert Reason.REPARTITIONED in [r for decision in model.decisions for r in events(decision)]
    assert model.imbalance() <= TARGET + WITHIN_A_PERCENT_OR_TWO


def test_a_topic_that_came_back_with_fewer_partitions_loses_routes_to_those_that_are_gone() -> None:
    model = stream()
    spread_nike(model)
    model.partitions, model.ends = 6, [0.0] * 6
    model.turn()
    assert (model.table.partitions, model.table.routes) == (6, ())


def test_an_edited_spread_is_carried_out_in_one_epoch() -> None:
    model = stream(spec(**BY_USER), users={b"nike": 5_000})
    spread_nike(model)
    model.turns(10)
    model.spec = spec(**{**BY_USER, "spread": {"by": [["user_id"]], "recordKey": "Preserve"}})
    model.turns(2)
    (route,) = model.table.routes
    assert route.record_key is RecordKey.PRESERVE


def test_lower_limits_are_kept_at_once() -> None:
    model = stream()
    model.rates = {**QUIET, b"nike": 4_000.0, b"adidas": 3_000.0, b"puma": 2_500.0}
    model.turns(12)
    assert len(model.table.routes) == 3
    model.spec = spec(limits={"maxHotKeys": 2, "maxShardsPerKey": 4})
    model.turns(2)
    assert {route.key for route in model.table.routes} == {b"nike", b"adidas"}
    assert all(len(route.shards) <= 4 for route in model.table.routes)


def test_records_that_do_not_follow_the_table_make_no_new_tables() -> None:
    model = stream()
    spread_nike(model)
    model.deaf = frozenset({b"nike"})
    decision = model.turns(40)
    assert decision.reason is Reason.PARTIAL_ADOPTION
    assert verdicts(decision) == {b"nike": Reason.PARTIAL_ADOPTION}
    assert not [d.message for d in model.decisions if Reason.RESPREAD in events(d)]


def test_suspending_freezes_the_routes() -> None:
    model = stream()
    spread_nike(model)
    table = model.table
    model.spec = spec(suspend=True)
    model.rates = QUIET
    decision = model.turns(80)
    assert model.table == table
    assert decision.reason is Reason.SUSPENDED


def test_observing_tells_what_it_would_do_and_routes_nothing() -> None:
    model = stream(spec(mode="Observe"))
    model.rates = {**QUIET, b"nike": 4_000.0}
    decision = model.turns(5)
    assert model.table.routes == ()
    assert decision.reason is Reason.OBSERVING
    assert "spread over 12 shards" in decision.message
    assert verdicts(decision) == {b"nike": Reason.OBSERVING}


def test_two_equally_hot_keys_of_which_one_may_be_spread_are_told_as_too_many() -> None:
    model = stream(spec(limits={"maxHotKeys": 1}))
    model.rates = {**QUIET, b"nike": 3_000.0, b"adidas": 3_000.0}
    model.turns(6)
    assert Reason.TOO_MANY_HOT_KEYS in {decision.reason for decision in model.decisions}


@pytest.mark.parametrize(("limit", "is_home"), [(1, False), (2, True)])
def test_a_key_that_comes_home_is_a_change_of_the_minute_too(limit: int, is_home: bool) -> None:
    model = stream(spec(limits={"changesPerMinute": limit}, release={"for": "5s"}))
    spread_nike(model)
    model.rates = QUIET
    model.turns(45)
    assert (model.table.routes == ()) is is_home
    model.turns(30)
    assert model.table.routes == ()


def test_changes_per_minute_are_limited() -> None:
    model = stream(spec(limits={"changesPerMinute": 1}))
    spread_nike(model)
    model.rates = {**model.rates, b"adidas": 6_000.0}
    model.turns(8)
    assert model.decisions[-1].reason is Reason.RATE_LIMITED
    model.turns(60)
    assert model.table.route(b"adidas") is not None


def test_a_restart_of_the_operator_keeps_the_routes() -> None:
    model = stream()
    spread_nike(model)
    model.turns(10)
    table = model.table
    model.memory = type(model.memory)()
    model.turns(30)
    assert model.table == table


def test_an_unsupported_field_is_told_by_its_name() -> None:
    model = stream(spec(clusterRef={"name": "main"}))
    (found,) = [c for c in model.turn().conditions if c.type is ConditionType.NOT_YET_SUPPORTED]
    assert found.status
    assert "spec.clusterRef" in found.message


def test_the_same_observations_give_the_same_decisions() -> None:
    def run() -> list[Decision]:
        model = stream()
        model.rates = {**QUIET, b"nike": 4_000.0, b"adidas": 2_000.0}
        model.turns(20)
        return model.decisions

    assert run() == run()


def test_a_hot_key_of_10_kb_is_spread() -> None:
    model, key = stream(), b"\xff" + b"x" * 10_000
    model.rates = {**QUIET, key: 4_000.0}
    model.turns(4)
    assert model.table.route(key) is not None, model.decisions[-1].message


def test_a_hot_key_too_long_for_a_table_is_left_plain_and_the_others_are_spread() -> None:
    model, key = stream(), b"x" * (KEY_BYTES_AT_MOST + 1)
    model.rates = {**QUIET, key: 4_000.0}
    decision = model.turns(4)
    assert (decision.reason, model.table.routes) == (Reason.KEY_TOO_LONG, ())
    model.rates = {**model.rates, b"nike": 6_000.0}
    decision = model.turns(4)
    assert [route.key for route in model.table.routes] == [b"nike"]
    assert verdicts(decision)[key] is Reason.KEY_TOO_LONG


def changed(model: ModelStream, policy: PolicySpec) -> list[tuple[tuple[str, ...], ...]]:
    """Edit the policy of a stream whose `nike` is spread; how it was spread after each of the next turns."""
    spread_nike(model)
    model.turns(10)
    model.spec = policy
    found = []
    for _ in range(12):
        model.turn()
        found.append(tuple(route.by for route in model.table.routes))
    return found


def test_a_key_stays_spread_while_it_is_sampled_for_the_rungs_of_an_edited_policy() -> None:
    by_hour = {
        "dimensions": [*BY_USER["dimensions"], {"name": "hour", "timeBucket": {"width": "1h"}}],
        "spread": {"by": [["user_id", "country_id"]]},
    }
    model = stream(spec(**BY_USER), users={b"nike": 5_000}, country="no")
    seen = changed(model, spec(**by_hour))
    assert all(len(by) == 1 for by in seen), seen
    assert seen[-1] == (("user_id", "country_id"),), model.decisions[-1].message
    told = [reason for decision in model.decisions for reason in events(decision)]
    assert Reason.DIMENSIONS_NOT_VISIBLE not in told
    assert model.imbalance() < BALANCED


def test_a_key_stays_spread_while_its_dimension_is_renamed() -> None:
    renamed = {
        "dimensions": [{"name": "user", "from": {"jsonPath": "$.user_id"}}],
        "spread": {"by": [["user"]]},
    }
    model = stream(spec(**BY_USER), users={b"nike": 5_000})
    seen = changed(model, spec(**renamed))
    assert all(len(by) == 1 for by in seen), seen
    assert seen[-1] == (("user",),), model.decisions[-1].message
    assert [dimension.name for dimension in model.table.dimensions] == ["user"]


def test_a_small_routed_key_of_which_the_new_dimension_is_not_visible_is_told_so_and_becomes_plain() -> None:
    blind = {"dimensions": [{"name": "city", "from": {"header": "x-city"}}], "spread": {"by": [["city"]]}}
    model = stream(spec(**BY_USER), users={b"nike": 5_000})
    seen = changed(model, spec(**blind))
    assert seen[-1] == ()
    assert Reason.DIMENSIONS_NOT_VISIBLE in verdicts(model.decisions[-1]).values()


def test_a_replan_that_gives_the_same_routes_still_writes_the_new_partition_count() -> None:
    model = ModelStream(spec(), {b"nike": 50_000.0}, partitions=8)
    model.turns(20)
    before = model.table
    model.stored = StoredTable(msgspec.structs.replace(before, partitions=9), "by another plan")
    model.turns(8)
    assert model.table.partitions == 8
    assert model.decisions[-1].reason is not Reason.REPARTITIONED


def test_a_clock_that_is_set_back_forgets_the_changes_of_the_future() -> None:
    model = stream(spec(limits={"changesPerMinute": 1}))
    spread_nike(model)
    model.turns(2)
    model.at -= 3_600
    model.rates = {**model.rates, b"adidas": 6_000.0}
    model.turns(12)
    assert model.table.route(b"adidas") is not None, model.decisions[-1].message


def test_a_clock_that_is_set_back_silences_no_refusal() -> None:
    model = refused_streams()[Reason.NO_DOMINANT_KEY]
    model.turns(10)
    model.at -= 3_600
    model.turns(10)
    told = [each for decision in model.decisions for each in events(decision)]
    assert told == [Reason.NO_DOMINANT_KEY] * 2


def test_keys_that_came_and_went_are_not_remembered_for_ever() -> None:
    model = stream(spec(release={"for": "5s"}))
    spread_nike(model)
    model.rates = QUIET
    model.turns(100)
    assert model.table.routes == ()
    assert model.memory.changed_at == {}
