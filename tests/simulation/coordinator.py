"""A group coordinator: who of a group reads which partition, and who has lost its place in the group.

Cooperative, as seen from members that ask again and again: a partition is given only after its former owner
has given it up, or has not been heard of for the session's time. Then the former owner is out: it is told so
when it asks next, and its commits are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers

SESSION_SECONDS = 6.0

Place = tuple[str, int]


class Coordinator:
    """Of one group. `now`: seconds."""

    def __init__(
        self, group: str, brokers: MemoryBrokers, groups: MemoryGroups, now: Callable[[], float]
    ) -> None:
        self._group = group
        self._brokers = brokers
        self._groups = groups
        self._now = now
        self._heard: dict[str, float] = {}
        self._topics: dict[str, frozenset[str]] = {}
        self._owners: dict[Place, str] = {}

    def heartbeat(self, member: str, topics: frozenset[str], *, joins: bool) -> frozenset[Place] | None:
        """What `member` may read now; None where it has lost all that it had, and must join again."""
        self._expel()
        if member not in self._heard and not joins:
            return None
        self._heard[member], self._topics[member] = self._now(), topics
        mine = set()
        for place, wanted in self._wanted().items():
            if wanted == member and self._owners.get(place, member) == member:
                self._owners[place] = member
                mine.add(place)
        return frozenset(mine)

    def release(self, member: str, places: Collection[Place]) -> None:
        """It reads these no more."""
        for place in places:
            if self._owners.get(place) == member:
                del self._owners[place]

    def leave(self, member: str) -> None:
        """It closes, or has been expelled."""
        self._heard.pop(member, None)
        self._topics.pop(member, None)
        self.release(member, list(self._owners))

    def commit(self, member: str, place: Place, offset: int) -> bool:
        """Commit the offset of the next record; False where the member is out, or has not that partition."""
        if member not in self._heard or self._owners.get(place) != member:
            return False
        self._groups.commit(self._group, *place, offset)
        return True

    def committed(self, place: Place) -> int | None:
        """The group's committed offset."""
        return self._groups.offset(self._group, *place)

    def _expel(self) -> None:
        now = self._now()
        for member in [each for each, at in self._heard.items() if now - at > SESSION_SECONDS]:
            self.leave(member)

    def _wanted(self) -> dict[Place, str]:
        """Whose each partition should be: of each topic they go round those that read it."""
        wanted: dict[Place, str] = {}
        for topic in sorted(frozenset().union(*self._topics.values())):
            seen = self._brokers.seen(topic)
            readers = sorted(member for member, topics in self._topics.items() if topic in topics)
            for partition in range(seen.partitions if seen else 0):
                wanted[topic, partition] = readers[partition % len(readers)]
        return wanted
