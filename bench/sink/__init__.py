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
from bench.sink.events import ADS_EACH, ADVERTISERS, COMPRESSION, HOT_ADS, HOT_SHARE
from bench.sink.laboratory import PARTITIONS, SETTINGS, Laboratory, Plan
from bench.sink.watching import Measure

CORE_GOALS = {"duckdb": 350_000, "postgres": 150_000}  # events/s per core
STORES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
MEMORY_GOAL = 1_000.0  # MB


class Sinks(msgspec.Struct, frozen=True):
    """All that was measured. `missing`: why a row was not. `value_bytes`: mean size of a record's value.
    `quix`: the version of Quix Streams."""

    plan: Plan
    measures: list[Measure]
    missing: dict[str, str]
    value_bytes: float
    quix: str | None

    @property
    def rows(self) -> list[str]:
        """Those that were measured, in the order of the table."""
        return [row for row in self.plan.rows if self.of(row)]

    def of(self, row: str) -> list[Measure]:
        """A row's rounds."""
        return [measure for measure in self.measures if measure.row == row]

    def cost(self, row: str) -> float:
        """CPU seconds per million events: the median of the rounds."""
        return statistics.median(measure.steady.cpu_per_million for measure in self.of(row))

    def peak(self, row: str) -> float:
        """MB: the most of all rounds."""
        return max(measure.peak_megabytes for measure in self.of(row))

    def upkeep(self) -> float | None:
        """CPU seconds per million events that PostgreSQL's upkeep takes; None where it was not measured."""
        found = [each.upkeep / each.events * 1e6 for each in self.measures if each.upkeep is not None]
        return statistics.median(found) if found else None

    def name(self, row: str) -> str:
        """What it is called in the report."""
        if (store := row.partition("-")[0]) in STORES:
            return f"hotkey, {STORES[store]}, {self.plan.ids(row):,} ids there"
        return {
            "quix": f"Quix Streams{f' {self.quix}' if self.quix else ''}",
            "plain": "confluent-kafka, `json`, dict",
            "plain-ids": "the same with a `set` of ids",
        }[row]


def measure(run: Run) -> Sinks:
    """All rows, or few and small ones."""
    return sinks(run, Plan.quick() if run.quick else Plan())


def sinks(run: Run, plan: Plan) -> Sinks:
    """Measure what the plan says."""
    with Laboratory(run, plan) as laboratory:
        measures = laboratory.measures()
        return Sinks(plan, measures, laboratory.missing, laboratory.value_bytes, laboratory.quix)


def goals(result: Sinks) -> Sequence[Goal]:
    """CPU and memory of each row of hotkey's."""
    found = []
    for row in result.rows:
        if per_core := CORE_GOALS.get(row.partition("-")[0]):
            name = result.name(row)
            found.append(Goal(f"{name}, CPU per million events", result.cost(row), 1e6 / per_core, "s"))
            found.append(Goal(f"{name}, most memory", result.peak(row), MEMORY_GOAL, "MB"))
    return found


def section(result: Sinks) -> str:
    """The figures for people."""
    peers = [row for row in ("quix", "plain-ids") if result.of(row)]
    heads = [
        "",
        "CPU s per million (range)",
        "events/s per core",
        "events/s by the clock",
        "most memory, MB",
        *(f"CPU against {_short(peer)}" for peer in peers),
    ]
    return "\n".join(
        [
            "## Counting clicks\n",
            _how(result),
            "",
            f"| {' | '.join(heads)} |",
            f"|---{'|---:' * (len(heads) - 1)}|",
            *(_row(result, row, peers) for row in result.rows),
            *(f"\n{result.name(row)} was not measured: {why}." for row, why in result.missing.items()),
            "",
            _what(result),
        ]
    )


def _short(peer: str) -> str:
    return {"quix": "Quix Streams", "plain-ids": "the dict with ids"}[peer]


def _how(result: Sinks) -> str:
    plan, settings = result.plan, ", ".join(f"`{setting}`" for setting in SETTINGS)
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    return (
        f"`python -m bench sink`: {plan.count:,} clicks a round in a topic of {PARTITIONS} partitions, "
        f"{HOT_SHARE:.0%} of one advertiser with {HOT_ADS} ads and spread over all partitions, the others "
        f"of {ADVERTISERS:,} with {ADS_EACH} ads each; JSON of {result.value_bytes:.0f} bytes with a "
        f"random UUID as id, sent with {COMPRESSION}. All is in the topic before the first row reads it, "
        f"and every row reads the same records, one row after the other, in {rounds}. Measured from the "
        f"first commit past {plan.warm:,} clicks to the last before the final {plan.tail:,}, at least "
        f"{plan.least:,} of them. CPU is user and system time of the aggregator's process and, with "
        "PostgreSQL, of all of the server's processes, background ones and those that have ended "
        "included; not the broker's. A figure is taken only where the store then holds as many clicks, "
        "and as many different ids, as were sent. The aggregator runs with its defaults. PostgreSQL: "
        f"{settings}; so it commits to the disk. Ids that are there already came in the last 24 hours, as "
        "many in each; with each round they are more by its clicks."
    )


def _what(result: Sinks) -> str:
    told = [_OURS]
    if result.of("quix"):
        once = " It was measured in the first round only." if "quix" in result.plan.once else ""
        told.append(_QUIX + once)
    if result.of("plain") or result.of("plain-ids"):
        told.append(_PLAIN)
    if (upkeep := result.upkeep()) is not None:
        told.append(
            f"Not in the rows: what PostgreSQL does later for the clicks of a run, {upkeep:.2f} CPU s per "
            "million for merging windows and for a checkpoint. DuckDB merges counts when they have become "
            "a million rows, which no run reaches: `python -m bench.dedupe` measures it."
        )
    return "\n\n".join(told)


_OURS = (
    "What the rows promise differs. **hotkey** counts each id once across partitions and restarts, and has "
    "counts, ids and offsets in one transaction. It cannot be told to do without ids, so *0 ids there* is "
    "the least that it does: looking up and storing the ids of the run itself."
)
_QUIX = (
    "**Quix Streams** counts the same windows with `processing_guarantee='exactly-once'` (Kafka "
    "transactions, committed every 5 s), its state in RocksDB with a changelog topic, and puts a window "
    "out when it has closed. It looks at no ids: a click that is sent twice is counted twice. Its state is "
    "by record key, so the records have `advertiser/ad` as key: that spares it to send each on to another "
    "topic first, and what comes out is a count of each window in each partition."
)
_PLAIN = (
    "The **plain loops** (`Consumer.consume`, `json.loads`, a dict of counts; a `set` of ids that begins "
    "empty) write nothing durable: what they counted is gone when they end."
)


def _row(result: Sinks, row: str, peers: Sequence[str]) -> str:
    found, cost = result.of(row), result.cost(row)
    costs = [each.steady.cpu_per_million for each in found]
    spread = f" ({min(costs):.2f} to {max(costs):.2f})" if len(costs) > 1 else ""
    wall = statistics.median(each.steady.per_wall_second for each in found)
    cells = [result.name(row), f"{cost:.2f}{spread}", f"{1e6 / cost:,.0f}", f"{wall:,.0f}"]
    cells += [f"{result.peak(row):,.0f}", *(f"1 : {result.cost(peer) / cost:.1f}" for peer in peers)]
    return f"| {' | '.join(cells)} |"
