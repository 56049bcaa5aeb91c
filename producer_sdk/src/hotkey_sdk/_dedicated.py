"""What a producer sends to dedicated topics: watched until it is delivered, or sent to the base topic.

The rules are those of routing.resend; here they meet the Kafka client, threads and the caller's callbacks. A
record costs one more object and two more locks here than elsewhere, which is why none but those of dedicated
topics come this way.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import operator
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from hotkey_sdk.routing.resend import Fate, Queue, Resends, Way
from hotkey_sdk.routing.router import Destination

DeliveryCallback = Callable[[KafkaError | None, Message], None]
HeadersLike = Any  # what confluent_kafka takes: a dict, or a list of (name, value)

_ANY = -1
_WAIT, _FULL, _DEDICATED = Way.WAIT, Way.FULL, Way.DEDICATED  # an enum is slow to ask for its members
_RECORDS = 100_000  # librdkafka's defaults of queue.buffering.max.messages
_KIBIBYTES = 1_048_576  # and queue.buffering.max.kbytes
_TRY_SECONDS = 1.0  # how long a transaction's record waits for those before it, once for a dedicated topic
_FLUSH_SECONDS = 0.1  # after so long what may go to base is sent, while others are still waited for
_HELD_HERE = 2  # references to a callback that the Kafka client did not take: a name, and an argument
_RECORD_BYTES = 200  # of a record that is held, beside its key and value

# _DESTROY is none of them: librdkafka ends requests with it when it lets go of a broker, too.
_FINAL = frozenset(
    (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._FATAL, KafkaError._FENCED)
)
_UNUSABLE = frozenset(
    (
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
    )
)

_produce = confluent_kafka.Producer.produce
_flush = confluent_kafka.Producer.flush
_length = confluent_kafka.Producer.__len__
_poll = confluent_kafka.Producer.poll

# A transaction with nothing but refused records can end the producer (librdkafka cannot abort what the broker
# never began). So to a dedicated topic that has taken nothing from this producer yet, a transaction writes
# only after brokers have taken another record of it. Where a topic is lost that was written before, the next
# producer with the same transactional.id must not meet the same end.
_broke_transactions: dict[tuple[object, str], str] = {}

log = logging.getLogger("hotkey_sdk")


def fate_of(error: KafkaError) -> Fate:
    """What a delivery that failed, or a refused call, means for the record and its topic."""
    if error.fatal() or error.code() in _FINAL:
        return Fate.FINAL
    return Fate.UNUSABLE if error.code() in _UNUSABLE else Fate.REFUSED


class Again(msgspec.Struct, frozen=True, gc=False):
    """A record for the base topic, as its caller gave it. `timestamp`: of its first send, in unix ms."""

    topic: str
    value: bytes | None
    key: bytes
    callback: DeliveryCallback | None
    timestamp: int
    headers: HeadersLike | None
    size_bytes: int  # what holding it takes, about


class DedicatedSends:
    """Those of one producer, which it does not keep alive."""

    def __init__(self, producer: confluent_kafka.Producer, kafka: Mapping[str, Any]) -> None:
        self._producer = weakref.ref(producer)
        default = kafka.get("on_delivery")
        self.default_callback: DeliveryCallback | None = default if callable(default) else None
        self._transactional = kafka.get("transactional.id")
        self.watching = self._transactional is not None  # whether to be told of each delivery
        self.lock = threading.RLock()  # a signal handler may produce while this thread holds it
        self.book: Resends[Again] = Resends(
            int(kafka.get("queue.buffering.max.messages", _RECORDS)),
            1024 * int(kafka.get("queue.buffering.max.kbytes", _KIBIBYTES)),
            operator.attrgetter("size_bytes"),
        )
        self._draining = False
        self._flushing = 0  # threads that do
        self._ended: deque[tuple[Again, KafkaError]] = deque()  # whose callers are still to be told
        self._topics: dict[str, frozenset[str]] = {}  # by base topic, those that its table writes to
        self._closed: dict[str, str] = {}  # as it was told in the log,
        self._closures = 0  # which holds as long as the book counts so many
        self._end = ""  # what to say where it cannot be
        self._fatal: KafkaException | None = None
        self._broken: str | None = None  # why the transaction has to be aborted
        self._written: set[str] = set()  # dedicated topics, in this transaction
        self._proven: set[str] = set()  # dedicated topics that have taken a record of a transaction
        self._diverted: dict[str, bool] = {}  # others, in this transaction: whether it waited for nothing
        self.went_to_base = 0  # without having tried the dedicated topic

    def adopt(self, base: str, topics: frozenset[str]) -> None:
        """The base topic's new table writes to these."""
        with self.lock:
            for topic in topics:
                if (why := _broke_transactions.get((self._transactional, topic))) is not None:
                    self.book.close(topic, why, float("inf"))
            self._topics[base] = topics
            named = {name for each in self._topics.values() for name in each}
            self.book.forget_others(named)
            self._proven &= named
            self._tell()

    def send(
        self,
        base: str,
        to: Destination,
        value: str | bytes | None,
        key: str | bytes,
        callback: DeliveryCallback | None,
        timestamp: int,
        headers: HeadersLike | None,
    ) -> None:
        """As `produce` with the destination `to`, or with the base topic where that is not to be used."""
        producer = self._producer()
        assert producer is not None, "its own method runs"
        if self._transactional is not None and not self._may_write(producer, to.topic):
            self.went_to_base += 1
            _produce(producer, base, value, key, _ANY, callback, None, timestamp, headers)
            return
        book = self.book
        if book.kept or self._ended:
            self.drain()
        with self.lock:
            queue = book.queue(to.topic, to.partition)
            way, number = book.enter(queue, time.monotonic() if book.any_closed else 0.0)
            if way is _WAIT and self._transactional is None:
                book.wait(queue, _again(base, value, key, callback, timestamp, headers))
                return
        if way is _FULL and self._transactional is None:
            raise BufferError("Local: Queue full")
        if way is not _DEDICATED:  # what a transaction waited for would never be committed with it
            self.went_to_base += 1
            _produce(producer, base, value, key, _ANY, callback, None, timestamp, headers)
            return
        kept = headers.copy() if headers and isinstance(headers, dict | list) else headers
        sent = Sent(self, queue, number, base, key, callback, timestamp or time.time_ns() // 1_000_000, kept)
        shard_key = key if to.key is None else to.key
        try:
            _produce(producer, to.topic, value, shard_key, to.partition, sent, None, timestamp, headers)
        except KafkaException as error:
            if fate_of(error.args[0]) is not Fate.UNUSABLE:
                self._cancel(queue)
                raise self.explained(error) from error
            self._refused_at_once(producer, sent, value, error.args[0])
        except (
            BaseException
        ):  # the client's queue is full, an argument is wrong, or a signal's handler raised
            if not sent.settled and sys.getrefcount(sent) <= _HELD_HERE:
                self._cancel(queue)
            raise

    def _may_write(self, producer: confluent_kafka.Producer, topic: str) -> bool:
        """Whether this transaction may write to the topic: if that is refused, it can be aborted.

        It can when brokers have taken a record of it: the first for the topic goes to base, and at the second
        all before it are waited for, once. Raises `KafkaException` where a record was refused already.
        """
        if self._broken is not None:
            raise self._fatal or self._must_abort(KafkaError._STATE)
        if topic not in self._proven and topic not in self._written and topic not in self._closed:
            waited = self._diverted.get(topic)
            self._diverted[topic] = waited is not None
            if waited is not False or _flush(producer, _TRY_SECONDS) != 0:
                return False
        self._written.add(topic)
        return True

    def _refused_at_once(
        self, producer: confluent_kafka.Producer, sent: Sent, value: str | bytes | None, error: KafkaError
    ) -> None:
        """The Kafka client knows that the topic cannot be used: no transaction is broken by that."""
        if not self._transactional:
            self.refused(sent, value.encode() if isinstance(value, str) else value, error, Fate.UNUSABLE)
            return
        with self.lock:
            self.book.close(sent.queue.topic, error.name(), float("inf"))
            self.book.ended(sent.queue)
            self._tell()
        self.went_to_base += 1
        _produce(
            producer, sent.base, value, sent.key, _ANY, sent.callback, None, sent.timestamp, sent.headers
        )

    def refused(self, sent: Sent, value: bytes | None, error: KafkaError, fate: Fate) -> None:
        """A record that was sent to a dedicated topic was not taken; it is kept, and sent in its turn."""
        key = _bytes(sent.key)
        size = len(value or b"") + len(key) + _RECORD_BYTES
        again = Again(sent.base, value, key, sent.callback, sent.timestamp, sent.headers, size)
        with self.lock:
            due = self.book.refused(sent.queue, sent.number, again, fate, error.name(), time.monotonic())
            self._tell()
        if due:
            self.drain()

    def failed(self, sent: Sent, error: KafkaError, message: Message) -> None:
        """The delivery failed: the record is sent again, or this is its end and the caller is told."""
        fate = fate_of(error)
        if fate is not Fate.FINAL and not self._transactional:
            self.refused(sent, message.value(), error, fate)
            return
        with self.lock:
            if fate is not Fate.FINAL:
                self._break(sent.queue.topic, error)
            due = self.book.ended(sent.queue)
        callback = sent.callback or self.default_callback
        try:
            if callback is not None:
                callback(error, message)
        finally:
            if due:
                self.drain()

    def drain(self) -> None:
        """Send to the base topic what waits for it and may go now, and tell callers of what may not.

        For the callers' threads, since it calls their callbacks.
        """
        self.push()
        while self._ended:
            with self.lock:
                if not self._ended:
                    return
                again, error = self._ended.popleft()
            callback = again.callback or self.default_callback
            if callback is not None:
                callback(error, Message(topic=again.topic, key=again.key, value=again.value, error=error))

    def push(self) -> None:
        """Send to the base topic what waits for it and may go now; from any thread.

        Not while one flushes, who does it in its turn: the Kafka client sends what it is given in the course
        of a flush record by record, whatever `linger.ms` says.
        """
        with self.lock:
            producer = self._producer()
            if producer is None or self._draining or self._flushing:
                return
            self._draining = True
            try:
                self.book.drain(functools.partial(_send_again, producer, self._ended))
            finally:
                self._draining = False
            if self._ended:
                vars(producer)["poll"] = self._tell_and_poll

    def _tell_and_poll(self, *_: float) -> int:
        """Stands in the place of the producer's `poll` while there are ends to be told.

        Nothing stands there else: `poll` is called for every record.
        """
        producer = self._producer()
        assert producer is not None, "its own method runs"
        self.drain()
        with self.lock:
            if not self._ended:
                vars(producer).pop("poll", None)
        return _poll(producer, 0)

    def flush(self, seconds: float) -> int:
        """As `Producer.flush`, after which nothing is kept here either, unless the time is over."""
        producer = self._producer()
        assert producer is not None, "its own method runs"
        deadline = float("inf") if seconds < 0 else time.monotonic() + seconds
        while True:
            before = self.book.resent
            left = self._flush(producer, deadline - time.monotonic())
            self.drain()
            is_idle = not left and self.book.resent == before
            if is_idle or time.monotonic() >= deadline:
                return _length(producer) + self.kept

    def _flush(self, producer: confluent_kafka.Producer, rest: float) -> int:
        """Flush for a while: others must not wait for the slowest before they go to base."""
        with self.lock:
            self._flushing += 1
        try:
            return _flush(producer, min(max(0.0, rest), _FLUSH_SECONDS))
        finally:
            with self.lock:
                self._flushing -= 1

    @property
    def kept(self) -> int:
        """Records that are in nobody else's queue."""
        return self.book.kept + len(self._ended)

    def refused_topics(self) -> dict[str, str]:
        """Dedicated topics that are not written to, and why."""
        with self.lock:
            return self.book.closed()

    def finish(self) -> None:
        """Before the producer is closed: everything that went to dedicated topics has its end after this."""
        with self.lock:
            on_its_way = self.book.on_its_way
        if on_its_way and not self._transactional:
            self.flush(-1)

    def purge(self) -> None:
        """End everything that is kept; the callers are told at once."""
        with self.lock:
            error = KafkaError(KafkaError._PURGE_QUEUE)
            self._ended.extend((again, error) for again in self.book.give_up())
        self.drain()

    def begin_transaction(self) -> None:
        """Nothing of the new transaction was sent or refused yet."""
        self._broken = None
        self._written.clear()
        self._diverted.clear()

    def explained(self, error: KafkaException) -> KafkaException:
        """The error, or one that says why this transaction cannot be committed."""
        cause = error.args[0] if error.args else None
        if isinstance(cause, KafkaError) and cause.fatal() and self._broken is not None:
            self._fatal = KafkaException(KafkaError(cause.code(), f"{cause.str()}: {self._end}", fatal=True))
            return self._fatal
        if not isinstance(cause, KafkaError) or not cause.txn_requires_abort():
            return error
        if self._broken is None and cause.code() in _UNUSABLE:  # it says so of the transaction, of no record
            with self.lock:
                for topic in self._written:
                    self._break(topic, cause)
        return error if self._broken is None else self._must_abort(cause.code())

    def _must_abort(self, code: int) -> KafkaException:
        return KafkaException(KafkaError(code, self._broken, retriable=True, txn_requires_abort=True))

    def _break(self, topic: str, error: KafkaError) -> None:
        refused = f"the dedicated topic {topic} refused records of this transaction ({error.name()})"
        self._broken = f"{refused}: abort it and repeat it, its records will go to the base topic"
        self._end = (
            f"{refused}, the brokers accepted none of it, and librdkafka can abort no such transaction: this "
            "producer has ended. Make a new one with the same transactional.id and repeat the transaction"
        )
        self.book.close(topic, error.name(), float("inf"))
        _broke_transactions[self._transactional, topic] = error.name()
        self._tell()

    def _cancel(self, queue: Queue[Again]) -> None:
        with self.lock:
            due = self.book.ended(queue)
        if due:
            self.drain()

    def delivered(self, queue: Queue[Again], due: bool) -> None:
        """One more record was, and that may be news: its topic was closed, or had not taken any yet."""
        with self.lock:
            self._tell()
            if self._transactional is not None:
                self._proven.add(queue.topic)
        if due:
            self.drain()

    def _tell(self) -> None:
        if self.book.closures == self._closures:
            return
        self._closures = self.book.closures
        closed = self.book.closed()
        for topic in closed.keys() - self._closed.keys():
            log.warning("event=dedicated_topic_refused topic=%s why=%s sending=to_base", topic, closed[topic])
        for topic in self._closed.keys() - closed.keys():
            log.info("event=dedicated_topic_open_again topic=%s", topic)
        self._closed = closed
        self.watching = bool(closed) or self._transactional is not None


class Sent(msgspec.Struct, gc=False, eq=False):
    """The delivery callback of one record that went to a dedicated topic."""

    sends: DedicatedSends
    queue: Queue[Again]
    number: int
    base: str
    key: str | bytes
    callback: DeliveryCallback | None
    timestamp: int
    headers: HeadersLike | None
    settled: bool = False  # it was called

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        sends = self.sends
        self.settled = True
        if error is not None:
            sends.failed(self, error, message)
            return
        with sends.lock:
            due = sends.book.delivered(self.queue)
        callback = self.callback or sends.default_callback
        try:
            if callback is not None:
                callback(None, message)
        finally:
            if due or sends.watching:
                sends.delivered(self.queue, due)


def _send_again(
    producer: confluent_kafka.Producer, ended: deque[tuple[Again, KafkaError]], again: Again
) -> bool:
    """Whether the record is the Kafka client's now, or has come to nothing; not where its queue is full."""
    try:
        _produce(
            producer,
            again.topic,
            again.value,
            again.key,
            _ANY,
            again.callback,
            None,
            again.timestamp,
            again.headers,
        )
    except BufferError:
        return False
    except KafkaException as error:
        ended.append((again, error.args[0]))
    return True


def _again(
    base: str,
    value: str | bytes | None,
    key: str | bytes,
    callback: DeliveryCallback | None,
    timestamp: int,
    headers: HeadersLike | None,
) -> Again:
    """A record that is not sent yet; raises `TypeError` for what the Kafka client would not take."""
    if not isinstance(value, str | bytes | None):
        raise TypeError(f"a bytes-like object is required, not '{type(value).__name__}'")
    stamp = operator.index(timestamp) or int(time.time() * 1000)
    data = value.encode() if isinstance(value, str) else value
    raw = _bytes(key)
    size = len(data or b"") + len(raw) + _RECORD_BYTES
    return Again(base, data, raw, callback, stamp, _checked(headers), size)


def _checked(headers: HeadersLike | None) -> HeadersLike | None:
    if not headers:
        return None
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise TypeError("Headers are expected to be a list of (key, value) tuples")
    for name, value in pairs:
        if not isinstance(name, str | bytes) or not isinstance(value, str | bytes | None):
            raise TypeError("expected header value to be None, binary, or unicode string")
    return list(pairs)


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


@contextlib.contextmanager
def explaining(sends: DedicatedSends | None) -> Iterator[None]:
    """Let errors of transactions say what happened to the records that went to dedicated topics."""
    try:
        yield
    except KafkaException as error:
        explained = sends.explained(error) if sends is not None else error
        if explained is error:
            raise
        raise explained from error
