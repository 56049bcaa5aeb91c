"""A second consumer group, made without the SDK: it reads the base topic, and more once it is told to."""

from __future__ import annotations

from hotkey_sdk.routing.names import dedicated_prefix
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers
from tests.simulation.process import Process
from tests.simulation.scenario import BYSTANDER


class BystandingGroup:
    """Commits what it has read; `follows`: also of all topics that are named as those of keys."""

    def __init__(self, base: str, brokers: MemoryBrokers, groups: MemoryGroups) -> None:
        self.process = Process(BYSTANDER)
        self.follows = False
        self._base, self._brokers, self._groups = base, brokers, groups

    async def consume(self) -> None:
        while True:
            await self.process.sleep(1.0)
            for topic in self._topics():
                for partition in range(self._brokers.partitions(topic)):
                    end = self._brokers.end(topic, partition)
                    self._groups.commit(BYSTANDER, topic, partition, end)

    def _topics(self) -> list[str]:
        prefix = dedicated_prefix(self._base)
        more = [name for name in self._brokers.names if name.startswith(prefix)] if self.follows else []
        return [self._base, *more]
