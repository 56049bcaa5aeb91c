"""What is seen of the running system at one moment, for the picture to show and the story to wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class HotKey:
    """One line of `status.keys`."""

    key: str
    reason: str
    share: str
    shards: int
    message: str


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy's status, as it stands in Kubernetes; what is not there yet is empty."""

    ready: bool = False
    reason: str = ""
    message: str = ""
    epoch: int = 0
    imbalance: str = ""
    producers: str = ""
    decision: str = ""
    decision_message: str = ""
    keys: tuple[HotKey, ...] = ()

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Self:
        """The view of a HotKeyPolicy's `status`."""
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        ready = conditions.get("Ready", {})
        decision = status.get("decision", {})
        return cls(
            ready=ready.get("status") == "True",
            reason=ready.get("reason", ""),
            message=ready.get("message", ""),
            epoch=int(status.get("epoch", 0)),
            imbalance=str(status.get("imbalance", "")),
            producers=status.get("producers", ""),
            decision=decision.get("reason", ""),
            decision_message=decision.get("message", ""),
            keys=tuple(
                HotKey(
                    str(k.get("key", "")),
                    str(k.get("reason", "")),
                    _percent(k.get("share", 0.0), k.get("shareError", 0.0)),
                    int(k.get("shards", 0)),
                    str(k.get("message", "")),
                )
                for k in status.get("keys", [])
            ),
        )

    def applied_by(self, producers: int) -> bool:
        """Whether all of exactly so many producers apply the current epoch."""
        return self.producers == f"{producers}/{producers}"


def _percent(share: float, error: float) -> str:
    return f"{share:.0%} +- {error:.1%}"


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of what happened: `at` in seconds since the demo's start, from `source` (an Event, a step)."""

    at: float
    source: str
    text: str


@dataclass(frozen=True, slots=True)
class View:
    """One look at the system. `rates`: records/s per partition; `routes`: (key, shards) of the table."""

    at: float = 0.0
    rates: tuple[float, ...] = ()
    policy: PolicyView = PolicyView()
    table_epoch: int = 0
    routes: tuple[tuple[str, int], ...] = ()
    acked: int = 0
    problem: str = ""

    @property
    def imbalance(self) -> float | None:
        """max/mean of the partitions' rates right now; None while nothing comes in."""
        total = sum(self.rates)
        return max(self.rates) * len(self.rates) / total if total > 0 else None


@dataclass(frozen=True, slots=True)
class Scene:
    """All that one picture shows."""

    title: str
    view: View
    imbalances: tuple[float, ...] = ()
    happenings: tuple[Happening, ...] = field(default=())
    limit: float = 1_000.0  # records/s of one partition: the policy's trigger


def rates(before: Sequence[int], after: Sequence[int], seconds: float) -> tuple[float, ...]:
    """Records per second of each partition from its end offset at two instants."""
    if seconds <= 0 or len(before) != len(after):
        return ()
    return tuple(max(0, b - a) / seconds for a, b in zip(before, after, strict=True))
