"""What stands now, as it is exported: per policy, partition and routed key, and nothing that is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotkey_operator.act.executor import Applied
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Condition, ConsumerLag, Rejected, StoredTable, Summary
from hotkey_operator.engine.reasons import UNMENDED, ConditionType, Reason
from hotkey_operator.engine.told import REFUSALS
from hotkey_operator.gauges import Exposure
from hotkey_operator.loop import Outcome
from hotkey_operator.metrics import Metrics
from hotkey_sdk.routing.partitioner import partition_for
from tests.unit.observability.turns import (
    AT,
    CLICKS,
    VIEWS,
    exported,
    memory,
    series,
    table,
    turn,
    value,
    verdict,
    watched,
)

UNREADY = Condition(ConditionType.READY, False, Reason.TOPIC_NOT_FOUND, "")


def test_every_partition_has_its_rate() -> None:
    metrics = watched(turn(table()), remembered=memory([10, 0, 30, 500]))

    rates = series(metrics, "partition_records_per_second")

    assert rates == {("0",): 10, ("1",): 0, ("2",): 30, ("3",): 500}


@pytest.mark.parametrize(("limit", "exposed"), [(4, 4), (3, 0), (0, 0)])
def test_a_stream_with_more_partitions_than_the_limit_exports_none(limit: int, exposed: int) -> None:
    metrics = watched(
        turn(table()), remembered=memory([1, 2, 3, 4]), metrics=Metrics(Exposure(partitions=limit))
    )

    assert len(series(metrics, "partition_records_per_second")) == exposed


def test_partitions_that_are_gone_leave_no_series() -> None:
    metrics = watched(turn(table()), remembered=memory([1, 2, 3, 4]))

    metrics.observe(CLICKS, turn(table(partitions=2)), memory([5, 6]), took_seconds=0.1, now=AT)

    assert series(metrics, "partition_records_per_second") == {("0",): 5, ("1",): 6}


def test_a_routed_key_has_share_rate_and_shards() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike", share=0.8, rate=800)))

    assert value(metrics, "key_share_ratio", key="nike") == 0.8
    assert value(metrics, "key_records_per_second", key="nike") == 800
    assert value(metrics, "key_shards", key="nike") == 4
    assert value(metrics, "hot_keys") == 1


def test_a_routed_key_has_its_error_its_reason_and_what_was_rejected() -> None:
    rejected = (Rejected("merge it back", Reason.HOLDING, "partition 1 would take 800 records/s"),)
    metrics = watched(turn(table(b"nike"), replace(verdict(b"nike"), rejected=rejected)))

    assert value(metrics, "key_share_error_ratio", key="nike") == 0.01
    assert value(metrics, "key_decision", key="nike", reason="Holding") == 1
    assert value(metrics, "key_rejected", key="nike", option="merge it back", reason="Holding") == 1


def test_the_part_of_a_key_that_does_not_follow_is_told_and_keys_are_counted_by_reason() -> None:
    stray = replace(verdict(b"nike"), reason=Reason.PARTIAL_ADOPTION, stray=0.25)
    refused = verdict(b"puma", reason=Reason.CANNOT_SPREAD)
    metrics = watched(turn(table(b"nike"), stray, refused), metrics=Metrics(Exposure(keys=False)))
    named = watched(turn(table(b"nike"), stray, refused))

    assert series(named, "key_stray_ratio") == {("nike",): 0.25}
    assert series(metrics, "keys") == {("PartialAdoption",): 1, ("CannotSpread",): 1}


def test_only_routed_keys_are_named() -> None:
    refused = verdict(b"puma", reason=Reason.CANNOT_SPREAD)
    metrics = watched(turn(table(b"nike"), verdict(b"nike"), refused))

    assert series(metrics, "key_share_ratio") == {("nike",): 0.8}


def test_a_key_that_is_plain_again_leaves_no_series() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike")), turn(table(), reason=Reason.MERGED_BACK))

    assert series(metrics, "key_share_ratio") == {}
    assert value(metrics, "hot_keys") == 0


def test_keys_can_be_left_out() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike")), metrics=Metrics(Exposure(keys=False)))

    labels = [sample.labels for family in exported(metrics) for sample in family.samples]
    assert not any("nike" in found.values() for found in labels)
    assert value(metrics, "hot_keys") == 1


def test_two_keys_that_read_alike_are_one_series() -> None:
    """Prometheus refuses a page with the same series twice, and all of it with it."""
    keys = (b"\xff", b"\\xff")
    metrics = watched(turn(table(*keys), *(verdict(key, share=0.4) for key in keys)))

    samples = [sample for family in exported(metrics) for sample in family.samples]
    names = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
    assert len(names) == len(set(names))
    assert series(metrics, "key_share_ratio") == {("\\xff",): 0.4}


def test_the_imbalance_is_told_as_it_is_and_as_it_would_be_with_every_key_plain() -> None:
    spread = memory([250, 250, 250, 250])
    nike = verdict(b"nike", share=0.8, rate=800)

    metrics = watched(turn(table(b"nike"), nike, summary=Summary(imbalance=1.0)), remembered=spread)

    assert value(metrics, "imbalance") == 1.0
    # 50 of each partition are of other keys; the home has nike's 800 beside them
    assert value(metrics, "imbalance_unspread") == pytest.approx(850 / 250)


def test_without_a_routed_key_both_imbalances_are_the_same() -> None:
    metrics = watched(turn(table(), summary=Summary(imbalance=2.0)), remembered=memory([0, 0, 500, 500]))

    assert value(metrics, "imbalance_unspread") == value(metrics, "imbalance")


def test_while_nothing_flows_there_is_no_imbalance() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike", rate=0)), remembered=memory([0, 0, 0, 0]))

    assert value(metrics, "imbalance") is None
    assert value(metrics, "imbalance_unspread") is None


@pytest.mark.parametrize(
    ("outcome", "published"),
    [
        pytest.param(turn(table()), 1, id="Redis holds it"),
        pytest.param(turn(table(), published=False), 0, id="Redis is away"),
        pytest.param(
            turn(table(epoch=7), applied=Applied(stored=StoredTable(table(epoch=8), "2"), published_epoch=8)),
            1,
            id="written and published now",
        ),
        pytest.param(
            turn(table(epoch=7), applied=Applied(stored=StoredTable(table(epoch=8), "2"), unpublished="no")),
            0,
            id="written, not published",
        ),
        pytest.param(turn(table(), applied=Applied(unwritten="no")), 0, id="not written"),
        pytest.param(turn(table(), applied=Applied(conflict="no")), 0, id="someone else wrote"),
        pytest.param(turn(None, ready=UNREADY), None, id="there is none"),
        pytest.param(Outcome(failure="no answer"), None, id="the object cannot be read"),
    ],
)
def test_whether_the_table_is_published_is_told(outcome: Outcome, published: float | None) -> None:
    assert value(watched(outcome), "table_published") == published


def test_a_policy_that_another_one_keeps_from_governing_publishes_nothing() -> None:
    outcome = turn(table(), reason=Reason.ANOTHER_POLICY, ready=UNREADY)
    assert outcome.observation is not None
    rival = replace(outcome, observation=replace(outcome.observation, rival="ads/older"))

    metrics = watched(rival)

    assert value(metrics, "table_published") is None
    assert value(metrics, "ready") == 0
    assert value(metrics, "hot_keys") == 0


def test_readiness_and_the_decision_are_told_by_reason() -> None:
    metrics = watched(turn(None, reason=Reason.TOPIC_NOT_FOUND, ready=UNREADY))

    assert value(metrics, "ready") == 0
    assert series(metrics, "decision") == {("TopicNotFound",): 1}
    assert series(metrics, "policy_info") == {("clicks",): 1}


@pytest.mark.parametrize(
    ("outcome", "reasons"),
    [
        (turn(table(), reason=Reason.NO_DOMINANT_KEY), {"NoDominantKey"}),
        (turn(table(), reason=Reason.STEADY), set()),
        (turn(table(b"nike"), verdict(b"nike"), reason=Reason.HOLDING), set()),
        (
            turn(table(b"nike"), verdict(b"nike"), verdict(b"a", reason=Reason.CANNOT_SPREAD)),
            {"CannotSpread"},
        ),
        (turn(table(), reason=Reason.SUSPENDED), set()),
        pytest.param(
            turn(table(b"nike"), replace(verdict(b"nike"), reason=Reason.CANNOT_SPREAD)),
            {"CannotSpread"},
            id="a key is spread as far as one value of it lets",
        ),
    ],
)
def test_skew_that_is_not_mended_is_told_by_reason(outcome: Outcome, reasons: set[str]) -> None:
    assert {reason for (reason,) in series(watched(outcome), "unmended")} == reasons


def test_every_refusal_of_the_engine_is_skew_that_is_not_mended_or_keeps_the_policy_from_governing() -> None:
    not_governing = {Reason.ANOTHER_POLICY, Reason.TOPIC_NOT_FOUND, Reason.KAFKA_UNAVAILABLE}

    assert REFUSALS - not_governing - UNMENDED == {Reason.SLOW_CONSUMER} & REFUSALS


def test_clients_and_lag_are_told() -> None:
    lags = (ConsumerLag("billing", 12.5, 3, 900), ConsumerLag("unknown"))
    figures = Summary(producers=40, producers_applied=37, consumers=5, consumers_applied=5, consumer_lag=lags)

    metrics = watched(turn(table(), summary=figures))

    assert series(metrics, "clients") == {("producer",): 40, ("consumer",): 5}
    assert series(metrics, "clients_applied") == {("producer",): 37, ("consumer",): 5}
    assert series(metrics, "consumer_group_lag_seconds") == {("billing",): 12.5}
    assert series(metrics, "consumer_group_lag_records") == {("billing",): 900}


def test_a_turn_that_could_not_read_the_truth_claims_nothing_of_it() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike")), Outcome(failure="no answer"))

    assert value(metrics, "ready") == 0
    assert value(metrics, "epoch") is None
    assert value(metrics, "hot_keys") is None
    assert series(metrics, "key_share_ratio") == {}


def test_the_last_turn_is_0_until_the_first_one_has_ended() -> None:
    metrics = Metrics()
    metrics.expect(CLICKS)
    assert value(metrics, "last_turn_timestamp_seconds") == 0

    metrics.observe(CLICKS, turn(table()), Memory(), took_seconds=0.1, now=AT + 1)
    assert value(metrics, "last_turn_timestamp_seconds") == AT + 1


def test_a_policy_that_is_gone_leaves_no_series() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike")), remembered=memory([1, 2, 3, 4]))
    metrics.expect(VIEWS)
    metrics.observe(VIEWS, turn(table()), Memory(), took_seconds=0.1, now=AT)
    metrics.failed(CLICKS)

    metrics.forget(CLICKS)

    labels = [sample.labels for family in exported(metrics) for sample in family.samples]
    assert {found["policy"] for found in labels if "policy" in found} == {"views"}


def test_moving_a_key_home_takes_no_more_from_a_partition_than_it_carries() -> None:
    """While records still follow an earlier table a partition may carry less than its slots say."""
    rates = memory([10, 10, 10, 970])
    metrics = watched(turn(table(b"nike"), verdict(b"nike", rate=990)), remembered=rates)

    found = value(metrics, "imbalance_unspread")

    assert partition_for(b"nike", 4) < 4
    assert found is not None
    assert found <= 4.0
