"""All mutants, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.mutants import of_the_clients, of_the_operator, of_the_sink
from tests.simulation.mutants.mutant import Mutant

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant
    for mutant in sorted(
        (*of_the_operator.MUTANTS, *of_the_clients.MUTANTS, *of_the_sink.MUTANTS),
        key=lambda mutant: mutant.invariant,
    )
}
