"""promtool and the Prometheus server: tests check rules and queries with them; they are no part of a stack.

They are built once into the cache (go_module.py), without what discovers targets in clouds and without pages.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from devstack import tools
from devstack.cache import Cache
from devstack.go_module import GoModule
from devstack.progress import Progress
from devstack.versions import PrometheusVersions, Versions

MODULE = Path(__file__).with_name("prometheus")
PROGRAMS = ("promtool", "prometheus")

_PACKAGE = "github.com/prometheus/prometheus/cmd"


def promtool(cache: Cache | None = None, progress: Progress | None = None) -> Path:
    """The program promtool, built first when it is not in the cache."""
    return fetch(cache, progress)["promtool"]


def server(cache: Cache | None = None, progress: Progress | None = None) -> Path:
    """The program prometheus, built first when it is not in the cache."""
    return fetch(cache, progress)["prometheus"]


def fetch(cache: Cache | None = None, progress: Progress | None = None) -> dict[str, Path]:
    """Where both are. StackError that says how to install Go when it is missing to build them."""
    versions, cache = Versions.pinned(), cache or Cache()
    source = module(versions.prometheus)
    found = source.cached(cache, PROGRAMS)
    if found is None:
        install = "Install it from go.dev/dl; macOS: brew install go"
        tools.require([replace(tools.go(versions), needed_for="build Prometheus", install=install)])
        found = source.made(cache, progress or Progress(), PROGRAMS)
    return found


def module(versions: PrometheusVersions) -> GoModule:
    """How they are built."""
    return GoModule(
        name=f"prometheus-{versions.version}",
        folder=MODULE,
        title=f"Prometheus {versions.version}",
        takes="2 minutes on 2 idle cores",
        mains={name: f"{_PACKAGE}/{name}" for name in PROGRAMS},
        versions=dict.fromkeys(PROGRAMS, versions.version),
        tags="grpcnotrace,notest,remove_all_sd",
        is_optimised=False,
    )
