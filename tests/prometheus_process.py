"""A real Prometheus of a test's own, on a port that another test may want at the same time."""

from __future__ import annotations

import json
import random
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack import prometheus
from devstack.ports import free_ports

START_SECONDS = 60.0
STOP_SECONDS = 20.0
START_TRIES = 3  # a port that was free may be taken before Prometheus has it


@contextmanager
def running_prometheus(config: Path) -> Iterator[int]:
    """A Prometheus with this config, ready, its data and its log beside it; its port."""
    process, port = _started(config)
    try:
        yield port
    finally:
        _stop(process)


def _started(config: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(START_TRIES):
        (port,) = free_ports(1, random.Random())
        process = _start(config, port)
        try:
            if _becomes_ready(process, port, config):
                return process, port
        except BaseException:
            _stop(process)
            raise
    raise AssertionError(f"Prometheus ended {START_TRIES} times at its start: {_log(config)}")


def _start(config: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        str(prometheus.server()),
        f"--config.file={config}",
        f"--storage.tsdb.path={_data(config)}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with config.with_name("log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def _becomes_ready(process: subprocess.Popen[bytes], port: int, config: Path) -> bool:
    """Whether it is ready in the end; False as soon as it has ended."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        seen = _data_of(port)
        if seen == str(_data(config)):
            return True
        assert time.monotonic() < deadline, f"Prometheus is not ready: {seen}; {_log(config)}"
        time.sleep(0.05)
    return False


def _data_of(port: int) -> str:
    """Where the Prometheus on the port has its data: it may be another test's. Else what is wrong."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/flags", timeout=10) as answer:
            return str(json.load(answer)["data"]["storage.tsdb.path"])
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def _data(config: Path) -> Path:
    return config.with_name("data")


def _log(config: Path) -> str:
    return config.with_name("log").read_text(errors="replace")[-2_000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
