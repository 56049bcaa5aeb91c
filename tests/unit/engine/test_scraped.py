"""Rates that are scraped are old: no decision is taken on those from before the last change."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, TopicFacts
from hotkey_operator.engine.rates import History
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import parse_spec
from hotkey_sdk.routing.table import Stream, Table

STREAM = Stream("cluster", "clicks")
CHANGED = 1_000.0
SPEC = parse_spec({"topic": "clicks"})


def is_settling(at: float, *scrapes: float) -> bool:
    """Whether the effect of a change at `CHANGED` is still out of sight at `at`, after these scrapes."""
    history = History.of(*(EndOffsets(scrape, (int(10 * scrape), int(scrape))) for scrape in scrapes))
    memory = Memory(history=history, changed_at={b"nike": CHANGED})
    table = Table.empty(STREAM, partitions=2, epoch=1, seed=1)
    s = Situation.of(SPEC, at, TopicFacts(STREAM, 2, compacted=False), table, memory)
    return s.is_settling(b"nike")


@pytest.mark.parametrize(
    ("at", "scrapes", "expected"),
    [
        (1_002.0, (970.0, 985.0, 1_000.0), True),
        (1_010.0, (970.0, 985.0, 1_000.0), True),
        (1_016.0, (985.0, 1_000.0, 1_015.0), True),
        (1_031.0, (1_000.0, 1_015.0, 1_030.0), False),
        (1_005.0, tuple(range(995, 1_006)), False),
    ],
    ids=["at once", "before the next scrape", "over the change", "after it", "every second"],
)
def test_a_change_settles_once_a_whole_measurement_lies_after_it(
    at: float, scrapes: tuple[float, ...], expected: bool
) -> None:
    assert is_settling(at, *scrapes) is expected
