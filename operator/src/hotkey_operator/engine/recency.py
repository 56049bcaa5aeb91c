"""Whether something happened lately, by a clock that may be set back at any time."""

from __future__ import annotations

REPORT_SECONDS = 300.0  # a client that was silent for longer is not counted any more


def within(at: float, since: float, seconds: float) -> bool:
    """Whether `at` is less than `seconds` after `since`; what lies in the future never happened lately."""
    return 0 <= at - since < seconds
