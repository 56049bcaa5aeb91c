"""A consumer group that is behind: where a hot key is why, the key is spread; else the group is told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hotkey_operator.engine.attention import windows_to_sample
from hotkey_operator.engine.lag import (
    GROUPS_AT_MOST,
    LOOK_SECONDS,
    REPORTED_AT_MOST,
    TREND_SECONDS,
    registered,
)
from hotkey_operator.engine.model import ConsumerLag, Decision, EmitEvent, EndOffsets, WriteTable
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import ClientReport, Role
from tests.unit.engine.consumers import Capacity, ConsumedStream, Group
from tests.unit.engine.stream import START, spec

HOME = partition_for(b"nike", 12)
MANAGED = 300.0  # records/s of one partition
LAG_SECONDS = 15.0
QUIET_KEYS = 20  # of each partition


def _quiet(records_per_second: float) -> dict[bytes, float]:
    """As many small keys on every partition, so that each takes so much."""
    keys: dict[int, list[bytes]] = {p: [] for p in range(12)}
    for key in (b"k%d" % i for i in range(100 * QUIET_KEYS)):
        keys[partition_for(key, 12)].append(key)
    chosen = [key for there in keys.values() for key in there[:QUIET_KEYS]]
    return dict.fromkeys(chosen, records_per_second / QUIET_KEYS)


QUIET = _quiet(83.0)
NIKE = {**QUIET, b"nike": 500.0}
ORDINARY = next(p for p in range(12) if p != HOME)


def policy(**fields: Any) -> PolicySpec:
    """One whose record trigger is far away."""
    trigger = {"recordsPerSecond": 100_000, "lagSeconds": LAG_SECONDS, **fields.pop("trigger", {})}
    return spec(**{"trigger": trigger, "consumers": {"groups": ["billing"]}, **fields})


def stream(
    rates: Mapping[bytes, float], capacity: Capacity, of: PolicySpec | None = None, **group: Any
) -> ConsumedStream:
    return ConsumedStream(of or policy(), rates, groups={"billing": Group(capacity, **group)})


def turns_until(model: ConsumedStream, reason: Reason, at_most: int = 120) -> Decision:
    for _ in range(at_most):
        if model.turn().reason is reason:
            return model.decisions[-1]
    raise AssertionError(f"never {reason}; last: {model.decisions[-1].reason}: {model.decisions[-1].message}")


def reasons(model: ConsumedStream) -> set[Reason]:
    return {decision.reason for decision in model.decisions}


def events(model: ConsumedStream) -> list[EmitEvent]:
    return [a for d in model.decisions for a in d.actions if isinstance(a, EmitEvent)]


def writes(model: ConsumedStream) -> int:
    """Tables written after the first, empty one."""
    return sum(isinstance(a, WriteTable) for d in model.decisions for a in d.actions) - 1


def lag(decision: Decision) -> ConsumerLag:
    (found,) = decision.summary.consumer_lag
    return found


def test_one_consumer_that_is_slow_behind_one_hot_key_gets_it_spread_and_the_lag_is_named() -> None:
    model = stream(NIKE, lambda _: MANAGED)
    decision = turns_until(model, Reason.SPREAD)
    assert [route.key for route in model.table.routes] == [b"nike"]
    assert f"partition {HOME} " in decision.message
    assert "group billing is " in decision.message
    assert " s behind on it" in decision.message
    assert lag(decision).partition == HOME
    assert (lag(decision).seconds or 0) > LAG_SECONDS
    assert Reason.SLOW_CONSUMER not in reasons(model)


def test_after_the_spread_the_group_catches_up_and_is_not_called_slow() -> None:
    model = stream(NIKE, lambda _: MANAGED)
    turns_until(model, Reason.SPREAD)
    model.turns(120)
    assert (lag(model.decisions[-1]).seconds or 0) < LAG_SECONDS / 2
    assert Reason.SLOW_CONSUMER not in reasons(model)


def test_a_key_that_was_spread_for_lag_stays_spread_while_its_load_would_bring_the_lag_back() -> None:
    model = stream(NIKE, lambda _: MANAGED, policy(release={"for": "5s"}))
    turns_until(model, Reason.SPREAD)
    model.turns(240)
    assert writes(model) == 1, [d.message for d in model.decisions if d.reason is Reason.MERGED_BACK]
    model.rates = {**QUIET, b"nike": 30.0}
    turns_until(model, Reason.MERGED_BACK)
    assert model.table.routes == ()


def test_a_key_does_not_come_home_to_a_partition_whose_backlog_is_not_gone() -> None:
    model = stream(NIKE, lambda _: MANAGED, policy(release={"for": "5s"}))
    turns_until(model, Reason.SPREAD)
    # when the key cools, and the consumer of its home dies
    model.rates = {**QUIET, b"nike": 30.0}
    model.groups["billing"].capacity = lambda p: 0.0 if p == HOME else MANAGED
    model.turns(60)
    assert [route.key for route in model.table.routes] == [b"nike"]
    told = next(verdict for verdict in model.decisions[-1].verdicts if verdict.key == b"nike")
    assert "group billing is " in told.message
    assert f" s behind on its home, partition {HOME}" in told.message
    assert "still hot" not in told.message
    model.groups["billing"].capacity = lambda _: 10 * MANAGED
    turns_until(model, Reason.MERGED_BACK)


def test_a_group_that_is_behind_everywhere_alike_keeps_no_key_from_coming_home() -> None:
    # given a key that was spread for the records of its partition, and a group that was abandoned
    of = policy(trigger={"recordsPerSecond": 1_000}, release={"for": "5s"})
    model = stream({**QUIET, b"nike": 4_000.0}, lambda _: 10_000.0, of)
    turns_until(model, Reason.SPREAD)
    model.turns(20)
    model.groups["billing"].capacity = lambda _: 0.0
    model.turns(2 * int(LAG_SECONDS))
    assert (lag(model.decisions[-1]).seconds or 0) > LAG_SECONDS / 2
    # when the key cools
    model.rates = {**QUIET, b"nike": 300.0}
    # then it comes home
    turns_until(model, Reason.MERGED_BACK)


def test_a_group_that_is_slow_on_all_partitions_alike_is_told_of_once_and_nothing_moves() -> None:
    model = stream(QUIET, lambda _: 40.0)
    decision = turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert "group billing" in decision.message
    assert "no key is to blame" in decision.message
    told = [event for event in events(model) if event.reason is Reason.SLOW_CONSUMER]
    assert [event.warning for event in told] == [True]
    assert writes(model) == 0


def test_a_hot_key_does_not_hide_that_the_group_is_slow_everywhere() -> None:
    model = stream(NIKE, lambda _: 20.0)
    turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert writes(model) == 0


def test_a_group_that_is_gone_is_slow_and_nothing_moves_though_a_key_is_heavy() -> None:
    model = stream(NIKE, lambda _: 1_000.0)
    model.turns(20)
    model.groups["billing"].capacity = lambda _: 0.0
    turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert writes(model) == 0


def test_a_group_that_stands_still_on_a_partition_of_ordinary_load_is_slow_and_nothing_moves() -> None:
    model = stream(NIKE, lambda _: 1_000.0)
    model.turns(20)
    model.groups["billing"].capacity = lambda p: 0.0 if p == ORDINARY else 1_000.0
    decision = turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert f"on partition {ORDINARY} and commits nothing there" in decision.message
    assert "moving a key would not help" in decision.message
    assert writes(model) == 0


def test_a_consumer_that_is_slow_on_a_partition_of_ordinary_load_is_told_of_though_a_key_of_it_is_heavy() -> (
    None
):
    small = [key for key in QUIET if partition_for(key, 12) == ORDINARY]
    rates = {**NIKE, **dict.fromkeys(small[1:], 1.0), small[0]: 63.0}
    model = stream(rates, lambda p: 60.0 if p == ORDINARY else 10_000.0)
    decision = turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert f"on partition {ORDINARY} and does not catch up" in decision.message
    assert writes(model) == 0


def test_the_partition_that_lags_is_relieved_although_another_one_takes_more() -> None:
    adidas = next(b"adidas%d" % i for i in range(100) if partition_for(b"adidas%d" % i, 12) == ORDINARY)
    model = stream({**NIKE, adidas: 400.0}, lambda p: MANAGED if p == ORDINARY else 10_000.0)
    decision = turns_until(model, Reason.SPREAD)
    assert adidas in [route.key for route in model.table.routes]
    assert f"partition {ORDINARY} " in decision.message


def test_a_dead_consumer_of_a_hot_and_of_ordinary_partitions_is_slow_and_nothing_moves() -> None:
    model = stream(NIKE, lambda _: 1_000.0)
    model.turns(20)
    dead = {HOME, ORDINARY}
    model.groups["billing"].capacity = lambda p: 0.0 if p in dead else 1_000.0
    turns_until(model, Reason.SLOW_CONSUMER)
    model.turns(60)
    assert writes(model) == 0


def test_a_consumer_that_a_hot_key_keeps_from_its_other_partitions_gets_the_key_spread() -> None:
    model = stream(NIKE, lambda p: 600.0 if p == HOME else 10_000.0, shared=_with_others(2))
    turns_until(model, Reason.SPREAD)
    assert [route.key for route in model.table.routes] == [b"nike"]
    # and is not called slow on its other partitions while it works off the backlog of the key's home
    model.turns(90)
    assert reasons(model) == {Reason.WAITING, Reason.STEADY, Reason.SPREAD}
    assert (lag(model.decisions[-1]).seconds or 0) < LAG_SECONDS


def _with_others(count: int) -> tuple[int, ...]:
    return (HOME, *[p for p in range(12) if p != HOME][:count])


def test_a_group_that_catches_up_after_a_pause_is_neither_slow_nor_a_reason_to_spread() -> None:
    model = stream(NIKE, lambda _: 10_000.0)
    model.turns(20)
    model.groups["billing"].capacity = lambda _: 0.0
    model.turns(int(LAG_SECONDS) - 5)
    before = len(model.decisions)
    model.groups["billing"].capacity = lambda _: 800.0
    model.turns(90)
    after = {decision.reason for decision in model.decisions[before:]}
    assert after == {Reason.STEADY}
    assert writes(model) == 0


def test_a_heavy_key_stays_plain_while_the_group_works_off_what_it_is_behind_there() -> None:
    model = stream(NIKE, lambda _: MANAGED, policy(suspend=True))
    model.turns(100)
    model.groups["billing"].capacity = lambda _: 900.0
    model.turns(20)
    model.spec, before = policy(), len(model.decisions)
    model.turns(20)
    assert (lag(model.decisions[-1]).seconds or 0) > LAG_SECONDS, "it has nothing to catch up with any more"
    assert {decision.reason for decision in model.decisions[before:]} == {Reason.STEADY}
    assert writes(model) == 0


def test_a_partition_that_lags_without_a_heavy_key_gets_nothing_spread() -> None:
    crowd = [b"c%d" % i for i in range(4_000) if partition_for(b"c%d" % i, 12) == ORDINARY][:200]
    model = stream({**QUIET, **dict.fromkeys(crowd, 2.0)}, lambda _: MANAGED)
    decision = turns_until(model, Reason.NO_DOMINANT_KEY)
    model.turns(30)
    assert "group billing is " in decision.message
    assert writes(model) == 0


def test_a_group_that_keeps_up_changes_nothing_however_rarely_it_commits_within_the_limit() -> None:
    model = stream(NIKE, lambda _: 10_000.0, commit_seconds=LAG_SECONDS / 3)
    model.turns(90)
    assert reasons(model) == {Reason.STEADY, Reason.WAITING}


@pytest.mark.parametrize(
    "of",
    [
        policy(trigger={"lagSeconds": None}),
        policy(consumers={}),
        policy(metrics={"source": "Producers"}),
    ],
    ids=["no lagSeconds", "no group", "rates come from producers"],
)
def test_lag_is_no_trigger_where_it_is_not_asked_for(of: PolicySpec) -> None:
    model = stream(NIKE, lambda _: MANAGED, of)
    model.turns(90)
    assert reasons(model) == {Reason.STEADY, Reason.WAITING}


def test_without_a_limit_the_lag_of_listed_groups_is_told_all_the_same() -> None:
    model = stream(NIKE, lambda _: MANAGED, policy(trigger={"lagSeconds": None}))
    model.turns(60)
    assert lag(model.decisions[-1]).partition == HOME


def test_lag_needs_the_skew_too_where_that_is_set() -> None:
    trigger = {"skew": {"ratio": 8}}  # partition HOME takes 4.7 times the mean
    model = stream(NIKE, lambda _: MANAGED, policy(trigger=trigger))
    model.turns(90)
    assert writes(model) == 0


def test_a_partition_over_the_record_trigger_is_spread_although_a_group_is_slow() -> None:
    model = stream(QUIET, lambda _: 40.0, policy(trigger={"recordsPerSecond": 1_000}))
    turns_until(model, Reason.SLOW_CONSUMER)
    model.rates = {**QUIET, b"nike": 4_000.0}
    turns_until(model, Reason.SPREAD, 5)


def test_a_group_without_commits_and_one_that_cannot_be_asked_are_told_by_name_alone() -> None:
    model = ConsumedStream(policy(), NIKE)
    assert lag(model.turns(10)) == ConsumerLag("billing")
    model.away = True
    assert lag(model.turns(60)) == ConsumerLag("billing", failure="no answer")
    assert reasons(model) == {Reason.STEADY, Reason.WAITING}


def test_a_group_that_keeps_up_is_no_seconds_behind() -> None:
    model = stream(QUIET, lambda _: 10_000.0, commit_seconds=1.0)
    model.turns(20)
    assert (lag(model.decisions[-1]).seconds or 0) <= 2 * LOOK_SECONDS


def test_groups_are_asked_every_few_seconds_and_rarely_while_they_do_not_answer() -> None:
    model = stream(QUIET, lambda _: 10_000.0)
    assert _looks(model, 30) == 30 / LOOK_SECONDS
    model.away = True
    assert _looks(model, 60) <= 5


def _looks(model: ConsumedStream, turns: int) -> int:
    seen = set()
    for _ in range(turns):
        model.turn()
        seen.add(model.memory.lags.at)
    return len(seen)


def test_a_lagging_partition_is_sampled_between_what_is_committed_and_the_end() -> None:
    model = stream(NIKE, lambda _: MANAGED)
    while HOME not in model.memory.lagging(model.at):
        assert len(model.decisions) < 120, model.decisions[-1].message
        model.turn()
    model.at += 1
    ends = EndOffsets(
        model.at, tuple(int(end) + (500 if p == HOME else 80) for p, end in enumerate(model.ends))
    )
    windows = windows_to_sample(model.spec, model.memory, model.stored, ends)
    assert windows[HOME] == (model.memory.lagging(model.at)[HOME].first, ends.offsets[HOME])


def test_what_retention_has_deleted_is_neither_lag_nor_sampled() -> None:
    model = stream(NIKE, lambda _: MANAGED)
    model.turns(10)
    model.starts = {HOME: int(model.ends[HOME]) - 5}
    model.memory = type(model.memory)(history=model.memory.history)
    while lag(model.turn()).seconds is None:
        assert len(model.decisions) < 120
    found = model.memory.lags.groups["billing"][-1].behind[HOME]
    assert found.first >= model.starts[HOME]


def test_nothing_is_judged_right_after_a_change_of_routes() -> None:
    model = stream(NIKE, lambda _: MANAGED)
    turns_until(model, Reason.SPREAD)
    for _ in range(int(LOOK_SECONDS)):
        model.turn()
        assert model.memory.lagging(model.at) == {}
        assert model.decisions[-1].reason is not Reason.SLOW_CONSUMER
    assert TREND_SECONDS > LOOK_SECONDS


REPORTED = (
    ClientReport("c1", Role.CONSUMER, 3, START, "search"),
    ClientReport("c2", Role.CONSUMER, 3, START, "billing"),
    ClientReport("c3", Role.CONSUMER, 3, START, "backfill"),
    ClientReport("c4", Role.CONSUMER, 3, START - 3_600, "gone"),
    ClientReport("c5", Role.CONSUMER, 3, START, None),
    ClientReport("p1", Role.PRODUCER, 3, START, "producer"),
)


def test_groups_that_consumers_report_add_to_those_listed_and_never_replace_them() -> None:
    of = policy(consumers={"groups": ["billing", "audit"], "ignore": ["backfill"]})
    assert registered(of, REPORTED, START) == ("billing", "audit", "search")


def test_reported_groups_are_looked_at_where_a_limit_is_set_and_none_is_listed() -> None:
    assert registered(policy(consumers={}), REPORTED, START) == ("backfill", "billing", "search")
    assert registered(spec(), REPORTED, START) == ()


def test_no_number_of_reported_groups_makes_more_than_so_many_calls() -> None:
    many = [ClientReport(f"c{i}", Role.CONSUMER, 1, START, f"g{i}") for i in range(1_000)]
    found = registered(policy(), many, START)
    assert len(found) == 1 + REPORTED_AT_MOST
    assert found[0] == "billing"
    listed = [f"own{i}" for i in range(GROUPS_AT_MOST)]
    assert registered(policy(consumers={"groups": listed}), many, START) == tuple(listed)
