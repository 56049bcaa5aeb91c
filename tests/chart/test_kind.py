"""`make kind` where it cannot work: it says what is missing and starts nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chart.conftest import ROOT

UP = ROOT / "examples/kind/up.sh"
TOOLS = ("docker", "kind", "kubectl", "helm")


def run_with(folder: Path, tools: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """up.sh with nothing on its PATH but these, each a script of one line that also notes its call."""
    bash = shutil.which("bash")
    assert bash is not None
    for name, body in tools.items():
        (folder / name).write_text(f'#!{bash}\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
        (folder / name).chmod(0o755)
    return subprocess.run(
        [bash, str(UP)],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def calls(folder: Path) -> list[str]:
    noted = folder / "calls"
    return noted.read_text().splitlines() if noted.exists() else []


@pytest.mark.parametrize("missing", [TOOLS, ("docker",), ("kind",), ("kind", "helm")], ids=",".join)
def test_every_missing_tool_is_named_and_nothing_is_started(tmp_path: Path, missing: tuple[str, ...]) -> None:
    done = run_with(tmp_path, {name: "exit 0" for name in TOOLS if name not in missing})

    named = [name for name in TOOLS if f"{name} is not on the PATH; how to install it" in done.stderr]
    assert (done.returncode, named) == (1, [name for name in TOOLS if name in missing])
    assert "make demo" in done.stderr
    assert calls(tmp_path) == []


def test_an_engine_that_does_not_answer_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    done = run_with(tmp_path, {**dict.fromkeys(TOOLS, "exit 0"), "docker": "exit 1"})

    assert done.returncode == 1
    assert "its engine does not answer" in done.stderr
    assert calls(tmp_path) == ["docker info"]


@pytest.mark.parametrize("script", ["up.sh", "down.sh"])
def test_a_script_can_be_read_by_bash(script: str) -> None:
    done = subprocess.run(["bash", "-n", UP.with_name(script)], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
