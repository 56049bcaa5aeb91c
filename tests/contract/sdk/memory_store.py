"""A table store in memory, for tests of what follows tables.

The contract suite holds it to what Redis does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from hotkey_sdk._store import (
    MISSING,
    TOO_BIG,
    UNCHANGED,
    WRONG_TYPE,
    Found,
    ReportRefusedError,
    StoreUnavailableError,
)
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES, digest
from hotkey_sdk.routing.report import KEY_REPORTS_STAND_SECONDS
from hotkey_sdk.routing.table import Stream


class MemoryStore:
    """`envelopes` and `digests` are what stands there; anything may be put into them."""

    def __init__(self) -> None:
        self.envelopes: dict[Stream, bytes] = {}
        self.digests: dict[Stream, str] = {}
        self.wrong_types: set[Stream] = set()
        self.refused: set[Stream] = set()  # of these no report is taken
        self.reports_of: dict[Stream, dict[str, bytes]] = {}
        self.key_reports_of: dict[Stream, dict[str, bytes]] = {}
        self.key_reports_until: dict[Stream, float] = {}  # by `time.monotonic`
        self.down = False
        self.listening: set[Stream] = set()  # a hint that nobody listens for is gone, as in Redis
        self._hints: list[Stream] = []
        self._hinted = threading.Condition()

    def publish(self, stream: Stream, envelope: bytes) -> None:
        """Put the envelope there as the operator does, and hint."""
        self.wrong_types.discard(stream)
        self.envelopes[stream] = envelope
        self.digests[stream] = digest(envelope)
        with self._hinted:
            if stream in self.listening:
                self._hints.append(stream)
            self._hinted.notify_all()

    def read(self, known: Mapping[Stream, str]) -> dict[Stream, Found]:
        self._answer()
        return {stream: self._find(stream, held) for stream, held in known.items()}

    def _find(self, stream: Stream, held: str) -> Found:
        if stream in self.wrong_types:
            return WRONG_TYPE
        envelope = self.envelopes.get(stream)
        if not envelope:
            return MISSING
        if len(envelope) > MAX_ENVELOPE_BYTES:
            return TOO_BIG
        return UNCHANGED if held and self.digests.get(stream) == held else Found(envelope)

    def wait_for_hint(self, streams: Sequence[Stream], seconds: float) -> bool:
        self._answer()
        with self._hinted:
            self.listening.update(streams)
            if not self._hints:
                self._hinted.wait(seconds)
            hinted = bool(self._hints)
            self._hints.clear()
            return hinted

    def report(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        self._answer()
        self._refuse(reports)
        for stream, report in reports.items():
            self.reports_of.setdefault(stream, {})[client_id] = report

    def report_keys(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        self._answer()
        self._refuse(reports)
        for stream, report in reports.items():
            self.key_reports_of.setdefault(stream, {})[client_id] = report
            self.key_reports_until[stream] = time.monotonic() + KEY_REPORTS_STAND_SECONDS

    def withdraw(self, streams: Sequence[Stream], client_id: str) -> None:
        self._answer()
        for stream in streams:
            self.reports_of.get(stream, {}).pop(client_id, None)
            self.key_reports_of.get(stream, {}).pop(client_id, None)

    def close(self) -> None:
        """Nothing to release."""

    def _refuse(self, reports: Iterable[Stream]) -> None:
        if refused := self.refused.intersection(reports):
            raise ReportRefusedError(f"reports of {refused.pop()} are not taken")

    def _answer(self) -> None:
        if self.down:
            self.listening.clear()
            raise StoreUnavailableError("it is down")
