"""Whether every policy's loop still turns. Pure: the clock is the caller's."""

from __future__ import annotations

from hotkey_operator.ports import PolicyRef

STALE_SECONDS = 60.0  # a turn in which every call times out takes about 15 s


class Heartbeats:
    """When each loop ended its last turn, in seconds of any clock that only grows."""

    def __init__(self) -> None:
        self._at: dict[PolicyRef, float] = {}

    def beat(self, ref: PolicyRef, now: float) -> None:
        self._at[ref] = now

    def forget(self, ref: PolicyRef) -> None:
        """The loop ended in order."""
        self._at.pop(ref, None)

    def stale(self, now: float) -> dict[str, int]:
        """The loops that stand still, and for how many seconds."""
        return {str(ref): round(now - at) for ref, at in self._at.items() if now - at > STALE_SECONDS}

    def __len__(self) -> int:
        return len(self._at)
