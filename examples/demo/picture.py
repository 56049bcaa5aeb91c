"""The live picture: partition bars, imbalance over time, the policy's status, what happened."""

from __future__ import annotations

import io
import re

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from examples.demo.view import Happening, PolicyView, Scene, View

SPARK_WIDTH = 34
LINES = 9
WIDTH = 112
STEADY = "Steady"  # the decision of a turn in which there was nothing to decide
_SPARKS = "▁▂▃▄▅▆▇█"


def sparkline(values: tuple[float, ...], width: int) -> str:
    """An imbalance over time in at most `width` cells, the latest last: each cell the worst of its values.

    The lowest cell is 1 (even), the highest the worst value shown.
    """
    each = max(1, -(-len(values) // width))
    shown = [max(values[max(0, end - each) : end]) for end in range(len(values), 0, -each)][::-1]
    top = max((*shown, 2.0)) - 1.0
    return "".join(_SPARKS[min(7, max(0, int((value - 1.0) / top * 7.99)))] for value in shown)


def picture(scene: Scene) -> RenderableType:
    """The whole screen for one moment."""
    top = Table.grid(expand=True, padding=(0, 1))
    top.add_column(ratio=1)
    top.add_column(ratio=1)
    top.add_row(
        _panel("records/s by partition", _partitions(scene), len(scene.view.rates) + 5),
        _panel("what the operator says", _operator(scene.view), len(scene.view.rates) + 5),
    )
    return Group(
        Text(f" hotkey demo   {scene.title}", style="bold reverse", justify="left"),
        top,
        _panel("what happened, the latest first", _happenings(scene.happenings), LINES + 3),
    )


def _panel(title: str, content: RenderableType, height: int) -> Panel:
    return Panel(content, title=title, border_style="dim", box=box.ROUNDED, height=height)


def _partitions(scene: Scene) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(justify="right")
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    full = max((*scene.view.rates, scene.limit))
    for number, rate in enumerate(scene.view.rates):
        color = "red" if rate > scene.limit else "green"
        grid.add_row(str(number), Bar(full, 0, rate, color=color), f"{rate:.0f}")
    now = scene.view.imbalance
    told = f"imbalance {'-' if now is None else f'{now:.2f}'}"
    line = Text.assemble(told, (" (1.00 is even)", "dim"))
    return Group(grid, Text(""), line, Text(sparkline(scene.imbalances, SPARK_WIDTH), "yellow"))


def _operator(view: View) -> RenderableType:
    policy = view.policy
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    ready = Text("True" if policy.ready else "not yet", "green" if policy.ready else "yellow")
    grid.add_row("Ready", Text.assemble(ready, f" {policy.reason}"))
    grid.add_row(
        "epoch", f"{policy.epoch or view.table_epoch or '-'}, applied by {policy.producers or '-'} producers"
    )
    grid.add_row("imbalance", f"{policy.imbalance or '-'} over the last 60 s")
    grid.add_row("hot keys", _hot_keys(policy, view))
    grid.add_row("decision", Text.assemble((policy.decision or "-", "bold"), f" {policy.decision_message}"))
    grid.add_row("clicks", f"{view.acked:,} acknowledged")
    if view.problem:
        grid.add_row("problem", Text(view.problem, "red"))
    return grid


def _hot_keys(policy: PolicyView, view: View) -> RenderableType:
    if len(policy.keys) == 1:
        (key,) = policy.keys
        return Text.assemble((key.key, "bold magenta"), f" {key.share} of all: {key.reason}, {key.message}")
    lines = [
        Text.assemble(
            (key.key, "bold magenta"), f" {key.share} of all, {key.shards or 'no'} shards, {key.reason}"
        )
        for key in policy.keys
    ]
    lines = lines or [
        Text.assemble((key, "bold magenta"), f" {shards} shards") for key, shards in view.routes
    ]
    return Group(*lines[:6]) if lines else Text("none")


def _happenings(happenings: tuple[Happening, ...]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for each in happenings[: -LINES - 1 : -1]:
        style = "cyan" if each.source != "demo" else ""
        grid.add_row(f"{each.at:.1f} s", Text(each.source, style or "dim"), Text(each.text, style))
    return grid


def svg(scene: Scene) -> str:
    """The picture as an SVG that needs nothing from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.print(picture(scene))
    return re.sub(r"@font-face\s*\{[^}]*\}", "", console.export_svg(title="make demo"))


def line(view: View) -> str:
    """The same in one line, for where there is no terminal."""
    now = view.imbalance
    routes = ", ".join(f"{key} x{shards}" for key, shards in view.routes) or "none"
    decided = view.policy.decision
    decision = f" decision={decided}" if decided not in ("", STEADY) else ""
    return (
        f"acknowledged={view.acked} imbalance={'-' if now is None else f'{now:.2f}'} routed={routes} "
        f"epoch={view.policy.epoch or view.table_epoch} applied={view.policy.producers or '-'}{decision}"
    )
