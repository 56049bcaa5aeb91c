"""The dashboard: current, every query of it parses, and it names only metrics that something here exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from devstack import prometheus
from hotkey_aggregator.metrics import Metrics as AggregatorMetrics
from hotkey_operator.engine.model import Summary
from hotkey_operator.metrics import Metrics
from hotkey_sdk.prometheus import Collector
from observability import dashboard
from tests.chart.commands import Program, only
from tests.chart.conftest import CHART, render
from tests.unit.observability.turns import memory, table, turn, verdict, watched

BOARD: dict[str, Any] = json.loads(dashboard.FILE.read_text())
ALERTS = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
WATCHED = (
    "partition_records_per_second",
    "imbalance",
    "imbalance_unspread",
    "key_share_ratio",
    "key_shards",
    "key_stray_ratio",
    "clients_applied",
    "consumer_group_lag_seconds",
    "decision",
    "unmended",
    "events_total",
    "sampled_bytes_total",
    "turn_seconds_bucket",
    "table_published",
    "publish_failures_total",
    "trigger_to_publish_seconds_bucket",
)
COUNTED = (
    "clicks_counted_total",
    "clicks_duplicate_total",
    "payload_conflicts_total",
    "records_rejected_total",
    "dead_letters_delivered_total",
    "dead_letter_failures_total",
    "freshness_seconds_bucket",
    "watermark_timestamp_seconds",
    "lag_records",
    "store_available",
    "store_retries_total",
    "paused",
    "flush_seconds_bucket",
    "records_expired_total",
    "logs_truncated_total",
    "topics_recreated_total",
    "offset_jumps_total",
)
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": "ads", "$policy": "clicks"}


@pytest.fixture(scope="session")
def promtool() -> Program:
    return Program(prometheus.promtool())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """Every query of the dashboard, its variables replaced as Grafana would."""
    return [_replaced(target["expr"]) for panel in panels() for target in panel["targets"]]


def _replaced(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def exported() -> set[str]:
    """The names of all series that operator, SDK and aggregator export."""
    families = [
        *Metrics().registry.collect(),
        *Collector().collect(),
        *AggregatorMetrics().registry.collect(),
    ]
    return set(_series(families))


def _series(families: list[Any]) -> Iterator[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in families:
        yield from (family.name + suffix for suffix in suffixes.get(family.type, ("",)))


def names(expression: str) -> set[str]:
    """The metrics of an expression: what is followed by braces or a range, or has one of our prefixes."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return {*re.findall(r"([a-zA-Z_:][\w:]*)\s*[{\[]", bare), *re.findall(r"\b(?:hotkey|process)_\w+", bare)}


def test_the_dashboard_is_current() -> None:
    assert dashboard.FILE.read_text() == dashboard.made(), f"it is stale: run `{dashboard.COMMAND}`"


def test_every_query_parses(promtool: Program, tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": each} for number, each in enumerate(expressions())]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    printed = promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))

    assert f"{len(rules)} rules found" in printed
    assert len(rules) > len(panels()) / 2


def test_a_query_that_does_not_parse_is_noticed(promtool: Program, tmp_path: Path) -> None:
    rules = [{"record": "query:0", "expr": "sum by (reason) (rate(hotkey_operator_turns_total)"}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    assert promtool.run("check", "rules", "--lint=none", str(tmp_path / "rules.yaml")).code != 0


@pytest.mark.parametrize("expression", expressions())
def test_a_query_names_only_metrics_that_are_exported(expression: str) -> None:
    assert names(expression)
    assert names(expression) - exported() == set()


def test_the_alerts_name_only_metrics_that_are_exported() -> None:
    for rule in [rule for group in ALERTS["groups"] for rule in group["rules"]]:
        assert names(rule["expr"]) - exported() == set(), rule["alert"]
        assert names(rule["expr"]), rule["alert"]


def test_a_choice_at_the_top_is_made_from_metrics_that_are_exported() -> None:
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}

    assert set(variables) == {"datasource", "namespace", "policy"}
    for name in ("namespace", "policy"):
        (metric,) = re.findall(r"label_values\((\w+)", variables[name]["query"])
        assert metric in exported()


def test_every_query_of_the_operator_is_of_the_chosen_policy() -> None:
    for panel in panels():
        for target in panel["targets"]:
            found = re.findall(r"hotkey_operator_(?!build_info)\w+(\{[^}]*\})?", target["expr"])
            assert all('namespace="$namespace",policy="$policy"' in braces for braces in found), target[
                "expr"
            ]


def test_every_panel_says_what_it_shows_and_asks_the_chosen_source() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))


def test_a_number_that_is_not_there_reads_as_words_and_not_as_nan() -> None:
    numbers = [panel["fieldConfig"]["defaults"] for panel in panels() if panel["type"] == "stat"]
    special = [[each["options"] for each in n["mappings"] if each["type"] == "special"] for n in numbers]

    assert numbers
    assert {number["noValue"] for number in numbers} == {"none"}
    assert all(found == [special[0][0]] and found[0]["match"] == "null+nan" for found in special)


def test_a_policy_that_is_not_ready_is_red() -> None:
    (ready,) = [panel["fieldConfig"]["defaults"] for panel in panels() if panel["title"] == "Ready"]
    steps = {step["value"]: step["color"] for step in ready["thresholds"]["steps"]}

    assert steps == {None: "red", 1.0: "green"}


def test_no_two_panels_overlap_and_none_is_wider_than_the_page() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= dashboard.WIDTH
        taken |= cells


def test_there_is_a_panel_for_each_thing_to_watch() -> None:
    shown = " ".join(expressions())

    for metric in WATCHED:
        assert f"hotkey_operator_{metric}{{" in shown, metric
    for metric in COUNTED:
        assert f"hotkey_aggregator_{metric}" in shown, metric


def test_the_chart_ships_it_for_the_sidecar_of_grafana(helm: Program) -> None:
    config = only(render(helm, "--set", "dashboard.enabled=true,dashboard.namespace=grafana"), "ConfigMap")

    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["namespace"] == "grafana"
    assert config["data"] == {"hotkey.json": dashboard.FILE.read_text()}


def test_what_is_exported_follows_the_naming_rules_of_prometheus(promtool: Program) -> None:
    figures = Summary(producers=1, imbalance=1.0)
    metrics = watched(
        turn(table(b"nike"), verdict(b"nike"), summary=figures), remembered=memory([1, 2, 3, 4])
    )
    ours = [name for name in _series(list(metrics.registry.collect())) if name.startswith("hotkey_")]

    printed = promtool.run("check", "metrics", stdin=generate_latest(metrics.registry).decode())

    complaints = [line for line in (printed.out + printed.err).splitlines() if line.startswith("hotkey_")]
    assert complaints == []
    assert ours
