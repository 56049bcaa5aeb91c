"""Consumer groups in memory. The contract suite holds them to what Kafka's coordinators tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hotkey_operator.engine.model import Committed


class MemoryGroups:
    """The groups of a cluster, and from where its logs still hold records."""

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, str], dict[int, int]] = {}
        self._starts: dict[tuple[str, int], int] = {}

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Commit the offset of the next record that the group wants."""
        self._offsets.setdefault((group, topic), {})[partition] = offset

    def offset(self, group: str, topic: str, partition: int) -> int | None:
        """What the group has committed on a partition."""
        return self._offsets.get((group, topic), {}).get(partition)

    def forget_topic(self, topic: str) -> None:
        """The topic was deleted, and the coordinators drop what was committed on it."""
        for name in [name for name in self._offsets if name[1] == topic]:
            del self._offsets[name]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Let the log begin at `offset`, as retention does."""
        self._starts[topic, partition] = offset

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        return tuple(self._committed(group, topic, partitions) for group in groups)

    def _committed(self, group: str, topic: str, partitions: int) -> Committed:
        if not 0 < len(group) < 250 or "\0" in group or group != group.encode(errors="ignore").decode():
            return Committed(group, {}, "no group can have that name")
        offsets = self._offsets.get((group, topic), {})
        return Committed(group, {p: offset for p, offset in sorted(offsets.items()) if p < partitions})

    async def reading(self, topic: str, partitions: int, but: Collection[str] = ()) -> tuple[Committed, ...]:
        groups = sorted(group for group, read in self._offsets if read == topic and group not in but)
        return tuple(self._committed(group, topic, partitions) for group in groups)

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        return {partition: self._starts.get((topic, partition), 0) for partition in partitions}
