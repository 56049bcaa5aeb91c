"""Which store a text names, and what of it may be told."""

from __future__ import annotations

import pytest

from hotkey_aggregator.stores import StoreAddress


@pytest.mark.parametrize(
    ("text", "shared", "shown"),
    [
        ("duckdb:clicks.duckdb", False, "duckdb:clicks.duckdb"),
        ("duckdb:/data/a b@c.duckdb", False, "duckdb:/data/a b@c.duckdb"),
        ("postgresql://h/db", True, "postgresql://h/db"),
        ("postgres://me:secret@h:5432/db?sslmode=require", True, "postgresql://h:5432/db"),
        ("postgresql://me:se@cret@h:5432/db?password=secret", True, "postgresql://h:5432/db"),
    ],
)
def test_a_store_is_named_by_a_text_and_told_without_its_secrets(text: str, shared: bool, shown: str) -> None:
    address = StoreAddress(text)
    assert (address.mistake, address.is_shared, address.shown) == (None, shared, shown)


@pytest.mark.parametrize("text", ["", "clicks.duckdb", "duckdb:", "mysql://me:secret@h/db", "postgresql:h"])
def test_what_names_no_store_is_a_mistake_that_tells_no_secret(text: str) -> None:
    mistake = StoreAddress(text).mistake
    assert mistake is not None
    assert "expected duckdb:PATH or postgresql://" in mistake
    assert "secret" not in mistake
