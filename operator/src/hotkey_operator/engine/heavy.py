"""Heavy keys from samples, with error bounds. Skeleton."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """One partition's sample, digested."""

    at: float
