"""Text as kubectl prints it: columns, ages, and nothing that a terminal would take for a command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

NONE = "<none>"
_GAP = "   "
_STEPS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))
_DAYS_ALONE = 8  # from so many days on, kubectl leaves out the hours


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """A header and its rows, each column as wide as its widest cell."""
    cells = [list(header), *([printable(cell) or NONE for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [
        indent + _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def fields(named: Sequence[tuple[str, str]]) -> list[str]:
    """`Name:  value` lines, as `kubectl describe` aligns them."""
    width = max(len(name) for name, _ in named) + 1
    return [f"{name + ':':<{width}}  {printable(value)}".rstrip() for name, value in named]


def printable(text: str) -> str:
    """The text with every character that does not show, such as those that steer a terminal, escaped."""
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def age(since: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 time was, such as `45s`, `5m10s`, `3h` or `12d`; `<unknown>` without one."""
    moment = parsed(since)
    if moment is None:
        return "<unknown>"
    seconds = max(0, int((now - moment).total_seconds()))
    for size, unit, rest_size, rest_unit in _STEPS:
        whole, rest = divmod(seconds, size)
        if whole:
            rest //= rest_size
            alone = not rest or whole >= (_DAYS_ALONE if unit == "d" else 10)
            return f"{whole}{unit}" if alone else f"{whole}{unit}{rest}{rest_unit}"
    return f"{seconds}s"


def parsed(time: str | None) -> datetime | None:
    """An RFC 3339 time; None when there is none or it is no such time."""
    try:
        moment = datetime.fromisoformat(time) if time else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def percent(part: float) -> str:
    return f"{100 * part:.1f}%"
