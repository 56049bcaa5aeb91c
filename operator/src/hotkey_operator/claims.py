"""Which of several policies governs a topic. Pure; the policies are found by handlers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hotkey_operator.ports import PolicyRef


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A policy's claim on a topic. The oldest has it; the uid breaks ties within a second."""

    created: str  # RFC 3339 in UTC, which sorts by time
    uid: str
    ref: PolicyRef


def rival(claims: Iterable[Claim], uid: str) -> str | None:
    """Who governs the topic instead of the policy `uid`, as `namespace/name`; None when it does itself."""
    oldest = min(claims, default=None)
    return None if oldest is None or oldest.uid == uid else str(oldest.ref)
