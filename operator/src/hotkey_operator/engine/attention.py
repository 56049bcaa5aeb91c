"""Which records to look at this turn: sampling costs the brokers reads, so it follows the heat."""

from __future__ import annotations

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import EndOffsets, StoredTable
from hotkey_operator.engine.spec import PolicySpec


def windows_to_sample(
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    ends: EndOffsets,  # noqa: ARG001
) -> dict[int, tuple[int, int]]:
    """Partition to the window [first, end) of offsets to sample this turn; no window is empty."""
    return {}
