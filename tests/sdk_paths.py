"""Both paths of a record through the SDK, so that one test holds for both; told when only one is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hotkey_sdk._lanes import Path
from hotkey_sdk._producer import PATHS

NAMES = [path.name for path in PATHS]


@pytest.fixture(params=list(PATHS), ids=NAMES)
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The path that every producer of this test takes."""
    before, found = PATHS.in_use, request.param
    assert isinstance(found, Path)
    PATHS.take(found)
    yield found
    PATHS.take(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A missing extension is no failure, and no secret."""
    if "compiled" not in NAMES:
        terminalreporter.write_line(
            "Only the SDK's pure path was tested: hotkey_sdk._fast is not built, or HOTKEY_SDK_PURE is set."
        )
