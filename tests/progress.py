"""A pytest plugin that tells another process how far a run is: one line for each step in a file.

`pytest -p tests.progress --progress-file FILE` writes `total 12`, then `done` after each test and
`failed NAME` for each that failed. It knows nothing of who reads that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest


@dataclass(frozen=True, slots=True)
class Progress:
    """How many tests there are (0: not known yet), how many ended, and those that failed, once each."""

    total: int = 0
    done: int = 0
    failed: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Progress:
        """What was written so far; a line that is still being written is left out."""
        lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
        pairs = [line.split(" ", 1) for line in lines]
        total = sum(int(rest[0]) for word, *rest in pairs if word == "total")
        failed = dict.fromkeys(rest[0] for word, *rest in pairs if word == "failed")
        return cls(total, sum(word == "done" for word, *_ in pairs), tuple(failed))

    def __str__(self) -> str:
        counted = f"{self.done} of {self.total}" if self.total else "collecting"
        return f"{counted} ({len(self.failed)} failed)" if self.failed else counted


class _Teller:
    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._tell(f"total {len(session.items)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._tell("failed " + report.nodeid.replace("\n", " "))

    def pytest_runtest_logfinish(self) -> None:
        self._tell("done")

    def _tell(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--progress-file", type=Path, help="file to which lines of progress are written")


def pytest_sessionstart(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("--progress-file")
    if file is not None:
        opened = file.open("w", encoding="utf-8")
        session.config.add_cleanup(opened.close)
        session.config.pluginmanager.register(_Teller(opened))
