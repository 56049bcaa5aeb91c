"""What a soak comes to: the figures, and in what it failed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tests.soak.watch import FROM_OWN, TO_OWN


class Goals(msgspec.Struct, frozen=True):
    """The least that a run has to go through, and within how many seconds all agree after the last fault."""

    changes: int = 0
    own_changes: int = 0
    faults: int = 0
    records_per_second: float = 0.0
    converge_seconds: float = 30.0


class Summary(msgspec.Struct, frozen=True):
    """`seconds`: of load. `records`: acknowledged. `route_changes` and `faults` by kind. `lost`, `twice` and
    `unknown`: ids. `orphans`: dedicated topics that no table lists. `converged_seconds` None: it did not.
    `ended_by_themselves`: processes, which an aggregator may after a long pause. `read_twice`: records that
    were left out, as their ids were counted before.
    """

    seed: int
    seconds: float
    records: int
    records_per_second: float
    counted: int
    route_changes: Mapping[str, int]
    faults: Mapping[str, int]
    lost: int
    twice: int
    unknown: int
    dead_letters: int
    dedicated_topics: int
    orphans: tuple[str, ...]
    converged_seconds: float | None
    counted_seconds: float
    epochs_back: tuple[str, ...]
    ended_by_themselves: Mapping[str, int]
    read_twice: int
    sent_again: int
    queue_full: int
    not_acknowledged: Mapping[str, int]
    breaches: tuple[str, ...] = ()

    @property
    def own_changes(self) -> int:
        """Changes to or from a dedicated topic."""
        return self.route_changes.get(TO_OWN, 0) + self.route_changes.get(FROM_OWN, 0)

    def judged(self, goals: Goals, more: tuple[str, ...]) -> Summary:
        """The same with all in which it failed; `more` is what is known beside the figures."""
        changes, faults = sum(self.route_changes.values()), sum(self.faults.values())
        found = {
            f"{self.lost} acknowledged ids are not counted": self.lost > 0,
            f"{self.twice} ids are counted twice": self.twice > 0,
            f"{self.unknown} counted ids were never sent": self.unknown > 0,
            f"{self.dead_letters} records are dead letters": self.dead_letters > 0,
            f"topics that no table lists: {', '.join(self.orphans)}": bool(self.orphans),
            f"epochs went back: {'; '.join(self.epochs_back)}": bool(self.epochs_back),
            "not all agreed in the end": self.converged_seconds is None,
            f"{changes} route changes, {goals.changes} wanted": changes < goals.changes,
            f"{self.own_changes} of them to or from dedicated topics, {goals.own_changes} wanted": (
                self.own_changes < goals.own_changes
            ),
            f"{faults} faults, {goals.faults} wanted": faults < goals.faults,
            f"{self.records_per_second:.0f} records/s, {goals.records_per_second:.0f} wanted": (
                self.records_per_second < goals.records_per_second
            ),
        }
        unasked = [name for name in self.ended_by_themselves if not name.startswith("aggregator")]
        found[f"ended by themselves: {', '.join(unasked)}"] = bool(unasked)
        slow = self.converged_seconds is not None and self.converged_seconds > goals.converge_seconds
        found[f"agreed only after {self.converged_seconds} s"] = slow
        return msgspec.structs.replace(
            self, breaches=(*(text for text, is_so in found.items() if is_so), *more)
        )

    def text(self) -> str:
        """For people."""
        changes, faults = sum(self.route_changes.values()), sum(self.faults.values())
        converged = (
            "did not converge"
            if self.converged_seconds is None
            else (f"converged {self.converged_seconds:.1f} s after the last fault")
        )
        lines = [
            f"seed {self.seed}: {self.records:,} records acknowledged in {self.seconds:.0f} s "
            f"({self.records_per_second:,.0f}/s), {self.counted:,} counted",
            f"{changes} route changes: {_listed(self.route_changes)}",
            f"{faults} faults: {_listed(self.faults)}",
            f"{self.lost} lost, {self.twice} counted twice, {self.unknown} never sent, "
            f"{self.dead_letters} dead letters; {self.read_twice} were read twice and counted once",
            f"{self.dedicated_topics} dedicated topics, {len(self.orphans)} in no table; {converged}; "
            f"all counted {self.counted_seconds:.1f} s after the end",
        ]
        return "\n".join([*lines, *(f"FAILED: {each}" for each in self.breaches)])


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found.items()) or "none"
