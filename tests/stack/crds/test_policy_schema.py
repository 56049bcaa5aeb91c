"""Which policies the API server takes, what it makes of them, and what it says to the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hotkey_operator.adapters.dimensions import parse_json_path
from hotkey_operator.engine.spec import parse_spec
from tests.chart.commands import Program
from tests.stack.crds.conftest import NAMESPACE, Admit, Document, document

USER = {"name": "user_id", "from": {"jsonPath": "$.user_id"}}
COUNTRY = {"name": "country_id", "from": {"header": "x-country"}}
HOUR = {"name": "hour", "timeBucket": {"width": "1h"}}

VALID: dict[str, Document] = {
    "a topic alone": {},
    "a topic and a rate": {"trigger": {"recordsPerSecond": 500}},
    "a topic and a byte rate": {"trigger": {"bytesPerSecond": 5_000_000}},
    "skew with a floor": {"trigger": {"skew": {"ratio": 2.5, "floorRecordsPerSecond": 10}}},
    "durations of several units": {"trigger": {"for": "1m30s"}, "release": {"for": "1h30m"}},
    "no waiting": {"trigger": {"for": "0s"}, "release": {"for": "0s"}},
    "observe only": {"mode": "Observe"},
    "suspended": {"suspend": True},
    "two rungs": {
        "dimensions": [USER, COUNTRY],
        "spread": {"by": [["user_id"], ["user_id", "country_id"]], "ordering": "PerDimension"},
    },
    "a dimension that only the producer knows": {"dimensions": [{"name": "tenant"}]},
    "a nested field": {"dimensions": [{"name": "c", "from": {"jsonPath": "$.geo.country"}}]},
    "a field of an odd name": {
        "dimensions": [{"name": "c", "from": {"jsonPath": "$['geo data'][\"x.y\"].z"}}],
    },
    "an element of a list": {"dimensions": [{"name": "c", "from": {"jsonPath": "$.ids[0]"}}]},
    "time buckets": {
        "dimensions": [
            HOUR,
            {"name": "q", "timeBucket": {"width": "15m"}},
            {"name": "d", "timeBucket": {"width": "1d"}},
        ]
    },
    "keys preserved": {"spread": {"recordKey": "Preserve"}},
    "the smallest limits": {"limits": {"maxHotKeys": 1, "maxShardsPerKey": 1, "changesPerMinute": 1}},
    "the largest limits": {"limits": {"maxHotKeys": 256, "maxShardsPerKey": 1024, "changesPerMinute": 600}},
    "rates from Prometheus": {
        "metrics": {
            "source": "Prometheus",
            "prometheus": {
                "url": "http://prometheus:9090",
                "query": 'kminion_kafka_topic_partition_high_water_mark{topic_name="clicks"}',
                "partitionLabel": "partition_id",
                "sizeQuery": 'kafka_log_size{topic="clicks"}',
            },
        }
    },
    "lag as a trigger": {"trigger": {"lagSeconds": 30}, "consumers": {"groups": ["billing"]}},
    "what is not yet carried out": {
        "clusterRef": {"name": "main"},
        "mode": "Propose",
        "spread": {"ordering": "PerKey"},
        "dedicatedTopic": {"enabled": True, "warm": 1, "partitions": 24},
        "consumers": {"groups": ["billing"], "ignore": ["console"]},
        "metrics": {"source": "Producers", "sampling": False},
        "overrides": [{"key": "nike", "pin": {"shards": 8}}, {"key": "x", "exclude": True}],
    },
}

INVALID: dict[str, tuple[Document, str]] = {
    "no topic": ({"topic": None}, "spec.topic: Required value"),
    "an empty topic": ({"topic": ""}, "spec.topic"),
    "a topic that Kafka would refuse": ({"topic": "clicks/today"}, "topic must be a Kafka topic name"),
    "a topic of dots": ({"topic": ".."}, "topic must be a Kafka topic name"),
    "a topic that is too long": ({"topic": "t" * 250}, "Too long"),
    "a mode that there is not": ({"mode": "Auto"}, 'supported values: \\"Automatic\\"'),
    "a misspelt field": (
        {"trigger": {"recordPerSecond": 5}},
        'unknown field \\"spec.trigger.recordPerSecond',
    ),
    "a rate of nothing": ({"trigger": {"recordsPerSecond": 0}}, "spec.trigger.recordsPerSecond"),
    "a byte rate below nothing": ({"trigger": {"bytesPerSecond": -1}}, "spec.trigger.bytesPerSecond"),
    "a rate in words": ({"trigger": {"recordsPerSecond": "many"}}, "must be of type integer"),
    "a skew of perfect balance": ({"trigger": {"skew": {"ratio": 1}}}, "skew.ratio must be above 1"),
    "a skew without its ratio": ({"trigger": {"skew": {}}}, "spec.trigger.skew.ratio: Required value"),
    "a skew floor below nothing": (
        {"trigger": {"skew": {"ratio": 2, "floorRecordsPerSecond": -1}}},
        "floorRecordsPerSecond",
    ),
    "a trigger time without a unit": ({"trigger": {"for": "10"}}, "trigger.for must be a duration"),
    "a trigger time in days": ({"trigger": {"for": "1d"}}, "trigger.for must be a duration"),
    "a trigger time of hours": ({"trigger": {"for": "2h"}}, "trigger.for must be a duration of at most 1h"),
    "Prometheus without a query": (
        {"metrics": {"source": "Prometheus"}},
        "metrics.prometheus with url and query is needed",
    ),
    "a lag of nothing": ({"trigger": {"lagSeconds": 0}}, "spec.trigger.lagSeconds"),
    "a release time below nothing": ({"release": {"for": "-5s"}}, "release.for must be a duration"),
    "a release time of days": ({"release": {"for": "25h"}}, "release.for must be a duration of at most 24h"),
    "a release at the trigger": ({"release": {"ratio": 1}}, "release.ratio must be above 0 and below 1"),
    "a release above the trigger": ({"release": {"ratio": 1.5}}, "a key is released below the trigger"),
    "a release at nothing": ({"release": {"ratio": 0}}, "release.ratio must be above 0 and below 1"),
    "a dimension without a name": ({"dimensions": [{}]}, "spec.dimensions[0].name: Required value"),
    "a dimension's name with a blank": ({"dimensions": [{"name": "user id"}]}, "spec.dimensions[0].name"),
    "two dimensions of one name": (
        {"dimensions": [USER, {"name": "user_id", "from": {"header": "x-user"}}]},
        "spec.dimensions[1]: Duplicate value",
    ),
    "too many dimensions": ({"dimensions": [{"name": f"d{i}"} for i in range(17)]}, "Too many"),
    "a dimension from two places": (
        {"dimensions": [{"name": "u", "from": {"jsonPath": "$.u", "header": "x-u"}}]},
        "exactly one of from.jsonPath and from.header",
    ),
    "a dimension from nowhere": (
        {"dimensions": [{"name": "u", "from": {}}]},
        "exactly one of from.jsonPath and from.header",
    ),
    "a dimension from a field and the clock": (
        {"dimensions": [{**USER, "timeBucket": {"width": "1h"}}]},
        "dimension user_id has both from and timeBucket",
    ),
    "a path that is none": (
        {"dimensions": [{"name": "u", "from": {"jsonPath": "user"}}]},
        "jsonPath must be $ and then members or indices",
    ),
    "a path of many values": (
        {"dimensions": [{"name": "u", "from": {"jsonPath": "$.users[*].id"}}]},
        "jsonPath must be $ and then members or indices",
    ),
    "a path of the whole payload": (
        {"dimensions": [{"name": "u", "from": {"jsonPath": "$"}}]},
        "jsonPath must be",
    ),
    "a bucket of seconds": (
        {"dimensions": [{"name": "s", "timeBucket": {"width": "90s"}}]},
        "width must be whole minutes, hours or days",
    ),
    "a bucket of nothing": (
        {"dimensions": [{"name": "s", "timeBucket": {"width": "0h"}}]},
        "width must be whole",
    ),
    "a bucket of years": ({"dimensions": [{"name": "s", "timeBucket": {"width": "367d"}}]}, "at most 366d"),
    "a rung of an unknown dimension": (
        {"dimensions": [USER], "spread": {"by": [["user_id"], ["country_id"]]}},
        "spread.by names a dimension that spec.dimensions does not declare",
    ),
    "an empty rung": ({"dimensions": [USER], "spread": {"by": [[]]}}, "spec.spread.by[0]"),
    "a rung with one dimension twice": (
        {"dimensions": [USER], "spread": {"by": [["user_id", "user_id"]]}},
        "spec.spread.by[0][1]: Duplicate value",
    ),
    "an order without dimensions": (
        {"spread": {"ordering": "PerDimension"}},
        "ordering PerDimension needs at least one rung in spread.by",
    ),
    "an ordering that there is not": ({"spread": {"ordering": "Strict"}}, "supported values"),
    "no hot keys at all": ({"limits": {"maxHotKeys": 0}}, "spec.limits.maxHotKeys"),
    "too many hot keys": ({"limits": {"maxHotKeys": 257}}, "should be less than or equal to 256"),
    "too many shards": ({"limits": {"maxShardsPerKey": 1025}}, "should be less than or equal to 1024"),
    "an override that says nothing": ({"overrides": [{"key": "x"}]}, "exactly one of pin and exclude"),
    "an override that says two things": (
        {"overrides": [{"key": "x", "pin": {"shards": 2}, "exclude": True}]},
        "exactly one of pin and exclude",
    ),
    "two overrides of one key": (
        {"overrides": [{"key": "x", "exclude": True}, {"key": "x", "pin": {"shards": 2}}]},
        "spec.overrides[1]: Duplicate value",
    ),
    "a source that there is not": ({"metrics": {"source": "Datadog"}}, "supported values"),
}


def written(changes: Document) -> dict[str, Any]:
    """A spec as a person writes it; None leaves a field out."""
    return {name: value for name, value in {"topic": "clicks", **changes}.items() if value is not None}


@pytest.mark.parametrize("changes", VALID.values(), ids=VALID)
def test_a_valid_policy_is_admitted_and_means_the_same_with_its_defaults(
    admit: Admit, changes: Document
) -> None:
    spec = written(changes)

    admitted = admit("hotkeypolicies", spec)

    assert isinstance(admitted, dict), admitted
    assert parse_spec(admitted) == parse_spec(spec)
    for dimension in parse_spec(admitted).dimensions:
        assert dimension.json_path is None or parse_json_path(dimension.json_path)


@pytest.mark.parametrize(("changes", "message"), INVALID.values(), ids=INVALID)
def test_an_invalid_policy_is_refused_with_a_sentence(admit: Admit, changes: Document, message: str) -> None:
    answer = admit("hotkeypolicies", written(changes))

    assert isinstance(answer, str), f"admitted: {answer}"
    assert message in answer


def test_the_thresholds_have_no_default_of_their_own_so_that_one_alone_switches_the_other_off(
    admit: Admit,
) -> None:
    admitted = admit("hotkeypolicies", written({"trigger": {"bytesPerSecond": 7}}))

    assert isinstance(admitted, dict), admitted
    assert admitted["trigger"] == {"bytesPerSecond": 7, "for": "1s"}


def test_the_largest_policy_is_within_the_cost_budget(admit: Admit) -> None:
    names = [f"{'d' * 60}{i:03}" for i in range(16)]
    rungs = [names[i : i + 8] for i in range(8)]
    spec = {
        "dimensions": [{"name": n, "from": {"header": "h" * 249}} for n in names],
        "spread": {"by": rungs},
    }

    admitted = admit("hotkeypolicies", written(spec))

    assert isinstance(admitted, dict), admitted


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        pytest.param('{"spec":{"topic":"other"}}', 1, "topic is immutable", id="another topic"),
        pytest.param('{"spec":{"topic":"fixed"}}', 0, "", id="the same topic"),
        pytest.param('{"spec":{"suspend":true}}', 0, "", id="another field"),
    ],
)
def test_only_the_topic_of_a_policy_is_fixed(kubectl: Program, change: str, code: int, message: str) -> None:
    policy = json.dumps(document("hotkeypolicies", "fixed", {"topic": "fixed"}))
    kubectl("apply", "-f", "-", stdin=policy)

    printed = kubectl.run("patch", "hkp", "fixed", "-n", NAMESPACE, "--type=merge", "-p", change)

    assert (printed.code, message in printed.err) == (code, True), printed
