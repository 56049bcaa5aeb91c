"""`confluent_kafka.Producer` that sends the records of hot keys where the routing table says.

The path of a record takes no lock, waits for nothing and asks nobody: two dictionary look-ups for a plain
key, one hash more for a routed one. Tables arrive in the background (_source). Where it was built, _fast does
the same in C; what it does not know it leaves to the `produce` of this module.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from hotkey_sdk import _compiled, _settings
from hotkey_sdk._borrow import Borrow
from hotkey_sdk._dedicated import DedicatedSends, DeliveryCallback, HeadersLike, explaining
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._lanes import Batch, Lanes, Path, lanes_of
from hotkey_sdk._partitions import KnownPartitions
from hotkey_sdk._selftest import partitioner_agrees
from hotkey_sdk._source import TableSource
from hotkey_sdk._stats import ProducerStats, SourceStats
from hotkey_sdk._store import RedisStore
from hotkey_sdk.routing.report import Role
from hotkey_sdk.routing.router import Destination, Dimensions, Router

_ANY = -1  # librdkafka's RD_KAFKA_PARTITION_UA: the partitioner chooses
_IDENTIFY_SECONDS = 1.0
_GONE = (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC)

# Partition to the caller's messages, each with what is sent in its place.
_Batches = dict[int, list[tuple[dict[str, Any], dict[str, Any]]]]

# Bound here once: `super().produce` costs a look-up and an object for every record.
_produce = confluent_kafka.Producer.produce
_produce_batch = confluent_kafka.Producer.produce_batch


class _Lanes:
    """The lanes of every topic that the producer has written to; all that its threads share."""

    def __init__(
        self, batch: Batch, durable: bool, path: Path, dedicated: DedicatedSends | None = None
    ) -> None:
        self.dedicated = dedicated
        self.by_topic: dict[str, Lanes] = {}
        self.counts = path.counts()
        self.recent = path.recent()
        self._path = path
        self._batch = batch
        self._durable = durable

    def adopt(self, topic: str, router: Router) -> None:
        """Replace the topic's lanes in one step: a record is routed by the old table or by the new one."""
        lanes = lanes_of(router, self._batch, self.counts, self._path)
        if not self._durable:
            elsewhere = {route.key for route in router.table.routes if route.topic != topic}
            lanes = self._path.lanes({k: lane for k, lane in lanes.items() if _as_bytes(k) not in elsewhere})
            self.counts.not_durable += len(elsewhere)
        if self.dedicated is not None:
            routed = (route.topic for route in router.table.routes)
            self.dedicated.adopt(topic, frozenset(each for each in routed if each != topic))
        self.by_topic[topic] = lanes
        if self.recent is not None:
            self.recent.clear()


class ProducerRouting:
    """What a producer tells of its routing, at `producer.hotkey`."""

    def __init__(self, lanes: _Lanes, source: TableSource | None) -> None:
        self._lanes = lanes
        self._source = source

    @property
    def enabled(self) -> bool:
        """Whether there was any `hotkey.*` setting."""
        return self._source is not None

    def stats(self) -> ProducerStats:
        """The counters as they are now."""
        counts, dedicated = self._lanes.counts, self._lanes.dedicated
        return ProducerStats(
            routed=counts.routed,
            path=PATHS.in_use.name,
            missing_dimension=counts.missing_dimension,
            fell_back=counts.fell_back + (dedicated.went_to_base if dedicated else 0),
            not_durable=counts.not_durable,
            sent_again=dedicated.book.resent if dedicated else 0,
            waiting=dedicated.kept if dedicated else 0,
            refused_topics=dedicated.refused_topics() if dedicated else {},
            source=self._source.stats() if self._source else SourceStats(),
            partitioner_agrees=partitioner_agrees.known() if self._source else None,
        )


class _Slots(confluent_kafka.Producer):
    """What the compiled path finds in a producer without asking its dictionary."""

    __slots__ = ("_by_topic", "_recent")

    _by_topic: dict[str, Lanes]
    _recent: Any


class Producer(_Slots):
    """A drop-in for `confluent_kafka.Producer`.

    Takes the same configuration, and under `hotkey.` its own (docs/protocol.md lists it). Without any setting
    of its own it does nothing but hand on. Raises `SettingsError` for a wrong setting of hotkey, and what
    `confluent_kafka.Producer` raises for the others.

    What it promises of order: the records of one Producer object with the same key and the same values of the
    route's dimensions stay in the order they were sent in, between two route changes.
    """

    hotkey: ProducerRouting
    _dedicated: DedicatedSends | None = None

    def __init__(self, config: Mapping[str, Any] | None = None, /, **keywords: Any) -> None:
        prepared = _settings.prepare(config, keywords, _settings.producer_defaults)
        super().__init__(*prepared.arguments, **prepared.keywords)
        settings, kafka = prepared.settings, prepared.kafka
        lanes = _Lanes(Batch(), durable=True, path=PATHS.in_use)
        self._source: TableSource | None = None
        if settings is not None:
            self._dedicated = DedicatedSends(self, kafka)
            durable = _settings.is_durable(kafka)
            lanes = _Lanes(Batch.of(kafka), durable, PATHS.in_use, self._dedicated)
            self._borrow = Borrow(self)
            counts = KeyCounts(time.time()) if settings.report_keys else None
            self._source = _start(self._borrow, settings, lanes, counts)
            if counts is not None:
                from hotkey_sdk._counting import begin  # not above: it derives from this class

                begin(self, counts, kafka)
            weakref.finalize(self, self._source.stop)
            self._source.follow(settings.topics)
            partitioner_agrees.start()
        self._by_topic, self._recent = lanes.by_topic, lanes.recent
        self._counts = lanes.counts
        self.hotkey = ProducerRouting(lanes, self._source)

    def produce(
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        partition: int = _ANY,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
        timestamp: int = 0,
        headers: HeadersLike | None = None,
        dimensions: Dimensions | None = None,
    ) -> None:
        """As `confluent_kafka.Producer.produce`; `dimensions` are the record's attributes beside its key.

        A record of a routed key goes to its shard, unless `partition` was given. The callback's message then
        shows the shard's record key (`nike:7`). A dimension that is neither given nor readable (header, time)
        counts as empty.
        """
        if callback is None:
            callback = on_delivery  # handed on by position: there a None for one of the two hides the other
        try:
            lane = self._by_topic[topic].get(key) if key is not None else None
        except (KeyError, TypeError):
            self._meet(topic)
            lane = None
        if lane is None or partition != _ANY:
            _produce(self, topic, value, key, partition, callback, None, timestamp, headers)
            return
        to = lane.choose(value, dimensions, headers, timestamp)
        self._counts.routed += 1
        shard_key = key if to.key is None else to.key
        try:
            if to.topic != topic and self._dedicated is not None and key is not None:
                self._dedicated.send(topic, to, value, key, callback, timestamp, headers)
                return
            _produce(self, to.topic, value, shard_key, to.partition, callback, None, timestamp, headers)
        except BufferError:
            lane.refused()
            raise
        except KafkaException as error:
            if not is_gone(error):
                raise
            self._counts.fell_back += 1
            _produce(self, topic, value, key, partition, callback, None, timestamp, headers)

    def produce_batch(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        partition: int = _ANY,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
        dimensions: Dimensions | None = None,
    ) -> int:
        """As `confluent_kafka.Producer.produce_batch`; a message may hold `dimensions` of its own.

        Like the original it knows no headers, so a dimension that stands in a header has to be given.
        """
        if callback is None:
            callback = on_delivery
        try:
            lanes = self._by_topic[topic]
        except (KeyError, TypeError):
            self._meet(topic)
            lanes = Lanes()
        if not lanes or partition != _ANY or not isinstance(messages, list):
            return _produce_batch(self, topic, messages, partition, callback)
        elsewhere: list[tuple[dict[str, Any], Destination]] = []
        batches = self._batches(topic, messages, lanes, dimensions, elsewhere)
        sent = self._send_elsewhere(topic, elsewhere, callback)
        for place, batch in batches.items():
            copies = [copy for _, copy in batch]
            stranded: list[dict[str, Any]] = []
            try:
                sent += _produce_batch(self, topic, copies, place, callback)
            finally:
                stranded = _return_errors(batch)
            if stranded:
                self._counts.fell_back += len(stranded)
                sent += _produce_batch(self, topic, stranded, _ANY, callback)
        return sent

    def flush(self, timeout: float = -1) -> int:
        """As `confluent_kafka.Producer.flush`; what waits to be sent again is sent and waited for as well."""
        dedicated = self._dedicated
        if dedicated is None:
            return super().flush(timeout)
        return dedicated.flush(timeout)

    def __len__(self) -> int:
        kept = self._dedicated.kept if self._dedicated is not None else 0
        return super().__len__() + kept

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """As `confluent_kafka.Producer.purge`; what waits to be sent again counts as in the queue.

        The callbacks of what waits are called at once, not at the next `poll`.
        """
        super().purge(in_queue, in_flight, blocking)
        if in_queue and self._dedicated is not None:
            self._dedicated.purge()

    def begin_transaction(self) -> None:
        """As `confluent_kafka.Producer.begin_transaction`."""
        with explaining(self._dedicated):
            super().begin_transaction()
        if self._dedicated is not None:
            self._dedicated.begin_transaction()

    def commit_transaction(self, *args: float, **keywords: float) -> None:
        """As `confluent_kafka.Producer.commit_transaction`.

        Where a dedicated topic refused a record of it, the error says so, and is both to be aborted
        (`txn_requires_abort`) and worth another try (`retriable`): of the whole transaction, which then goes
        to the base topic.
        """
        with explaining(self._dedicated):
            super().commit_transaction(*args, **keywords)

    def abort_transaction(self, *args: float, **keywords: float) -> None:
        """As `confluent_kafka.Producer.abort_transaction`.

        Where the brokers accepted nothing of a transaction, since a dedicated topic refused all of it, the
        error can be fatal, and says what to do.
        """
        with explaining(self._dedicated):
            super().abort_transaction(*args, **keywords)

    def send_offsets_to_transaction(self, *args: Any, **keywords: Any) -> None:
        """As `confluent_kafka.Producer.send_offsets_to_transaction`; its errors as those of a commit."""
        with explaining(self._dedicated):
            super().send_offsets_to_transaction(*args, **keywords)

    def close(self) -> bool:
        """As `confluent_kafka.Producer.close`; withdraws the producer's report too."""
        self._leave()
        return super().close()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> bool | None:
        self._leave()
        return super().__exit__(exc_type, exc_value, exc_traceback)

    def _meet(self, topic: object) -> None:
        """Follow a topic at its first record; what is no topic name is left to the Kafka client to refuse."""
        if isinstance(topic, str) and topic not in self._by_topic:
            # No assignment: its table may have arrived since the test.
            self._by_topic.setdefault(topic, Lanes())
            if self._source is not None:
                self._source.follow((topic,))

    def _batches(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        lanes: Lanes,
        dimensions: Dimensions | None,
        elsewhere: list[tuple[dict[str, Any], Destination]],
    ) -> _Batches:
        """The messages by partition: the Kafka client heeds the batch's, not a message's.

        Those of dedicated topics are added to `elsewhere`.
        """
        batches: _Batches = {}
        for message in messages:
            to = _choose(message, lanes, dimensions)
            if to is None:
                batches.setdefault(_ANY, []).append((message, message))
                continue
            self._counts.routed += 1
            if to.topic != topic:
                elsewhere.append((message, to))
                continue
            copy = {**message, "key": message["key"] if to.key is None else to.key}
            copy.pop("_error", None)  # of an earlier call; the Kafka client takes none away
            batches.setdefault(to.partition, []).append((message, copy))
        return batches

    def _send_elsewhere(
        self,
        topic: str,
        messages: list[tuple[dict[str, Any], Destination]],
        callback: DeliveryCallback | None,
    ) -> int:
        """Send a batch's messages to dedicated topics, one by one; how many were taken."""
        sent = 0
        for message, to in messages:
            assert self._dedicated is not None, "no other producer has tables"
            then = message.get("callback") or callback
            value, key = message.get("value"), message["key"]
            try:
                self._dedicated.send(topic, to, value, key, then, message.get("timestamp", 0), None)
                sent += 1
            except BufferError:
                message["_error"] = KafkaError(KafkaError._QUEUE_FULL)
            except KafkaException as error:
                message["_error"] = error.args[0]
        return sent

    def _leave(self) -> None:
        if self._source is not None:
            if self._dedicated is not None:
                self._dedicated.finish()
            self._source.close()
            self._borrow.end()


def _start(
    borrow: Borrow[Producer], settings: _settings.Settings, lanes: _Lanes, counts: KeyCounts | None
) -> TableSource:
    def identify() -> str | None:
        with borrow() as producer:
            try:
                return producer.cluster_id(_IDENTIFY_SECONDS) if producer is not None else None
            except (KafkaException, RuntimeError):
                return None  # not yet connected, or closed

    partitions = KnownPartitions(borrow)

    def adopt(topic: str, router: Router) -> None:
        partitions.learn(router.table)
        lanes.adopt(topic, router)

    def meanwhile() -> None:
        if lanes.dedicated is not None and lanes.dedicated.book.kept:
            with borrow() as producer:
                if producer is not None:
                    lanes.dedicated.push()

    return TableSource(
        settings,
        Role.PRODUCER,
        store=lambda: RedisStore(settings.redis_url),
        identify=identify,
        adopt=adopt,
        meanwhile=meanwhile,
        key_counts=counts,
    )


def _choose(message: dict[str, Any], lanes: Lanes, dimensions: Dimensions | None) -> Destination | None:
    """Where a message of a batch goes; None: nowhere else, or it is no message and the client will say so."""
    if not isinstance(message, dict) or message.get("partition", _ANY) != _ANY:
        return None
    key = message.get("key")
    lane = lanes.get(key) if isinstance(key, str | bytes) else None
    if lane is None:
        return None
    value, timestamp = message.get("value"), message.get("timestamp", 0)
    own = message.get("dimensions", dimensions)
    return lane.choose(value, own, None, timestamp if isinstance(timestamp, int) else 0)


def _return_errors(batch: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Tell the caller's messages what became of their copies; those without a destination come back."""
    stranded: list[dict[str, Any]] = []
    for message, copy in batch:
        if copy is message or "_error" not in copy:
            continue
        if copy["_error"].code() in _GONE:
            stranded.append(message)
        else:
            message["_error"] = copy["_error"]
    return stranded


def is_gone(error: KafkaException) -> bool:
    """Whether a record was refused because its partition or topic does not exist."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and cause.code() in _GONE


def _as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


class Paths:
    """The paths of a record that there are here, and which of them every Producer takes."""

    def __init__(self) -> None:
        self._produce: dict[Path, Any] = {Path(): Producer.produce}
        fast = _compiled.load()
        if fast is not None:
            # It is bound once per process: where this module is executed again, the first Producer keeps it.
            with contextlib.suppress(RuntimeError):
                compiled = _compiled.produce_of(fast, Producer, _produce, Producer.produce, is_gone)
                self._produce[_compiled.CompiledPath(fast)] = compiled
        self.take(tuple(self._produce)[-1])

    def __iter__(self) -> Iterator[Path]:
        return iter(self._produce)

    def take(self, path: Path) -> None:
        """For the process's start, and for tests of both."""
        self.in_use = path
        Producer.produce = self._produce[path]  # type: ignore[method-assign]


PATHS = Paths()
