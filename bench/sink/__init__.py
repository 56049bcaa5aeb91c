"""What it costs to count a click: CPU seconds per million events, from the broker to committed rows.

Every row reads the very same records. A topic is filled before anything is measured; then each row in turn
reads all of it; then the topic is emptied and filled anew. Stores that hold ids already go on in the next
round with what they hold; those that begin with none are new each round.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from bench.part import Goal, Run
from bench.sink.laboratory import Laboratory, Plan
from bench.sink.watching import Measure

CORE_GOALS = {"duckdb": 350_000, "postgres": 150_000}  # events/s per core
MEMORY_GOAL = 1_000.0  # MB


class Sinks(msgspec.Struct, frozen=True):
    """All that was measured. `missing`: why a row was not. `value_bytes`: mean size of a record's value."""

    plan: Plan
    measures: list[Measure]
    missing: dict[str, str]
    value_bytes: float
    quix: str | None

    def of(self, row: str) -> list[Measure]:
        """A row's rounds."""
        return [measure for measure in self.measures if measure.row == row]

    def cost(self, row: str) -> float:
        """CPU seconds per million events: the median of the rounds."""
        return statistics.median(measure.steady.cpu_per_million for measure in self.of(row))

    @property
    def rows(self) -> list[str]:
        """Those that were measured, in the order of the table."""
        return [row for row in self.plan.rows if self.of(row)]


def measure(run: Run) -> Sinks:
    """All rows, or few and small ones."""
    return sinks(run, Plan.quick() if run.quick else Plan())


def sinks(run: Run, plan: Plan) -> Sinks:
    """Measure what the plan says."""
    with Laboratory(run, plan) as laboratory:
        return Sinks(plan, laboratory.measures(), laboratory.missing, laboratory.value_bytes, laboratory.quix)


def goals(result: Sinks) -> Sequence[Goal]:
    """Each row of hotkey's."""
    found = []
    for row in result.rows:
        store = row.partition("-")[0]
        if store in CORE_GOALS:
            name = names(result.plan)[row]
            found.append(
                Goal(f"{name}, CPU per million events", result.cost(row), 1e6 / CORE_GOALS[store], "s")
            )
            peak = max(measure.peak_megabytes for measure in result.of(row))
            found.append(Goal(f"{name}, most memory", peak, MEMORY_GOAL, "MB"))
    return found


def names(plan: Plan) -> dict[str, str]:
    """What each row is called in the report."""
    stores = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
    found = {}
    for row in plan.rows:
        if (store := row.partition("-")[0]) in stores:
            found[row] = f"hotkey, {stores[store]}, {plan.ids(row):,} ids there"
    return {
        **found,
        "plain": "confluent-kafka + json + dict",
        "plain-ids": "the same with a set of ids",
        "quix": "Quix Streams",
    }


def section(result: Sinks) -> str:
    """The figures for people."""
    rows = [_row(result, row) for row in result.rows]
    return "\n".join(
        [
            "## Counting clicks\n",
            "| | CPU s per million | events/s per core | events/s here | most memory, MB |",
            "|---|---|---|---|---|",
            *rows,
            *(f"\n{names(result.plan)[row]} was not measured: {why}." for row, why in result.missing.items()),
        ]
    )


def _row(result: Sinks, row: str) -> str:
    found = result.of(row)
    costs = [each.steady.cpu_per_million for each in found]
    cost = result.cost(row)
    wall = statistics.median(each.steady.per_wall_second for each in found)
    spread = f" ({min(costs):.2f} to {max(costs):.2f})" if len(costs) > 1 else ""
    peak = max(each.peak_megabytes for each in found)
    return (
        f"| {names(result.plan)[row]} | {cost:.2f}{spread} | {1e6 / cost:,.0f} | {wall:,.0f} | {peak:,.0f} |"
    )
