"""What stands behind a flag, read strictly: a mistake is told with what was found and what is expected."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence

from hotkey_aggregator.events import Reason
from hotkey_aggregator.store import HOUR_MILLISECONDS


def port(text: str) -> int:
    """A TCP port; 0 for a free one."""
    return _number(text, 0, 65_535)


def positive(text: str) -> int:
    """A whole number from 1."""
    return _number(text, 1, 10**9)


def _number(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
    return number


def positive_seconds(text: str) -> float:
    """Seconds above 0, at most an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to 3600")
    return seconds


_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": HOUR_MILLISECONDS, "d": 24 * HOUR_MILLISECONDS}


def duration(text: str) -> int:
    """Milliseconds of `90d`, `24h`, `30m`, `5s` or `500ms`."""
    found = re.fullmatch(r"(\d{1,6})(ms|s|m|h|d)", text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90d, 24h, 30m, 5s or 500ms")
    return int(found[1]) * _UNITS[found[2]]


def schema(text: str) -> str:
    """The name of a PostgreSQL schema that needs no quotes."""
    if re.fullmatch(r"(?!pg_)[a-z_][a-z0-9_]{0,62}", text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no schema name: up to 63 of a-z, 0-9 and _, no digit first, not beginning with pg_"
        )
    return text


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """One of some words."""

    def check(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text

    return check


def reason(text: str) -> Reason:
    """A reason of a dead letter, in any case."""
    by_name = {one.value.lower(): one for one in Reason}
    if text.lower() not in by_name:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(one.value for one in Reason)}")
    return by_name[text.lower()]


def log_level(text: str) -> str:
    """A level of the log, in any case."""
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of debug, info, warning, error")
    return text.upper()
