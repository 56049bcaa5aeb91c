"""Status: what is told at once, what waits, and what overrides the decision's word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from hotkey_operator.act.executor import Applied
from hotkey_operator.engine.model import (
    Condition,
    ConsumerLag,
    Decision,
    KeyVerdict,
    Observation,
    Sampling,
    Sizes,
    StoredTable,
    Summary,
)
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.loop import Outcome
from hotkey_operator.status import FIGURES_SECONDS, Pace, policy_status, table_status
from hotkey_sdk.routing.table import RecordKey, Route, Shard, Stream, Table

READY = Condition(ConditionType.READY, True, Reason.GOVERNING, "all is well")
STORED = StoredTable(Table.empty(Stream("c", "t"), partitions=3, epoch=7, seed=1), "1")


def decided(**changes: Any) -> Outcome:
    verdict = KeyVerdict(
        b"nike", Reason.HOLDING, "still hot", 1234.56, 0.81234, 0.01, shards=10, by=("user",)
    )
    summary = Summary(epoch=7, partitions=3, records_per_second=1500.4, imbalance=1.052, producers=3)
    decision = Decision((), Reason.HOLDING, "held", (verdict,), (READY,), summary)
    return Outcome(Observation(1.0, None, stored=STORED), replace(decision, **changes))


def status(
    outcome: Outcome, *, now: float = 1_000.0, previous: Any = None, observing: bool = False
) -> dict[str, Any]:
    return policy_status(outcome, generation=2, now=now, previous=previous or {}, observing=observing)


def test_figures_are_rounded_and_the_imbalance_has_two_decimals() -> None:
    found = status(decided())
    assert found["imbalance"] == "1.05"
    assert found["recordsPerSecond"] == 1500
    assert found["producers"] == "0/3"
    assert found["keys"][0]["share"] == 0.8123
    assert found["keys"][0]["by"] == ["user"]


def test_an_unknown_imbalance_removes_the_last_one() -> None:
    assert status(decided(summary=Summary()))["imbalance"] is None


def test_a_transition_time_moves_only_with_the_conditions_status() -> None:
    first = status(decided(), now=1_000.0)
    other_reason = replace(READY, reason=Reason.STEADY)
    same = status(decided(conditions=(other_reason,)), now=2_000.0, previous=first)
    turned = status(decided(conditions=(replace(READY, status=False),)), now=3_000.0, previous=same)
    times = [each["conditions"][0]["lastTransitionTime"] for each in (first, same, turned)]
    assert times == ["1970-01-01T00:16:40Z", "1970-01-01T00:16:40Z", "1970-01-01T00:50:00Z"]
    assert turned["conditions"][0]["observedGeneration"] == 2


def test_a_plan_is_told_only_while_the_policy_observes() -> None:
    assert status(decided(), observing=True)["plan"]["keys"][0]["key"] == "nike"
    assert status(decided())["plan"] is None


def test_a_key_that_is_only_planned_to_be_spread_has_no_shards_yet() -> None:
    observed = status(decided(), observing=True)
    assert observed["plan"]["keys"][0]["shards"] > 0
    assert (observed["keys"][0]["shards"], observed["keys"][0]["by"]) == (0, [])


def ready_of(outcome: Outcome) -> tuple[str, str]:
    (ready,) = [each for each in status(outcome)["conditions"] if each["type"] == "Ready"]
    return ready["status"], ready["reason"]


def test_what_could_not_be_done_makes_the_policy_unready_whatever_was_decided() -> None:
    cases = {
        ("True", "Governing"): decided(),
        ("False", "KubernetesUnavailable"): Outcome(failure="cannot read"),
        ("False", "FormerPolicy"): Outcome(failure="it returns clicks", former="it returns clicks"),
        ("False", "TableConflict"): Outcome(standing_by="someone else wrote"),
        ("False", "RedisUnavailable"): replace(decided(), applied=Applied(unpublished="refused")),
        ("False", "InvalidSpec"): replace(decided(), mistake="spec.x: wrong"),
    }
    assert {ready_of(outcome): outcome for outcome in cases.values()} == cases
    assert ready_of(replace(decided(), applied=Applied(unwritten="denied"))) == (
        "False",
        "KubernetesUnavailable",
    )


def test_a_mistake_in_the_spec_is_the_decision_too() -> None:
    found = status(replace(decided(), mistake="spec.x: wrong"))
    assert found["decision"] == {"reason": "InvalidSpec", "message": "spec.x: wrong"}


def test_the_first_status_is_due_and_the_same_again_is_not() -> None:
    pace, document = Pace(), status(decided())
    assert pace.is_due(document, 0.0)
    pace.sent(document, 0.0)
    assert not pace.is_due(document, 1_000.0)


def test_drifting_figures_wait_and_a_changed_decision_does_not() -> None:
    pace = Pace()
    pace.sent(status(decided()), 0.0)
    drifted = status(decided(summary=Summary(epoch=7, partitions=3, records_per_second=9.0)))
    assert not pace.is_due(drifted, FIGURES_SECONDS / 2)
    assert pace.is_due(drifted, FIGURES_SECONDS)
    changed = status(decided(reason=Reason.MERGED_BACK))
    assert pace.is_due(changed, FIGURES_SECONDS / 2)


def test_figures_may_be_given_a_pace_of_their_own_which_holds_up_no_decision() -> None:
    pace, slow = Pace(), 10 * FIGURES_SECONDS
    pace.sent(status(decided()), 0.0)
    drifted = status(decided(summary=Summary(epoch=7, partitions=3, records_per_second=9.0)))
    assert [pace.is_due(drifted, at, slow) for at in (FIGURES_SECONDS, slow)] == [False, True]
    assert pace.is_due(status(decided(reason=Reason.MERGED_BACK)), 1.0, slow)


def test_what_samples_take_and_what_bytes_are_made_of_is_told() -> None:
    told = status(decided())
    assert (told["sizes"], told["sampling"]["bytesPerSecond"], told["sampling"]["partitions"]) == (
        "none",
        0,
        0,
    )
    assert told["sampling"]["recordsPerOffset"] is None
    summary = Summary(sizes=Sizes.LOG_SIZE, sampling=Sampling(1234.5, 7, 0.5))
    told = status(decided(summary=summary))
    assert told["sizes"] == "logSize"
    assert told["sampling"] == {"bytesPerSecond": 1234, "partitions": 7, "recordsPerOffset": "0.50"}


def test_a_status_that_was_not_written_stays_due() -> None:
    pace = Pace()
    assert pace.is_due(status(decided()), 0.0)
    assert pace.is_due(status(decided()), 0.1)


def test_the_table_tells_its_published_epoch_once_redis_told_one() -> None:
    assert table_status(decided()) is None
    published = replace(decided(), applied=Applied(stored=STORED, published_epoch=8))
    assert table_status(published) == {"publishedEpoch": 8, "producers": "0/3", "consumers": "0/0"}


def test_conditions_of_which_nothing_is_known_stay_as_they_were() -> None:
    hot = Condition(ConditionType.HOT, True, Reason.HOLDING, "1 key spread: nike")
    first = status(decided(conditions=(READY, hot)))
    for blind in (Outcome(standing_by="someone else wrote"), Outcome(failure="cannot read")):
        found = {each["type"]: each for each in status(blind, now=5_000.0, previous=first)["conditions"]}
        assert found["Ready"]["status"] == "False"
        assert found["Hot"] == first["conditions"][1]


def test_the_condition_of_dedicated_topics_goes_with_them() -> None:
    topics = replace(READY, type=ConditionType.DEDICATED_TOPICS_READY)
    first = status(decided(conditions=(READY, topics)))
    unknown = status(Outcome(failure="cannot read"), previous=first)
    without = status(decided(conditions=(READY,)), previous=unknown)
    kinds = [[each["type"] for each in told["conditions"]] for told in (first, unknown, without)]
    assert kinds == [["Ready", "DedicatedTopicsReady"], ["Ready", "DedicatedTopicsReady"], ["Ready"]]


def test_a_policy_that_does_not_govern_tells_nothing_of_the_object_that_it_once_wrote() -> None:
    route = Route(b"nike", "t", (), RecordKey.COMPOSITE, (Shard(1, 0),), (0,))
    stored = replace(STORED, table=msgspec.structs.replace(STORED.table, routes=(route,)))
    younger = replace(decided(), observation=Observation(1.0, None, stored=stored, rival="ads/older"))
    assert status(younger)["hotKeys"] == 0
    assert table_status(younger) is None


def test_a_key_keeps_its_time_until_it_is_routed_otherwise() -> None:
    first = status(decided(), now=1_000.0)
    verdict = decided().decision.verdicts[0]  # type: ignore[union-attr]
    cooling = status(
        decided(verdicts=(replace(verdict, reason=Reason.COOLING),)), now=2_000.0, previous=first
    )
    wider = status(decided(verdicts=(replace(verdict, shards=12),)), now=3_000.0, previous=cooling)
    times = [each["keys"][0]["since"] for each in (first, cooling, wider)]
    assert times == ["1970-01-01T00:16:40Z", "1970-01-01T00:16:40Z", "1970-01-01T00:50:00Z"]


def test_the_lag_of_each_group_is_told_with_what_is_known_of_it_and_goes_when_no_group_is_looked_at() -> None:
    lags = (
        ConsumerLag("audit"),
        ConsumerLag("billing", 41.04, 3, 12_000),
        ConsumerLag("idle", 0.0, None, 0),
        ConsumerLag("secret", failure="not authorized"),
    )
    assert status(decided(summary=Summary(consumer_lag=lags)))["consumerLag"] == [
        {"group": "audit"},
        {"group": "billing", "seconds": 41.0, "partition": 3, "records": 12_000},
        {"group": "idle", "seconds": 0.0, "records": 0},
        {"group": "secret", "message": "not authorized"},
    ]
    assert status(decided(summary=Summary()))["consumerLag"] is None
