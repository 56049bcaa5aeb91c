"""The demo as a person runs it: to its end, with a trace, interrupted, and with what cannot work."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.process import ProcessRecord

START_SECONDS = 900.0  # the first start on a machine builds the Kubernetes API
END_SECONDS = 240.0


def demo(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--root", str(root), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What the demo printed up to a line with `text`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"the demo ended with {process.wait()} before it printed {text!r}:\n{seen}")


def left_running(root: Path) -> list[str]:
    records = {path.stem: ProcessRecord.read(path) for path in (root / "run").glob("*.json")}
    return [name for name, record in records.items() if record is not None and record.is_running]


@pytest.mark.slow
@pytest.mark.timeout(START_SECONDS + END_SECONDS)
def test_the_demo_keeps_every_promise_and_leaves_nothing_running(tmp_path: Path) -> None:
    with demo(tmp_path / "demo", "--picture", str(tmp_path / "demo.svg")) as process:
        printed = read_until(process, "every promise was kept")
    assert process.returncode == 0, printed
    for promise in ("onset to spread", "imbalance", "merged back", "exactly once", "counts"):
        assert f"ok    {promise}" in printed
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")
    assert left_running(tmp_path / "demo") == []


@pytest.mark.timeout(START_SECONDS + END_SECONDS)
def test_a_calm_trace_is_replayed_counted_exactly_once_and_nothing_is_spread(tmp_path: Path) -> None:
    rows = (f"{n / 1000},brand{n % 50},id{n},u{n}" for n in range(5_000))
    (tmp_path / "trace.csv").write_text("\n".join(["ts,key,id,dimension", *rows]) + "\n")
    with demo(tmp_path / "demo", "--trace", str(tmp_path / "trace.csv"), "--speed", "2") as process:
        printed = read_until(process, "every promise was kept")
    assert process.returncode == 0, printed
    assert "5000 sent, 5000 acknowledged, 5000 counted: 0 lost, 0 doubled, 0 unknown" in printed
    assert "no partition went over the trigger" in printed


@pytest.mark.timeout(START_SECONDS + END_SECONDS)
def test_an_interrupted_demo_stops_everything_that_it_started(tmp_path: Path) -> None:
    with demo(tmp_path / "demo") as process:
        read_until(process, "evenly")
        assert {"kafka", "apiserver", "operator", "aggregator"} <= set(left_running(tmp_path / "demo"))
        process.send_signal(signal.SIGINT)
        printed = read_until(process, "interrupted at")
    assert process.returncode == 130, printed
    assert left_running(tmp_path / "demo") == []


def test_a_trace_that_cannot_be_replayed_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("when,what\n1,2\n")
    with demo(tmp_path / "demo", "--trace", str(tmp_path / "trace.csv")) as process:
        printed = read_until(process, "the header lacks ts, key, id, dimension")
    assert process.returncode == 2, printed
    assert not (tmp_path / "demo").exists()
