"""The proof of exactly-once and the journals that it rests on."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.load.journal import Journal, acked_count, acked_numbers, sent_end
from examples.load.proof import prove, wrong_cells

SENT = {"r-0-0", "r-0-1", "r-0-2"}
ACKED = {"r-0-0", "r-0-1"}


@pytest.mark.parametrize("counted", [["r-0-0", "r-0-1"], ["r-0-0", "r-0-1", "r-0-2"]])
def test_the_proof_holds_with_or_without_what_was_sent_but_not_acknowledged(counted: list[str]) -> None:
    assert prove(SENT, ACKED, counted).holds


@pytest.mark.parametrize(
    ("counted", "wrong"),
    [
        (["r-0-0"], ("r-0-1", "lost")),
        (["r-0-0", "r-0-1", "r-0-1"], ("r-0-1", "doubled")),
        (["r-0-0", "r-0-1", "r-0-9"], ("r-0-9", "unknown")),
        (["r-0-0", "r-0-2", "r-0-2"], ("r-0-1", "lost")),
    ],
)
def test_the_proof_names_every_click_that_stands_wrong(counted: list[str], wrong: tuple[str, str]) -> None:
    proof = prove(SENT, ACKED, counted)
    name, kind = wrong
    assert not proof.holds
    assert name in getattr(proof, kind)
    assert f"1 {kind} (such as {name})" in str(proof)


def test_a_loss_that_a_double_hides_in_the_total_is_found() -> None:
    proof = prove(SENT, ACKED, ["r-0-1", "r-0-1"])
    assert proof.counted == proof.acked
    assert (proof.lost, proof.doubled) == (("r-0-0",), ("r-0-1",))


def test_cells_that_differ_are_named_with_both_figures() -> None:
    expected = {("nike", 0): 3, ("puma", 0): 1}
    counted = {("nike", 0): 2, ("puma", 0): 1, ("asics", 0): 1}
    assert wrong_cells(expected, counted) == {("nike", 0): (3, 2), ("asics", 0): (0, 1)}


def test_a_journal_tells_what_may_have_been_sent_and_what_was_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 3)
    journal.will_send(5)
    journal.will_send(9)
    for number in (0, 2, 1):
        journal.acked(number)
    journal.write()
    assert sent_end(tmp_path, 3) == 9
    assert list(acked_numbers(tmp_path, 3)) == [0, 2, 1]
    assert acked_count(tmp_path, 3) == 3


def test_an_answer_is_not_in_the_journal_before_it_is_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.acked(7)
    assert list(acked_numbers(tmp_path, 0)) == []


def test_a_journal_that_was_torn_by_a_kill_is_read_up_to_its_last_whole_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.will_send(5)
    journal.acked(1)
    journal.write()
    for kind in ("sent", "acked"):
        with (tmp_path / f"producer-0.{kind}").open("ab") as file:
            file.write(b"\x07\x00")
    assert sent_end(tmp_path, 0) == 5
    assert list(acked_numbers(tmp_path, 0)) == [1]


def test_a_producer_that_never_began_sent_nothing(tmp_path: Path) -> None:
    assert (sent_end(tmp_path, 0), acked_count(tmp_path, 0)) == (0, 0)


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    Journal(tmp_path, 0)
    with pytest.raises(FileExistsError):
        Journal(tmp_path, 0)
