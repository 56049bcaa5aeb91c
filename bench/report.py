"""The report of a run: Markdown for people, JSON for programs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bench.figures import Cost, Onset, Quantiles, Ratio, ratio
from bench.machine import Machine

GOAL_P50, GOAL_P99 = 3.0, 5.0  # seconds from onset to spread

STAGES: tuple[tuple[str, Callable[[Onset], float]], ...] = (
    ("the table with the route is written to Kubernetes", lambda o: o.table_written),
    ("its hint is published in Redis", lambda o: o.hint_published),
    ("the first producer routes", lambda o: o.first_producer),
    ("**the slowest producer routes: spread**", lambda o: o.slowest_producer),
)


class Results(msgspec.Struct, frozen=True):
    """Everything measured in one run, with what it was measured on and the command that did it."""

    command: str
    machine: Machine
    versions: dict[str, str]
    onsets: list[Onset]
    costs: list[list[Cost]]
    peers: dict[str, str]

    def ratios(self) -> list[Ratio]:
        """Each case against its peer."""
        return [ratio(case, peer, self.costs) for case, peer in self.peers.items()] if self.costs else []


def markdown(results: Results) -> str:
    """The report for people."""
    sections = [_head(results)]
    if results.onsets:
        sections.append(_onsets(results.onsets))
    if results.costs:
        sections.append(_costs(results.ratios()))
    return "\n\n".join(sections) + "\n"


def _head(results: Results) -> str:
    on = results.machine
    versions = ", ".join(f"{name} {value}" for name, value in results.versions.items())
    return (
        f"# Benchmarks\n\nMade by `{results.command}`; docs/benchmarks.md says what is measured and how.\n\n"
        f"Machine: {on.processor}, {on.cores} cores, {on.memory_gib} GiB, {on.system}; load average "
        f"before the run {on.load_average}. Broker, operator and all clients share these cores.\n\n"
        f"Versions: {versions}."
    )


def _onsets(onsets: Sequence[Onset]) -> str:
    rows = []
    for name, value in STAGES:
        of = Quantiles.of([value(onset) for onset in onsets])
        rows.append(f"| {name} | {of.p50:.2f} | {of.p99:.2f} | {of.worst:.2f} |")
    spread = Quantiles.of([onset.slowest_producer for onset in onsets])
    met = spread.p50 <= GOAL_P50 and spread.p99 <= GOAL_P99
    before = Quantiles.of([onset.imbalance_before for onset in onsets])
    after = Quantiles.of([onset.imbalance_after for onset in onsets])
    return "\n".join(
        [
            "## Onset to spread\n",
            f"{len(onsets)} onsets with the shipped defaults; seconds from the onset until",
            "\n| stage | p50 | p99 | worst |\n|---|---|---|---|",
            *rows,
            f"\nGoal: p50 at most {GOAL_P50:.0f} s, p99 at most {GOAL_P99:.0f} s: "
            f"{'met' if met else 'NOT met'}. Imbalance (max/mean): {before.p50:.2f} before, "
            f"{after.p50:.2f} after (worst {after.worst:.2f}).",
        ]
    )


def _costs(ratios: Sequence[Ratio]) -> str:
    rows = [
        f"| {r.case} | {r.peer} | {_range(r.thread, r.thread_low, r.thread_high)} | "
        f"{_range(r.process, r.process_low, r.process_high)} | "
        f"{r.thread_microseconds:.2f} | {r.process_microseconds:.2f} |"
        for r in ratios
    ]
    return "\n".join(
        [
            "## CPU per record\n",
            "`hotkey_sdk.Producer` against `confluent_kafka.Producer` in "
            f"{ratios[0].rounds} paired rounds: median (range) of the ratios.\n",
            "| SDK | peer | `produce()` thread | whole process | us thread | us process |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _range(median: float, low: float, high: float) -> str:
    return f"{median:.2f} ({low:.2f}-{high:.2f})"
