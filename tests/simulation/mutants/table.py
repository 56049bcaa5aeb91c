"""What was found, as a table for people; docs/invariants.md holds the last one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutants.hunt import Found, Tested, command_of
from tests.simulation.mutants.mutant import Mutant

DOCS = Path(__file__).parents[3] / "docs" / "invariants.md"
BEGIN, END = "<!-- mutants: make mutants DOCS=1 -->", "<!-- end of the mutants -->"
WORDS = 110


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one mutant. `seeds`: those that were to be tried."""

    mutant: Mutant
    tested: Tested
    found: Found | None
    seeds: range

    @property
    def is_found(self) -> bool:
        """Whether all that has to find it did."""
        return self.tested.failed and (self.mutant.seeded is None or self.found is not None)

    @property
    def after(self) -> int:
        """So many seeds were run until it was found."""
        last = self.seeds.stop - 1 if self.found is None else self.found.seed
        return self.mutant.seeded.run(range(self.seeds.start, last + 1)) if self.mutant.seeded else 0


def as_text(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    return "\n".join(["", *(_paragraph(row) for row in rows), ""])


def _paragraph(row: Row) -> str:
    mutant = row.mutant
    lines = [f"{mutant.name} (invariant {mutant.invariant}): {mutant.breaks}"]
    bias = f", {mutant.seeded.bias}" if mutant.seeded and mutant.seeded.bias else ""
    if mutant.seeded is None:
        lines.append(f"  simulation: not asked, as {mutant.unseen}")
    elif row.found is None:
        lines.append(f"  simulation: NOT found in {row.after} seeds{bias}")
    else:
        lines.append(
            f"  simulation: seed {row.found.seed}, after {row.after} seeds{bias}: {_short(row.found.problem)}"
        )
        lines.append(f"  again:      {command_of(mutant, row.found.seed)}")
    verb = "fails" if row.tested.failed else "does NOT fail"
    lines.append(f"  test:       {mutant.test} {verb}: {_short(row.tested.words)}")
    return "\n".join(lines)


def _short(words: str) -> str:
    return textwrap.shorten(words, WORDS, placeholder=" ...")


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows for a page."""
    head = "| | mutant | breaks | seeds run (bias) | what the simulation said | plain test that failed |"
    return "\n".join([head, "|---|---|---|---|---|---|", *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    mutant = row.mutant
    seeds, said = "", f"not asked: {mutant.unseen}"
    if mutant.seeded is not None:
        bias = f" ({mutant.seeded.bias})" if mutant.seeded.bias else ""
        seeds, said = f"{row.after}{bias}", _short(row.found.problem) if row.found else "NOT found"
    name = mutant.test.rpartition("::")[2] or mutant.test
    cells = (str(mutant.invariant), f"`{mutant.name}`", mutant.breaks, seeds, said, f"`{name}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_docs(rows: Sequence[Row]) -> None:
    """Put the rows between the marks of the page."""
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n\n{as_markdown(rows)}\n\n{END}{after}", encoding="utf-8")
