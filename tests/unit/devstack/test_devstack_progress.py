"""A person who waits is told what is done, how far it is and how long it has taken."""

from __future__ import annotations

import io

import pytest

from devstack.progress import Progress, duration, render


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 0, 7.9, "building: 7 s"),
        (5, 100, 30, "building: 5 of 100, 30 s"),
        (50, 100, 125, "building: 50 of 100, 2 min 05 s, about 2 min 05 s left"),
        (100, 100, 60, "building: 100 of 100, 1 min 00 s"),
    ],
)
def test_a_line_says_what_how_far_and_how_long(done: int, total: int, seconds: float, line: str) -> None:
    assert render("building", done, total, seconds) == line


def test_without_a_terminal_whole_lines_are_printed() -> None:
    out = io.StringIO()
    with Progress(out).step("building") as step:
        step.at(1, 2)
    assert out.getvalue() == f"building ...\nbuilding: done after {duration(0)}\n"


def test_on_a_terminal_one_line_is_rewritten() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with Progress(out).step("building"):
        pass
    assert out.getvalue().startswith("\r\x1b[Kbuilding ...\r\x1b[K")
    assert out.getvalue().count("\n") == 1


def test_a_step_that_fails_is_not_said_to_be_done() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(out).step("building"):
        raise KeyboardInterrupt
    assert "stopped after" in out.getvalue()
    assert "done" not in out.getvalue()


def test_a_quiet_progress_says_nothing() -> None:
    out = io.StringIO()
    progress = Progress(out, quiet=True)
    progress.say("hello")
    assert out.getvalue() == ""
