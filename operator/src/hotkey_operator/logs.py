"""Logs as one JSON object a line on stderr: what a person acts on, by a fixed event name and fields."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_logger = logging.getLogger("hotkey_operator")
_TOLD_OTHERWISE = ("aiohttp.server", "kopf.activities.probe")  # a failing probe is told by its own line
_FIELDS = "hotkey_fields"


def configure(level: str) -> None:
    """Send all logs to stderr as JSON; the frameworks' own only from WARNING on, unless DEBUG is asked."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    handler.addFilter(_is_worth_a_line)
    root.setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    _logger.setLevel(level)
    for name in _TOLD_OTHERWISE:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def say(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """One line: what happened (`event`, in words that never change) and to whom."""
    _logger.log(level, event, extra={_FIELDS: fields}, exc_info=error)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Each try of a client that will try again is noise: what comes of it is told by the loops."""
    text = record.getMessage()
    return not (
        text.startswith("Retrying (Retry(") or (text.startswith("Request attempt") and "will retry" in text)
    )


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname, "event": record.getMessage()}
        line |= getattr(record, _FIELDS, {"logger": record.name})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
