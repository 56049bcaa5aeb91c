"""`hotkey-aggregator query`: asks a running aggregator over HTTP and prints what it says."""

from __future__ import annotations

import sys
from http.client import HTTPException, HTTPResponse
from typing import TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec

from hotkey_aggregator.settings import QuerySettings

TIMEOUT_SECONDS = 60


class QueryError(Exception):
    """The aggregator did not answer, or refused; the message says which and what to do."""


def ask(settings: QuerySettings, out: TextIO = sys.stdout) -> None:
    """Print the answer: rows as a table, ids one JSON string a line, all else as indented JSON."""
    url = f"{settings.url}/{settings.what}"
    if settings.parameters:
        url += "?" + urlencode(settings.parameters)
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            _print(settings.what, response, out)
    except HTTPError as error:
        raise QueryError(
            f"{url} answered {error.code}: {error.read().decode(errors='replace').strip()}"
        ) from None
    except BrokenPipeError:
        raise  # whoever reads what is printed has enough of it: no fault of the aggregator
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise QueryError(
            f"no whole answer from {settings.url}: {reason}. Is an aggregator running there? (--url)"
        ) from None


def _print(what: str, response: HTTPResponse, out: TextIO) -> None:
    if what == "ids":
        for text in response:
            out.write(text.decode())
        return
    document = msgspec.json.decode(response.read())
    if what in ("totals", "watermark"):
        out.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
        return
    rows = document[what]
    out.write("\n".join(table(rows)) + "\n" if rows else "none\n")
    if document["truncated"]:
        out.write(f"(the first {len(rows)}; ask for more with --limit)\n")


def table(rows: list[dict[str, object]]) -> list[str]:
    """Lines of columns, each as wide as its widest cell; control characters are shown escaped."""
    rows_of_cells = [[_printable(str(value)) for value in row.values()] for row in rows]
    lines = [list(rows[0]), *rows_of_cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
