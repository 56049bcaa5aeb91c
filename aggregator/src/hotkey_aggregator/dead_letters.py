"""Brings records that are no clicks from the store to the dead-letter topic, in a thread of its own.

They were kept in the transaction that moved their offsets, so nothing is lost while the topic cannot be
written, and no click waits for it. What was acknowledged is marked so in the store afterwards: after a crash
between the two a letter comes twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from hotkey_aggregator.cluster import Cluster
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.store import DeadLetter, Store
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator")

HEADER = "hotkey-dead-"
REASON, DETAIL, TOPIC = f"{HEADER}reason", f"{HEADER}detail", f"{HEADER}topic"
PARTITION, OFFSET, TOPIC_ID = f"{HEADER}partition", f"{HEADER}offset", f"{HEADER}topic-id"
TIMESTAMP = f"{HEADER}timestamp"

MOST_LETTERS = 1000
FEWEST_LETTERS = 10
CARRIED_BYTES = 8 * 1024 * 1024
MOST_PARTITIONS = 3
SEND_SECONDS = 30.0
RETRY_SECONDS = 5.0
ERROR_LOG_SECONDS = 60.0
# A letter is its record and some headers more: it must fit where its record fitted.
ROOM_FOR_HEADERS = 64 * 1024
LARGEST_RECORD = 256 * 1024 * 1024

Headers = list[tuple[str, str | bytes | None]]


def producer_config(client_config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a producer that loses nothing and partitions as the Java client does."""
    return {
        **client_config,
        "client.id": "hotkey-aggregator-dead-letters",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.max.bytes": LARGEST_RECORD,
        "message.timeout.ms": int(SEND_SECONDS * 1000),
        "linger.ms": 20,
    }


def whose_letters(
    stored: Collection[Source],
    read: Collection[Source],
    places: Collection[tuple[str, int]],
    gone: Collection[str],
    base: str,
) -> set[Source]:
    """The logs whose letters a member has to bring.

    Those that it reads, and those that stood in its `places` before, as the store's positions tell. Of topics
    that are gone and were not made anew nobody reads anything: they fall to whoever has the first partition
    of the base topic.
    """
    heir = (base, 0) in places
    former = {
        source
        for source in stored
        if (source.topic, source.partition) in places or (heir and source.topic in gone)
    }
    return former.union(read)


def headers_of(letter: DeadLetter) -> Headers:
    """The record's own headers and those that tell where it stood and why it is here."""
    own = [(name, value) for name, value in letter.headers if not name.startswith(HEADER)]
    ours = {
        REASON: letter.reason.value,
        DETAIL: letter.detail,
        TOPIC: letter.source.topic,
        PARTITION: str(letter.source.partition),
        OFFSET: str(letter.offset),
        TOPIC_ID: letter.source.topic_id,
        TIMESTAMP: str(letter.timestamp),
    }
    return [*own, *((name, value.encode()) for name, value in ours.items())]


class DeadLetterCarrier:
    """Carries the letters of the partitions in `serve`'s argument until `close`."""

    def __init__(
        self,
        store: Store,
        write: Callable[[Callable[[], Any]], Future[Any]],
        cluster: Cluster,
        config: Mapping[str, Any],
        *,
        base: str,
        topic: str,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._write = write
        self._cluster = cluster
        self._config = producer_config(config)
        self._base, self._topic = base, topic
        self._metrics = metrics
        self._sources: Collection[Source] = ()
        self._refused: set[tuple[Source, int, int]] = set()
        self._errors: list[str] = []
        self._batch = FEWEST_LETTERS
        self._topic_exists = False
        self._logged = float("-inf")
        self._due = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
        self._thread.start()

    def serve(self, sources: Collection[Source]) -> None:
        """These partitions' letters are ours to bring; look now whether there are any."""
        self._sources = frozenset(sources)
        self._due.set()

    def close(self) -> None:
        """Stop after what is under way; what was not brought stays in the store."""
        self._closed.set()
        self._due.set()
        self._thread.join(timeout=SEND_SECONDS + 5)

    def _run(self) -> None:
        producer: Producer | None = None
        while not self._closed.is_set():
            self._due.wait()
            self._due.clear()
            try:
                while not self._closed.is_set() and (letters := self._letters()):
                    producer = producer or Producer(self._config)
                    self._make_topic()
                    self._carry(producer, letters)
            except Exception as error:
                # Whatever it is, the letters are safe where they are, and the next ones will be tried again.
                self._note_failure(str(error) or type(error).__name__)
                self._closed.wait(RETRY_SECONDS)
                self._due.set()

    def _letters(self) -> Sequence[DeadLetter]:
        """The next ones, without those that the topic refuses for good: they stay in the store."""
        if not self._sources:
            return ()
        found = self._store.undelivered(self._sources, self._batch + len(self._refused))
        return [letter for letter in found if letter.place not in self._refused]

    def _make_topic(self) -> None:
        if self._topic_exists:
            return
        topics = self._cluster.topics([self._base, self._topic])
        if self._topic not in topics and (base := topics.get(self._base)) is not None:
            largest = self._cluster.topic_setting(self._base, "max.message.bytes")
            config = {"max.message.bytes": str(int(largest) + ROOM_FOR_HEADERS)} if largest else {}
            partitions = min(MOST_PARTITIONS, base.partitions)
            self._cluster.create_topic(self._topic, partitions, base.replication, config)
            log.info(line("dead_letter_topic_created", topic=self._topic, partitions=partitions))
        self._topic_exists = True

    def _carry(self, producer: Producer, letters: Sequence[DeadLetter]) -> None:
        acknowledged: list[DeadLetter] = []
        self._errors = []
        for letter in letters:
            producer.produce(
                self._topic,
                letter.value,
                letter.key,
                headers=headers_of(letter),
                on_delivery=self._on_delivery(letter, acknowledged),
            )
            producer.poll(0)
        if producer.flush(SEND_SECONDS + 5):
            producer.purge()
            producer.flush(1)
        mean = 1 + sum(len(letter.value or b"") for letter in letters) // len(letters)
        self._batch = max(FEWEST_LETTERS, min(MOST_LETTERS, CARRIED_BYTES // mean))
        if acknowledged:
            self._write(lambda: self._store.delivered(acknowledged)).result()
            self._metrics.delivered.inc(len(acknowledged))
        if self._errors:
            self._topic_exists = False
            raise KafkaException(KafkaError(KafkaError._FAIL, self._errors[0]))

    def _on_delivery(
        self, letter: DeadLetter, acknowledged: list[DeadLetter]
    ) -> Callable[[KafkaError | None, Message], None]:
        def note(error: KafkaError | None, _: Message) -> None:
            if error is None:
                acknowledged.append(letter)
                return
            self._errors.append(error.str())
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                self._refused.add(letter.place)

        return note

    def _note_failure(self, detail: str) -> None:
        """One line a minute while it lasts."""
        self._metrics.undelivered.inc()
        now = time.monotonic()
        if now - self._logged >= ERROR_LOG_SECONDS:
            self._logged = now
            log.error(
                line(
                    "dead_letters_wait",
                    topic=self._topic,
                    detail=detail,
                    kept_in="the store",
                    do=f"let this client create and write topic {self._topic} (describe topic {self._base})",
                )
            )
