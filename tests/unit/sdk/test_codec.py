"""The table document: what is written is read back, and nothing that is wrong gets in."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hotkey_sdk.routing import codec
from hotkey_sdk.routing.codec import TableError, UnknownFeatureError
from hotkey_sdk.routing.table import Phase, RecordKey, Table
from tests.unit.sdk.tables import dedicated, route, table, tables


@given(tables())
def test_every_valid_table_is_read_back_as_it_was_written(written: Table) -> None:
    assert codec.decode(codec.encode(written)) == written
    assert codec.from_document(codec.to_document(written)) == written


@given(tables())
def test_the_bytes_are_canonical_json(written: Table) -> None:
    data = codec.encode(written)

    plain = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data == plain.encode()


def test_the_document_is_the_one_that_the_docs_show() -> None:
    document = codec.to_document(table(route(shards=2, slots=4), epoch=1790000001))

    assert document == {
        "schema": 1,
        "required": [],
        "clusterId": "cluster-1",
        "topic": "clicks",
        "partitions": 12,
        "epoch": 1790000001,
        "seed": 42,
        "readSet": ["clicks"],
        "dimensions": [
            {"name": "user_id", "jsonPath": "$.user_id"},
            {"name": "country_id", "header": "x-country"},
            {"name": "hour", "timeBucketSeconds": 3600},
        ],
        "routes": [
            {
                "key": "nike",
                "topic": "clicks",
                "by": ["user_id"],
                "recordKey": "Composite",
                "shards": [{"id": 10, "partition": 0}, {"id": 11, "partition": 1}],
                "slots": "AAEAAQ==",
            }
        ],
    }


@pytest.mark.parametrize("key", [b"", b"a:1", "é".encode(), b"x" * 10_000, b'"\\\n\x00'])
def test_a_key_that_is_text_stands_there_as_text(key: bytes) -> None:
    document = codec.to_document(table(route(key)))

    assert document["routes"][0]["key"] == key.decode()
    assert codec.from_document(document).route(key) is not None


def test_a_key_that_is_not_text_stands_there_in_base64() -> None:
    document = codec.to_document(table(route(b"\xff\x00")))

    assert document["routes"][0]["keyBase64"] == "/wA="
    assert codec.from_document(document).route(b"\xff\x00") is not None


@pytest.mark.parametrize(("shards", "width"), [(1, 1), (256, 1), (257, 2), (600, 2)])
def test_a_slot_takes_two_bytes_only_where_one_cannot_name_every_shard(shards: int, width: int) -> None:
    document = codec.to_document(table(route(shards=shards, slots=1024), partitions=1000))

    assert len(base64.b64decode(document["routes"][0]["slots"])) == 1024 * width


def test_fields_that_it_does_not_know_are_ignored() -> None:
    document = codec.to_document(table(route()))
    document["policyRef"] = {"name": "x"}
    document["routes"][0]["note"] = [1, 2]

    assert codec.from_document(document) == table(route())


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"required": ["fences"]}, {"schema": 2, "routes": "in a new form"}]
)
def test_a_table_that_needs_a_newer_reader_is_refused_as_that(change: dict[str, Any]) -> None:
    document = codec.to_document(table(route())) | change

    with pytest.raises(UnknownFeatureError, match="update hotkey_sdk"):
        codec.from_document(document)
    with pytest.raises(UnknownFeatureError):
        codec.decode(json.dumps(document).encode())


def set_in(document: dict[str, Any], path: str, value: object) -> None:
    """Set `routes.0.topic` and the like."""
    *parents, last = path.split(".")
    target: Any = document
    for name in parents:
        target = target[int(name)] if isinstance(target, list) else target[name]
    target[int(last) if isinstance(target, list) else last] = value


WRONG: list[tuple[str, object, str]] = [
    ("partitions", 0, "partitions"),
    ("partitions", 100_001, "partitions"),
    ("partitions", 3, "shard 13 is on partition 3"),
    ("partitions", True, "partitions"),
    ("partitions", 12.0, "partitions"),
    ("partitions", "12", "partitions"),
    ("partitions", None, "partitions"),
    ("epoch", -1, "epoch"),
    ("epoch", 2**53, "epoch"),
    ("epoch", 10**400, "epoch"),
    ("epoch", float("nan"), "epoch"),
    ("seed", 2**53, "seed"),
    ("seed", float("inf"), "seed"),
    ("clusterId", "", "clusterId"),
    ("clusterId", 7, "clusterId"),
    ("topic", "cli cks", "topic"),
    ("topic", "clicks\n", "topic"),
    ("topic", "x" * 250, "topic"),
    ("topic", "other", "readSet lacks the base topic other"),
    ("readSet", [], "readSet"),
    ("readSet", ["other"], "readSet lacks the base topic clicks"),
    ("readSet", ["clicks", "clicks"], "readSet holds clicks more than once"),
    ("readSet", {"clicks": 1}, "readSet"),
    ("dimensions.0.name", "hour", "dimensions holds hour more than once"),
    ("dimensions.2.timeBucketSeconds", 61, "timeBucketSeconds"),
    ("dimensions.2.timeBucketSeconds", 0, "timeBucketSeconds"),
    ("routes", {}, "routes"),
    ("routes.0", None, "routes"),
    ("routes.0.key", 3, "key"),
    ("routes.0.key", "\ud800", "key"),
    ("routes.0.keyBase64", "bmlrZQ==", "exactly one"),
    ("routes.0.topic", "clicks.hot.x", "is not in readSet"),
    ("routes.0.by", ["nobody"], "`by` names nobody"),
    ("routes.0.by", ["user_id", "user_id"], "by holds user_id more than once"),
    ("routes.0.by", "user_id", "by"),
    ("routes.0.recordKey", "Keep", "recordKey"),
    ("routes.0.shards", [], "shards"),
    ("routes.0.shards.1.id", 10, "shards holds 10 more than once"),
    ("routes.0.shards.1.id", -1, "id"),
    ("routes.0.shards.1.id", 2**31, "id"),
    ("routes.0.shards.1.partition", 12, "shard 11 is on partition 12"),
    ("routes.0.shards.1.partition", -1, "partition"),
    ("routes.0.slots", "", "0 slots"),
    ("routes.0.slots", "AAEA", "3 slots, expected a power of two"),
    ("routes.0.slots", "AAEABA==", "shard index 4, but it has 4"),
    ("routes.0.slots", "not base64!", "not base64"),
    ("routes.0.slots", "é", "not base64"),
    ("routes.0.slots", [0, 1], "slots"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=[f"{p}={v!r:.30}" for p, v, _ in WRONG])
def test_a_wrong_field_is_refused_with_its_name(path: str, value: object, words: str) -> None:
    document = codec.to_document(table(route()))
    set_in(document, path, value)

    with pytest.raises(TableError) as refused:
        codec.from_document(document)

    assert words in str(refused.value)


@pytest.mark.parametrize("field", ["schema", "clusterId", "topic", "partitions", "epoch", "seed", "readSet"])
def test_a_missing_field_is_refused_with_its_name(field: str) -> None:
    document = codec.to_document(table())
    del document[field]

    with pytest.raises(TableError, match=field):
        codec.from_document(document)


HOT = "clicks.hot.0a1b2c3d.g7"


def test_a_table_that_writes_to_a_dedicated_topic_needs_a_reader_that_knows_them() -> None:
    document = codec.to_document(table(route(topic=HOT)))

    assert document["required"] == ["dedicatedTopics"]
    assert document["dedicated"] == [
        {"name": HOT, "partitions": 12, "phase": "Active", "topicId": f"id-of-{HOT}", "key": "nike"}
    ]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ACTIVE])
def test_a_table_that_only_lists_dedicated_topics_is_for_every_reader(phase: Phase) -> None:
    listed = replace(table(route()), read_set=("clicks", HOT), topics=(dedicated(HOT, phase=phase),))

    document = codec.to_document(listed)

    assert document["required"] == []
    assert codec.from_document(document) == listed


WRONG_TOPICS: list[tuple[str, object, str]] = [
    ("dedicated", [], "neither the base topic nor in `dedicated`"),
    ("dedicated.0.phase", "Prepare", "only Active ones are written"),
    ("dedicated.0.phase", "Return", "only Active ones are written"),
    ("dedicated.0.phase", "Idle", "only Active ones are written"),
    ("dedicated.0.phase", "Gone", "phase"),
    ("dedicated.0.partitions", 3, "shard 13 is on partition 3, but clicks.hot.0a1b2c3d.g7 has 3"),
    ("dedicated.0.partitions", 0, "partitions"),
    ("dedicated.0.name", "clicks", "is the base topic"),
    ("dedicated.0.name", "clicks.hot.unread", "is not in readSet"),
    ("dedicated.0.topicId", "x" * 65, "topicId"),
    ("dedicated.0.keyBase64", "bmlrZQ==", "exactly one"),
    ("dedicated.0", None, "dedicated"),
]


@pytest.mark.parametrize(
    ("path", "value", "words"), WRONG_TOPICS, ids=[f"{p}={v!r:.30}" for p, v, _ in WRONG_TOPICS]
)
def test_a_table_that_is_wrong_about_dedicated_topics_is_refused(
    path: str, value: object, words: str
) -> None:
    document = codec.to_document(table(route(topic=HOT)))
    set_in(document, path, value)

    with pytest.raises(TableError) as refused:
        codec.from_document(document)

    assert words in str(refused.value)


def test_a_dedicated_topic_that_is_listed_twice_is_refused() -> None:
    document = codec.to_document(table(route(topic=HOT)))
    document["dedicated"] *= 2

    with pytest.raises(TableError, match=r"dedicated holds .* more than once"):
        codec.from_document(document)


@pytest.mark.parametrize("key", ["é", "bmlrZQ", "not base64!", "\ud800"])
def test_a_key_that_is_no_base64_is_refused_by_both_readers(key: str) -> None:
    document = codec.to_document(table(route()))
    del document["routes"][0]["key"]
    document["routes"][0]["keyBase64"] = key

    with pytest.raises(TableError, match="key"):
        codec.from_document(document)
    with pytest.raises(TableError):
        codec.decode(json.dumps(document).encode())


def test_two_routes_of_one_key_are_refused() -> None:
    document = codec.to_document(table(route()))
    twin = {**document["routes"][0], "keyBase64": "bmlrZQ=="}
    del twin["key"]
    document["routes"].append(twin)

    with pytest.raises(TableError, match="routes holds 'nike' more than once"):
        codec.from_document(document)


def test_long_keys_with_one_beginning_are_two_keys() -> None:
    both = table(route(b"x" * 500 + b"1"), route(b"x" * 500 + b"2"))

    assert codec.decode(codec.encode(both)) == both


def test_more_slots_than_allowed_are_refused() -> None:
    with pytest.raises(TableError, match="power of two of at most 65536"):
        codec.encode(table(route(slots=131_072)))


def test_a_writer_is_told_of_a_wrong_slot() -> None:
    wrong = table(route(shards=4, slots=4)).routes[0]

    for slots in ((0, 1, 2, 4), (0, 1, 2, 300), (0, 1, 2, -1)):
        with pytest.raises(TableError, match="nike"):
            codec.encode(
                table(type(wrong)(wrong.key, wrong.topic, (), RecordKey.PRESERVE, wrong.shards, slots))
            )


def test_a_table_over_the_limit_is_neither_written_nor_read() -> None:
    big = table(*(route(b"k%d" % number, shards=600, slots=1024) for number in range(40)), partitions=1000)

    with pytest.raises(TableError, match="at most 524288"):
        codec.encode(big)
    with pytest.raises(TableError, match="at most 524288"):
        codec.decode(b" " * (codec.MAX_TABLE_BYTES + 1))


@given(st.binary(max_size=200))
def test_any_bytes_at_all_are_a_table_error(data: bytes) -> None:
    with pytest.raises(TableError):
        codec.decode(data)


@pytest.mark.parametrize(
    "data", [b"[" * 300_000, b'{"schema":1,"x":' + b"[" * 300_000, b'{"schema":1,"x":' + b'{"a":' * 60_000]
)
def test_depth_is_bounded(data: bytes) -> None:
    with pytest.raises(TableError):
        codec.decode(data)


@given(data=st.data(), written=tables())
def test_a_damaged_table_is_a_table_error_or_another_valid_table(data: st.DataObject, written: Table) -> None:
    encoded = bytearray(codec.encode(written))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

    try:
        found = codec.decode(bytes(encoded))
    except TableError:
        return
    assert codec.decode(codec.encode(found)) == found


@given(tables(), st.integers(0, 5_000))
def test_a_truncated_table_is_refused(written: Table, length: int) -> None:
    encoded = codec.encode(written)

    with pytest.raises(TableError):
        codec.decode(encoded[: min(length, len(encoded) - 1)])
