"""A producer's Kafka client and the brokers it sends to, as far as what becomes of a record depends on them.

Of each partition the batches are sent in order, up to five before the first answer. An answer may be lost,
and the batch be sent again: with idempotence the broker knows it again by its sequence and takes none out of
order; without, it takes what comes. Errors are the real client's, so that the real code judges them.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice

from confluent_kafka import KafkaError, KafkaException

from tests.simulation.faults import Kind
from tests.simulation.memory import MemoryBrokers
from tests.simulation.process import Process
from tests.simulation.weather import Weather

IN_FLIGHT, BATCH = 5, 16
MESSAGE_SECONDS = 5.0  # message.timeout.ms
GONE_SECONDS = 1.0  # topic.metadata.propagation.max.ms
LINGER_SECONDS = 0.005

Done = Callable[[KafkaError | None], None]


class Answer(Enum):
    """What a broker says to a batch."""

    TAKEN = auto()
    SILENT = auto()  # no answer in time: it was taken or not
    NOT_LEADER = auto()
    DISORDER = auto()  # one before it is missing
    GONE = auto()
    DENIED = auto()


@dataclass(slots=True, eq=False)
class Message:
    """One record in the client's hands. `expires`: seconds of the run."""

    key: bytes
    value: bytes
    headers: Mapping[str, bytes]
    done: Done
    expires: float


@dataclass(slots=True, eq=False)
class Batch:
    messages: list[Message]
    epoch: int
    sequence: int
    expired: bool = False


class Leaders:
    """The brokers' side. `appended`: told of each topic that is written."""

    def __init__(
        self,
        brokers: MemoryBrokers,
        weather: Weather,
        base: str,
        appended: Callable[[str], None],
    ) -> None:
        self.brokers = brokers
        self.weather = weather
        self._base = base
        self._appended = appended
        self._next: dict[tuple[int, int, str, int], int] = {}

    def exists(self, topic: str) -> bool:
        return self.brokers.seen(topic) is not None

    def take(self, producer: int | None, topic: str, partition: int, batch: Batch) -> Answer:
        """One request; `producer` None: without idempotence."""
        seen = self.brokers.seen(topic)
        if seen is None or partition >= seen.partitions:
            return Answer.GONE
        if topic != self._base and self.weather.is_on(Kind.DENIED):
            return Answer.DENIED
        moving = self.weather.is_on(Kind.LEADERS) and self.weather.chance.random() < 0.5
        if moving and self.weather.chance.random() < 0.5:
            return Answer.NOT_LEADER
        if producer is not None:
            name = (producer, batch.epoch, seen.topic_id, partition)
            expected = self._next.get(name)
            if expected is not None and batch.sequence > expected:
                return Answer.DISORDER
            if expected is not None and batch.sequence < expected:
                return Answer.TAKEN  # it was before, and the answer was lost
            self._next[name] = batch.sequence + len(batch.messages)
        for message in batch.messages:
            self.brokers.append(topic, partition, message.key, message.value, message.headers)
        self._appended(topic)
        return Answer.SILENT if moving else Answer.TAKEN


@dataclass(slots=True, eq=False)
class Lane:
    """What a client has on its way to one partition."""

    topic: str
    partition: int
    queue: deque[Message] = field(default_factory=deque)
    again: list[Batch] = field(default_factory=list)  # to be sent once more, before the queue
    flights: list[Batch] = field(default_factory=list)
    epoch: int = 0
    next: int = 0
    renumber: bool = False  # a batch was given up: what follows gets new numbers, once all answers are there
    due: bool = False  # a look at it is on its way
    going: bool = False  # its topic is gone, and the client waits whether it comes back


Trip = list[tuple[Lane, Batch]]


class KafkaClient:
    """The client of one producer. `room`: of its queue, in records, at this moment."""

    def __init__(
        self,
        process: Process,
        leaders: Leaders,
        number: int,
        chance: random.Random,
        *,
        idempotent: bool,
        room: Callable[[], int],
    ) -> None:
        self._process = process
        self._leaders = leaders
        self._number = number if idempotent else None
        self._chance = chance
        self._room = room
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._unknown: set[str] = set()
        self._written: list[Lane] = []
        self._arrival = 0.0
        self.queued = 0
        self._loop = asyncio.get_running_loop()
        process.on_thaw = self._expire_flights

    def produce(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Mapping[str, bytes], done: Done
    ) -> None:
        """Queue a record; `done` is told what became of it. Raises `BufferError`, `KafkaException`."""
        if self.queued >= self._room():
            raise BufferError("Local: Queue full")
        if topic in self._unknown:
            if not self._leaders.exists(topic):
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC))
            self._unknown.discard(topic)
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
        self.queued += 1
        lane.queue.append(Message(key, value, headers, done, self._loop.time() + MESSAGE_SECONDS))
        self._look(lane)

    def _look(self, lane: Lane, seconds: float = LINGER_SECONDS) -> None:
        """Soon look at a partition's lane; those that were written to together are looked at together."""
        if lane.due:
            return
        lane.due = True
        if seconds != LINGER_SECONDS:
            self._process.later(seconds, self._pump, [lane])
            return
        if not self._written:
            self._process.later(seconds, self._pump, self._written)
        self._written.append(lane)

    def _pump(self, lanes: list[Lane]) -> None:
        if lanes is self._written:
            self._written = []
        trip: Trip = []
        for lane in lanes:
            lane.due = False
            self._load(lane, trip)
        self._travel(trip)

    def _load(self, lane: Lane, trip: Trip) -> None:
        """Put what may be sent now on the way."""
        if lane.going:
            return
        self._expire(lane)
        if lane.renumber and not self._renumbered(lane):
            return
        if self._number is not None and lane.again:
            if lane.flights:
                return  # all of them have to be back, or they would be overtaken
            lane.again.sort(key=lambda batch: batch.sequence)
        while lane.again and len(lane.flights) < IN_FLIGHT:
            self._fly(lane, lane.again.pop(0), trip)
        while lane.queue and len(lane.flights) < IN_FLIGHT:
            messages = list(islice(lane.queue, BATCH))
            for _ in messages:
                lane.queue.popleft()
            self._fly(lane, Batch(messages, lane.epoch, lane.next), trip)
            lane.next += len(messages)

    def _fly(self, lane: Lane, batch: Batch, trip: Trip) -> None:
        lane.flights.append(batch)
        trip.append((lane, batch))

    def _travel(self, trip: Trip) -> None:
        """Over the network, where nothing overtakes what was sent before it."""
        if not trip:
            return
        slow = 0.3 if self._leaders.weather.is_on(Kind.SLOW) else 0.02
        self._arrival = max(self._loop.time() + self._chance.uniform(0.001, slow), self._arrival + 1e-6)
        self._loop.call_at(self._arrival, self._arrive, trip)

    def _arrive(self, trip: Trip) -> None:
        """At the brokers, whatever has become of the producer."""
        answered = []
        for lane, batch in trip:
            answer = self._leaders.take(self._number, lane.topic, lane.partition, batch)
            if answer is Answer.SILENT:
                self._process.later(self._chance.uniform(0.5, 1.5), self._settle, [(lane, batch, answer)])
            else:
                answered.append((lane, batch, answer))
        if answered:
            self._process.later(self._chance.uniform(0, 0.02), self._settle, answered)

    def _settle(self, answers: list[tuple[Lane, Batch, Answer]]) -> None:
        for lane, batch, answer in answers:
            lane.flights.remove(batch)
            if not batch.expired:
                self._judge(lane, batch, answer)
            if lane.again:
                self._look(lane, self._chance.uniform(0.05, 0.3))
            elif lane.queue or lane.renumber:
                self._look(lane)

    def _fly_again(self, lane: Lane, batch: Batch) -> None:
        trip: Trip = []
        self._fly(lane, batch, trip)
        self._travel(trip)

    def _judge(self, lane: Lane, batch: Batch, answer: Answer) -> None:
        match answer:
            case Answer.TAKEN:
                self._end(batch.messages, None)
            case Answer.DENIED:
                lane.renumber = True
                self._end(batch.messages, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
            case Answer.GONE:
                lane.again.append(batch)
                if not lane.going:
                    lane.going = True
                    self._process.later(GONE_SECONDS, self._give_up, lane)
            case _ if self._number is None:
                self._process.later(self._chance.uniform(0.05, 0.5), self._fly_again, lane, batch)
            case _:
                lane.again.append(batch)

    def _give_up(self, lane: Lane) -> None:
        """The topic does not exist, and has not come back."""
        lane.going = False
        if not self._leaders.exists(lane.topic):
            self._unknown.add(lane.topic)
            lane.renumber = True
            lost = [message for batch in sorted(lane.again, key=_sequence) for message in batch.messages]
            lost += lane.queue
            lane.again.clear()
            lane.queue.clear()
            self._end(lost, KafkaError(KafkaError._UNKNOWN_TOPIC))
        self._look(lane)

    def _expire(self, lane: Lane) -> None:
        now, late = self._loop.time(), []
        for batch in sorted(lane.again, key=_sequence):
            if batch.messages[0].expires <= now:
                lane.again.remove(batch)
                lane.renumber = True
                late += batch.messages
        while lane.queue and lane.queue[0].expires <= now:
            late.append(lane.queue.popleft())
        if late:
            self._end(late, KafkaError(KafkaError._MSG_TIMED_OUT))

    def _expire_flights(self) -> None:
        """After a freeze the client may look at its clock before it looks at what brokers answered."""
        if self._chance.random() < 0.5:
            return
        now = self._loop.time()
        for lane in list(self._lanes.values()):
            for batch in lane.flights:
                if batch.messages[0].expires <= now and not batch.expired:
                    batch.expired = lane.renumber = True
                    self._end(batch.messages, KafkaError(KafkaError._MSG_TIMED_OUT))

    def _renumbered(self, lane: Lane) -> bool:
        """Whether what is left has numbers that the broker takes: only when nothing is on its way."""
        if self._number is None:
            lane.renumber = False
        if lane.renumber and not lane.flights:
            lane.renumber, lane.epoch, lane.next = False, lane.epoch + 1, 0
            for batch in sorted(lane.again, key=_sequence):
                batch.epoch, batch.sequence = lane.epoch, lane.next
                lane.next += len(batch.messages)
        return not lane.renumber

    def _end(self, messages: list[Message], error: KafkaError | None) -> None:
        self.queued -= len(messages)
        for message in messages:
            message.done(error)


def _sequence(batch: Batch) -> int:
    return batch.sequence
