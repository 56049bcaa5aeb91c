"""What is sent to a dedicated topic may be refused there: then it goes to the base topic, in order.

One producer's book of what is on its way to each partition of a dedicated topic. When a record is refused,
those queued behind it wait for its fate and for their own; then the refused ones and those that waited go to
the base topic in the order they were sent in, and what the dedicated topic has taken is not sent again.

A topic that is gone or may not be written to is closed: its records go to the base topic at once. After a
pause, which doubles each time, one record tries it again.

Rules:
- of one partition's records no two are overtaken by one another on their way to the base topic;
- a record has exactly one end: delivered, given to the base topic, or told to the caller;
- no more than `records_at_most` records or `bytes_at_most` bytes let new ones wait. Refused ones are kept
  beyond that, since there is no other place for them: as many as the Kafka client itself had queued.

Pure: it knows no Kafka, no clock, no lock. Callers see to it that no two threads are in here at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from operator import itemgetter
from typing import Generic, TypeVar

FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 600.0
STRIKES = 3  # so often in a row a partition refuses without taking anything; then its topic is closed

Record = TypeVar("Record")


class Way(Enum):
    """Where the next record of a queue goes."""

    DEDICATED = "Dedicated"  # to the dedicated topic; its fate has to be told with `settle`
    BASE = "Base"  # to the base topic, and that is all
    WAIT = "Wait"  # it has to be given to `wait`, behind what was refused
    FULL = "Full"  # nothing more may wait: the caller tries again later


_DEDICATED = Way.DEDICATED  # an enum is slow to ask for its members


class Fate(StrEnum):
    """What became of a record that was sent to a dedicated topic."""

    DELIVERED = "Delivered"
    REFUSED = "Refused"  # it goes to the base topic; the next one may well be taken
    UNUSABLE = "Unusable"  # it goes to the base topic, and so does whatever comes: topic gone, or denied
    FINAL = "Final"  # it ends here: the caller has purged it, or the producer is beyond help


_UNUSABLE = Fate.UNUSABLE


@dataclass(slots=True)
class Closure:
    """A dedicated topic that is not written to. `until`: on the caller's clock."""

    why: str
    until: float
    pause_seconds: float = FIRST_PAUSE_SECONDS
    trying: bool = False  # one record is on its way to see whether the topic can be used again


@dataclass(slots=True, eq=False)
class Queue(Generic[Record]):
    """What one producer has on its way to one partition of a dedicated topic; `Resends` alone changes it."""

    topic: str
    partition: int
    sent: int = 0  # number of the next record
    open: int = 0  # sent to the dedicated topic, fate unknown
    turned: bool = False  # something was refused: what comes waits until all that is open has an end
    struck: bool = False  # something was refused since it was turned
    strikes: int = 0  # turns in a row in which something was refused and nothing delivered before
    taken: bool = False  # something was delivered since the last strike
    refused: list[tuple[int, Record]] = field(default_factory=list)
    waiting: deque[Record] = field(default_factory=deque)

    @property
    def kept(self) -> int:
        """Records that are held here."""
        return len(self.refused) + len(self.waiting)


class Resends(Generic[Record]):
    """The book of one producer. `size_of`: bytes of a record that is held."""

    def __init__(
        self, records_at_most: int, bytes_at_most: int, size_of: Callable[[Record], int] = lambda _: 0
    ) -> None:
        self.kept = 0  # records held here, of all queues
        self.kept_bytes = 0
        self.resent = 0  # records that were given to the base topic in the end
        self.closures = 0  # how often a topic was closed or opened again
        self._records_at_most = records_at_most
        self._bytes_at_most = bytes_at_most
        self._size_of = size_of
        self._queues: dict[tuple[str, int], Queue[Record]] = {}
        self._closed: dict[str, Closure] = {}
        self._turned: dict[Queue[Record], None] = {}  # in the order in which they were

    @property
    def any_closed(self) -> bool:
        """Whether `enter` needs to know the time."""
        return bool(self._closed)

    @property
    def on_its_way(self) -> int:
        """Records of which this book has to see the end."""
        return self.kept + sum(queue.open for queue in self._queues.values())

    def closed(self) -> dict[str, str]:
        """The topics that are not written to, and why."""
        return {topic: closure.why for topic, closure in self._closed.items()}

    def queue(self, topic: str, partition: int) -> Queue[Record]:
        """The queue of that partition, the same one every time."""
        name = topic, partition
        found = self._queues.get(name)
        if found is None:
            found = self._queues[name] = Queue(topic, partition)
        return found

    def enter(self, queue: Queue[Record], now: float) -> tuple[Way, int]:
        """Where the next record goes, and its number where that is the dedicated topic."""
        if not queue.turned and self._closed and (closure := self._closed.get(queue.topic)) is not None:
            if queue.open:
                self._turn(queue)  # these will come back: what is sent now must not overtake them
            elif closure.trying or now < closure.until:
                return Way.BASE, -1
            else:
                closure.trying = True
        if queue.turned:
            full = self.kept >= self._records_at_most or self.kept_bytes >= self._bytes_at_most
            return Way.FULL if full else Way.WAIT, -1
        number = queue.sent
        queue.sent = number + 1
        queue.open += 1
        return _DEDICATED, number

    def wait(self, queue: Queue[Record], record: Record) -> None:
        """Keep a record behind what was refused, after `enter` has said so."""
        queue.waiting.append(record)
        self._count(record, 1)

    def delivered(self, queue: Queue[Record]) -> bool:
        """One record was; whether `drain` has to be called."""
        queue.open -= 1
        queue.taken = True
        if self._closed and (closure := self._closed.get(queue.topic)) is not None and closure.trying:
            self._open(queue.topic)
        return queue.turned and queue.open <= 0

    def ended(self, queue: Queue[Record]) -> bool:
        """One record has its end elsewhere: `Fate.FINAL`, or the Kafka client did not even queue it.

        Whether `drain` has to be called.
        """
        queue.open -= 1
        self._no_longer_trying(queue)
        return queue.turned and queue.open <= 0

    def refused(
        self, queue: Queue[Record], number: int, record: Record, fate: Fate, why: str, now: float
    ) -> bool:
        """One record was, and is kept; whether `drain` has to be called. `fate`: REFUSED or UNUSABLE."""
        queue.open -= 1
        queue.refused.append((number, record))
        self._count(record, 1)
        if not queue.turned:
            self._turn(queue)
        if not queue.struck:
            queue.struck = True
            queue.strikes = 1 if queue.taken else queue.strikes + 1
            queue.taken = False
        closure = self._closed.get(queue.topic)
        if closure is None:
            if fate is _UNUSABLE or queue.strikes >= STRIKES:
                self.close(queue.topic, why, now)
        elif now >= closure.until:
            self.close(queue.topic, why, now)
        return queue.open <= 0

    def drain(self, send: Callable[[Record], bool]) -> bool:
        """Give to `send` what may go to the base topic now, in order; whether nothing is left that may.

        `send` says whether it took the record; the first that it does not take ends the turn.
        """
        for queue in list(self._turned):
            if queue.open > 0:
                continue
            self._line_up(queue)
            while queue.waiting:
                record = queue.waiting[0]
                if not send(record):
                    return False
                queue.waiting.popleft()
                self._count(record, -1)
                self.resent += 1
            self._turn_back(queue)
        return True

    def give_up(self) -> list[Record]:
        """Everything that is kept, in order, kept no longer: it is the caller's to end."""
        given: list[Record] = []
        for queue in list(self._turned):
            self._line_up(queue)
            given += queue.waiting
            queue.waiting.clear()
            if queue.open <= 0:
                self._turn_back(queue)
        self.kept = self.kept_bytes = 0
        return given

    def close(self, topic: str, why: str, now: float) -> None:
        """Write no more to the topic for a while; `now` infinite: for as long as a route names it."""
        closure = self._closed.get(topic)
        if closure is None:
            self._closed[topic] = Closure(why, now + FIRST_PAUSE_SECONDS)
            self.closures += 1
        elif now >= closure.until:  # else it is one more of those that were on their way
            closure.pause_seconds = min(2 * closure.pause_seconds, LONGEST_PAUSE_SECONDS)
            closure.why, closure.until, closure.trying = why, now + closure.pause_seconds, False

    def forget_others(self, topics: Iterable[str]) -> None:
        """No route names any other topic: open those again, and drop queues that have nothing on its way."""
        topics = set(topics)
        for topic in [topic for topic in self._closed if topic not in topics]:
            self._open(topic)
        for name, queue in list(self._queues.items()):
            if queue.topic not in topics and not queue.open and not queue.turned:
                del self._queues[name]

    def _open(self, topic: str) -> None:
        del self._closed[topic]
        self.closures += 1

    def _turn(self, queue: Queue[Record]) -> None:
        queue.turned = True
        self._turned[queue] = None

    def _turn_back(self, queue: Queue[Record]) -> None:
        queue.turned = queue.struck = False
        del self._turned[queue]

    def _line_up(self, queue: Queue[Record]) -> None:
        """What was refused goes before what waited, in the order of sending: answers come in any order."""
        queue.refused.sort(key=itemgetter(0))
        queue.waiting.extendleft(record for _, record in reversed(queue.refused))
        queue.refused.clear()

    def _no_longer_trying(self, queue: Queue[Record]) -> None:
        if self._closed and (closure := self._closed.get(queue.topic)) is not None:
            closure.trying = False

    def _count(self, record: Record, by: int) -> None:
        self.kept += by
        self.kept_bytes += by * self._size_of(record)
