"""The binaries of the Kubernetes API: from KUBEBUILDER_ASSETS, else built once into the cache.

The build is a Go module of our own (control_plane/) that requires the published modules. Its
module and build caches, 3 GB, live beside the result and are gone when it is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Cache, digest
from devstack.errors import StackError
from devstack.process import run
from devstack.progress import Progress, Step
from devstack.versions import KubernetesVersions

MODULE = Path(__file__).with_name("control_plane")

_MAINS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
# kubectl cannot parse /version when one of these is missing.
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_TAGS = "grpcnotrace,notest"


@dataclass(frozen=True)
class ControlPlane:
    """Where each binary is."""

    binaries: Mapping[str, Path]

    def path(self, name: str) -> Path:
        return self.binaries[name]


def wanted(*, controller_manager: bool) -> tuple[str, ...]:
    return tuple(_MAINS) if controller_manager else ("etcd", "kube-apiserver")


def assets(environment: Mapping[str, str], names: Sequence[str]) -> ControlPlane | None:
    """The binaries of the folder that KUBEBUILDER_ASSETS names."""
    folder = environment.get("KUBEBUILDER_ASSETS")
    if not folder:
        return None
    binaries = {name: Path(folder) / name for name in names}
    missing = [name for name, path in binaries.items() if not os.access(path, os.X_OK)]
    if missing:
        raise StackError(
            f"KUBEBUILDER_ASSETS is {folder}, but it holds no {' and no '.join(missing)}: "
            "unset it to have them built"
        )
    return ControlPlane(binaries)


def cached(versions: KubernetesVersions, cache: Cache, names: Sequence[str]) -> ControlPlane | None:
    """The binaries when all of them are in the cache."""
    folders = {name: cache.find(entry(name, versions)) for name in names}
    found = {name: folder / name for name, folder in folders.items() if folder is not None}
    return ControlPlane(found) if len(found) == len(names) else None


def control_plane(
    versions: KubernetesVersions,
    cache: Cache,
    progress: Progress,
    environment: Mapping[str, str],
    names: Sequence[str],
) -> ControlPlane:
    """The binaries, built first when they are not there."""
    found = assets(environment, names) or cached(versions, cache, names)
    if found is not None:
        return found
    lock = f"control-plane-{versions.version}-{key(versions)}"
    with cache.lock(lock, progress):
        missing = [name for name in names if cache.find(entry(name, versions)) is None]
        if missing:
            with cache.workspace(lock) as folder:
                _build(missing, versions, folder, progress)
                for name in missing:
                    cache.publish(folder / "out" / name, entry(name, versions))
    found = cached(versions, cache, names)
    assert found is not None
    return found


def entry(name: str, versions: KubernetesVersions) -> str:
    version = versions.etcd if name == "etcd" else versions.version
    return f"{name}-{version}-{key(versions)}"


def key(versions: KubernetesVersions) -> str:
    """Changes with go.mod, go.sum and every flag of the build."""
    module = [(MODULE / name).read_bytes() for name in ("go.mod", "go.sum")]
    target = [os.environ.get(name, "") for name in ("GOOS", "GOARCH")]
    return digest(*module, *_FLAGS, _TAGS, _linker_flags(versions), *target)


def _linker_flags(versions: KubernetesVersions) -> str:
    major, minor, _ = versions.version.split(".")
    stamps = {
        "gitVersion": f"v{versions.version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "archive",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    stamped = [f"-X {package}.{name}={value}" for package in _STAMPED for name, value in stamps.items()]
    return " ".join(["-s -w", *stamped])


def _build(names: Sequence[str], versions: KubernetesVersions, folder: Path, progress: Progress) -> None:
    environment = {
        **os.environ,
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOGC": "800",
        "GOFLAGS": " ".join((*_FLAGS, "-modcacherw")),
        "GOMODCACHE": str(folder / "modules"),
        "GOCACHE": str(folder / "objects"),
        "GOTMPDIR": str(folder / "scratch"),
    }
    (folder / "scratch").mkdir()
    mains = [_MAINS[name] for name in names]
    with progress.step(f"downloading the Go modules of Kubernetes {versions.version}"):
        packages = run(
            ["go", "list", "-deps", "-tags", _TAGS, *mains],
            what="downloading the Go modules of the Kubernetes API",
            environment=environment,
            folder=MODULE,
        )
    total = sum(" " not in line for line in packages.splitlines())
    progress.say(f"building {', '.join(names)} from source: only this once, 6 minutes on 2 idle cores")
    with progress.step("Go packages compiled") as step:
        _compile(names, versions, folder, environment, _Counter(step, total))


def _compile(
    names: Sequence[str],
    versions: KubernetesVersions,
    folder: Path,
    environment: Mapping[str, str],
    counter: _Counter,
) -> None:
    linker = _linker_flags(versions)
    compiled = folder / "bin"
    compiled.mkdir()
    mains = [_MAINS[name] for name in names]
    run(
        ["go", "build", "-v", "-tags", _TAGS, "-ldflags", linker, "-o", f"{compiled}/", *mains],
        what="building the Kubernetes API",
        environment=environment,
        folder=MODULE,
        on_line=counter.line,
    )
    for name in names:
        place = folder / "out" / name
        place.mkdir(parents=True)
        # Go names a program after the last element of its path: etcd's is `server`.
        made = "server" if name == "etcd" else name
        (compiled / made).rename(place / name)


class _Counter:
    """`go build -v` prints a line for each package that it has compiled."""

    def __init__(self, step: Step, total: int) -> None:
        self._step = step
        self._total = total
        self._done = 0

    def line(self, text: str) -> None:
        if " " not in text:
            self._done += 1
            self._step.at(min(self._done, self._total), self._total)
