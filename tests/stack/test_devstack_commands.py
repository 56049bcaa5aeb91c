"""`python -m devstack`: up as often as one likes, what crashed is found again or cleared."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from devstack import Stack, StackError
from devstack.process import ProcessRecord, until
from devstack.state import State
from devstack.tools import kubectl

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60.0


class Terminal:
    """Runs commands on a stack of their own, as a person would."""

    def __init__(self, root: Path, kubeconfig: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.kubeconfig = kubeconfig
        self.environment = dict(environment)

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            cwd=REPOSITORY,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "devstack", "--root", str(self.root), *words]

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Kafka and Valkey of its own, and the shared stack's Kubernetes as a cluster that is there."""
        shown = self.type("up", "--use-cluster", str(self.kubeconfig), *words)
        assert shown.returncode == 0, shown.stderr
        return shown

    def records(self) -> dict[str, ProcessRecord]:
        found = {path.stem: ProcessRecord.read(path) for path in (self.root / "run").glob("*.json")}
        return {name: record for name, record in found.items() if record is not None}


@contextmanager
def typing(root: Path, stack: Stack, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """A terminal whose stack is gone afterwards."""
    terminal = Terminal(root, stack.kubernetes.kubeconfig, environment)
    yield terminal
    left = terminal.records()
    terminal.type("down", "--wipe")
    assert not [name for name, record in left.items() if record.is_running]


@pytest.fixture
def terminal(tmp_path: Path, stack: Stack, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Nothing is up yet."""
    with typing(tmp_path / "stack", stack, environment) as made:
        yield made


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, stack: Stack, environment: Mapping[str, str]
) -> Iterator[Terminal]:
    """A stack that is up, for tests that only look at it."""
    with typing(tmp_path_factory.mktemp("up") / "stack", stack, environment) as made:
        made.up()
        yield made


def test_up_leaves_the_parts_running_and_says_how_to_look_around(up: Terminal) -> None:
    assert set(up.records()) == {"kafka", "redis"}
    assert all(record.is_running for record in up.records().values())
    attached = Stack.attach(up.root)
    shown = up.up().stdout
    for hint in (attached.kafka.bootstrap, attached.redis.url, f"kubectl --kubeconfig {up.kubeconfig}"):
        assert hint in shown


def test_a_second_up_changes_nothing(up: Terminal) -> None:
    before = up.records()
    again = up.up()
    assert up.records() == before
    assert "all of it is running already" in again.stderr


def test_an_up_that_fails_is_not_remembered(up: Terminal) -> None:
    before = up.type("status").stdout
    shown = up.type("up", "--use-cluster", "/nope")
    assert shown.returncode == 1
    assert "/nope" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert up.type("status").stdout == before


@pytest.mark.slow
def test_up_adds_a_part_to_what_runs(terminal: Terminal) -> None:
    terminal.up()
    before = terminal.records()
    terminal.up("--postgres")
    after = terminal.records()
    assert set(after) == {*before, "postgres"}
    assert {name: after[name] for name in before} == before


def test_another_number_of_brokers_is_refused_with_what_to_do(up: Terminal) -> None:
    shown = up.type("up", "--brokers", "3")
    assert shown.returncode == 1
    assert "was made with --brokers 1" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_down_stops_all_and_the_next_up_finds_the_data(terminal: Terminal) -> None:
    terminal.up("--redis-persistent")
    first = Stack.attach(terminal.root)
    with redis.Redis.from_url(first.redis.url) as connection:
        connection.set("table", "7")
    records = terminal.records()

    shown = terminal.type("down")

    assert shown.stdout == "stopped kafka, redis\n"
    assert not [name for name, record in records.items() if record.is_running]
    assert terminal.type("down").stdout == "nothing was running\n"
    terminal.up("--redis-persistent")
    assert Stack.attach(terminal.root).kafka.bootstrap == first.kafka.bootstrap
    with redis.Redis.from_url(first.redis.url) as connection:
        assert connection.get("table") == b"7"


def test_status_tells_what_runs_and_up_starts_only_what_does_not(terminal: Terminal) -> None:
    # given a stack whose redis has died
    terminal.up()
    assert terminal.type("status").returncode == 0
    before = terminal.records()
    before["redis"].kill()
    # when a person asks
    shown = terminal.type("status")
    # then it is told, and put right without touching Kafka
    assert shown.returncode == 1
    states = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()}
    assert states == {"kafka": "running", "redis": "stopped", "kubernetes": "external"}
    assert "starting redis: done" in terminal.up().stderr
    assert terminal.records()["kafka"] == before["kafka"]


def test_what_a_killed_up_left_is_cleared_by_the_next(terminal: Terminal) -> None:
    # given an `up` that was killed when it had started something
    argv = terminal.argv("up", "--use-cluster", str(terminal.kubeconfig))
    with subprocess.Popen(
        argv, cwd=REPOSITORY, env=terminal.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        deadline = time.monotonic() + DEADLINE_SECONDS
        assert until(lambda: "redis" in terminal.records(), deadline), "nothing was started"
        first.kill()
    assert json.loads((terminal.root / "stack.json").read_text())["phase"] == "starting"
    left = {name: record for name, record in terminal.records().items() if record.is_running}
    assert "redis" in left
    # when up is typed again
    shown = terminal.up()
    # then what was left is gone, and a whole stack runs
    assert not [name for name, record in left.items() if record.is_running]
    assert "cleared what an earlier run had left: redis" in shown.stderr
    assert terminal.type("status").returncode == 0


def test_an_interrupted_up_leaves_nothing(terminal: Terminal) -> None:
    argv = terminal.argv("up", "--use-cluster", str(terminal.kubeconfig))
    with subprocess.Popen(
        argv, cwd=REPOSITORY, env=terminal.environment, text=True, stderr=subprocess.PIPE
    ) as first:
        deadline = time.monotonic() + DEADLINE_SECONDS
        assert until(lambda: "redis" in terminal.records(), deadline), "nothing was started"
        left = terminal.records()
        first.send_signal(signal.SIGTERM)
        _, said = first.communicate(timeout=DEADLINE_SECONDS)
    assert "Traceback" not in said
    assert not [name for name, record in {**left, **terminal.records()}.items() if record.is_running]


@pytest.mark.slow
def test_a_process_that_only_has_the_recorded_pid_is_left_alone(terminal: Terminal) -> None:
    # given a stack that is down, and a record with the pid of a stranger
    terminal.up()
    terminal.type("down")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as stranger:
        try:
            record = {"pid": stranger.pid, "started": "an earlier boot:1", "command": "valkey-server"}
            (terminal.root / "run" / "redis.json").write_text(json.dumps(record))
            # when up and down clear what is recorded
            terminal.up()
            terminal.type("down")
            # then the stranger lives
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_logs_shows_a_part_and_names_the_parts(up: Terminal) -> None:
    assert "Ready to accept connections" in up.type("logs", "redis").stdout
    unknown = up.type("logs", "zookeeper")
    assert unknown.returncode == 1
    assert unknown.stderr == "there is no part zookeeper: the parts are kafka, redis\n"


def test_the_shell_has_the_addresses_set(up: Terminal, tmp_path: Path) -> None:
    program = tmp_path / "print-environment"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    up.environment["SHELL"] = str(program)

    lines = up.type("shell").stdout.splitlines()

    attached = Stack.attach(up.root)
    assert f"KAFKA_BOOTSTRAP={attached.kafka.bootstrap}" in lines
    assert f"REDIS_URL={attached.redis.url}" in lines
    assert f"KUBECONFIG={up.kubeconfig}" in lines


def test_the_exports_can_be_evaluated(up: Terminal) -> None:
    exports = up.type("env").stdout
    shown = subprocess.run(
        ["sh", "-c", f'{exports}\necho "$REDIS_URL"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == Stack.attach(up.root).redis.url


@pytest.mark.parametrize("command", ["status", "shell", "env", "logs kafka"])
def test_without_a_stack_the_way_to_start_one_is_named(
    tmp_path: Path, environment: Mapping[str, str], command: str
) -> None:
    terminal = Terminal(tmp_path / "none", tmp_path, environment)
    shown = terminal.type(*command.split())
    assert shown.returncode == 1
    assert "start one with `python -m devstack up`" in shown.stderr
    assert not terminal.root.exists()


def test_an_external_redis_is_used_and_neither_started_nor_stopped(stack: Stack, terminal: Terminal) -> None:
    # given a Redis that somebody else runs
    terminal.environment["REDIS_URL"] = stack.redis.url
    # when a stack is started and stopped beside it
    shown = terminal.up()
    assert set(terminal.records()) == {"kafka"}
    assert stack.redis.url in shown.stdout
    terminal.type("down")
    # then it runs on, and is nothing to be killed
    assert stack.redis.is_running
    with pytest.raises(StackError, match="not ours"):
        Stack.attach(terminal.root).redis.kill()


def test_an_external_redis_that_does_not_answer_is_named(terminal: Terminal) -> None:
    terminal.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    shown = terminal.type("up", "--use-cluster", str(terminal.kubeconfig))
    assert shown.returncode == 1
    assert "REDIS_URL is redis://127.0.0.1:1/0, but nothing answers there" in shown.stderr
    assert not terminal.records()


def test_a_cluster_that_does_not_answer_is_named(terminal: Terminal, tmp_path: Path) -> None:
    shown = terminal.type("up", "--use-cluster", str(tmp_path / "nothing"))
    assert shown.returncode == 1
    assert "(--use-cluster) does not answer" in shown.stderr
    assert not terminal.records()


def test_the_parts_of_a_living_program_are_not_taken_from_it(
    stack: Stack, environment: Mapping[str, str]
) -> None:
    """The shared stack belongs to this very pytest process."""
    shown = Terminal(stack.root, stack.kubernetes.kubeconfig, environment).type("up")
    assert shown.returncode == 1
    assert f"belongs to process {os.getpid()}" in shown.stderr
    assert all(part.is_running for part in stack.parts.processes)


@pytest.mark.slow
def test_what_runs_goes_on_when_an_addition_fails(terminal: Terminal) -> None:
    # given a stack that is up, and a port for PostgreSQL that somebody else took
    terminal.up()
    before = terminal.records()
    state = State.read(terminal.root)
    assert state is not None
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", state.ports["postgres"]))
        taken.listen()
        # when PostgreSQL is added
        shown = terminal.type("up", "--use-cluster", str(terminal.kubeconfig), "--postgres")
    # then its log is shown, and the rest runs on
    assert shown.returncode == 1
    assert "postgres on 127.0.0.1" in shown.stderr
    assert "could not bind" in shown.stderr
    assert terminal.records() == before
    assert all(record.is_running for record in before.values())


@pytest.mark.slow
def test_installed_binaries_take_the_place_of_downloads_and_builds(
    terminal: Terminal, tmp_path: Path, environment: Mapping[str, str]
) -> None:
    # given a Kafka and Kubernetes binaries that are there, and a cache that is empty
    programs = Stack(tmp_path, environment=environment).fetch()
    assets = tmp_path / "assets"
    assets.mkdir()
    for name, path in programs.control_plane.binaries.items():
        (assets / name).symlink_to(path)
    installed = {"KUBEBUILDER_ASSETS": str(assets), "KAFKA_HOME": str(programs.kafka.libs.parent)}
    terminal.environment |= {**installed, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # when a stack is started
    shown = terminal.type("up")
    # then it runs them, and nothing was downloaded or built
    assert shown.returncode == 0, shown.stderr
    assert set(terminal.records()) == {"kafka", "etcd", "apiserver", "redis"}
    filled = [path.name for path in (tmp_path / "cache" / "hotkey").iterdir() if path.is_dir()]
    assert all(name.startswith("kafka-log4j-") for name in filled), filled


@pytest.mark.slow
def test_a_whole_stack_comes_up_without_any_option(terminal: Terminal) -> None:
    shown = terminal.type("up")
    assert shown.returncode == 0, shown.stderr
    assert set(terminal.records()) == {"kafka", "etcd", "apiserver", "redis"}
    asked = [str(kubectl()), "--kubeconfig", str(terminal.root / "kubeconfig"), "get", "namespaces"]
    assert "default" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout
