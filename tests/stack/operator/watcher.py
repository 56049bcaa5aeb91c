"""A real Prometheus that scrapes an operator and has the alerts of the chart; asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.prometheus_process import running_prometheus
from tests.stack.operator.scene import ROOT

RULES = ROOT / "charts/hotkey-operator/files/alerts.yaml"


@dataclass(frozen=True, slots=True)
class Watcher:
    """A Prometheus that runs."""

    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer; fails with what Prometheus said where it refuses."""
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that an expression gives now."""
        data = self.get("/api/v1/query", query=expression)
        found = (
            data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
        )
        return [(each["metric"], float(each["value"][1])) for each in found]


@contextlib.contextmanager
def watcher(metrics_port: int, folder: Path) -> Iterator[Watcher]:
    """A Prometheus that scrapes one operator every second, as the chart's PodMonitor has it scraped."""
    folder.mkdir()
    scraped = {
        "job_name": "operator",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{metrics_port}"]}],
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [scraped],
        "rule_files": [str(RULES)],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with running_prometheus(folder / "prometheus.yml") as port:
        yield Watcher(port)
