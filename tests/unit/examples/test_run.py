"""`make test`: what it takes for passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import run

PASS, FAIL = (sys.executable, "-c", ""), (sys.executable, "-c", "raise SystemExit(3)")


def test_a_part_fails_with_its_first_failure_and_still_runs_the_rest(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    touch = (sys.executable, "-c", f"open({str(seen)!r}, 'w')")
    assert run.run_part(run.Part("lint", (PASS, FAIL, touch), 30)).code == 3
    assert seen.exists()


def test_a_part_that_does_not_end_is_ended_and_failed() -> None:
    endless = (sys.executable, "-c", "import time\nwhile True: time.sleep(1)")
    assert run.run_part(run.Part("stack", (endless,), 0)).word == "timed out"


def test_a_folder_without_tests_is_a_failure(tmp_path: Path) -> None:
    command = run.tests("chart", slow=False).commands[0]
    empty = [str(tmp_path) if argument == "tests/chart" else argument for argument in command]
    assert subprocess.run(empty, capture_output=True, check=False).returncode != 0


def test_the_slow_tests_run_only_when_all_are_asked_for() -> None:
    assert "not slow" in run.tests("stack", slow=False).commands[0]
    assert "not slow" not in run.tests("stack", slow=True).commands[0]


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        run.main(["stacks"])


def test_commands_side_by_side_are_all_waited_for_and_one_failure_fails_the_part(
    capfd: pytest.CaptureFixture[str],
) -> None:
    commands = tuple(
        (sys.executable, "-c", f"print('said {code}'); raise SystemExit({code})") for code in (0, 3)
    )

    outcome = run.run_part(run.Part("stack", commands, 60, side_by_side=True))

    assert (outcome.code, outcome.word) == (3, "FAILED (exit 3)")
    assert {"said 0", "said 3"} <= set(capfd.readouterr().out.splitlines())


@pytest.mark.parametrize("name", run.GROUPS)
def test_every_test_of_a_folder_is_in_one_of_its_groups(name: str) -> None:
    groups = [path for group in run.groups_of(name) for path in group]
    files = [str(path.relative_to(run.ROOT)) for path in (run.ROOT / "tests" / name).rglob("test_*.py")]

    assert files
    assert all(sum(file == path or file.startswith(f"{path}/") for path in groups) == 1 for file in files)
