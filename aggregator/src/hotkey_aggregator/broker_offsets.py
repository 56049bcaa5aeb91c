"""The store's offsets, told to the brokers: for people and lag monitors to see. Nothing rests on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from confluent_kafka import Consumer, KafkaError, TopicPartition

from hotkey_aggregator.store import Position
from hotkey_aggregator.windows import Source


class BrokerOffsets:
    """Which offsets the group has at the brokers, as far as we put them there."""

    def __init__(self) -> None:
        self._published: dict[Source, int] = {}

    def publish(
        self, consumer: Consumer, positions: Mapping[Source, Position], sources: Collection[Source]
    ) -> None:
        """Commit what the brokers lack of these sources; waits for nothing. Raises KafkaException."""
        news = {
            source: position.next_offset
            for source in sources
            if (position := positions.get(source)) is not None
            and self._published.get(source) != position.next_offset
        }
        if news:
            offsets = [TopicPartition(one.topic, one.partition, offset) for one, offset in news.items()]
            consumer.commit(offsets=offsets, asynchronous=True)
            self._published.update(news)

    def keep(self, sources: Collection[Source]) -> None:
        """These alone are ours: others commit the rest."""
        self._published = {one: offset for one, offset in self._published.items() if one in sources}

    def note(
        self,
        error: KafkaError | None,
        partitions: list[TopicPartition],
        source_at: Callable[[str, int], Source | None],
    ) -> None:
        """What became of a commit: what failed is committed again the next time."""
        for partition in partitions:
            source = source_at(partition.topic, partition.partition)
            if source is not None and (error is not None or partition.error is not None):
                self._published.pop(source, None)
