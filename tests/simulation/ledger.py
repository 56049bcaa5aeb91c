"""What producers know of their records, by id: what the checks at the end hold the sink's counts against."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """`sent`: id to the record's key, as the caller gave it. `acknowledged`: id to the time (seconds of the
    run) at which the caller was told that it is safe; `failed`: of which he was told an error. `dedicated`:
    how many were sent to dedicated topics, `resent`: how many of those went to the base topic in the end.
    """

    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    told_twice: list[str] = field(default_factory=list)
    resent: int = 0
    dedicated: int = 0

    def end(self, event_id: str, at: float, *, good: bool) -> None:
        """The caller was told what became of a record."""
        if event_id in self.acknowledged or event_id in self.failed:
            self.told_twice.append(event_id)
        if good:
            self.acknowledged[event_id] = at
        else:
            self.failed.add(event_id)
