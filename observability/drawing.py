"""How the dashboard draws: numbers, lines, states, a heat map and a table, each with its queries.

It knows Grafana, and nothing of hotkey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common as style
from grafana_foundation_sdk.builders import (
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Drawn = stat.Panel | timeseries.Panel | statetimeline.Panel | heatmap.Panel | table.Panel


def query(
    expression: str, legend: str = "", *, instant: bool = False, name: str = "A"
) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").ref_id(name)
    return made.instant().format(PromQueryFormat.TABLE) if instant else made.range()


def figure(
    title: str,
    text: str,
    expression: str,
    *,
    unit: str = "short",
    steps: Sequence[tuple[float, str]] = (),
    least: str = "green",
    words: Mapping[int, str] | None = None,
) -> stat.Panel:
    """One number; `steps`: from which value on it has which colour, `least` below; `words` for values.

    What is not there, or a quantile of nothing, reads `none`.
    """
    found = [Threshold(value=None, color=least), *(Threshold(value=at, color=color) for at, color in steps)]
    panel = stat.Panel().title(title).description(text).datasource(SOURCE).height(4).unit(unit)
    nothing = DashboardSpecialValueMapOptions(
        SpecialValueMatch.NULL_AND_NAN, ValueMappingResult(text="none", color="text")
    )
    said = {str(value): ValueMappingResult(text=word) for value, word in (words or {}).items()}
    panel = panel.no_value("none").mappings([SpecialValueMap(nothing), *([ValueMap(said)] if said else [])])
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found))
    panel = panel.graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
    reduced = style.ReduceDataOptions().calcs(["lastNotNull"])
    return panel.reduce_options(reduced).with_target(query(expression))


def lines(title: str, text: str, unit: str, *queries: tuple[str, str]) -> timeseries.Panel:
    """Series over time; each query is an expression and its legend."""
    panel = timeseries.Panel().title(title).description(text).datasource(SOURCE).height(8).unit(unit).min(0)
    panel = panel.line_width(1).show_points(VisibilityMode.NEVER)
    for number, (expression, legend) in enumerate(queries):
        panel = panel.with_target(query(expression, legend, name=chr(ord("A") + number)))
    return panel


def states(title: str, text: str, expression: str, legend: str) -> statetimeline.Panel:
    """When what held: one row a series."""
    panel = statetimeline.Panel().title(title).description(text).datasource(SOURCE).height(8)
    panel = (
        panel.show_value(VisibilityMode.NEVER)
        .merge_values(True)
        .legend(style.VizLegendOptions().show_legend(False))
    )
    return panel.with_target(query(expression, legend))


def heat(title: str, text: str, unit: str, expression: str, legend: str) -> heatmap.Panel:
    """One row a series, in the order of the numbers that their legends are; colour is the value."""
    panel = heatmap.Panel().title(title).description(text).datasource(SOURCE).height(12).calculate(False)
    panel = panel.cell_gap(0).rows_frame(heatmap.RowsHeatmapOptions().value(unit))
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Turbo").steps(64)
    return panel.color(colors).with_target(query(expression, legend))


def rows(title: str, text: str, by: str, columns: Mapping[str, tuple[str, str]]) -> table.Panel:
    """A row for each value of the label `by`; each column has a unit and an expression."""
    panel = table.Panel().title(title).description(text).datasource(SOURCE).height(8)
    names = {by: by}
    for number, (column, (unit, expression)) in enumerate(columns.items()):
        letter = chr(ord("A") + number)
        names[f"Value #{letter}"] = column
        panel = panel.with_target(query(expression, instant=True, name=letter))
        panel = panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    organized = {"excludeByName": {"Time": True}, "renameByName": names}
    for name, options in (("merge", {}), ("organize", organized)):
        panel = panel.with_transformation(DataTransformerConfig(id_val=name, options=options))
    return panel
