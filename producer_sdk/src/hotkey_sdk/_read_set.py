"""Which topics a consumer has to read beside those it subscribed to: read sets of tables, and old commits.

Tables come from the background thread; the survey of what exists runs in the consumer's own, inside
`poll`: the Kafka client lets no second thread ask while one polls. A topic is wanted only once it exists, so
that nothing creates it by asking for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.router import Router

_ASK_SECONDS = 2.0
_MISSING_SECONDS = 1.0  # between two looks for a topic of a read set that is still to be made,
_SOON = 10  # so often; then each pause is twice as long
_LONGEST_MISSING_SECONDS = 30.0
_FAILED_SECONDS = 5.0  # until the next look when the cluster did not answer
_NOW = float("-inf")
_DENIED_SECONDS = 300.0  # until a topic that may not be read is tried again
_CALM_SECONDS = 300.0  # a deleted topic is noticed no later than this, if no read failed on it before


class ReadSet:
    """What is to be read for each base topic; `adopt` alone is called by another thread. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.version = 0  # grows with every change that a subscription has to follow
        self._clock = clock
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[int, frozenset[str]]] = {}  # epoch and read set of the newest table
        self._ever: dict[str, set[str]] = {}  # every topic that a table or a commit ever named
        self._existing: frozenset[str] = frozenset()
        self._surveyed_bases: set[str] = set()
        self._survey_due = _NOW
        self._looks = 0  # in vain, since anything was new
        self._denied: dict[str, float] = {}  # topics that may not be read, and until when that is believed

    def adopt(self, topic: str, router: Router) -> None:
        """Take up a new table; its topics are wanted once the survey has seen them."""
        table = router.table
        with self._lock:
            self._tables[topic] = (table.epoch, frozenset(table.read_set))
            self._ever.setdefault(topic, set()).update(table.read_set)
            if not self._ever[topic] <= self._existing:
                self._survey_due, self._looks = _NOW, 0
            self.version += 1

    def meet(self, bases: Iterable[str]) -> None:
        """The consumer subscribed to these topics."""
        with self._lock:
            for base in bases:
                self._ever.setdefault(base, {base})
            self._survey_due = _NOW

    def suspect(self) -> None:
        """A topic could not be read; look again whether it exists."""
        self._survey_due = _NOW

    def deny(self, topic: str) -> bool:
        """The topic may not be read: leave it out for a while. Whether that is news."""
        with self._lock:
            is_news = topic not in self._denied
            self._denied[topic] = self._clock() + _DENIED_SECONDS
            self.version += is_news
            return is_news

    def added(self, bases: Iterable[str]) -> frozenset[str]:
        """The topics to read beside `bases`."""
        bases = set(bases)
        with self._lock:
            wanted = {topic for base in bases for topic in self._ever.get(base, ())}
            return frozenset((wanted & self._existing) - bases - self._denied.keys())

    def covered(self, subscribed: Iterable[str]) -> dict[str, int]:
        """Base topic to epoch, for every table whose whole read set is subscribed to."""
        subscribed = set(subscribed)
        with self._lock:
            return {base: epoch for base, (epoch, read_set) in self._tables.items() if read_set <= subscribed}

    def survey(self, consumer: confluent_kafka.Consumer) -> None:
        """Ask the cluster, when it is time to, which topics exist and which the group has commits for."""
        if self._denied:
            self._try_denied()
        if not self._ever or self._clock() < self._survey_due:
            return
        self._survey_due = self._clock() + _CALM_SECONDS
        try:
            pause = _CALM_SECONDS if self._look(consumer) else self._missing_pause()
        except KafkaException:
            pause = _FAILED_SECONDS
        with self._lock:
            if self._survey_due != _NOW:
                self._survey_due = self._clock() + pause

    def _missing_pause(self) -> float:
        self._looks += 1
        doublings: int = min(10, max(0, self._looks - _SOON))
        return min(_LONGEST_MISSING_SECONDS, _MISSING_SECONDS * float(2**doublings))

    def _try_denied(self) -> None:
        now = self._clock()
        with self._lock:
            over = [topic for topic, until in self._denied.items() if now >= until]
            for topic in over:
                del self._denied[topic]
            self.version += bool(over)

    def _look(self, consumer: confluent_kafka.Consumer) -> bool:
        """Whether every topic exists that a current table names: an older one's may be gone for good."""
        topics = consumer.list_topics(timeout=_ASK_SECONDS).topics
        existing = frozenset(name for name, topic in topics.items() if topic.error is None)
        unasked = set(self._ever) - self._surveyed_bases
        named = {
            name
            for base in unasked
            for name in existing
            if name.startswith(dedicated_prefix(base))
            and _has_commits(consumer, name, len(topics[name].partitions))
        }
        with self._lock:
            for base in unasked:
                self._ever[base] |= {name for name in named if name.startswith(dedicated_prefix(base))}
            self._surveyed_bases |= unasked
            ever = set().union(*self._ever.values())
            if existing & ever != self._existing:
                self._existing, self._looks = existing & ever, 0
            self.version += 1
            return set(self._ever).union(*(read_set for _, read_set in self._tables.values())) <= existing


def _has_commits(consumer: confluent_kafka.Consumer, topic: str, partitions: int) -> bool:
    asked = [TopicPartition(topic, partition) for partition in range(partitions)]
    return any(found.offset >= 0 for found in consumer.committed(asked, timeout=_ASK_SECONDS))
