"""kill -9 between any two calls that a flush makes of DuckDB: all of it is in the file, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FLUSHES = 4
"""The last one is the one to be killed in."""


def killed_at_each_step(db: Path, *arguments: str) -> list[dict[str, int]]:
    """What each of the processes that were killed has left, and the last one, which was not."""
    command = [sys.executable, "-m", "tests.stack.aggregator.duckdb_steps", str(db), str(FLUSHES), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, int]] = [json.loads(line) for line in done.stdout.splitlines()]
    return found


def test_a_kill_at_any_call_of_duckdb_within_a_flush_leaves_all_or_nothing(tmp_path: Path) -> None:
    # when it is killed after each call, which is before the next one
    steps = killed_at_each_step(tmp_path / "clicks.duckdb")

    # then the file held the flush whole or not at all, and after the flush was repeated each id once
    assert len(steps) > 8
    assert [step for step in steps if step["torn"] or step["doubled"] or step["lost"]] == []
    assert {step["left"] for step in steps} == {0, steps[-1]["flush"]}


def test_a_store_that_commits_in_the_middle_of_a_flush_is_found(tmp_path: Path) -> None:
    steps = killed_at_each_step(tmp_path / "clicks.duckdb", "torn")
    assert steps[-1]["torn"]
