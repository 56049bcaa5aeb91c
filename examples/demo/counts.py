"""What the aggregator says it counted, asked over HTTP as any query would be."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import datetime
from http.client import HTTPException
from typing import Any

from examples.demo.errors import DemoError
from examples.demo.evidence import Window

LOOK_SECONDS = 0.2
CALL_SECONDS = 60.0
MOST_WINDOWS = 1_000_000


class Counts:
    """A running aggregator's answers. Every method raises `DemoError` when there is none."""

    def __init__(self, url: str) -> None:
        self.url = url

    def wait_for_offsets(
        self, topic: str, ends: Sequence[int], seconds: float, alive: Callable[[], None]
    ) -> None:
        """Wait until every record of `topic` before `ends` (by partition) is counted in the store."""
        deadline = time.monotonic() + seconds
        while (left := self._left(topic, ends)) and time.monotonic() < deadline:
            alive()
            time.sleep(LOOK_SECONDS)
        if left:
            raise DemoError(
                f"the aggregator has {left} records of {topic} left to count after {seconds:.0f} s"
            )

    def _left(self, topic: str, ends: Sequence[int]) -> int:
        offsets = json.loads(self._get("/totals"))["offsets"].get(topic, {})
        return sum(max(0, end - int(offsets.get(str(p), 0))) for p, end in enumerate(ends))

    def ids(self) -> list[str]:
        """Every counted event id, as often as it stands in the store."""
        return [json.loads(line) for line in self._get("/ids").splitlines()]

    def windows(self) -> dict[Window, int]:
        """The clicks per advertiser, ad and minute."""
        answer = json.loads(self._get(f"/counts?limit={MOST_WINDOWS}"))
        if answer["truncated"]:
            raise DemoError(f"the aggregator has more than {MOST_WINDOWS} windows: too many to compare")
        return {_window(row): int(row["clicks"]) for row in answer["counts"]}

    def _get(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(self.url + path, timeout=CALL_SECONDS) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError, HTTPException) as error:
            raise DemoError(f"the aggregator at {self.url}{path}: {error}") from None


def _window(row: dict[str, Any]) -> Window:
    minute = datetime.fromisoformat(row["minute"])
    return row["advertiser_id"], row["ad_id"], int(minute.timestamp()) * 1000
