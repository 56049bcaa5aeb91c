"""The proof finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.load.journal import Journal
from tests.soak.proof import Proof, prove

RUN = "s1"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """Of producer 0 three clicks are sent and two acknowledged, of producer 2 one and one."""
    for producer, sent, acked in ((0, 3, (0, 2)), (2, 1, (0,))):
        journal = Journal(tmp_path, producer)
        journal.will_send(sent)
        for number in acked:
            journal.acked(number)
        journal.write()
    return tmp_path


@pytest.mark.parametrize(
    ("counted", "lost", "doubled", "unknown"),
    [
        pytest.param(["s1-0-0", "s1-0-2", "s1-2-0"], 0, 0, 0, id="all acknowledged"),
        pytest.param(["s1-0-0", "s1-0-1", "s1-0-2", "s1-2-0"], 0, 0, 0, id="all sent"),
        pytest.param(["s1-0-0", "s1-2-0"], 1, 0, 0, id="one is lost"),
        pytest.param(["s1-0-0", "s1-0-2", "s1-0-2", "s1-2-0"], 0, 1, 0, id="one is there twice"),
        pytest.param(["s1-0-0", "s1-0-2", "s1-2-0", "s1-0-3"], 0, 0, 1, id="one was never sent"),
        pytest.param(["s1-0-0", "s1-0-2", "s1-2-0", "s2-0-1"], 0, 0, 1, id="one of another run"),
        pytest.param(["s1-0-0", "s1-0-2", "s1-2-0", "nike"], 0, 0, 1, id="one that is no id of a run"),
        pytest.param(["s1-0-0", "s1-0-2", "s1-2-0", "s1-1-0"], 0, 0, 1, id="of no producer"),
    ],
)
def test_what_is_lost_there_twice_or_unknown_is_found(
    journals: Path, counted: list[str], lost: int, doubled: int, unknown: int
) -> None:
    found = prove(RUN, journals, (0, 2), counted)

    assert found == Proof(3, len(counted), lost, doubled, unknown, found.named)
    assert len(found.named) == lost + doubled + unknown
