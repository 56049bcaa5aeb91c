"""The benchmarks run and report; what they measure is nobody's to assert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.report import Results


def bench(out: Path, *arguments: str) -> Results:
    command = [sys.executable, "-m", "bench", *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report.md").read_text() in done.stdout
    return msgspec.json.decode((out / "results.json").read_bytes(), type=Results)


def test_the_cost_of_every_way_to_send_is_measured_and_reported(tmp_path: Path) -> None:
    results = bench(tmp_path / "out", "overhead", "--rounds", "2", "--records", "2000")
    assert {ratio.case for ratio in results.ratios()} == set(results.peers)
    assert all(cost.thread > 0 and cost.process > 0 for costs in results.costs for cost in costs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_onset_is_measured_stage_by_stage(tmp_path: Path) -> None:
    (onset,) = bench(tmp_path / "out", "onset", "--onsets", "1").onsets
    assert onset.table_written > 0
    assert 0 < onset.first_producer <= onset.slowest_producer
    assert onset.imbalance_after < onset.imbalance_before
