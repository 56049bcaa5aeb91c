"""The SDK needs what its distribution declares and nothing else of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SDK = Path(__file__).parents[3] / "producer_sdk"

# Refuses every package that is installed here and is not in the first argument; then runs the self-check.
CHECK = """
import sys
allowed, refused = set(sys.argv[1].split(",")), set(sys.argv[2].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused - allowed:
            raise ModuleNotFoundError(f"{name} is no dependency of hotkey-sdk", name=name)

sys.meta_path.insert(0, Refuse())
import hotkey_sdk
from hotkey_sdk._cli import main
sys.exit(main(["check"]))
"""


def declared(name: str, seen: set[str]) -> set[str]:
    """The distribution and all that it needs without extras."""
    if name in seen:
        return seen
    seen.add(name)
    for text in requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            declared(canonicalize_name(requirement.name), seen)
    return seen


def test_it_imports_and_runs_with_its_declared_dependencies_alone() -> None:
    needed = declared("hotkey-sdk", set())
    packages = packages_distributions()
    allowed = {p for p, found in packages.items() if {canonicalize_name(each) for each in found} & needed}

    done = subprocess.run(
        [sys.executable, "-c", CHECK, ",".join(allowed), ",".join(packages)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "murmur2_random agrees" in done.stdout


def test_it_declares_few_dependencies() -> None:
    names = {Requirement(text).name for text in requires("hotkey-sdk") or () if "extra ==" not in text}

    assert names == {"confluent-kafka", "cryptography", "msgspec", "redis", "xxhash"}


def built(folder: Path, **environment: str) -> tuple[Path, str]:
    """The wheel of a copy of the SDK, which leaves nothing beside the sources, and what the build said."""
    sources = folder / "sources"
    shutil.copytree(SDK, sources, ignore=shutil.ignore_patterns("*.so", "build", "*.egg-info", "__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sources],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, done.stdout


def extensions(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if "_fast" in name and "pyi" not in name]


def test_a_build_without_a_compiler_takes_the_pure_path(tmp_path: Path) -> None:
    wheel, _ = built(tmp_path, CC="/no/such/compiler")

    assert extensions(wheel) == []
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    done = subprocess.run(
        [sys.executable, "-m", "hotkey_sdk", "check"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "path of a record: pure" in done.stdout


@pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no compiler here")
def test_a_build_with_a_compiler_has_the_compiled_path_and_its_types(tmp_path: Path) -> None:
    wheel, said = built(tmp_path)

    assert len(extensions(wheel)) == 1, said
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"hotkey_sdk/py.typed", "hotkey_sdk/_fast.pyi", "hotkey_sdk/routing/router.py"} <= names


@pytest.mark.slow
def test_it_installs_into_an_empty_environment_and_runs(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(tmp_path / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(SDK)],
        [str(python), "-m", "hotkey_sdk", "check"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
    assert "murmur2_random agrees" in done.stdout
