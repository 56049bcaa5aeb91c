"""Runs commands side by side, so many at a time, and tells meanwhile how far each is.

What a command prints is shown in one piece when it has ended, also when it is interrupted. It knows nothing
of what the commands check; how far one is, it reads from the file that `tests.progress` writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
TIMED_OUT = 124  # what timeout(1) returns
INTERRUPTED = 130  # what a shell makes of SIGINT
GRACE_SECONDS = 20.0  # for fixtures to stop what they started, before the command's processes are killed
TELL_SECONDS = 20.0
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """A command that may run beside others; `{progress}` in it is the file for its progress."""

    name: str
    command: tuple[str, ...]
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job or a part ended: its exit code, or the first that was not 0, and the seconds it took."""

    name: str
    code: int
    seconds: float

    @property
    def word(self) -> str:
        if self.code == 0:
            return "ok"
        words = {TIMED_OUT: "timed out", INTERRUPTED: "interrupted"}
        return words.get(self.code, f"FAILED (exit {self.code})")


class Running:
    """A job that was started, in a process group of its own."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self._started = time.monotonic()
        self._progress = folder / "progress"
        self._told: set[str] = set()
        command = [each.replace("{progress}", str(self._progress)) for each in job.command]
        self._output = (folder / "output").open("w+b")
        self._process = subprocess.Popen(
            command, cwd=ROOT, start_new_session=True, stdout=self._output, stderr=subprocess.STDOUT
        )

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_late(self) -> bool:
        return self.seconds > self.job.limit_seconds

    def progress(self) -> Progress:
        return Progress.read(self._progress)

    def newly_failed(self) -> list[str]:
        """Tests that failed since this was last asked."""
        new = [name for name in self.progress().failed if name not in self._told]
        self._told.update(new)
        return new

    def interrupt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)

    def end(self) -> None:
        """Wait for it, which was interrupted or has ended; what is left of it after the grace is killed."""
        stop(self._process, (None, signal.SIGKILL))

    def outcome(self, code: int | None = None) -> Outcome:
        """Shows what it printed; `code` instead of the process's own where it was made to end."""
        self._output.seek(0)
        text = self._output.read().decode("utf-8", "replace").rstrip()
        self._output.close()
        made = Outcome(self.job.name, self._process.returncode if code is None else code, self.seconds)
        print(f"\n=== {made.name}: {made.word}, {made.seconds:.0f} s\n{text}", flush=True)
        return made


def stop(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals | None]) -> None:
    """Send one signal after the other to a process's group, each with time to end; None is only to wait."""
    for number in signals:
        if process.poll() is not None:
            return
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)


def run(jobs: Sequence[Job], lanes: int) -> list[Outcome]:
    """Start the jobs in their order, `lanes` at a time; those that went on beyond their limit are ended."""
    with tempfile.TemporaryDirectory() as folder, _interrupted_in_the_end() as running:
        waiting = list(jobs)
        outcomes: list[Outcome] = []
        teller = _Teller(len(jobs))
        while waiting or running:
            while waiting and len(running) < lanes:
                place = Path(folder, str(len(waiting)))
                place.mkdir()
                running.append(Running(waiting.pop(0), place))
            outcomes += _ended(running)
            teller.look(running, waiting)
            time.sleep(LOOK_SECONDS)
        return outcomes


def _ended(running: list[Running]) -> list[Outcome]:
    """Takes those out that ended, or that were too long about it."""
    outcomes = []
    for each in list(running):
        late = not each.has_ended and each.is_late
        if not late and not each.has_ended:
            continue
        if late:
            each.interrupt()
            each.end()
        running.remove(each)
        outcomes.append(each.outcome(TIMED_OUT if late else None))
    return outcomes


@contextlib.contextmanager
def _interrupted_in_the_end() -> Iterator[list[Running]]:
    """A list of which all that is left at the end is stopped at once, and shown."""
    running: list[Running] = []
    try:
        yield running
    finally:
        for each in running:
            each.interrupt()
        for each in running:
            each.end()
            each.outcome(INTERRUPTED)


class _Teller:
    """A line each while about how far all are, and one for each failure as soon as it is seen."""

    def __init__(self, jobs: int) -> None:
        self._started = self._told = time.monotonic()
        self._jobs = jobs

    def look(self, running: Sequence[Running], waiting: Sequence[Job]) -> None:
        for each in running:
            for name in each.newly_failed():
                print(f"{self._clock()}  FAILED {name}", flush=True)
        if running and time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            shown = [f"{each.job.name} {each.progress()}" for each in running]
            later = [f"to come: {', '.join(job.name for job in waiting)}"] if waiting else []
            print(f"{self._clock()}  {'; '.join(shown + later)}", flush=True)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes:>3}:{seconds:02}"
