"""What is counted: turns, Events, failures, samples and what a change took."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hotkey_operator import __version__
from hotkey_operator.act.executor import Applied
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Cost, EmitEvent, PartitionSample, SampledRecord, StoredTable
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.loop import Outcome
from hotkey_operator.metrics import Metrics
from hotkey_sdk.routing.partitioner import partition_for
from tests.unit.observability.turns import (
    AT,
    CLICKS,
    exported,
    series,
    table,
    turn,
    value,
    verdict,
    watched,
    written,
)

OPERATIONS = Path(__file__).parents[3] / "docs/operations.md"


def test_turns_are_counted_by_the_reason_of_the_decision_or_of_its_absence() -> None:
    metrics = watched(
        turn(table(), reason=Reason.STEADY),
        turn(table(), reason=Reason.STEADY),
        Outcome(failure="no answer"),
        Outcome(mistake="spec.topic: missing"),
    )

    assert series(metrics, "turns_total") == {
        ("Steady",): 2,
        ("KubernetesUnavailable",): 1,
        ("InvalidSpec",): 1,
    }
    assert value(metrics, "turn_seconds_count") == 4


def test_counters_that_tell_of_trouble_begin_at_0() -> None:
    """Else the first failure would not be seen as an increase."""
    metrics = Metrics()
    metrics.expect(CLICKS)

    assert value(metrics, "turn_errors_total") == 0
    assert set(series(metrics, "publish_failures_total").values()) == {0}
    assert value(metrics, "events_total", reason="Spread") == 0


def test_events_and_errors_are_counted() -> None:
    told = Applied(events=(EmitEvent(Reason.SPREAD, ""), EmitEvent(Reason.CANNOT_SPREAD, "")))
    metrics = watched(turn(table(), applied=told))
    metrics.failed(CLICKS)

    assert value(metrics, "events_total", reason="Spread") == 1
    assert value(metrics, "events_total", reason="CannotSpread") == 1
    assert value(metrics, "turn_errors_total") == 1


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (turn(table(), applied=Applied(conflict="no")), "TableConflict"),
        (turn(table(), applied=Applied(unwritten="no")), "KubernetesUnavailable"),
        (turn(table(), applied=Applied(unpublished="no")), "RedisUnavailable"),
        (turn(table(), published=False), "RedisUnavailable"),
        (turn(table()), None),
        (turn(None, published=False), None),
    ],
)
def test_a_table_that_does_not_arrive_is_counted_by_reason(outcome: Outcome, reason: str | None) -> None:
    counts = series(watched(outcome), "publish_failures_total")

    assert {name for (name,), count in counts.items() if count} == ({reason} if reason else set())


def test_what_samples_took_is_counted() -> None:
    runs = ((SampledRecord(b"nike", 100), SampledRecord(b"puma", 50)), (SampledRecord(None, 7),))
    outcome = turn(table())
    assert outcome.observation is not None
    samples = (PartitionSample(3, runs, bytes_read=40_000), PartitionSample(1, (), bytes_read=2))

    metrics = watched(replace(outcome, observation=replace(outcome.observation, samples=samples)))

    assert value(metrics, "sampled_records_total") == 3
    assert value(metrics, "sampled_bytes_total") == 40_002


def test_the_time_from_the_trigger_to_the_published_table_is_measured_for_a_key_that_is_spread() -> None:
    outcome = written(table(epoch=7), table(b"nike", epoch=8), verdict(b"nike", reason=Reason.SPREAD))
    hot = Memory(over_since={partition_for(b"nike", 4): AT - 1.7, 99: AT - 50})

    metrics = watched(outcome, remembered=hot)

    assert value(metrics, "trigger_to_publish_seconds_count") == 1
    assert value(metrics, "trigger_to_publish_seconds_sum") == pytest.approx(1.7)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(written(table(b"nike", epoch=7), table(b"nike", epoch=8)), id="it was routed before"),
        pytest.param(
            turn(
                table(epoch=7),
                applied=Applied(
                    stored=StoredTable(table(b"nike", epoch=8), "2"), unpublished="Redis is away"
                ),
            ),
            id="it is not published",
        ),
        pytest.param(turn(table(b"nike")), id="nothing was written"),
    ],
)
def test_no_time_is_measured_where_no_new_route_was_published(outcome: Outcome) -> None:
    hot = Memory(over_since=dict.fromkeys(range(4), AT - 1.7))

    assert not value(watched(outcome, remembered=hot), "trigger_to_publish_seconds_count")


def test_the_part_of_the_slots_that_a_change_moved_is_measured_once() -> None:
    moved = replace(verdict(b"nike", reason=Reason.RESPREAD), cost=Cost("none", 4, 0.25))
    stayed = replace(verdict(b"puma"), cost=Cost("none", 4, 1.0))
    keys = (b"nike", b"puma")
    change = written(table(*keys, epoch=7), table(*keys, epoch=8), moved, stayed, reason=Reason.RESPREAD)

    metrics = watched(change, turn(table(*keys, epoch=8), moved, stayed))

    assert value(metrics, "slots_moved_ratio_count") == 1
    assert value(metrics, "slots_moved_ratio_sum") == 0.25


def test_the_version_and_what_could_not_be_read_are_told_without_any_policy() -> None:
    metrics = Metrics()
    metrics.sampling(undecodable=lambda: 3, cut=lambda: 2)
    metrics.reports(left_out=lambda: 5)

    assert series(metrics, "build_info") == {(__version__,): 1}
    assert value(metrics, "undecodable_records_total") == 3
    assert value(metrics, "samples_cut_total") == 2
    assert value(metrics, "key_reports_left_out_total") == 5


def test_two_in_one_process_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.expect(CLICKS)

    assert value(second, "turn_errors_total") is None


def test_the_operations_page_lists_every_metric_and_no_other() -> None:
    made = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in exported(Metrics())
        if family.name.startswith("hotkey_")
    }
    rows = re.findall(r"^\| `(hotkey_operator_\w+)(?:\{[^}]*\})?` \|", OPERATIONS.read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(made)


def test_the_operations_page_says_what_to_do_for_each_reason() -> None:
    page = OPERATIONS.read_text()
    rows = re.findall(
        r"^\| (`.*?) \|", page[page.index("### Reasons") : page.index("### Metrics")], re.MULTILINE
    )

    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(Reason)


def test_the_operations_page_names_the_labels_of_each_metric() -> None:
    metrics = watched(turn(table(b"nike"), verdict(b"nike"), reason=Reason.NO_DOMINANT_KEY))
    rows = dict(
        re.findall(r"^\| `(hotkey_operator_\w+)(?:\{([^}]*)\})?` \|", OPERATIONS.read_text(), re.MULTILINE)
    )

    for family in exported(metrics):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            if name in rows:
                labels = {*sample.labels} - {"namespace", "policy", "le"}
                assert labels == {label.strip() for label in rows[name].split(",") if label}, name
