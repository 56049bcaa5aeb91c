"""`hotkey-aggregator replay`: puts dead letters back where they came from, if they are clicks by now.

A letter is handled once: how far the dead-letter topic was worked through is kept as the offsets of a
consumer group of its own. A letter that is not put back, because it is still no click or was not asked for,
is moved to the end of the dead-letter topic and stays there. Sent first, noted afterwards: after a crash some
come twice, and are counted once.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from hotkey_aggregator.dead_letters import HEADER, REASON, SEND_SECONDS, TOPIC, producer_config
from hotkey_aggregator.events import Reason
from hotkey_aggregator.pending import why_not_counted
from hotkey_aggregator.store import Keeping
from hotkey_sdk.routing.names import dedicated_prefix

BATCH = 200
ASK_SECONDS = 10.0
QUIET_SECONDS = 30.0
PROGRESS_SECONDS = 1.0
_CONSUMER = {"enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest"}


class ReplayError(Exception):
    """The replay ended early; the message says why and how far it came."""


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What to put back, and where."""

    base: str
    dead: str
    group: str
    """The consumer group that remembers how far the dead-letter topic was worked through."""
    keeping: Keeping
    reason: Reason | None = None
    limit: int | None = None
    dry_run: bool = False


@dataclass(slots=True)
class Tally:
    """What became of the letters, by the reason that they bore."""

    read: int = 0
    put_back: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.put_back.total()} put back{_by(self.put_back)}, {self.kept.total()} kept{_by(self.kept)}"
        )


def replay(
    order: ReplayOrder,
    client_config: Mapping[str, Any],
    *,
    out: TextIO = sys.stdout,
    progress: TextIO = sys.stderr,
    clock: Callable[[], float] = time.time,
) -> Tally:
    """Work through what the dead-letter topic holds now. Raises ReplayError."""
    consumer = Consumer({**client_config, "group.id": order.group, **_CONSUMER})
    try:
        tally = _Replay(order, consumer, Producer(producer_config(client_config)), progress, clock).run()
    except KafkaException as error:
        raise ReplayError(
            f"Kafka refused or did not answer: {error.args[0].str()}. Look after the brokers and the "
            "rights of this client, then start again: what was put back is noted"
        ) from None
    finally:
        consumer.close()
    out.write(f"{'would be: ' if order.dry_run else ''}{tally}\n")
    return tally


class _Replay:
    def __init__(
        self,
        order: ReplayOrder,
        consumer: Consumer,
        producer: Producer,
        progress: TextIO,
        clock: Callable[[], float],
    ) -> None:
        self._order = order
        self._consumer = consumer
        self._producer = producer
        self._progress = progress
        self._clock = clock
        self._tally = Tally()
        self._topics: frozenset[str] = frozenset()
        self._told_at = 0.0

    def run(self) -> Tally:
        self._topics = frozenset(self._consumer.list_topics(timeout=ASK_SECONDS).topics)
        if self._order.dead not in self._topics:
            return self._tally
        if self._order.base not in self._topics:
            raise ReplayError(
                f"the topic {self._order.base}, which letters go back to, does not exist: nothing was put "
                "back. Name the stream's base topic by --topic, or create it"
            )
        left = self._begin()
        total = sum(end - start for start, end in left.values())
        ends = {partition: end for partition, (start, end) in left.items() if start < end}
        quiet_at = time.monotonic() + QUIET_SECONDS
        while ends and not self._is_enough():
            messages = self._next(ends)
            if messages:
                quiet_at = time.monotonic() + QUIET_SECONDS
                self._handle(messages)
            elif time.monotonic() > quiet_at:
                raise ReplayError(
                    f"{self._order.dead} gave no record for {QUIET_SECONDS:.0f} s, {self._tally}: start again"
                )
            self._show(total)
        return self._tally

    def _is_enough(self) -> bool:
        limit = self._order.limit
        return limit is not None and self._tally.put_back.total() >= limit

    def _begin(self) -> dict[int, tuple[int, int]]:
        """Start where the last replay ended; by partition the first offset and the end of now."""
        topic = self._order.dead
        numbers = self._consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
        asked = [TopicPartition(topic, number) for number in numbers]
        committed = {one.partition: one.offset for one in self._consumer.committed(asked, ASK_SECONDS)}
        found = {}
        for place in asked:
            marks = self._consumer.get_watermark_offsets(place, timeout=ASK_SECONDS)
            if marks is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            found[place.partition] = (max(marks[0], committed[place.partition]), marks[1])
        self._consumer.assign(
            [
                TopicPartition(topic, number, start if start > 0 else OFFSET_BEGINNING)
                for number, (start, _) in found.items()
            ]
        )
        return found

    def _next(self, ends: dict[int, int]) -> list[Message]:
        """Letters that were there when the replay began; takes finished partitions out of `ends`."""
        limit, done = self._order.limit, self._tally.put_back.total()
        wanted = BATCH if limit is None else min(BATCH, limit - done)
        letters = []
        for message in self._consumer.consume(wanted, 0.5):
            error, number, offset = message.error(), message.partition(), message.offset()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF and number is not None:
                    ends.pop(number, None)
                elif error.fatal():
                    raise KafkaException(error)
                continue
            assert number is not None and offset is not None  # noqa: PT018
            if number in ends and offset < ends[number]:
                letters.append(message)
            if offset + 1 >= ends.get(number, 0):
                ends.pop(number, None)
        return letters

    def _handle(self, letters: Sequence[Message]) -> None:
        failures: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error.str())

        for letter in letters:
            headers = dict(letter.headers() or ())
            reason = _text(headers.get(REASON)) or "unknown"
            back = self._is_to_go_back(letter, reason)
            (self._tally.put_back if back else self._tally.kept)[reason] += 1
            if not self._order.dry_run:
                self._send(letter, self._home(headers) if back else self._order.dead, back, delivered)
        self._tally.read += len(letters)
        if self._order.dry_run:
            return
        if self._producer.flush(SEND_SECONDS + 5) or failures:
            why = failures[0] if failures else "no answer"
            raise ReplayError(
                f"letters could not be sent ({why}) after {self._tally.read - len(letters)} were handled: "
                "start again, those that were sent are counted once"
            )
        self._note(letters)

    def _is_to_go_back(self, letter: Message, reason: str) -> bool:
        wanted = self._order.reason
        if wanted is not None and reason != wanted.value:
            return False
        value = letter.value()
        raw = value.encode() if isinstance(value, str) else value
        return why_not_counted(raw, int(self._clock() * 1000), self._order.keeping) is None

    def _home(self, headers: Mapping[str, bytes | str | None]) -> str:
        """The topic it came from, if that is still one of the stream's; the base topic is always read."""
        topic, base = _text(headers.get(TOPIC)), self._order.base
        ours = topic is not None and topic.startswith(dedicated_prefix(base))
        return topic if ours and topic is not None and topic in self._topics else base

    def _send(
        self, letter: Message, topic: str, back: bool, delivered: Callable[[KafkaError | None, Message], None]
    ) -> None:
        given = cast("list[tuple[str, str | bytes | None]]", letter.headers() or [])
        headers = [(name, value) for name, value in given if not (back and name.startswith(HEADER))]
        self._producer.produce(topic, letter.value(), letter.key(), headers=headers, on_delivery=delivered)
        self._producer.poll(0)

    def _note(self, letters: Sequence[Message]) -> None:
        """These are handled: the next replay begins behind them."""
        last = {letter.partition(): letter.offset() for letter in letters}
        offsets = [
            TopicPartition(self._order.dead, number, offset + 1)
            for number, offset in last.items()
            if number is not None and offset is not None
        ]
        noted = self._consumer.commit(offsets=offsets, asynchronous=False)
        for place in noted or ():
            if place.error is not None:
                raise KafkaException(place.error)

    def _show(self, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self._progress.write(f"{self._tally.read} of {total} letters read: {self._tally}\n")


def _text(value: bytes | str | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _by(counted: Mapping[str, int]) -> str:
    return (
        " (" + ", ".join(f"{name} {number}" for name, number in sorted(counted.items())) + ")"
        if counted
        else ""
    )
