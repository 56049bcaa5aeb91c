"""The plots of the benchmark report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest

from bench.svg import Bar, Curve, bars, curves

NS = "{http://www.w3.org/2000/svg}"


def lengths(svg: str) -> list[float]:
    return [float(rect.attrib["width"]) for rect in ET.fromstring(svg).iter(f"{NS}rect")]


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{NS}text")]


def test_bars_are_as_long_as_their_values() -> None:
    half, whole = lengths(bars("t", [("g", [Bar("a", 2.0, "2"), Bar("b", 4.0, "4")])]))

    assert whole == pytest.approx(2 * half)


def test_on_a_logarithmic_axis_equal_ratios_are_equal_steps() -> None:
    shown = [Bar(name, value, name) for name, value in (("a", 1.0), ("b", 8.0), ("c", 64.0))]

    none, half, whole = lengths(bars("t", [("g", shown)], start=1.0, log=True))

    assert none <= 1.0
    assert whole == pytest.approx(2 * half)


def test_every_bar_stands_with_its_name_and_figure_whatever_they_hold() -> None:
    told = texts(bars("a < b & c", [("<g>", [Bar('"x"', 1.0, "1.00 & more")])]))

    assert told == ["a < b & c", "<g>", '"x"', "1.00 & more"]


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [0.5], [1.0] * 40])
def test_a_curve_ends_at_its_last_value_with_all_events(values: Sequence[float]) -> None:
    line = next(ET.fromstring(curves("t", "s", [Curve("c", values)])).iter(f"{NS}polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]

    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert points[-1][1] == min(y for _, y in points)
    assert len(points) == 1 + 2 * len(values)


def test_goals_and_ticks_are_within_the_plot() -> None:
    svg = ET.fromstring(curves("t", "s", [Curve("c", [1.7])], [("goal", 6.0)]))
    width = float(svg.attrib["viewBox"].split()[2])

    assert all(0 <= float(line.attrib[x]) <= width for line in svg.iter(f"{NS}line") for x in ("x1", "x2"))


def test_the_same_figures_give_the_same_picture() -> None:
    groups = [("g", [Bar("a", 1.23456, "1.23")])]

    assert bars("t", groups) == bars("t", groups)
