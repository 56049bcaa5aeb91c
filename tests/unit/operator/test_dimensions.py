"""Dimensions of sampled records: a small JSONPath, headers, time; what cannot be read is absent."""

from __future__ import annotations

import pytest

from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord, parse_json_path
from hotkey_sdk.routing.table import Dimension

PATHS: dict[str, tuple[str | int, ...]] = {
    "$": (),
    "$.user_id": ("user_id",),
    "$.a.b[0]": ("a", "b", 0),
    "$['a b'].c": ("a b", "c"),
    '$["x.y"][12]': ("x.y", 12),
    "$.ключ": ("ключ",),
}
WRONG_PATHS = (
    "",
    "user_id",
    "$user",
    "$.",
    "$..a",
    "$.a[*]",
    "$.a[-1]",
    "$.a[1:2]",
    "$[?(@.x)]",
    "$.a b",
    "$.a[",
)


@pytest.mark.parametrize("path", list(PATHS))
def test_a_path_is_members_and_indices(path: str) -> None:
    assert parse_json_path(path) == PATHS[path]


@pytest.mark.parametrize("path", WRONG_PATHS)
def test_a_path_beyond_the_subset_is_refused_and_named(path: str) -> None:
    with pytest.raises(ValueError, match="jsonPath"):
        parse_json_path(path)


VALUES: dict[str, tuple[bytes | None, str, dict[str, str]]] = {
    "text": (b'{"a": "x"}', "$.a", {"d": "x"}),
    "empty text": (b'{"a": ""}', "$.a", {"d": ""}),
    "a number": (b'{"a": 42}', "$.a", {"d": "42"}),
    "nested": (b'{"a": {"b": [1, {"c": "y"}]}}', "$.a.b[1].c", {"d": "y"}),
    "null": (b'{"a": null}', "$.a", {}),
    "an object": (b'{"a": {}}', "$.a", {}),
    "missing": (b"{}", "$.a", {}),
    "an index of no list": (b'{"a": "x"}', "$.a[0]", {}),
    "an index too high": (b'{"a": []}', "$.a[0]", {}),
    "a member of a list": (b"[]", "$.a", {}),
    "no value": (None, "$.a", {}),
}


@pytest.mark.parametrize("case", list(VALUES))
def test_a_json_dimension_is_one_value_as_text(case: str) -> None:
    value, path, expected = VALUES[case]
    reader = DimensionReader([Dimension("d", json_path=path)])
    assert reader.read(RawRecord(value, [], None)) == expected
    assert reader.undecodable == 0


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a": 1} x'])
def test_a_payload_that_is_no_json_is_counted_and_nothing_else_is_lost(value: bytes) -> None:
    reader = DimensionReader([Dimension("d", json_path="$.a"), Dimension("h", header="x")])
    assert reader.read(RawRecord(value, [("x", b"1")], None)) == {"h": "1"}
    assert reader.undecodable == 1


def test_payloads_are_not_decoded_where_no_dimension_needs_it() -> None:
    reader = DimensionReader([Dimension("h", header="x")])
    assert reader.read(RawRecord(b"\xff", [], None)) == {}
    assert reader.undecodable == 0


def test_of_several_headers_of_a_name_the_last_counts() -> None:
    reader = DimensionReader([Dimension("h", header="x")])
    assert reader.read(RawRecord(None, [("x", b"1"), ("y", b"2"), ("x", b"3")], None)) == {"h": "3"}


def test_a_header_without_a_value_is_absent() -> None:
    assert DimensionReader([Dimension("h", header="x")]).read(RawRecord(None, [("x", None)], None)) == {}
