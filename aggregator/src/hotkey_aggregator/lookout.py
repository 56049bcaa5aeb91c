"""What a look at the cluster means for what is read: marks of quiet logs, lag, topics made anew."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from hotkey_aggregator.assignment import Assignment
from hotkey_aggregator.cluster import Cluster, Look
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.watermark import complete_up_to
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator")

LOOK_SECONDS = 1.0
PARTITIONS_A_LOOK = 500
"""With more than these there are fewer looks: they are a client's dearest question."""
PATIENCE_SECONDS = 20.0
"""How long something may not be told until it is said: brokers restart, leaders change."""
LOG_SECONDS = 60.0


class Untold:
    """What the cluster does not tell though it is asked again and again. Pure: times are arguments."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._said = float("-inf")

    def to_say(self, why: Mapping[str, str], now: float) -> Mapping[str, str]:
        """Of what was not told this time, by name: what has lasted and is to be said now, once a minute.

        `now` in monotonic seconds.
        """
        self._since = {name: self._since.get(name, now) for name in why}
        lasting = {name: why[name] for name, since in self._since.items() if now - since >= PATIENCE_SECONDS}
        if not lasting or now - self._said < LOG_SECONDS:
            return {}
        self._said = now
        return lasting


class Lookout:
    """Looks at the cluster now and then; waits for nothing. Called by the loop's thread."""

    def __init__(
        self,
        cluster: Cluster,
        assignment: Assignment,
        pending: Pending,
        lateness_milliseconds: int,
        clock: Callable[[], int],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._assignment = assignment
        self._pending = pending
        self._lateness = lateness_milliseconds
        self._clock = clock
        self._due = 0.0
        self._seconds = seconds
        self._heard = seconds()
        self._living: frozenset[Source] = frozenset()
        self._gone: frozenset[str] = frozenset()
        self._untold = Untold()

    @property
    def living(self) -> frozenset[Source]:
        """All logs of the stream's topics as they are now, whoever reads them."""
        return self._living

    @property
    def gone(self) -> frozenset[str]:
        """Topics of the stream that are not there any more, as far as is known."""
        return self._gone

    @property
    def silent_seconds(self) -> float:
        """How long Kafka has told nothing of what it was asked."""
        return self._seconds() - self._heard

    def look(self, topics: Callable[[], set[str]]) -> int | None:
        """Take in the look that is complete, and begin the next when it is due.

        Returns the lag in records where a look was complete and told it. `topics` are the stream's.
        """
        found = self._cluster.answer()
        lag = None if found is None else self._take(found)
        now = self._seconds()
        if now >= self._due:
            places = self._assignment.places
            self._due = now + LOOK_SECONDS * max(1.0, len(places) / PARTITIONS_A_LOOK)
            self._cluster.ask(topics(), places, self._clock())
        return lag

    def _take(self, look: Look) -> int | None:
        if look.whole or look.ends:
            self._heard = self._seconds()
        self._gone = look.absent
        self._say_what_is_untold(look)
        if look.whole:
            self._living = frozenset(
                Source(name, partition, facts.id)
                for name, facts in look.topics.items()
                for partition in range(facts.partitions)
            )
        for source in self._pending.sources:
            topic = look.topics.get(source.topic)
            if topic is not None and topic.id != source.topic_id:
                self._assignment.lose_place([(source.topic, source.partition)])
        left = sum(self._left_of(place, end, look.asked_at) for place, end in look.ends.items())
        return left if look.all_ends else None

    def _say_what_is_untold(self, look: Look) -> None:
        ends = {f"{topic}/{partition}": why for (topic, partition), why in look.untold_ends.items()}
        if lasting := self._untold.to_say({**look.untold_topics, **ends}, self._seconds()):
            log.warning(
                line(
                    "not_told",
                    of=",".join(sorted(lasting)[:5]),
                    more=max(0, len(lasting) - 5),
                    detail=lasting[min(lasting)],
                    means="the watermark stands",
                    do="let this client describe these topics, and see that these partitions have a leader",
                )
            )

    def _left_of(self, place: tuple[str, int], end: int, asked_at: int) -> int:
        """Records of a partition that were not read yet; where there are none, it is complete up to then."""
        source = self._pending.source(*place)
        if source is None:
            return 0
        position = self._pending.position(source)
        read = 0 if position is None else position.next_offset
        mark = complete_up_to(read, end, asked_at, self._lateness)
        if mark is not None and place not in self._assignment.unplaced:
            self._pending.advance(source, read, mark)
        return max(0, end - read)
