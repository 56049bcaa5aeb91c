"""The operator as people run it: a process of its own, probed, killed, told to stop, and its log read."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from devstack import Stack
from tests.stack.operator.waiting import RECOVERY_SECONDS, eventually

SECRET = "hotkey-signing-key"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Operator:
    """`hotkey-operator run` as a process of its own, with its log in `folder`."""

    def __init__(
        self, stack: Stack, namespace: str, folder: Path, name: str = "operator", **more: str
    ) -> None:
        self.log_file = folder / f"{name}.log"
        self.liveness, self.metrics = free_port(), free_port()
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(stack.kubernetes.kubeconfig),
            "HOTKEY_KAFKA_BOOTSTRAP_SERVERS": stack.kafka.bootstrap,
            "HOTKEY_REDIS_URL": stack.redis.url_for("hotkey-operator"),
            "HOTKEY_SIGNING_SECRET": f"{namespace}/{SECRET}",
            "HOTKEY_NAMESPACES": namespace,
            "HOTKEY_LIVENESS_PORT": str(self.liveness),
            "HOTKEY_METRICS_PORT": str(self.metrics),
            **more,
        }
        self.program: tuple[str, ...] = ("-m", "hotkey_operator")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the operator was not started"
        return self._process

    def launch(self) -> None:
        """Start it, again if it ended, and wait for nothing."""
        command = [sys.executable, *self.program, "run"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def start(self) -> Operator:
        """Start it, again if it ended, and wait until it answers its probe."""
        self.launch()
        eventually("the operator answers its probe", lambda: self.health() == 200, RECOVERY_SECONDS)
        return self

    def health(self) -> int:
        """The status code of the liveness probe."""
        assert self.process.poll() is None, (
            f"the operator ended with {self.process.poll()}: {self.log()[-3000:]}"
        )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.liveness}/healthz", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def measured(self) -> str:
        """Its Prometheus metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return self.log_file.read_text()

    def told(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code. A second one if an open watch holds it."""
        if self._process is None or self._process.poll() is not None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
