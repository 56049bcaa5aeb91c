"""Becomes the process it is asked to start: `launch.py RECORD PARENT USER -- COMMAND...`.

Run as a script between fork and exec, because what it does is not safe in a forked copy of a
Python program with threads: it writes the pid record before the command exists (so that no crash
leaves a process nobody knows of), ties the process to its parent, clears the inherited signal mask
(a JVM keeps it) and, for PostgreSQL, leaves root behind in a user namespace of its own.

RECORD is a file to write or `-`, PARENT the pid whose death kills this process or `0`, USER
`keep` or `unprivileged`. Standard library alone, and nothing of devstack: it starts in 20 ms.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_UNPRIVILEGED_ID = 1000


def start_time(pid: int) -> str | None:
    """When a process started, as this boot counts it; None when it is gone or only a zombie.

    Equal for the same process and never equal for another one that got its pid. Linux tells clock
    ticks since the boot; elsewhere `ps` tells the second.
    """
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self").exists() else _start_time_by_ps(pid)
    fields = line.rpartition(")")[2].split()
    if fields[0] in "ZX" and not _has_threads(pid):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"


def _has_threads(pid: int) -> bool:
    """A dead process whose threads are still ending holds its ports and locks a moment longer."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except FileNotFoundError:
        return False


def _start_time_by_ps(pid: int) -> str | None:
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def _write_record(path: Path, command: list[str]) -> None:
    record = {"pid": os.getpid(), "started": start_time(os.getpid()), "command": command[0]}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record))
    partial.replace(path)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")


def _leave_root() -> None:
    """PostgreSQL refuses root: inside the namespace the same files belong to an ordinary user."""
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        return
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) != 0:
        sys.exit(f"no user namespace ({os.strerror(ctypes.get_errno())}): start it as another user than root")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{_UNPRIVILEGED_ID} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{_UNPRIVILEGED_ID} {gid} 1")


def main() -> None:
    record, parent, user, _, *command = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if record != "-":
        _write_record(Path(record), command)
    if user == "unprivileged":
        _leave_root()
    if parent != "0" and sys.platform == "linux":
        _die_with(int(parent))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
