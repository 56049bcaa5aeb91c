"""A policy's spec: its defaults, its mistakes by field, and what of it is not carried out yet."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.spec import (
    Limits,
    Mode,
    Ordering,
    Release,
    Skew,
    SpecError,
    Trigger,
    parse_spec,
    seconds,
    unsupported_fields,
)
from hotkey_sdk.routing.table import Dimension

USER = {"name": "user_id", "from": {"jsonPath": "$.user_id"}}


def test_a_topic_alone_is_a_policy_with_both_default_thresholds() -> None:
    spec = parse_spec({"topic": "clicks"})
    assert spec.trigger == Trigger(1_000.0, 1_000_000.0, None, 1.0)
    assert spec.release == Release(0.5, 60.0)
    assert spec.limits == Limits(32, 512, 12)
    assert (spec.mode, spec.suspend, spec.spread.by) == (Mode.AUTOMATIC, False, ())
    assert unsupported_fields(spec) == ()


def test_one_threshold_alone_turns_the_other_off() -> None:
    assert parse_spec({"topic": "t", "trigger": {"recordsPerSecond": 5}}).trigger.bytes_per_second is None
    assert parse_spec({"topic": "t", "trigger": {"bytesPerSecond": 5}}).trigger.records_per_second is None


def test_a_skew_alone_keeps_both_default_thresholds() -> None:
    trigger = parse_spec({"topic": "t", "trigger": {"skew": {"ratio": 3}}}).trigger
    assert trigger == Trigger(1_000.0, 1_000_000.0, Skew(3.0, 100.0))


def test_dimensions_say_where_records_carry_them() -> None:
    spec = parse_spec(
        {
            "topic": "t",
            "dimensions": [
                USER,
                {"name": "country", "from": {"header": "x-country"}},
                {"name": "hour", "timeBucket": {"width": "1h"}},
                {"name": "day", "timeBucket": {"width": "1d"}},
                {"name": "told"},
            ],
            "spread": {"by": [["user_id"], ["user_id", "hour"]], "ordering": "PerDimension"},
        }
    )
    assert spec.dimensions == (
        Dimension("user_id", json_path="$.user_id"),
        Dimension("country", header="x-country"),
        Dimension("hour", time_bucket_seconds=3_600),
        Dimension("day", time_bucket_seconds=86_400),
        Dimension("told"),
    )
    assert spec.spread.by == (("user_id",), ("user_id", "hour"))
    assert spec.spread.ordering is Ordering.PER_DIMENSION


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no topic": ({}, "`topic`"),
    "an empty topic": ({"topic": ""}, "spec.topic"),
    "a number for a topic": ({"topic": 5}, "spec.topic"),
    "an unknown field": ({"topic": "t", "tropic": 1}, "tropic"),
    "an unknown mode": ({"topic": "t", "mode": "Fast"}, "spec.mode"),
    "a negative threshold": ({"topic": "t", "trigger": {"recordsPerSecond": -1}}, "recordsPerSecond"),
    "no number": ({"topic": "t", "trigger": {"recordsPerSecond": float("nan")}}, "recordsPerSecond"),
    "infinity": ({"topic": "t", "trigger": {"bytesPerSecond": float("inf")}}, "bytesPerSecond"),
    "a duration that no number holds": (
        {"topic": "t", "release": {"for": "9" * 5_000 + "h"}},
        "spec.release.for",
    ),
    "a width that no number holds": (
        {"topic": "t", "dimensions": [{"name": "a", "timeBucket": {"width": "9" * 5_000 + "d"}}]},
        "spec.dimensions[0].timeBucket.width",
    ),
    "a bad duration": ({"topic": "t", "trigger": {"for": "1 second"}}, "spec.trigger.for"),
    "a release above the trigger": ({"topic": "t", "release": {"ratio": 1.5}}, "spec.release.ratio"),
    "too many hot keys": ({"topic": "t", "limits": {"maxHotKeys": 257}}, "spec.limits.maxHotKeys"),
    "an unknown rung": ({"topic": "t", "spread": {"by": [["user"]]}}, "spec.spread.by[0]"),
    "an empty rung": ({"topic": "t", "spread": {"by": [[]]}}, "spec.spread.by[0]"),
    "order without rungs": ({"topic": "t", "spread": {"ordering": "PerDimension"}}, "spec.spread.by"),
    "a dimension twice": ({"topic": "t", "dimensions": [USER, USER]}, "spec.dimensions"),
    "a rung twice the same": (
        {"topic": "t", "dimensions": [USER], "spread": {"by": [["user_id", "user_id"]]}},
        "spec.spread.by[0]",
    ),
    "two places": (
        {"topic": "t", "dimensions": [{"name": "a", "from": {"header": "h", "jsonPath": "$.a"}}]},
        "spec.dimensions[0].from",
    ),
    "a bucket of seconds": (
        {"topic": "t", "dimensions": [{"name": "a", "timeBucket": {"width": "90s"}}]},
        "spec.dimensions[0].timeBucket.width",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_by_its_field(case: str) -> None:
    spec, field = MISTAKES[case]
    with pytest.raises(SpecError) as error:
        parse_spec(spec)
    assert field in str(error.value)


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "spec.clusterRef": {"clusterRef": {"name": "main"}},
    "spec.mode: Propose": {"mode": "Propose"},
    "spec.overrides": {"overrides": [{"key": "nike", "pin": {"shards": 8}}]},
}


@pytest.mark.parametrize("field", UNSUPPORTED)
def test_what_is_not_carried_out_yet_is_named(field: str) -> None:
    assert unsupported_fields(parse_spec({"topic": "t", **UNSUPPORTED[field]})) == (field,)


def test_lag_is_carried_out_but_where_rates_come_from_producers() -> None:
    asked = {"topic": "t", "trigger": {"lagSeconds": 30}, "consumers": {"groups": ["g"], "ignore": ["h"]}}
    assert unsupported_fields(parse_spec(asked)) == ()
    told = unsupported_fields(parse_spec({**asked, "metrics": {"source": "Producers"}}))
    assert "spec.trigger.lagSeconds with metrics.source Producers" in told


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("1s", 1.0), ("1m30s", 90.0), ("2h", 7_200.0), ("0s", 0.0)]
)
def test_durations_are_seconds(text: str, expected: float) -> None:
    assert seconds(text, "spec.x") == expected


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["topic", "mode", "trigger", "release", "spread", "limits", "dimensions", "overrides", "consumers"]


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_whatever_stands_in_a_spec_it_is_a_value_or_a_spec_error(spec: dict[str, Any]) -> None:
    with contextlib.suppress(SpecError):
        parse_spec(spec)
