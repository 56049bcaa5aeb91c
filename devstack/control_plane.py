"""The binaries of the Kubernetes API: from KUBEBUILDER_ASSETS, else built once into the cache."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.cache import Cache
from devstack.errors import StackError
from devstack.go_module import GoModule
from devstack.progress import Progress
from devstack.versions import KubernetesVersions

MODULE = Path(__file__).with_name("control_plane")

_MAINS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
# kubectl cannot parse /version when one of these is missing.
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
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
    found = module(versions).cached(cache, names)
    return None if found is None else ControlPlane(found)


def control_plane(
    versions: KubernetesVersions,
    cache: Cache,
    progress: Progress,
    environment: Mapping[str, str],
    names: Sequence[str],
) -> ControlPlane:
    """The binaries, built first when they are not there."""
    return assets(environment, names) or ControlPlane(module(versions).made(cache, progress, names))


def module(versions: KubernetesVersions) -> GoModule:
    return GoModule(
        name=f"control-plane-{versions.version}",
        folder=MODULE,
        title=f"Kubernetes {versions.version}",
        takes="6 minutes on 2 idle cores",
        mains=_MAINS,
        versions={name: versions.etcd if name == "etcd" else versions.version for name in _MAINS},
        tags=_TAGS,
        linker_flags=_linker_flags(versions),
    )


def entry(name: str, versions: KubernetesVersions) -> str:
    return module(versions).entry(name)


def key(versions: KubernetesVersions) -> str:
    return module(versions).key()


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
