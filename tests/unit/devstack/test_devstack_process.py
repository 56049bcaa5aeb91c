"""Processes are recognised by pid and start time, and end when they are told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devstack import StackError
from devstack.process import Command, ProcessRecord, run, spawn, tail, until

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(300)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(300)",
]
TWICE_PROGRAM = """
import signal, sys, time
told = []
def on_request(*_):
    told.append(1)
    if len(told) == 2:
        sys.exit("told twice")
signal.signal(signal.SIGTERM, on_request)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""
TWICE = [sys.executable, "-c", TWICE_PROGRAM]


class Spawned:
    """Starts processes of one test and kills what is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []

    @property
    def record_file(self) -> Path:
        return self.folder / "part.json"

    @property
    def log(self) -> Path:
        return self.folder / "part.log"

    def start(self, argv: list[str], *, tied: bool = True) -> ProcessRecord:
        child = spawn(Command(argv), record=self.record_file, log=self.log, tied=tied)
        self.children.append(child)
        assert until(lambda: "ready" in self.log.read_text(), time.monotonic() + 30), tail(self.log)
        record = ProcessRecord.read(self.record_file)
        assert record is not None
        return record


@pytest.fixture
def spawned(tmp_path: Path) -> Iterator[Spawned]:
    processes = Spawned(tmp_path)
    yield processes
    for child in processes.children:
        child.kill()
        child.wait()


def test_a_started_process_is_on_record_with_pid_and_start_time(spawned: Spawned) -> None:
    record = spawned.start(SLEEP)
    assert record.pid == spawned.children[0].pid
    assert record == ProcessRecord.of(record.pid, record.command)
    assert record.is_running


def test_another_process_with_the_same_pid_is_not_ours(spawned: Spawned) -> None:
    record = spawned.start(SLEEP)
    other = replace(record, started="some other boot:1")

    other.send(signal.SIGKILL)
    other.kill()

    assert not other.is_running
    assert record.is_running


def test_a_record_whose_process_is_gone_is_not_running(spawned: Spawned) -> None:
    record = spawned.start(SLEEP)
    record.kill()
    assert not record.is_running


def test_a_missing_record_is_none(tmp_path: Path) -> None:
    assert ProcessRecord.read(tmp_path / "none.json") is None


def test_a_process_that_ignores_the_request_is_killed_at_the_deadline(spawned: Spawned) -> None:
    record = spawned.start(STUBBORN)
    record.end(seconds=0.2)
    assert spawned.children[0].wait() == -signal.SIGKILL


def test_a_process_that_waits_for_a_second_request_gets_it(spawned: Spawned) -> None:
    record = spawned.start(TWICE)
    record.end(seconds=30)
    assert spawned.children[0].wait() == 1
    assert "told twice" in spawned.log.read_text()


def test_a_frozen_process_is_ended_in_order(spawned: Spawned) -> None:
    record = spawned.start(SLEEP)
    record.send(signal.SIGSTOP)
    record.end(seconds=30)
    assert spawned.children[0].wait() == -signal.SIGTERM


def test_a_blocked_signal_mask_is_not_inherited(spawned: Spawned) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        record = spawned.start(SLEEP)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    record.end(seconds=30)
    assert spawned.children[0].wait() == -signal.SIGTERM


PARENT = """
import sys, time
from pathlib import Path
from threading import Thread
from devstack.process import Command, spawn
folder, tied = Path(sys.argv[1]), sys.argv[2] == "tied"
start = lambda: spawn(Command(sys.argv[3:]), record=folder / "part.json", log=folder / "part.log", tied=tied)
starter = Thread(target=start)
starter.start()
starter.join()
print("started", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
@pytest.mark.parametrize("tied", ["tied", "free"])
def test_only_a_tied_process_ends_with_its_parent(tmp_path: Path, tied: str) -> None:
    # given a program that starts a process from a thread which then ends
    program = [sys.executable, "-c", PARENT, str(tmp_path), tied, *SLEEP]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        log = tmp_path / "part.log"
        assert until(lambda: "ready" in log.read_text(), time.monotonic() + 30), tail(log)
        record = ProcessRecord.read(tmp_path / "part.json")
        assert record is not None
        assert record.is_running
        # when the program is killed
        parent.kill()
    # then the process is gone, or still there
    try:
        ended = until(lambda: not record.is_running, time.monotonic() + (30 if tied == "tied" else 0.5))
        assert ended == (tied == "tied")
    finally:
        record.kill()


def test_a_failed_command_shows_the_end_of_its_output() -> None:
    argv = [sys.executable, "-c", "import sys; print('no space left'); sys.exit(3)"]
    with pytest.raises(StackError, match=r"building it failed: .* ended with 3\nno space left"):
        run(argv, what="building it")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(StackError, match="no-such-program"):
        run(["no-such-program"], what="building it")


def test_an_interrupted_command_is_killed_with_its_children(tmp_path: Path) -> None:
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    seen: list[ProcessRecord] = []

    def interrupt(line: str) -> None:
        record = ProcessRecord.of(int(line), "child")
        assert record is not None
        seen.append(record)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, "-c", parent], what="waiting", on_line=interrupt)

    assert until(lambda: not seen[0].is_running, time.monotonic() + 30), f"{seen[0]} still runs"


def test_a_record_is_json_that_a_person_can_read(spawned: Spawned) -> None:
    record = spawned.start(SLEEP)
    assert json.loads(spawned.record_file.read_text()) == {
        "pid": record.pid,
        "started": record.started,
        "command": sys.executable,
    }
    assert os.getpid() != record.pid
