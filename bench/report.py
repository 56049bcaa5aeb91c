"""The report of the stored results: Markdown for people, and its pictures. Pure; it knows no part by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from bench.machine import Machine
from bench.part import PARTS, Answer, Goal, Part, Plot

IMAGES = "img"  # the folder beside the report; each file in it begins with `bench-`


class Measured(msgspec.Struct, frozen=True):
    """One part as it was measured: by which command, on what, in how many seconds, and what came of it."""

    part: str
    command: str
    machine: Machine
    versions: dict[str, str]
    seconds: float
    quick: bool
    answer: Answer


class Results(msgspec.Struct, frozen=True):
    """All parts that were measured, in the order of the report."""

    measured: tuple[Measured, ...] = ()

    def plus(self, new: Measured) -> Results:
        """With this part instead of what was known of it."""
        parts = {each.part: each for each in (*self.measured, new)}
        return Results(tuple(parts[name] for name in PARTS if name in parts))


@dataclass(frozen=True, slots=True)
class Report:
    """The Markdown, and the pictures by file name, which stand in the folder `img` beside it."""

    markdown: str
    images: dict[str, str]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chapter:
    """What one part gives to the report."""

    measured: Measured
    section: str
    goals: Sequence[Goal] = ()
    plots: Sequence[Plot] = ()
    headline: str = ""
    failure: str | None = None

    @classmethod
    def of(cls, measured: Measured) -> Chapter:
        """The part's own words; where it failed, or its stored result cannot be told any more, why."""
        if measured.answer.failure is not None:
            return cls._failed(measured, measured.answer.failure)
        try:
            part = Part.load(measured.part)
            result = msgspec.json.decode(measured.answer.result, type=part.result)
            return cls(
                measured, part.section(result), part.goals(result), part.plots(result), part.headline(result)
            )
        except Exception as error:  # whatever a part does wrong, the others are still told
            return cls._failed(measured, f"{type(error).__name__}: {error}")

    @classmethod
    def _failed(cls, measured: Measured, why: str) -> Chapter:
        return cls(measured, f"## {measured.part}\n\n**This part failed:** {why}", failure=why)

    @property
    def markdown(self) -> str:
        """The section with its pictures and the command that measured it."""
        shown = [f"![{plot.alt}]({IMAGES}/{_file(plot)})" for plot in self.plots]
        made = f"*Measured by* `{self.measured.command}`."
        quick = (_QUICK,) if self.measured.quick else ()
        return "\n\n".join((self.section.strip(), *quick, *shown, made))


_QUICK = "**A quick run: it shows that the part works. Its figures mean nothing.**"


def _file(plot: Plot) -> str:
    return f"bench-{plot.name}.svg"


def report(results: Results) -> Report:
    """The report of all parts."""
    chapters = [Chapter.of(each) for each in results.measured]
    headlines = [
        f"{_QUICK}\n\n{c.headline}" if c.measured.quick else c.headline for c in chapters if c.headline
    ]
    sections = [
        _head(results),
        *headlines,
        _goals(chapters),
        _runs(chapters),
        *(c.markdown for c in chapters),
    ]
    return Report(
        markdown="\n\n".join(section for section in sections if section) + "\n",
        images={_file(plot): plot.svg for chapter in chapters for plot in chapter.plots},
        failed=tuple(c.measured.part for c in chapters if c.failure is not None),
    )


def _head(results: Results) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench` from measured values alone; every part names its command. Performance is "
        "measured here and nowhere asserted in tests.",
        "",
        "    make bench                        # every part; writes bench/out, raw values in results.json",
        "    python -m bench onset --keep      # one part anew, the others as they were",
        "    make bench-docs                   # copy the report to docs/benchmarks.md",
    ]
    for machine, versions in _grounds(results):
        lines += [
            "",
            f"- Machine: {machine}. Broker, operator and all clients share its cores, so absolute times are "
            "upper bounds; ratios of one run carry over better.",
            f"- Versions: {versions}.",
        ]
    return "\n".join(lines)


def _grounds(results: Results) -> dict[tuple[str, str], None]:
    """The machines and versions that the parts were measured on: one, unless somebody mixed them."""
    found: dict[tuple[str, str], None] = {}
    for each in results.measured:
        on = each.machine
        machine = f"{on.processor}, {on.cores} cores, {on.memory_gib} GiB, {on.system}"
        versions = ", ".join(f"{name} {value}" for name, value in each.versions.items() if name != "hotkey")
        found[machine, versions] = None
    return found


def _goals(chapters: Sequence[Chapter]) -> str:
    rows = [
        f"| {chapter.measured.part} | {goal.what} | {_figure(goal.at_most)} | {_figure(goal.found)} | "
        f"{goal.unit} | {goal.word if goal.word == 'met' else f'**{goal.word}**'}{_quickly(chapter)} |"
        for chapter in chapters
        for goal in chapter.goals
    ]
    if not rows:
        return ""
    head = ["## Targets", "", "| part | figure | at most | found | unit | |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _quickly(chapter: Chapter) -> str:
    return " (quick)" if chapter.measured.quick else ""


def _figure(value: float) -> str:
    """So many decimals that a figure just above its bound looks so; no exponent."""
    if value >= 20:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _runs(chapters: Sequence[Chapter]) -> str:
    rows = []
    for chapter in chapters:
        run = chapter.measured
        ended = "failed" if chapter.failure is not None else "quick" if run.quick else "done"
        rows.append(
            f"| {run.part} | `{run.command}` | {run.versions.get('hotkey', '?')} | "
            f"{run.machine.load_average:.2f} | {run.seconds:.0f} s | {ended} |"
        )
    measured = {chapter.measured.part for chapter in chapters}
    if wanting := [f"`{part}`" for part in PARTS if part not in measured]:
        rows.append(f"\nNot measured: {', '.join(wanting)}.")
    columns = "| part | command | hotkey | load average before | took | |"
    return "\n".join(["## How each part was measured", "", columns, "|---|---|---|---|---|---|", *rows])
