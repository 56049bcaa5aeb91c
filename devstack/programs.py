"""What a stack runs: found where the machine has it, else downloaded and built into the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack import control_plane, kafka_files, tools
from devstack.cache import Cache
from devstack.control_plane import ControlPlane
from devstack.kafka_archive import with_archive
from devstack.kafka_files import KafkaFiles
from devstack.progress import Progress
from devstack.state import Options
from devstack.versions import Versions


@dataclass(frozen=True)
class Programs:
    """Needed to start parts, not to find or stop those that run."""

    kafka: KafkaFiles
    control_plane: ControlPlane

    @classmethod
    def unknown(cls) -> Programs:
        return cls(KafkaFiles(Path(), Path()), ControlPlane({}))


def missing_tools(options: Options, cache: Cache, environment: Mapping[str, str]) -> list[tools.Tool]:
    """The tools that running, and making what is not in the cache yet, asks for."""
    versions = Versions.pinned()
    needed = [tools.java(versions)]
    installed = kafka_files.kafka_home(environment)
    if installed is None and cache.find(kafka_files.entry(versions.kafka)) is None:
        needed.append(tools.maven())
    names = _binaries(options)
    if names and not (
        control_plane.assets(environment, names) or control_plane.cached(versions.kubernetes, cache, names)
    ):
        needed.append(tools.go(versions))
    return needed


def fetch(options: Options, cache: Cache, environment: Mapping[str, str], progress: Progress) -> Programs:
    """Makes what is not there (minutes the first time). StackError names all missing tools first."""
    tools.require(missing_tools(options, cache, environment))
    versions = Versions.pinned()
    kafka = kafka_files.kafka_files(versions.kafka, cache, progress, environment)
    names = _binaries(options)
    binaries = ControlPlane({})
    if names:
        binaries = control_plane.control_plane(versions.kubernetes, cache, progress, environment, names)
    if kafka.libs.is_relative_to(cache.folder):
        # Jars of KAFKA_HOME may change under an archive.
        kafka = with_archive(kafka, cache, progress)
    return Programs(kafka, binaries)


def _binaries(options: Options) -> tuple[str, ...]:
    if not options.kubernetes or options.use_cluster is not None:
        return ()
    return control_plane.wanted(controller_manager=options.controller_manager)
