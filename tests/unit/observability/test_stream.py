"""What is exported of a stream that the real engine governs, beside what the stream really does."""

from __future__ import annotations

import pytest

from hotkey_operator.act.executor import Applied
from hotkey_operator.engine.model import Observation, Published, TopicFacts
from hotkey_operator.engine.rates import imbalance
from hotkey_operator.loop import Outcome
from hotkey_operator.metrics import Metrics
from hotkey_sdk.routing.partitioner import partition_for
from tests.unit.engine.stream import STREAM, ModelStream, spec
from tests.unit.observability.turns import CLICKS, series, value

RATES = {b"nike": 8_000.0} | {b"key-%d" % number: 20.0 for number in range(100)}


def spread() -> ModelStream:
    """A stream whose hot key was spread a good minute ago."""
    model = ModelStream(spec(trigger={"recordsPerSecond": 2_000}), RATES)
    model.turns(80)
    assert [route.key for route in model.table.routes] == [b"nike"]
    return model


def told(model: ModelStream) -> Metrics:
    """The metrics after one more turn."""
    decision = model.turn()
    assert model.stored is not None
    seen = Observation(
        at=model.at,
        topic=TopicFacts(STREAM, model.partitions, compacted=False),
        stored=model.stored,
        published=Published(True, model.published),
    )
    metrics = Metrics()
    outcome = Outcome(seen, decision, Applied())
    metrics.observe(CLICKS, outcome, model.memory, took_seconds=0.1, now=model.at)
    return metrics


def test_the_imbalance_with_every_key_plain_is_what_the_stream_had_before() -> None:
    model = spread()
    plain = [0.0] * model.partitions
    for key, rate in RATES.items():
        plain[partition_for(key, model.partitions)] += rate

    metrics = told(model)

    assert value(metrics, "imbalance_unspread") == pytest.approx(imbalance(plain), rel=0.1)
    assert value(metrics, "imbalance") == pytest.approx(model.imbalance(), rel=0.1)
    assert value(metrics, "key_stray_ratio", key="nike") == 0


def test_a_key_that_producers_send_as_before_is_told_by_the_part_that_does_not_follow() -> None:
    model = spread()
    model.plain = {b"nike": 0.3}
    model.turns(20)

    metrics = told(model)

    assert value(metrics, "key_stray_ratio", key="nike") == pytest.approx(0.3, abs=0.1)
    assert series(metrics, "keys")[("PartialAdoption",)] == 1
