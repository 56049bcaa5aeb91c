"""Log lines as `event=... key=value`: one line whatever a value holds, readable by people and machines."""

from __future__ import annotations

import json
import logging
import time
from typing import TextIO

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/@,+")


def line(event: str, **fields: object) -> str:
    """One line; values with anything but plain characters are quoted as JSON strings."""
    return " ".join([f"event={event}", *(f"{name}={_quoted(str(value))}" for name, value in fields.items())])


def log_to(stream: TextIO, level: str) -> None:
    """Send this process's log to `stream`, in UTC."""
    formatter = logging.Formatter(
        "time=%(asctime)s.%(msecs)03dZ level=%(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])
    # Each failed attempt of a pool to connect: what it means is told by whoever needs the connection.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


def _quoted(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)
