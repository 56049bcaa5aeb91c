"""Operating-system processes: spawned, recorded, recognised again, signalled.

A process is recognised by pid and start time together, never by its name: a pid alone may have
been given to somebody else since.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devstack import launch
from devstack.errors import StackError

# Linux kills a tied child when the *thread* that forked it ends, so one thread that lives as long
# as the program forks them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devstack-spawner")

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class ProcessRecord:
    """What is kept on disk of a process that was started."""

    pid: int
    started: str
    command: str

    @classmethod
    def read(cls, path: Path) -> ProcessRecord | None:
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None

    @classmethod
    def of(cls, pid: int, command: str) -> ProcessRecord | None:
        started = launch.start_time(pid)
        return None if started is None else cls(pid, started, command)

    @property
    def is_running(self) -> bool:
        return launch.start_time(self.pid) == self.started

    def send(self, sent: signal.Signals) -> None:
        """Signals the process unless it is gone."""
        if self.is_running:
            try:
                os.kill(self.pid, sent)
            except ProcessLookupError:
                return

    def end(self, *, seconds: float, request: signal.Signals = signal.SIGTERM) -> None:
        """Asks to stop, asks once more after a moment, kills at the deadline.

        An API server waits for its open watches at the first request and exits at the second. A
        frozen process is woken, or it would never see the request.
        """
        deadline = time.monotonic() + seconds
        self.send(request)
        self.send(signal.SIGCONT)
        if self._gone_by(min(deadline, time.monotonic() + 2)):
            return
        self.send(request)
        if not self._gone_by(deadline):
            self.kill()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if not self._gone_by(time.monotonic() + 10):
            raise StackError(f"process {self.pid} ({self.command}) is still there 10 s after SIGKILL")

    def _gone_by(self, deadline: float) -> bool:
        return until(lambda: not self.is_running, deadline)


@dataclass(frozen=True)
class Command:
    """What to run and how."""

    argv: Sequence[str]
    environment: Mapping[str, str] | None = None
    unprivileged: bool = False


def spawn(command: Command, *, record: Path, log: Path, tied: bool) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, its output appended to `log`.

    `tied`: killed by the kernel (Linux) when this program ends, however it ends.
    """
    user = "unprivileged" if command.unprivileged else "keep"
    argv = launcher(str(record), os.getpid() if tied else 0, user, command.argv)
    record.unlink(missing_ok=True)

    def fork() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=command.environment,
                start_new_session=True,
            )

    return _spawner.submit(fork).result()


def launcher(record: str, parent: int, user: str, argv: Sequence[str]) -> list[str]:
    return [sys.executable, "-I", "-S", launch.__file__, record, str(parent), user, "--", *argv]


def run(
    argv: Sequence[str],
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    unprivileged: bool = False,
    folder: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> str:
    """Runs a command to its end and returns its output; it dies with this program.

    Raises StackError with the end of the output when it fails.
    """
    user = "unprivileged" if unprivileged else "keep"
    lines: list[str] = []
    with subprocess.Popen(
        launcher("-", os.getpid(), user, argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                if on_line is not None:
                    on_line(lines[-1])
        except BaseException:
            # On Ctrl-C nobody waits for a build of minutes: it and its compilers end now.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    output = "\n".join(lines)
    if process.returncode:
        tail = "\n".join(lines[-20:])
        raise StackError(f"{what} failed: {argv[0]} ended with {process.returncode}\n{tail}")
    return output


def until(condition: Callable[[], bool], deadline: float) -> bool:
    """Waits for a condition until a time of the monotonic clock; whether it came true."""
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def tail(log: Path, lines: int = 15, indent: str = "    ") -> str:
    """The last lines of a log, indented for an error message."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return f"{indent}(no log)"
    return (
        "\n".join(f"{indent}{line}" for line in text.splitlines()[-lines:]) or f"{indent}(the log is empty)"
    )
