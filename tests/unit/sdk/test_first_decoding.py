"""Clients of one process start together: their threads may be the first to read a table, all at once.

msgspec builds what it knows of a type at its first use, and ends the process where several threads do so.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hotkey_sdk
from hotkey_sdk.routing import codec
from tests.unit.sdk.tables import route, table

PROCESSES = 4
TOGETHER = """
import pathlib, sys, threading
from hotkey_sdk.routing import codec

data = pathlib.Path(sys.argv[1]).read_bytes()
sys.setswitchinterval(1e-6)
barrier, found = threading.Barrier(32), []

def read():
    barrier.wait()
    found.append(codec.decode(data))

threads = [threading.Thread(target=read) for _ in range(32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 32
"""


def test_many_threads_may_be_the_first_to_read_a_table(tmp_path: Path) -> None:
    written = tmp_path / "table"
    written.write_bytes(codec.encode(table(route())))
    command = [sys.executable, "-c", TOGETHER, str(written)]

    ended = [subprocess.run(command, check=False).returncode for _ in range(PROCESSES)]

    assert ended == [0] * PROCESSES


def test_every_decoder_of_a_type_is_made_when_its_module_is_imported() -> None:
    """The race above is lost seldom; this is what it cannot be lost with."""
    folder = Path(hotkey_sdk.__file__).parent
    late = re.compile(r"json\.decode\([^\n]*type=")

    assert [path.name for path in folder.rglob("*.py") if late.search(path.read_text())] == []
