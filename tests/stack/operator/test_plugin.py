"""`kubectl hotkeys` as people run it: the real kubectl finds it on PATH and hands it the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from devstack import Stack, tools
from hotkey_sdk.routing.router import Router
from tests.chart.commands import Printed, Program
from tests.stack.operator.conftest import StartLoad, StartSender
from tests.stack.operator.process import free_port
from tests.stack.operator.scene import Scene
from tests.stack.operator.sender import Record
from tests.stack.operator.waiting import eventually

BIN = Path(sys.executable).parent
BY_USER = {
    "dimensions": [{"name": "user_id", "from": {"jsonPath": "$.user_id"}}],
    "spread": {"by": [["user_id"]], "ordering": "PerDimension"},
}


class Hotkeys:
    """`kubectl hotkeys` with a kubeconfig, as one user."""

    def __init__(self, kubeconfig: Path) -> None:
        self._environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [str(tools.kubectl()), "hotkeys", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(command, env=self._environment, text=True, **pipes)

    def run(self, *arguments: str) -> Printed:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
        return Printed(process.returncode, out, err)

    def __call__(self, *arguments: str) -> str:
        printed = self.run(*arguments)
        assert printed.code == 0, printed
        assert printed.err == "", printed
        return printed.out

    def refusal(self, *arguments: str) -> str:
        """What it says on stderr where it cannot do it; never a stack trace."""
        printed = self.run(*arguments)
        assert (printed.code, printed.out) == (1, ""), printed
        assert "Traceback" not in printed.err
        return printed.err


@pytest.fixture
def hotkeys(stack: Stack, resources: Program) -> Hotkeys:
    """As the administrator of a cluster that knows our resources."""
    found = Hotkeys(stack.kubernetes.kubeconfig)
    eventually("the new resources are served", lambda: found.run("top", "-A").code == 0)
    return found


def kubeconfig_of(stack: Stack, folder: Path, name: str, **changes: Mapping[str, str]) -> Path:
    """The stack's kubeconfig with `cluster` or `user` replaced in part."""
    config: dict[str, Any] = yaml.safe_load(stack.kubernetes.kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= changes.get("cluster", {})
    if "user" in changes:
        config["users"][0]["user"] = dict(changes["user"])
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_spread_key_is_explained_by_what_the_operator_decided(
    scene: Scene, topic: str, start_load: StartLoad, hotkeys: Hotkeys
) -> None:
    # given an operator that has spread a key by user_id
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": {"recordsPerSecond": 500}, **BY_USER})
    scene.wait_for_condition("clicks", "Governing")
    start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    here = ("-n", scene.namespace)

    # then explain tells of it from evidence to what was rejected
    def is_told() -> bool:
        before = scene.table("clicks")
        told = hotkeys("explain", "nike", *here)
        assert before is not None
        (route,) = before.routes
        assert "+-" in told.partition("Evidence:")[2].partition("\n")[0], told
        assert "order is kept per user_id" in told, told
        assert f"over {len(route.shards)} shards" in told, told
        assert all(f"nike:{shard.id} " in told for shard in route.shards), (told, route)
        assert "give it a topic of its own" in told.partition("Rejected:")[2].partition("Shards:")[0], told
        event = told.partition("Events:")[2]
        assert "Spread" in event, told
        assert "rejected: leave it plain" in event, told
        return True

    eventually("all of it is told", is_told)

    # and the same value stands in status, in JSON and in YAML
    operator.stop()  # so that it stands still
    table = scene.table("clicks")
    assert table is not None
    (route,) = table.routes
    (entry,) = scene.status("clicks")["keys"]
    printed = json.loads(hotkeys("explain", "nike", *here, "-o", "json"))
    assert {name: printed[name] for name in entry} == entry
    assert {"cost", "rejected", "since"} <= entry.keys(), entry
    assert yaml.safe_load(hotkeys("explain", "nike", *here, "-o", "yaml")) == printed

    # and a record's shard is the one that producers take
    place = hotkeys("explain", "nike", *here, "--dimension", "user_id=42")
    taken = Router(table).route(b"nike", {"user_id": 42})
    assert taken is not None
    assert taken.key is not None
    assert place == f"{taken.key.decode()} on partition {taken.partition} of {topic} (user_id=42)\n"

    # and top has it first
    lines = hotkeys("top", *here).splitlines()
    assert lines[0].split()[:5] == ["NAMESPACE", "POLICY", "TOPIC", "KEY", "RECORDS/S"]
    assert lines[1].split()[:4] == [scene.namespace, "clicks", topic, "nike"]
    assert "nike" in {each["key"] for each in json.loads(hotkeys("top", "-A", "-o", "json"))["items"]}

    # and of a key that is not known the hottest one is named
    said = hotkeys.refusal("explain", "nikee", *here)
    assert f"key nikee is not known in namespace {scene.namespace}" in said
    assert "nearest: nike\n" in said
    first = route.shards[0].id
    said = hotkeys.refusal("explain", f"nike:{first}", *here)
    assert f"nike:{first} is shard {first} of key nike; explain that one" in said


def test_a_key_of_odd_bytes_is_found_as_status_writes_it(
    scene: Scene, topic: str, start_sender: StartSender, hotkeys: Hotkeys
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": {"recordsPerSecond": 100}})
    scene.wait_for_condition("clicks", "Governing")
    start_sender(lambda _: Record(topic, b"\xff\x1b[31m"), 600.0)
    scene.wait_for_routes("clicks", {b"\xff\x1b[31m"})

    told = hotkeys("explain", "\\xff\x1b[31m", "-n", scene.namespace)

    assert "\\xff\\x1b[31m" in told.splitlines()[0]
    assert "\x1b" not in told


# What may go wrong ----------------------------------------------------------------------------------------


def test_a_namespace_without_policies_is_said(hotkeys: Hotkeys) -> None:
    assert "No HotKeyPolicies found in namespace empty" in hotkeys.refusal("explain", "x", "-n", "empty")
    printed = hotkeys.run("top", "-n", "empty")
    assert (printed.code, printed.out) == (0, "")
    assert "No HotKeyPolicies found in namespace empty" in printed.err
    one = hotkeys.refusal("explain", "x", "-n", "empty", "--policy", "clicks")
    assert "No HotKeyPolicy clicks found" in one


def test_a_cluster_without_our_resources_is_said(make_stack: Any) -> None:
    bare: Stack = make_stack(redis=False)
    said = Hotkeys(bare.kubernetes.kubeconfig).refusal("top")
    assert "does not know the custom resources of hotkeys.dev" in said


def test_a_cluster_that_does_not_answer_is_said(stack: Stack, tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{free_port()}"
    config = kubeconfig_of(stack, tmp_path, "gone", cluster={"server": server})
    said = Hotkeys(config).refusal("explain", "nike")
    assert f"the Kubernetes API at {server} does not answer: Connection refused" in said


def test_a_kubeconfig_that_is_no_use_is_said(stack: Stack, tmp_path: Path, hotkeys: Hotkeys) -> None:
    (tmp_path / "nonsense").write_text("clusters: [")
    kubeconfig_of(stack, tmp_path, "serverless", cluster={"server": "nowhere"})
    for config in (tmp_path / "missing", tmp_path / "nonsense", tmp_path / "serverless"):
        assert "no usable kubeconfig" in hotkeys.refusal("top", "--kubeconfig", str(config))
    assert "nowhere" in hotkeys.refusal("top", "--context", "nowhere")


def test_credentials_that_are_not_accepted_are_said(stack: Stack, tmp_path: Path) -> None:
    config = kubeconfig_of(stack, tmp_path, "nobody", user={"token": "wrong"})
    assert "does not accept these credentials" in Hotkeys(config).refusal("top")


def test_rights_to_both_resources_are_enough_and_their_lack_is_said(
    stack: Stack, scene: Scene, resources: Program, tmp_path: Path
) -> None:
    # given a user without any right
    user = f"viewer-{uuid4().hex[:6]}"
    resources("create", "serviceaccount", user, "-n", scene.namespace)
    token = resources("create", "token", user, "-n", scene.namespace).strip()
    viewer = Hotkeys(kubeconfig_of(stack, tmp_path, "viewer", user={"token": token}))
    scene.apply("clicks", {"topic": "clicks"})

    said = viewer.refusal("top", "-n", scene.namespace)
    assert "cannot list resource" in said
    assert "get and list on hotkeypolicies and routingtables" in said

    # when it gets those to the two resources
    grant = ("create", "role", user, "--verb=get,list", "-n", scene.namespace)
    resources(*grant, "--resource=hotkeypolicies.hotkeys.dev,routingtables.hotkeys.dev")
    account = f"--serviceaccount={scene.namespace}:{user}"
    resources("create", "rolebinding", user, f"--role={user}", account, "-n", scene.namespace)

    # then it sees the policy, in its namespace alone
    top = eventually("the right is there", lambda: viewer.run("top", "-n", scene.namespace).out)
    assert "clicks" in top
    assert "at the cluster scope" in viewer.refusal("top", "-A")


def test_a_reader_that_has_enough_of_it_is_no_error(scene: Scene, hotkeys: Hotkeys) -> None:
    scene.apply("clicks", {"topic": "clicks"})
    process = hotkeys.start("top", "-n", scene.namespace, "--watch", "--interval", "0.1")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(30), said) == (0, "")


def test_an_interrupt_ends_it_without_a_word(scene: Scene, hotkeys: Hotkeys) -> None:
    scene.apply("clicks", {"topic": "clicks"})
    process = hotkeys.start("top", "-n", scene.namespace, "--watch", start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain",), "KEY"),
        (("explain", "nike", "--dimension", "user_id"), "'user_id' is not NAME=VALUE"),
        (("explain", "nike", "--at", "noon"), "'noon' is no time"),
        (("top", "--interval", "0"), "'0' is no number of seconds"),
        (("pin", "nike"), "pin"),
    ],
)
def test_a_wrong_command_line_is_said_with_the_usage(
    hotkeys: Hotkeys, arguments: tuple[str, ...], said: str
) -> None:
    printed = hotkeys.run(*arguments)
    assert (printed.code, printed.out) == (2, "")
    assert printed.err.startswith("usage: kubectl hotkeys")
    assert said in printed.err


def test_help_and_version_are_there(hotkeys: Hotkeys) -> None:
    assert {"explain", "top"} <= set(hotkeys("--help").split())
    assert "--dimension" in hotkeys("explain", "--help")
    assert hotkeys("--version").startswith("kubectl-hotkeys ")
