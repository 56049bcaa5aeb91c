"""A stream in virtual time with consumer groups that fall behind, for the tests of lag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hotkey_operator.engine.lag import registered
from hotkey_operator.engine.model import Committed, Decision, Progress
from tests.unit.engine.stream import ModelStream

Capacity = Callable[[int], float]  # of a partition: records/s that its consumer manages


@dataclass
class Group:
    """A group that reads each partition at its capacity and commits every so many seconds.

    `shared`: partitions that have one consumer together, with the capacity of the first of them.
    """

    capacity: Capacity
    commit_seconds: float = 5.0
    shared: tuple[int, ...] = ()
    positions: dict[int, float] = field(default_factory=dict)
    commits: dict[int, int] = field(default_factory=dict)

    def read(self, ends: list[float], seconds: float, at: float) -> None:
        """Read for `seconds`; the consumers of all partitions commit at the same time."""
        waiting = {p: end - self.positions.setdefault(p, 0.0) for p, end in enumerate(ends)}
        together = sum(waiting[p] for p in self.shared)
        for partition, records in waiting.items():
            able = self.capacity(partition) * seconds
            if partition in self.shared:
                able = self.capacity(self.shared[0]) * seconds * records / max(1.0, together)
            self.positions[partition] += min(records, able)
        if int(at / self.commit_seconds) > int((at - seconds) / self.commit_seconds):
            for partition in waiting:
                if self.capacity(partition) > 0:
                    self.commits[partition] = int(self.positions[partition])


@dataclass
class ConsumedStream(ModelStream):
    """`groups` by name; `starts`: where the logs begin; `away`: the coordinators do not answer."""

    groups: Mapping[str, Group] = field(default_factory=dict)
    starts: Mapping[int, int] = field(default_factory=dict)
    away: bool = False

    def turn(self, seconds: float = 1.0) -> Decision:
        decision = super().turn(seconds)
        for group in self.groups.values():
            group.read(self.ends, seconds, self.at)
        return decision

    def progress(self) -> Progress | None:
        names = registered(self.spec, (), self.at)
        if not names or not self.memory.lags.is_due(self.at):
            return None
        if self.away:
            return Progress(tuple(Committed(name, {}, "no answer") for name in names))
        held = {name: self.groups[name].commits if name in self.groups else {} for name in names}
        return Progress(tuple(Committed(name, dict(held[name])) for name in names), self.starts)
