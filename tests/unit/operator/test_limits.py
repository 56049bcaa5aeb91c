"""A table's limits stand in three places: the policy that asks, the object that holds, the codec that reads.

What one accepts the next must accept, or a policy that the API server takes could never be carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from hotkey_operator.engine import spec
from hotkey_sdk.routing import codec

CRDS = Path(__file__).parents[3] / "crds"
Schema = Mapping[str, Any]
Bounds = Mapping[str, float]

POLICY_TO_TABLE = {
    "topic": "topic",
    "dimensions": "dimensions",
    "dimensions[].name": "dimensions[].name",
    "dimensions[].from.header": "dimensions[].header",
    "dimensions[].from.jsonPath": "dimensions[].jsonPath",
    "spread.by[]": "routes[].by",
    "spread.by[][]": "routes[].by[]",
    "limits.maxHotKeys": "routes",
    "limits.maxShardsPerKey": "routes[].shards",
}


def resource(name: str) -> dict[str, Bounds]:
    """The bounds of each field of a custom resource's `spec`, by its path."""
    (version,) = yaml.safe_load((CRDS / name).read_text())["spec"]["versions"]
    return dict(fields(version["schema"]["openAPIV3Schema"]["properties"]["spec"], {}, ""))


def reader(document: type) -> dict[str, Bounds]:
    """Those of a document that a program reads."""
    schema = msgspec.json.schema(document)
    return dict(fields(schema, schema["$defs"], ""))


def fields(schema: Schema, named: Mapping[str, Schema], path: str) -> Iterator[tuple[str, Bounds]]:
    if "$ref" in schema:
        schema = named[schema["$ref"].rsplit("/", 1)[1]]
    for either in schema.get("anyOf", ()):
        if either.get("type") != "null":
            yield from fields(either, named, path)
    if "anyOf" in schema:
        return
    yield path, bounds(schema)
    for name, child in schema.get("properties", {}).items():
        yield from fields(child, named, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from fields(schema["items"], named, f"{path}[]")


def bounds(schema: Schema) -> Bounds:
    """The least and the most: of a number itself, of a text's length, of a list's."""
    most = [schema[key] for key in ("maximum", "maxLength", "maxItems") if key in schema]
    if "exclusiveMaximum" in schema and schema["type"] == "integer":
        most.append(schema["exclusiveMaximum"] - 1)
    least = [schema[key] for key in ("minimum", "minLength", "minItems") if key in schema]
    return {"max": min(most, default=float("inf")), "min": max(least, default=float("-inf"))}


def too_narrow(asked: Mapping[str, Bounds], answers: Mapping[str, Bounds]) -> list[str]:
    return [
        f"{path}: {dict(asked[path])} is asked, {dict(answers[path])} is taken"
        for path in sorted(asked.keys() & answers.keys())
        if asked[path]["max"] > answers[path]["max"] or asked[path]["min"] < answers[path]["min"]
    ]


def test_the_operator_reads_every_policy_that_the_api_server_accepts() -> None:
    policy = resource("hotkeypolicies.yaml")
    assert too_narrow(policy, reader(spec._Policy)) == []
    assert "dimensions[].from.header" in policy.keys() & reader(spec._Policy).keys()


def test_the_codec_reads_every_table_that_the_api_server_accepts() -> None:
    table, read = resource("routingtables.yaml"), reader(codec._Document)
    assert too_narrow(table, read) == []
    assert {"dimensions[].header", "routes[].shards[].id", "partitions"} <= table.keys() & read.keys()


@pytest.mark.parametrize("field", POLICY_TO_TABLE)
def test_what_a_policy_may_ask_for_the_table_can_hold(field: str) -> None:
    asked, held = resource("hotkeypolicies.yaml"), resource("routingtables.yaml")
    most = {field: asked[field]["max"]}
    assert most[field] <= held[POLICY_TO_TABLE[field]]["max"], field


@pytest.mark.parametrize("field", ["dimensions[].from.header", "spread.by[]", "limits.maxShardsPerKey"])
def test_the_operator_refuses_what_the_api_server_does(field: str) -> None:
    """An object may be older than the schema."""
    assert reader(spec._Policy)[field]["max"] <= resource("hotkeypolicies.yaml")[field]["max"]
