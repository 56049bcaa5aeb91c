"""A real Prometheus that scrapes an operator and has the alerts of the chart; asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from devstack import prometheus
from devstack.ports import free_ports
from tests.stack.operator.scene import ROOT
from tests.stack.operator.waiting import eventually

RULES = ROOT / "charts/hotkey-operator/files/alerts.yaml"
STOP_SECONDS = 20.0


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

    def is_ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=10) as answer:
            return bool(answer.status == 200)


@contextlib.contextmanager
def watcher(metrics_port: int, folder: Path) -> Iterator[Watcher]:
    """A Prometheus that scrapes one operator every second, as the chart's PodMonitor has it scraped."""
    folder.mkdir()
    (port,) = free_ports(1, random.Random())
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
    command = [
        str(prometheus.server()),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        found = Watcher(port)
        eventually("Prometheus is ready", lambda: process.poll() is None and found.is_ready())
        yield found
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
