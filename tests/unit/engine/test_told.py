"""What is told of a decision: what it rests on, takes and rejected, in the verdict and in the Event alike."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from hotkey_operator.engine.model import EmitEvent, KeyVerdict
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.wording import looked_for, rejections, sample
from hotkey_sdk.routing.partitioner import partition_for
from tests.unit.engine.stream import ModelStream, spec

HOT = {b"nike": 4_000.0, **{b"cold%d" % number: 10.0 for number in range(100)}}
BY_USER = {
    "dimensions": [{"name": "user_id", "from": {"jsonPath": "$.user_id"}}],
    "spread": {"by": [["user_id"]], "ordering": "PerDimension"},
}


def of_nike(verdicts: Sequence[KeyVerdict]) -> KeyVerdict:
    (found,) = [verdict for verdict in verdicts if verdict.key == b"nike"]
    return found


def spread(model: ModelStream) -> KeyVerdict:
    """Turn until the key is spread; the verdict of that turn."""
    for _ in range(10):
        if of := [verdict for verdict in model.turn().verdicts if verdict.reason is Reason.SPREAD]:
            return of_nike(of)
    pytest.fail(f"never spread: {model.decisions[-1]}")


def events(model: ModelStream) -> list[EmitEvent]:
    return [action for action in model.decisions[-1].actions if isinstance(action, EmitEvent)]


def test_a_verdict_carries_the_sample_of_the_partition_where_the_key_is_the_most() -> None:
    model = ModelStream(spec(), HOT)
    basis = spread(model).basis
    assert basis is not None
    assert basis.partition == partition_for(b"nike", model.partitions)
    assert (basis.records, basis.batches) == (400, 20)
    assert abs(basis.partition_share - 0.97) < basis.partition_share_error + 0.05
    assert 0 < basis.partition_share_error < 0.1
    assert 0 <= basis.age_seconds < 15


def test_the_event_of_a_spread_tells_of_the_sample_and_of_what_was_rejected() -> None:
    model = ModelStream(spec(**BY_USER), HOT, users={b"nike": 1_000})
    verdict = spread(model)
    (event,) = events(model)
    assert verdict.basis is not None
    assert event.message.startswith(model.decisions[-1].message)
    assert sample(verdict.basis) in event.message
    assert rejections(verdict.rejected) in event.message
    assert {"leave it plain", "give it a topic of its own"} <= {each.option for each in verdict.rejected}
    assert verdict.cost is not None
    assert verdict.cost.order == "order is kept per user_id"
    assert verdict.cost.partitions > 1
    assert verdict.cost.slots_moved > 0.5


def test_a_key_that_is_left_plain_tells_why_a_spread_was_rejected() -> None:
    model = ModelStream(spec(**BY_USER), HOT)  # records carry no user_id
    for _ in range(6):
        model.turn()
    verdict = of_nike(model.decisions[-1].verdicts)
    assert verdict.reason is Reason.DIMENSIONS_NOT_VISIBLE
    assert Reason.DIMENSIONS_NOT_VISIBLE in {each.reason for each in verdict.rejected}
    assert "looked for at $.user_id of the JSON payload" in verdict.message
    assert verdict.cost is not None
    assert (verdict.cost.order, verdict.cost.slots_moved) == ("order per key is kept", 0.0)


def test_that_no_evidence_can_be_had_is_a_warning_once_that_names_what_to_set() -> None:
    model = ModelStream(spec(metrics={"sampling": False}), HOT)
    told = []
    for _ in range(6):
        model.turn()
        told += [event for event in events(model) if event.reason is Reason.NOT_SAMPLED]
    (event,) = told
    assert event.warning
    assert "set hotkey.report.keys on the producers" in event.message
    assert model.decisions[-1].reason is Reason.NOT_SAMPLED


def test_where_a_dimension_was_looked_for_is_said_of_each_kind() -> None:
    declared = spec(
        dimensions=[
            {"name": "user", "from": {"header": "x-user"}},
            {"name": "hour", "timeBucket": {"width": "1h"}},
            {"name": "ad"},
        ]
    ).dimensions
    assert looked_for(declared, ("user", "hour", "ad")) == (
        "user: looked for in the header x-user; hour: from the record's time; "
        "ad: the policy names no place of it"
    )


@pytest.mark.parametrize(
    ("trigger", "told"),
    [
        ({"recordsPerSecond": 1_000}, r"takes 4,\d{3} records/s of 1,000 allowed, \d\.\d times the mean;"),
        (
            {"recordsPerSecond": 1_000, "skew": {"ratio": 2.5}},
            r"takes 4,\d{3} records/s of 1,000 allowed, \d\.\d times the mean \(2\.5 allowed\);",
        ),
        (
            {"bytesPerSecond": 250_000},
            r"takes 4,\d{3} records/s \(0\.4\d MB/s of 0\.25 allowed\), \d\.\d times the mean;",
        ),
    ],
    ids=["records", "skew", "bytes"],
)
def test_what_a_partition_takes_stands_beside_what_the_trigger_allows(
    trigger: dict[str, object], told: str
) -> None:
    model = ModelStream(spec(trigger=trigger), HOT)
    spread(model)
    assert re.search(told, model.decisions[-1].message), model.decisions[-1].message


def test_while_no_sample_comes_it_is_not_said_that_no_key_is_big_enough_although_one_is_spread() -> None:
    cold = {b"cold%d" % number: 10.0 for number in range(300)}
    model = ModelStream(spec(trigger={"recordsPerSecond": 100}), {**cold, b"nike": 4_000.0}, partitions=48)
    spread(model)
    model.silent = True
    found = [model.turn() for _ in range(25)]
    assert model.table.route(b"nike") is not None
    assert Reason.SAMPLING in {decision.reason for decision in found}
    assert Reason.NO_DOMINANT_KEY not in {decision.reason for decision in found}
