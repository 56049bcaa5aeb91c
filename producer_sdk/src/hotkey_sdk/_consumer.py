"""`confluent_kafka.Consumer` whose subscription follows the read sets of the topics it was told to read.

Tables arrive in the background (_source); the subscription changes inside `poll` and `consume`, in the
caller's thread, where the Kafka client's callbacks run too.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from hotkey_sdk import _settings
from hotkey_sdk._read_set import ReadSet
from hotkey_sdk._source import TableSource
from hotkey_sdk._stats import ConsumerStats, SourceStats
from hotkey_sdk._store import RedisStore
from hotkey_sdk.routing.report import Role

_SLICE_SECONDS = 0.5  # the longest that a waiting poll leaves a new table unheeded
_ASK_SECONDS = 5.0
_COMMITTED_SECONDS = 30.0  # without committed offsets nothing can be read in its place
_PAUSE_SECONDS = 0.2
_SETTLE_SECONDS = 1.0
_IDENTIFY_SECONDS = 1.0

RebalanceCallback = Callable[[confluent_kafka.Consumer, list[TopicPartition]], None]

_poll = confluent_kafka.Consumer.poll
_consume = confluent_kafka.Consumer.consume

log = logging.getLogger("hotkey_sdk")


class ConsumerReading:
    """What a consumer tells of its subscription, at `consumer.hotkey`."""

    def __init__(self, source: TableSource | None) -> None:
        self._source = source
        self._added: tuple[str, ...] = ()
        self._pending = 0

    @property
    def enabled(self) -> bool:
        """Whether there was any `hotkey.*` setting."""
        return self._source is not None

    def stats(self) -> ConsumerStats:
        """What is read now beside the subscribed topics."""
        return ConsumerStats(
            added_topics=self._added,
            start_positions_pending=self._pending,
            source=self._source.stats() if self._source else SourceStats(),
        )


class _Cluster:
    """The id of the cluster that the consumer is connected to, once it is known."""

    def __init__(self) -> None:
        self.id: str | None = None

    def ask(self, consumer: confluent_kafka.Consumer) -> None:
        """Look whether the client knows it by now; waits for nothing."""
        with contextlib.suppress(KafkaException):
            self.id = consumer.cluster_id(timeout=0)


class Consumer(confluent_kafka.Consumer):
    """A drop-in for `confluent_kafka.Consumer`.

    Takes the same configuration, and under `hotkey.` its own (docs/protocol.md lists it). Without any setting
    of its own it does nothing but hand on. A topic that a table adds is read from its start whatever
    `auto.offset.reset` says, and its start position is committed at once. Patterns (`^...`) are handed on as
    they are: a topic that only a pattern matches has no table here.
    """

    hotkey: ConsumerReading

    def __init__(self, config: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        prepared = _settings.prepare(config, keywords, _settings.client_defaults)
        super().__init__(*prepared.arguments, **prepared.keywords)
        settings, kafka = prepared.settings, prepared.kafka
        self._source: TableSource | None = None
        self._cooperative = _settings.is_cooperative(kafka)
        self._subscribed: tuple[str, ...] | None = None  # by the caller
        self._callbacks: dict[str, Any] = {}
        self._added: frozenset[str] = frozenset()
        self._seen_version = 0
        self._assigned_by_caller = False
        self._positions: dict[tuple[str, int], int] = {}  # at the last change of the subscription
        self._unsettled: list[TopicPartition] = []
        self._settle_at = 0.0
        self._held: Exception | None = None
        if settings is not None:
            self._cluster = _Cluster()
            self._read_set = ReadSet()
            self._source = _start(self._cluster, settings, self._read_set, kafka.get("group.id"))
            weakref.finalize(self, self._source.stop)
            self._source.follow(settings.topics)
        self.hotkey = ConsumerReading(self._source)

    def subscribe(
        self,
        topics: list[str],
        on_assign: RebalanceCallback | None = None,
        on_revoke: RebalanceCallback | None = None,
        on_lost: RebalanceCallback | None = None,
    ) -> None:
        """As `confluent_kafka.Consumer.subscribe`; what the tables of `topics` add is read as well."""
        given = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        callbacks = {name: callback for name, callback in given.items() if callback is not None}
        if self._source is None:
            super().subscribe(topics, **callbacks)
            return
        self._callbacks = {**callbacks, "on_assign": functools.partial(_on_assign, on_assign)}
        plain = _plain(topics)
        self._read_set.meet(plain)
        self._subscribe(tuple(topics), self._read_set.added(plain))
        self._source.follow(plain)

    def unsubscribe(self) -> None:
        """As `confluent_kafka.Consumer.unsubscribe`."""
        self._subscribed, self._added = None, frozenset()
        super().unsubscribe()

    def poll(self, timeout: float | None = None) -> Message | None:
        """As `confluent_kafka.Consumer.poll`; takes up new read sets while it waits."""
        if self._source is None:
            return _poll(self) if timeout is None else _poll(self, timeout)
        self._raise_held()
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        while True:
            self._keep_up()
            message = _poll(self, _left(deadline))
            if message is not None and not self._is_gone(message):
                return message
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """As `confluent_kafka.Consumer.consume`; takes up new read sets while it waits."""
        if self._source is None:
            return _consume(self, num_messages, timeout)
        self._raise_held()
        deadline = None if timeout < 0 else time.monotonic() + timeout
        messages: list[Message] = []
        while True:
            try:
                self._keep_up()
                found = _consume(self, num_messages - len(messages), _left(deadline))
            except Exception as error:
                if not messages:
                    raise
                self._held = error  # what was read comes first, or it would be lost
                return messages
            messages += [message for message in found if not self._is_gone(message)]
            if len(messages) >= num_messages or (deadline is not None and time.monotonic() >= deadline):
                return messages

    def assign(self, partitions: list[TopicPartition]) -> None:
        """As `confluent_kafka.Consumer.assign`."""
        self._assigned_by_caller = True
        super().assign(partitions)

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        """As `confluent_kafka.Consumer.incremental_assign`."""
        self._assigned_by_caller = True
        super().incremental_assign(partitions)

    def close(self) -> None:
        """As `confluent_kafka.Consumer.close`; withdraws the consumer's report too."""
        self._leave()
        super().close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> bool | None:
        self._leave()
        return super().__exit__(exc_type, exc_value, exc_traceback)

    def _subscribe(self, topics: tuple[str, ...], added: frozenset[str]) -> None:
        super().subscribe([*topics, *sorted(added)], **self._callbacks)
        self._subscribed, self._added = topics, added
        self.hotkey._added = tuple(sorted(added))
        self._tell()

    def _raise_held(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            raise held

    def _keep_up(self) -> None:
        """Make the subscription what the tables ask for; commit start positions that are still open."""
        if self._cluster.id is None:
            self._cluster.ask(self)
        self._read_set.survey(self)
        if self._seen_version != self._read_set.version:
            self._seen_version = self._read_set.version
            if self._subscribed is not None:
                added = self._read_set.added(_plain(self._subscribed))
                if added != self._added:
                    log.info("event=subscription_changed added=%s", ",".join(sorted(added)))
                    self._remember_positions()
                    self._subscribe(self._subscribed, added)
                self._tell()
        if self._unsettled and time.monotonic() >= self._settle_at:
            self._settle()

    def _tell(self) -> None:
        if self._source is not None and self._subscribed is not None:
            self._source.applied.update(self._read_set.covered({*self._subscribed, *self._added}))

    def _assigned(self, callback: RebalanceCallback | None, partitions: list[TopicPartition]) -> None:
        placed = self._place(partitions)
        self._assigned_by_caller = False
        if callback is not None:
            callback(self, partitions)
        if placed and not self._assigned_by_caller:
            if self._cooperative:
                super().incremental_assign(partitions)
            else:
                super().assign(partitions)

    def _remember_positions(self) -> None:
        """A change of the subscription must not skip what `auto.offset.reset=latest` would skip."""
        with contextlib.suppress(KafkaException):
            found = self.position(self.assignment())
            self._positions = {
                (each.topic, each.partition): each.offset for each in found if each.offset >= 0
            }

    def _place(self, partitions: list[TopicPartition]) -> bool:
        """Set where to start on partitions that the group never committed; whether there was any.

        That is where this consumer was before its subscription changed, and on topics that a table added the
        start of the log.
        """
        known, self._positions = self._positions, {}
        open_ones = [each for each in partitions if each.topic in self._added or _name(each) in known]
        committed = self._committed(open_ones)
        uncommitted = [each for each in open_ones if _name(each) not in committed]
        for each in uncommitted:
            each.offset = known.get(_name(each), OFFSET_BEGINNING)
            if each.topic in self._added:
                self._unsettled.append(TopicPartition(each.topic, each.partition))
        self.hotkey._pending = len(self._unsettled)
        return bool(uncommitted)

    def _committed(self, partitions: list[TopicPartition]) -> set[tuple[str, int]]:
        if not partitions:
            return set()
        asked = [TopicPartition(each.topic, each.partition) for each in partitions]
        deadline = time.monotonic() + _COMMITTED_SECONDS
        while True:
            try:
                found = self.committed(asked, timeout=_ASK_SECONDS)
            except KafkaException as error:
                if time.monotonic() >= deadline:
                    log.warning("event=committed_offsets_unknown reading_from=start why=%r", str(error))
                    return set()
                time.sleep(_PAUSE_SECONDS)  # a coordinator that is loading, or moves
            else:
                return {_name(each) for each in found if each.offset >= 0}

    def _settle(self) -> None:
        """Commit the start position of added partitions that have no committed offset yet."""
        self._settle_at = time.monotonic() + _SETTLE_SECONDS
        try:
            mine = {_name(each) for each in self.assignment()}
            mine_unsettled = [each for each in self._unsettled if _name(each) in mine]
            found = self.committed(mine_unsettled, timeout=_ASK_SECONDS) if mine_unsettled else []
            starts = [self._start_of(each) for each in found if each.offset < 0]
            if starts:
                self.commit(offsets=starts, asynchronous=False)
            self._unsettled = []
        except KafkaException as error:
            log.debug("event=start_positions_not_committed why=%r", str(error))  # tried again in a moment
        self.hotkey._pending = len(self._unsettled)

    def _start_of(self, partition: TopicPartition) -> TopicPartition:
        marks = self.get_watermark_offsets(partition, timeout=_ASK_SECONDS)
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return TopicPartition(partition.topic, partition.partition, marks[0])

    def _is_gone(self, message: Message) -> bool:
        """Whether this is the error that a topic which a table added does not exist, or may not be read."""
        error, topic = message.error(), message.topic()
        if error is None or topic is None or topic not in self._added:
            return False
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            if self._read_set.deny(topic):
                log.warning("event=added_topic_denied topic=%s reading=the_others why=%r", topic, error.str())
            return True
        if error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return False
        self._read_set.suspect()
        return True

    def _leave(self) -> None:
        if self._source is not None:
            self._source.close()


def _on_assign(
    callback: RebalanceCallback | None, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]
) -> None:
    # A function, not a bound method: the Kafka client keeps it, and the consumer would keep itself alive.
    if isinstance(consumer, Consumer):
        consumer._assigned(callback, partitions)


def _start(cluster: _Cluster, settings: _settings.Settings, read_set: ReadSet, group: object) -> TableSource:
    return TableSource(
        settings,
        Role.CONSUMER,
        store=lambda: RedisStore(settings.redis_url),
        identify=lambda: cluster.id,
        adopt=read_set.adopt,
        group=str(group) if group else None,
        applies_itself=True,
    )


def _name(partition: TopicPartition) -> tuple[str, int]:
    return partition.topic, partition.partition


def _plain(topics: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(topic for topic in topics if isinstance(topic, str) and not topic.startswith("^"))


def _left(deadline: float | None) -> float:
    return _SLICE_SECONDS if deadline is None else max(0.0, min(_SLICE_SECONDS, deadline - time.monotonic()))
