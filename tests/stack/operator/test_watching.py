"""A real Prometheus watches a real operator: what the dashboard asks for is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from observability import dashboard
from tests.stack.operator.conftest import StartLoad
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually
from tests.stack.operator.watcher import Watcher, watcher

BOARD = json.loads(dashboard.FILE.read_text())
PARTITIONS = 12
REMEMBERED_SECONDS = 180.0  # two minutes of what comes and goes are in some alerts


def queries(namespace: str) -> dict[str, list[str]]:
    """The queries of each panel by its title, with Grafana's variables replaced."""
    chosen = {
        "$__rate_interval": "10s",
        "$__range": "5m",
        "$namespace": namespace,
        "$policy": "clicks",
    }
    pattern = re.compile("|".join(re.escape(variable) for variable in chosen))
    return {
        panel["title"]: [
            pattern.sub(lambda found: chosen[found.group()], target["expr"]) for target in panel["targets"]
        ]
        for panel in BOARD["panels"]
        if panel["type"] != "row"
    }


@pytest.fixture
def watching(scene: Scene, tmp_path: Path) -> Iterator[Watcher]:
    operator = scene.operator()
    with watcher(operator.metrics, tmp_path / "prometheus") as found:
        yield found


@pytest.mark.timeout(600)
def test_a_spread_key_shows_on_the_dashboard_and_is_gone_with_its_policy(
    scene: Scene, topic: str, start_load: StartLoad, watching: Watcher
) -> None:
    # given a hot key that is spread while Prometheus scrapes the operator
    scene.apply("clicks", {"topic": topic, "trigger": {"recordsPerSecond": 500}})
    scene.wait_for_condition("clicks", "Governing")
    start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    asked = queries(scene.namespace)

    # then every partition is a row of the heat map, under the policy's own namespace
    (heat,) = asked["Partitions"]
    rows = eventually("the heat map has its rows", lambda: watching.query(heat))
    assert {labels["partition"] for labels, _ in rows} == {str(p) for p in range(PARTITIONS)}

    # and the key stands in the table, with its share and its shards
    def listed() -> bool:
        share, _, shards = (watching.query(each) for each in asked["Hot keys"])
        assert [labels for labels, _ in share] == [{"key": "nike"}], share
        assert 0.6 < share[0][1] < 1, share
        return shards[0][1] > 6

    eventually("the key is in the table of hot keys", listed)

    # and it is told how far off the partitions would be without it being spread, and how fast that was
    def mended() -> bool:
        ((_, measured),), ((_, unspread),) = (
            watching.query(each) for each in asked["Imbalance, measured and with every key plain"]
        )
        return 1 <= measured < unspread

    eventually("the imbalance with every key plain is the higher one", mended)
    counted = f'hotkey_operator_trigger_to_publish_seconds_count{{namespace="{scene.namespace}"}}'
    eventually("the one spread is timed", lambda: [value for _, value in watching.query(counted)] == [1])

    # and Prometheus takes every query of the dashboard, and every alert; of those none is on its way
    for each in [query for found in asked.values() for query in found]:
        watching.query(each)
    rules = watching.get("/api/v1/rules")["groups"][0]["rules"]
    assert [
        (rule["name"], rule["health"], rule["lastError"]) for rule in rules if rule.get("lastError")
    ] == []
    assert len(rules) > 3

    def quiet() -> bool:
        due = {rule["name"]: watching.query(rule["query"]) for rule in rules}
        assert not any(due.values()), due
        return True

    eventually("nothing is as an alert has it", quiet, REMEMBERED_SECONDS)

    # when the policy goes, then so does all that was exported of it
    scene.kubectl("delete", "hkp", "clicks")
    everything = f'{{__name__=~"hotkey_.*",namespace="{scene.namespace}"}}'
    eventually("no series of the policy is left", lambda: watching.query(everything) == [])
    assert watching.query("hotkey_operator_build_info")
