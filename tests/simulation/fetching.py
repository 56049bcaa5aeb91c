"""A consumer's Kafka client and admin client, as far as the SDK's and the aggregator's own code asks them.

They answer from the in-memory cluster at once; what is read by name is read of whatever topic has it now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from hotkey_aggregator.cluster import Look
from hotkey_aggregator.cluster import TopicFacts as Facts
from tests.simulation.coordinator import Coordinator, Place
from tests.simulation.faults import Kind
from tests.simulation.memory import MemoryBrokers, StoredRecord
from tests.simulation.weather import Weather

OFFSET_INVALID = -1001


class Fetched:
    """One record as a consumer gets it."""

    __slots__ = ("_offset", "_partition", "_record", "_topic")

    def __init__(self, topic: str, partition: int, offset: int, record: StoredRecord) -> None:
        self._topic, self._partition, self._offset, self._record = topic, partition, offset, record

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes | str | None]]:
        return list(self._record.headers)

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.timestamp_ms

    def leader_epoch(self) -> int | None:
        return None


@dataclass(frozen=True, slots=True)
class _Topic:
    partitions: range
    error: None = None


@dataclass(frozen=True, slots=True)
class _Metadata:
    topics: dict[str, _Topic]


@dataclass
class KafkaConsumer:
    """What stands where `confluent_kafka.Consumer` does. `start`: of a partition without any position."""

    name: str
    brokers: MemoryBrokers
    coordinator: Coordinator
    weather: Weather
    start: Callable[[int, int], int]
    offsets: dict[Place, int] = field(default_factory=dict)  # the next that is fetched

    def list_topics(self, timeout: float = -1) -> _Metadata:  # noqa: ARG002
        self._may_fail()
        return _Metadata({name: _Topic(range(self.brokers.partitions(name))) for name in self.brokers.names})

    def committed(self, partitions: Iterable[TopicPartition], timeout: float = -1) -> list[TopicPartition]:  # noqa: ARG002
        self._may_fail()
        found = []
        for each in partitions:
            offset = self.coordinator.committed((each.topic, each.partition))
            found.append(
                TopicPartition(each.topic, each.partition, OFFSET_INVALID if offset is None else offset)
            )
        return found

    def commit(self, offsets: Iterable[TopicPartition], asynchronous: bool = True) -> None:  # noqa: ARG002
        for each in offsets:
            self.coordinator.commit(self.name, (each.topic, each.partition), each.offset)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            place = (each.topic, each.partition)
            first = self.start(0, self._end(place) or 0) if each.offset == OFFSET_BEGINNING else each.offset
            self.offsets[place] = first

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            self.offsets.pop((each.topic, each.partition), None)

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float = -1) -> tuple[int, int]:  # noqa: ARG002
        end = self._end((partition.topic, partition.partition))
        if end is None:
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return 0, end

    def offsets_for_times(
        self,
        partitions: list[TopicPartition],
        timeout: float = -1,  # noqa: ARG002
    ) -> list[TopicPartition]:
        """The first record since a time; -1: there is none."""
        found = []
        for each in partitions:
            log = self.brokers.read(each.topic, each.partition, 0)
            first = next((at for at, one in enumerate(log) if one.timestamp_ms >= each.offset), -1)
            found.append(TopicPartition(each.topic, each.partition, first))
        return found

    def fetch(self, place: Place, at_most: int) -> list[Fetched] | None:
        """The next records; None where the log has no such offset."""
        end, at = self._end(place), self.offsets[place]
        if end is None or at == end:
            return []
        if at > end:
            return None
        records = self.brokers.read(*place, at)[:at_most]
        self.offsets[place] = at + len(records)
        return [Fetched(*place, at + index, record) for index, record in enumerate(records)]

    def _end(self, place: Place) -> int | None:
        seen = self.brokers.seen(place[0])
        if seen is None or place[1] >= seen.partitions:
            return None
        return self.brokers.end(*place)

    def _may_fail(self) -> None:
        if self.weather.is_on(Kind.LEADERS) and self.weather.chance.random() < 0.3:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


class KafkaAdmin:
    """What stands where the aggregator's `Cluster` does."""

    def __init__(self, brokers: MemoryBrokers, weather: Weather) -> None:
        self._brokers, self._weather = brokers, weather
        self._asked: tuple[set[str], list[Place], int] | None = None

    def topic_ids(self, names: Collection[str], timeout: float = 0) -> dict[str, str]:  # noqa: ARG002
        if self._weather.is_on(Kind.LEADERS) and self._weather.chance.random() < 0.3:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return {name: seen.topic_id for name in names if (seen := self._brokers.seen(name)) is not None}

    def ask(self, topics: Iterable[str], places: Iterable[Place], now: int) -> None:
        self._asked = set(topics), list(places), now

    def answer(self) -> Look | None:
        """As the cluster is now."""
        if self._asked is None:
            return None
        (names, places, at), self._asked = self._asked, None
        seen: dict[str, Any] = {name: self._brokers.seen(name) for name in names}
        topics = {name: Facts(one.topic_id, one.partitions, 1) for name, one in seen.items() if one}
        ends = {
            place: self._brokers.end(*place)
            for place in places
            if (one := self._brokers.seen(place[0])) is not None and place[1] < one.partitions
        }
        return Look(at, topics, ends)
