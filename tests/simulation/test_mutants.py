"""Every invariant has mutants, every mutant a test that exists; those that show soon are found in every run.

`make mutants` looks for all of them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hotkey_operator.engine import dedicated, dedication
from tests.simulation.mutants.__main__ import main
from tests.simulation.mutants.catalogue import MUTANTS
from tests.simulation.mutants.hunt import hunt
from tests.simulation.mutants.mutant import INVARIANTS, Mutant, everywhere
from tests.simulation.mutants.table import BEGIN, DOCS, END

ROOT = Path(__file__).parents[2]
SOON = {
    "base-left-out-of-read-set": 3,
    "identity-from-the-key": 3,
    "random-shards": 6,
}  # seeds that are enough


def named(mutant: Mutant) -> str:
    return mutant.name


def test_each_of_the_twelve_invariants_has_a_mutant_that_the_simulation_finds() -> None:
    seeded = {mutant.invariant for mutant in MUTANTS.values() if mutant.seeded is not None}

    assert seeded == set(INVARIANTS)


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=named)
def test_the_plain_test_of_a_mutant_exists(mutant: Mutant) -> None:
    file, _, name = mutant.test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))

    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.partition("[")[0] in tests


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=named)
def test_a_mutant_is_found_by_the_simulation_or_says_why_not(mutant: Mutant) -> None:
    assert bool(mutant.unseen) is (mutant.seeded is None)


def test_a_mutant_breaks_the_product_only_while_it_is_entered() -> None:
    real = dedicated.readers
    users = [vars(module) for module in (dedicated, dedication)]

    with everywhere(real, lambda *_: None):
        assert not any(names["readers"] is real for names in users)

    assert all(names["readers"] is real for names in users)


@pytest.mark.parametrize(("name", "seeds"), SOON.items())
def test_a_mutant_that_shows_soon_is_found(name: str, seeds: int) -> None:
    found = hunt(name, range(seeds))

    assert found is not None, f"none of {seeds} seeds shows {name}: make mutants MUTANTS={name} looks further"


def test_the_docs_have_a_line_for_each_mutant_and_say_what_it_breaks() -> None:
    page = DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if "`" in line]

    assert lines == [[str(m.invariant), f"`{m.name}`", m.breaks] for m in MUTANTS.values()], (
        "run: make mutants DOCS=1"
    )
    assert "NOT found" not in page


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_every_mutant_is_found_and_by_its_plain_test_too() -> None:
    assert main([]) == 0
