"""The suite of the stores must find a store that breaks an invariant: each of these breaks one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.store import Keeping, Store
from tests.contract.aggregator import test_store as suite
from tests.contract.aggregator.broken_stores import (
    FirstLastStore,
    ForgetfulStore,
    ForgivingStore,
    HastyStore,
    UncomparingStore,
)
from tests.contract.aggregator.flushes import OpenStore

Failed = (AssertionError, pytest.fail.Exception)


def opener(kind: type[DuckDBStore], folder: Path) -> OpenStore:
    def open_store(keeping: Keeping | None = None) -> Store:
        return kind(folder / "counts.duckdb", keeping)

    return open_store


def now() -> int:
    return int(time.time() * 1000)


def given_open(test: Callable[..., None], *arguments: Any) -> Callable[[OpenStore], None]:
    return lambda open_store: test(open_store, *arguments)


def given_store(test: Callable[..., None], *arguments: Any) -> Callable[[OpenStore], None]:
    return lambda open_store: test(open_store(), *arguments)


FINDERS: dict[type[DuckDBStore], Callable[[OpenStore], None]] = {
    UncomparingStore: given_store(suite.test_a_flush_that_expects_another_offset_is_refused_whole, 1),
    ForgetfulStore: given_open(suite.test_what_was_committed_is_there_after_opening_again),
    FirstLastStore: given_store(suite.test_of_clicks_with_one_id_in_a_flush_the_first_counts),
    HastyStore: given_store(suite.test_an_id_is_found_within_the_horizon_and_forgotten_after_it, now()),
    ForgivingStore: given_open(
        suite.test_windows_past_their_retention_are_dropped_and_their_clicks_still_told, now()
    ),
}


@pytest.mark.parametrize("broken", FINDERS, ids=lambda kind: kind.__name__)
def test_a_store_that_breaks_an_invariant_is_found(broken: type[DuckDBStore], tmp_path: Path) -> None:
    finder = FINDERS[broken]
    (tmp_path / "sound").mkdir()
    finder(opener(DuckDBStore, tmp_path / "sound"))

    with pytest.raises(Failed):
        finder(opener(broken, tmp_path))
