"""Rules of the repository that no linter knows."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "operator": "hotkey_operator",
    "producer_sdk": "hotkey_sdk",
    "aggregator": "hotkey_aggregator",
}


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_standard_librarys_operator_is_imported_from_the_root_of_the_repository() -> None:
    command = "import operator; print(operator.itemgetter(0)([7]))"
    done = subprocess.run(
        ["python3", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("7", "")


@pytest.mark.parametrize(("folder", "package"), DISTRIBUTIONS.items())
def test_every_distribution_is_typed(folder: str, package: str) -> None:
    assert (ROOT / folder / "src" / package / "py.typed").is_file()


@pytest.mark.parametrize("folder", [".", "bench"])
def test_the_requirements_hold_hashes_and_no_address(folder: str) -> None:
    text = (ROOT / folder / "requirements.txt").read_text()

    assert "://" not in text
    assert "index-url" not in text
    pins = re.findall(r"^[a-zA-Z0-9._-]+(?:\[[a-z,]+\])?==", text, re.MULTILINE)
    blocks = re.split(r"^(?=[a-zA-Z0-9._-]+(?:\[[a-z,]+\])?==)", text, flags=re.MULTILINE)[1:]
    assert pins
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("folder", [".", "bench"])
def test_what_is_asked_for_is_what_is_locked(folder: str) -> None:
    here = ROOT / folder
    asked = re.findall(r"^([\w-]+)(?:\[\w+\])?==(\S+)", (here / "requirements.in").read_text(), re.MULTILINE)
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (here / "requirements.txt").read_text(), re.MULTILINE))

    assert {name: locked.get(name.lower()) for name, _ in asked} == dict(asked)


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_what_a_distribution_depends_on_is_locked(folder: str) -> None:
    with (ROOT / folder / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))

    names = {re.split(r"[\[<>=~! ]", dependency)[0] for dependency in dependencies}
    assert {name for name in names if not name.startswith("hotkey-")} <= locked


def test_every_make_target_is_listed_with_a_line() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):(?!=)", makefile, re.MULTILINE)) - {"help"}

    assert {target for target in targets if f"make {target} " not in listed} == set()
    assert {"demo", "up", "down", "status", "test", "test-all", "lint", "bench", "clean"} <= targets


def test_ci_runs_make_test() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
