"""The alerts: each fires when it should and not else, and is in the chart as it was tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import prometheus
from tests.chart.commands import Manifest, Program, only
from tests.chart.conftest import CHART, ROOT, render

RULES = CHART / "files/alerts.yaml"
CASES = ROOT / "observability/alerts_test.yaml"
RUNBOOK = ROOT / "docs/runbook.md"
ON = ("--set", "prometheusRule.enabled=true")
PARTS = ("**What it means.**", "**How to look.**", "**What to do")


@pytest.fixture(scope="session")
def promtool() -> Program:
    return Program(prometheus.promtool())


def alerts(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"]]


ALERTS = alerts(yaml.safe_load(RULES.read_text())["groups"])


def named(alert: dict[str, Any]) -> str:
    return str(alert["alert"])


def cases(name: str) -> list[dict[str, Any]]:
    """What is expected of one alert, in all cases."""
    tests = yaml.safe_load(CASES.read_text())["tests"]
    return [each for test in tests for each in test["alert_rule_test"] if each["alertname"] == name]


def put_to_the_cases(rules: object, folder: Path) -> Path:
    """A file that puts other rules to the cases."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    (folder / "cases.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(CASES.read_text()) | {"rule_files": ["rules.yaml"]})
    )
    return folder / "cases.yaml"


def test_the_rules_are_rules(promtool: Program) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_each_alert_fires_when_it_should_and_not_else(promtool: Program) -> None:
    promtool("test", "rules", str(CASES))


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_there_is_a_case_in_which_an_alert_fires_and_one_in_which_it_does_not(alert: dict[str, Any]) -> None:
    assert {bool(case["exp_alerts"]) for case in cases(alert["alert"])} == {True, False}


@pytest.mark.parametrize(
    "mutant", [pytest.param("vector(0) == 1", id="never"), pytest.param("vector(1)", id="always")]
)
def test_the_cases_notice_an_alert_that_fires_never_or_always(
    promtool: Program, tmp_path: Path, mutant: str
) -> None:
    rules = yaml.safe_load(RULES.read_text())
    for rule in alerts(rules["groups"]):
        rule["expr"] = mutant

    printed = promtool.run("test", "rules", str(put_to_the_cases(rules, tmp_path)))

    failed = set(re.findall(r"alertname: (\w+),", printed.out + printed.err))
    assert failed == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_an_alert_has_a_heading_in_the_runbook_that_says_what_to_do(alert: dict[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))

    assert (ROOT / path, anchor) == (RUNBOOK, alert["alert"].lower())
    assert [part for part in PARTS if part not in sections[alert["alert"]]] == []


def test_the_operations_page_lists_every_alert_and_no_other() -> None:
    page = (ROOT / "docs/operations.md").read_text()

    rows = re.findall(r"^\| \[`(Hotkey\w+)`\]\(runbook.md#(\w+)\) \|.* \| (\w+) \|$", page, re.MULTILINE)
    expected = [(a["alert"], a["alert"].lower(), a["labels"]["severity"]) for a in ALERTS]
    assert sorted(rows) == sorted(expected)


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_an_alert_waits_for_minutes_and_says_what_is_wrong(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+m", alert["for"])
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description", "runbook_url"} == set(alert["annotations"])


# In the chart ---------------------------------------------------------------------------------------------


def kinds(objects: list[Manifest]) -> set[str]:
    return {each["kind"] for each in objects}


def test_nothing_of_it_is_installed_unless_asked_for(helm: Program) -> None:
    assert kinds(render(helm)) & {"PrometheusRule", "PodMonitor", "ConfigMap"} == set()


def test_the_rule_of_the_chart_is_the_file_that_was_tested(helm: Program) -> None:
    rule = only(render(helm, *ON), "PrometheusRule")

    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_the_rendered_rule_passes_the_same_cases(helm: Program, promtool: Program, tmp_path: Path) -> None:
    rule = only(render(helm, *ON), "PrometheusRule")

    promtool("test", "rules", str(put_to_the_cases(rule["spec"], tmp_path)))


def test_the_alerts_link_to_the_runbook_that_the_values_name(helm: Program) -> None:
    page = "https://wiki.example.com/hotkey/runbook"
    rule = only(render(helm, *ON, "--set", f"prometheusRule.runbookUrl={page}"), "PrometheusRule")

    links = {named(alert): alert["annotations"]["runbook_url"] for alert in alerts(rule["spec"]["groups"])}
    assert links == {named(alert): f"{page}#{named(alert).lower()}" for alert in ALERTS}


def test_labels_of_the_values_are_on_the_rule_and_the_monitor(helm: Program) -> None:
    chosen = ("prometheusRule.labels.release=kps", "podMonitor.labels.release=kps", "podMonitor.enabled=true")
    objects = render(helm, *ON, *(part for value in chosen for part in ("--set", value)))

    for kind in ("PrometheusRule", "PodMonitor"):
        assert only(objects, kind)["metadata"]["labels"]["release"] == "kps"


def test_the_monitor_scrapes_the_pods_of_the_deployment_and_keeps_the_label_namespace(helm: Program) -> None:
    objects = render(helm, "--set", "podMonitor.enabled=true,podMonitor.interval=15s")

    spec, pod = only(objects, "PodMonitor")["spec"], only(objects, "Deployment")["spec"]["template"]
    (endpoint,) = spec["podMetricsEndpoints"]
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert endpoint["honorLabels"] is True
    assert endpoint["interval"] == "15s"
