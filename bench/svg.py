"""Plots as SVG text, the same for the same figures: horizontal bars, curves of what was reached by when,
and lines of what was how large over time.

Backgrounds are left out and colours chosen so that both light and dark pages show them. It knows no figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABELS, VALUES = 760, 190, 60  # pixels: the whole, and what names and figures take of it
LINE, GAP, TOP = 20, 14, 34
PLOT_HEIGHT = 260
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
_Scale = Callable[[float], float]
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:14px}"
    ".quiet{fill:#59636e}.line{stroke:#8c959f;stroke-width:1}.goal{stroke:#cf222e;stroke-dasharray:4 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.goal{stroke:#ff7b72}}</style>"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, how long it is, and the figure that is written beside it."""

    name: str
    value: float
    shown: str
    color: str = COLORS[0]


@dataclass(frozen=True, slots=True)
class Curve:
    """How many of some events had happened by when: `values` are the moments, in any order."""

    name: str
    values: Sequence[float]
    color: str = COLORS[0]


@dataclass(frozen=True, slots=True)
class Line:
    """What a figure was over time: (seconds, figure), in the order of time."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str = COLORS[0]


def bars(
    title: str, groups: Sequence[tuple[str, Sequence[Bar]]], *, start: float = 0.0, log: bool = False
) -> str:
    """Bars from `start` on, group by group; `log`: a logarithmic axis, `start` must then be above 0."""
    top = max((bar.value for _, group in groups for bar in group), default=start)
    room = WIDTH - LABELS - VALUES
    body, y = [_text(0, 18, title, "title")], TOP
    for name, group in groups:
        body.append(_text(0, y + 14, name, "quiet"))
        y += LINE
        for bar in group:
            length = room * _part(bar.value, start, top, log=log)
            body.append(_text(LABELS - 8, y + 14, bar.name, anchor="end"))
            body.append(f'<rect x="{LABELS}" y="{y + 3}" width="{max(length, 1):.1f}" height="14" rx="2" '
                        f'fill="{bar.color}"/>')  # fmt: skip
            body.append(_text(LABELS + max(length, 1) + 6, y + 14, bar.shown))
            y += LINE
        y += GAP
    body.insert(1, f'<line class="line" x1="{LABELS}" x2="{LABELS}" y1="{TOP}" y2="{y - GAP}"/>')
    return _svg(title, y, body)


def _part(value: float, start: float, top: float, *, log: bool) -> float:
    """How far `value` is from `start` to `top`, 0..1."""
    if top <= start or value <= start:
        return 0.0
    if log:
        return math.log(value / start) / math.log(top / start)
    return (value - start) / (top - start)


def curves(title: str, unit: str, of: Sequence[Curve], goals: Sequence[tuple[str, float]] = ()) -> str:
    """The share of events, 0 to 100 %, over the moment; `goals`: dashed vertical lines with a name."""
    last = max([value for curve in of for value in curve.values] + [at for _, at in goals], default=1.0)
    ticks = _ticks(last)
    left, right, bottom = 44, WIDTH - 20, TOP + PLOT_HEIGHT

    def x(value: float) -> float:
        return left + (right - left) * value / ticks[-1]

    def y(share: float) -> float:
        return bottom - PLOT_HEIGHT * share

    body = [_text(0, 18, title, "title")]
    for share in (0.0, 0.5, 1.0):
        body.append(f'<line class="line" x1="{left}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}" '
                    'opacity="0.4"/>')  # fmt: skip
        body.append(_text(left - 6, y(share) + 4, f"{share:.0%}", "quiet", "end"))
    for tick in ticks:
        body.append(_text(x(tick), bottom + 16, f"{tick:g}", "quiet", "middle"))
    body.append(_text(right, bottom + 32, unit, "quiet", "end"))
    for name, at in goals:
        body.append(f'<line class="goal" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{bottom}"/>')
        body.append(_text(x(at) - 4, TOP + 10, name, "quiet", "end"))
    for curve in of:
        body.append(_steps(curve, x, y))
    return _svg(title, bottom + 40 + LINE * len(of), [*body, *_legend(of, left, bottom + 40)])


def lines(title: str, unit: str, of: Sequence[Line], goals: Sequence[tuple[str, float]] = ()) -> str:
    """Figures over time, both from 0 on; `goals`: dashed horizontal lines with a name."""
    xs = _ticks(max((at for line in of for at, _ in line.points), default=0.0) or 1.0)
    levels = [value for line in of for _, value in line.points] + [at for _, at in goals]
    ys = _ticks(max(levels, default=0.0) or 1.0)
    left, right, bottom = 74, WIDTH - 20, TOP + PLOT_HEIGHT

    def x(value: float) -> float:
        return left + (right - left) * value / xs[-1]

    def y(value: float) -> float:
        return bottom - PLOT_HEIGHT * value / ys[-1]

    body = [_text(0, 18, title, "title")]
    for tick in ys:
        body.append(f'<line class="line" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" '
                    'opacity="0.4"/>')  # fmt: skip
        body.append(_text(left - 6, y(tick) + 4, f"{tick:,g}", "quiet", "end"))
    body += [_text(x(tick), bottom + 16, f"{tick:g}", "quiet", "middle") for tick in xs]
    body.append(_text(right, bottom + 32, unit, "quiet", "end"))
    for name, at in goals:
        body.append(f'<line class="goal" x1="{left}" x2="{right}" y1="{y(at):.1f}" y2="{y(at):.1f}"/>')
        body.append(_text(right, y(at) - 4, name, "quiet", "end"))
    for line in of:
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2"/>')
    return _svg(title, bottom + 40 + LINE * len(of), [*body, *_legend(of, left, bottom + 40)])


def _steps(curve: Curve, x: _Scale, y: _Scale) -> str:
    points, count = [(x(0), y(0))], len(curve.values)
    for number, value in enumerate(sorted(curve.values), 1):
        points += [(x(max(0.0, value)), points[-1][1]), (x(max(0.0, value)), y(number / count))]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return f'<polyline points="{path}" fill="none" stroke="{curve.color}" stroke-width="2"/>'


def _legend(of: Iterable[Curve | Line], x: float, y: float) -> list[str]:
    shown = []
    for number, curve in enumerate(of):
        at = y + LINE * number
        shown.append(f'<rect x="{x}" y="{at}" width="14" height="4" rx="2" fill="{curve.color}"/>')
        shown.append(_text(x + 22, at + 7, curve.name))
    return shown


def _ticks(last: float) -> list[float]:
    """Round numbers from 0 to the first that is not below `last`, at most eleven of them."""
    size = 10.0 ** math.floor(math.log10(last)) if last > 0 else 1.0
    step = next(s for s in (size / 10, size / 5, size / 2, size, 2 * size) if last / s <= 10)
    return [round(step * n, 10) for n in range(math.ceil(last / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{of_kind} text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
    return "\n".join([head + f'aria-label="{escape(title)}">', _STYLE, *body, "</svg>"]) + "\n"
