"""The routing table as an object: the codec's document fits, what would break an invariant does not."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from msgspec.structs import replace

from hotkey_sdk.routing.codec import encode, from_document, to_document
from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
)
from tests.chart.commands import Program
from tests.stack.crds.conftest import Admit, Document, document

STREAM = Stream("cluster", "clicks")


def route(key: bytes, shards: int = 3, slots: int = 8) -> Route:
    ids = tuple(Shard(id=100 + i, partition=i % 12) for i in range(shards))
    return Route(
        key, "clicks", ("user_id",), RecordKey.COMPOSITE, ids, tuple(i % shards for i in range(slots))
    )


def table(*routes: Route, epoch: int = 1_790_000_001) -> Table:
    dimensions = (
        Dimension("user_id", header="x-user", json_path="$.user_id"),
        Dimension("hour", time_bucket_seconds=3_600),
    )
    return Table(STREAM, 12, epoch, 2**53 - 1, ("clicks",), dimensions, routes)


HOT = "clicks.hot.0a1b2c3d.g7"


def with_dedicated(phase: Phase, *routes: Route, key: bytes | None = b"nike") -> Table:
    topic = DedicatedTopic(HOT, 12, phase, "AAAAAAAAAAAAAAAAAAAAAQ", key)
    return replace(table(*routes), read_set=("clicks", HOT), topics=(topic,))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(Table.empty(STREAM, partitions=12, epoch=1, seed=0), id="no routes"),
        pytest.param(table(route(b"nike")), id="one route"),
        pytest.param(table(route(b"\xff\x00"), route(b"a:1")), id="a key that is no text"),
        pytest.param(table(route(b"")), id="an empty key"),
        pytest.param(table(route(b"k" * 10_000)), id="a long key"),
        pytest.param(
            table(*(route(b"%d" % i) for i in range(256))), id="as many routes as a policy may have"
        ),
        pytest.param(table(route(b"nike", shards=1024, slots=4096)), id="as many shards as a key may have"),
        pytest.param(
            with_dedicated(Phase.ACTIVE, replace(route(b"nike"), topic=HOT)), id="a dedicated topic"
        ),
        pytest.param(with_dedicated(Phase.IDLE, route(b"nike"), key=None), id="an idle topic"),
    ],
)
def test_a_table_is_stored_word_for_word(admit: Admit, given: Table) -> None:
    written = encode(given)

    admitted = admit("routingtables", json.loads(written))

    assert admitted == json.loads(written)
    assert isinstance(admitted, dict)
    assert from_document(admitted) == given


def changed(**changes: Any) -> dict[str, Any]:
    return {**to_document(table(route(b"nike"))), **changes}


ONE = to_document(table(route(b"nike")))["routes"][0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param(
            changed(readSet=["other"]), "the read set must contain the base topic", id="base unread"
        ),
        pytest.param(changed(readSet=[]), "spec.readSet", id="nothing read"),
        pytest.param(
            changed(routes=[{**ONE, "topic": "clicks.hot"}]),
            "a route writes to a topic that is not in the read set",
            id="a route to where nobody reads",
        ),
        pytest.param(
            changed(readSet=["clicks", HOT], routes=[{**ONE, "topic": HOT}]),
            "neither the base topic nor an active dedicated one",
            id="a route to a topic that is not listed",
        ),
        pytest.param(
            changed(
                readSet=["clicks", HOT],
                routes=[{**ONE, "topic": HOT}],
                dedicated=[{"name": HOT, "partitions": 12, "phase": "Prepare"}],
            ),
            "neither the base topic nor an active dedicated one",
            id="a route to a topic that consumers may not follow yet",
        ),
        pytest.param(
            changed(dedicated=[{"name": HOT, "partitions": 12, "phase": "Idle"}]),
            "a dedicated topic is not in the read set",
            id="a dedicated topic that nobody reads",
        ),
        pytest.param(
            changed(partitions=2), "a shard's partition is outside of the base topic", id="partition outside"
        ),
        pytest.param(changed(epoch=0), "spec.epoch", id="no epoch"),
        pytest.param(changed(seed=2**53), "spec.seed", id="a seed that JSON readers would round"),
        pytest.param(
            changed(routes=[{**ONE, "keyBase64": "bmlrZQ=="}]),
            "exactly one of key and keyBase64",
            id="two keys",
        ),
        pytest.param(changed(routes=[{**ONE, "shards": []}]), "shards", id="no shard"),
        pytest.param(changed(routes=[ONE] * 257), "Too many", id="too many routes"),
    ],
)
def test_a_table_that_would_break_an_invariant_is_refused(admit: Admit, spec: Document, message: str) -> None:
    answer = admit("routingtables", spec)

    assert isinstance(answer, str), f"admitted: {answer}"
    assert message in answer


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        pytest.param({"epoch": 8}, True, id="a higher epoch"),
        pytest.param({"epoch": 7}, True, id="the same epoch"),
        pytest.param({"epoch": 6}, False, id="a lower epoch"),
        pytest.param(
            {"epoch": 6, "topic": "other", "readSet": ["other"], "routes": []}, True, id="another stream"
        ),
    ],
)
def test_the_epoch_of_a_stream_only_grows(kubectl: Program, change: Document, taken: bool) -> None:
    name = f"epochs-{random.Random(str(change)).getrandbits(32):x}"
    first = document("routingtables", name, changed(epoch=7))
    kubectl("apply", "-f", "-", stdin=json.dumps(first))

    printed = kubectl.run(
        "apply", "-f", "-", stdin=json.dumps({**first, "spec": {**first["spec"], **change}})
    )

    assert (printed.code == 0) is taken, printed
    assert taken or "the epoch of a stream's table only grows" in printed.err
