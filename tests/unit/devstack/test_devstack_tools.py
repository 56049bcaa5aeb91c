"""A missing tool is named with how to install it, before anything is made or started."""

from __future__ import annotations

from pathlib import Path

import pytest

from devstack import Stack, StackError, control_plane, kafka_files, prometheus, tools
from devstack.cache import Cache
from devstack.programs import missing_tools
from devstack.state import Options
from devstack.versions import Versions

PINNED = Versions.pinned()


def names(options: Options, cache: Cache, environment: dict[str, str]) -> list[str]:
    return [tool.name for tool in missing_tools(options, cache, environment)]


@pytest.fixture
def empty(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def filled(empty: Cache) -> Cache:
    entries = [kafka_files.entry(PINNED.kafka)]
    entries += [control_plane.entry(name, PINNED.kubernetes) for name in ("etcd", "kube-apiserver")]
    for entry in entries:
        (empty.folder / entry).mkdir(parents=True)
    return empty


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (folder / name).touch(mode=0o755)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    libs = tmp_path / "kafka" / "libs"
    libs.mkdir(parents=True)
    (libs / "kafka_2.13-0.0.1.jar").touch()
    return libs.parent


def test_an_empty_cache_needs_all_three(empty: Cache) -> None:
    assert names(Options(), empty, {}) == ["java", "mvn", "go"]


def test_a_filled_cache_needs_java_alone(filled: Cache) -> None:
    assert names(Options(), filled, {}) == ["java"]


def test_the_controller_manager_is_built_only_when_asked_for(filled: Cache) -> None:
    assert names(Options(controller_manager=True), filled, {}) == ["java", "go"]


def test_no_go_is_needed_without_kubernetes_or_with_a_cluster(empty: Cache) -> None:
    assert names(Options(kubernetes=False), empty, {}) == ["java", "mvn"]
    assert names(Options(use_cluster="kubeconfig"), empty, {}) == ["java", "mvn"]


def test_kubebuilder_assets_and_kafka_home_take_the_place_of_go_and_maven(
    empty: Cache, assets: Path, home: Path
) -> None:
    environment = {"KUBEBUILDER_ASSETS": str(assets), "KAFKA_HOME": str(home)}
    assert names(Options(), empty, environment) == ["java"]


def test_kubebuilder_assets_without_the_binaries_is_refused_by_name(empty: Cache, assets: Path) -> None:
    (assets / "etcd").unlink()
    with pytest.raises(StackError, match=r"KUBEBUILDER_ASSETS is .* holds no etcd"):
        missing_tools(Options(), empty, {"KUBEBUILDER_ASSETS": str(assets)})


def test_kafka_home_without_jars_is_refused_by_name(empty: Cache, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"KAFKA_HOME is .* holds no kafka_"):
        missing_tools(Options(), empty, {"KAFKA_HOME": str(tmp_path)})


def test_every_missing_tool_is_named_at_once_and_nothing_is_begun(
    tmp_path: Path, empty: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stack = Stack(tmp_path / "stack", environment={}, cache=empty)

    with pytest.raises(StackError) as raised:
        stack.start()

    for tool, hint in (("java", "apt install openjdk"), ("mvn", "apt install maven"), ("go", "go.dev/dl")):
        assert f"{tool} is not on the PATH" in str(raised.value)
        assert hint in str(raised.value)
    assert not (tmp_path / "stack").exists()
    assert not empty.folder.exists()


def test_prometheus_is_not_begun_without_go(
    tmp_path: Path, empty: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StackError, match=r"go is not on the PATH.*to build Prometheus"):
        prometheus.promtool(empty)
    assert not empty.folder.exists()


def test_a_prometheus_that_is_in_the_cache_needs_nothing(
    tmp_path: Path, empty: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in prometheus.PROGRAMS:
        (empty.folder / prometheus.module(PINNED.prometheus).entry(name)).mkdir(parents=True)

    assert prometheus.promtool(empty).name == "promtool"
    assert prometheus.server(empty).name == "prometheus"


@pytest.mark.parametrize(
    ("printed", "minimum", "problem"),
    [
        ("1.26.8", "1.26", None),
        ("1.27", "1.26", None),
        ("2.0", "1.26", None),
        ("1.9.1", "1.26", "is version 1.9.1; 1.26 or newer is needed"),
        ("", "17", "is version unknown; 17 or newer is needed"),
    ],
)
def test_an_old_tool_is_named_with_its_version(printed: str, minimum: str, problem: str | None) -> None:
    tool = tools.Tool("sh", "try it", minimum, lambda: printed, "install it")
    found = tool.problem()
    assert found is None if problem is None else problem in str(found)


def test_brokers_other_than_one_or_three_are_refused() -> None:
    with pytest.raises(StackError, match="2 brokers were asked for"):
        Options(brokers=2)
