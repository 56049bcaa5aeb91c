"""Which partitions are read, as which logs, and from where.

The store's positions are the truth. A log is a topic's id and a partition: where a topic was made anew under
its name, its partitions are read from their beginning. Where a log no longer has the next offset, reading
goes on at what it has, and what that means is told and counted, never passed over in silence.

The client looks at no leader's epoch when it begins at a given offset (librdkafka issue 5158). So reading
begins one record early: where that bears another epoch than we stored, the log was cut off and written anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from hotkey_aggregator.cluster import Cluster
from hotkey_aggregator.columns import Record
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.store import Keeping, OffsetMove, Position, Store, StoreUnavailableError
from hotkey_aggregator.watermark import believed
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator")

Place = tuple[str, int]
"""Topic and partition, whichever log stands there now."""

ASK_SECONDS = 5.0
RETRY_SECONDS = 1.0

NO_SUCH_OFFSET = frozenset(
    (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE)
)
"""What the client says of a partition whose next offset the log does not have; it has stopped reading it."""


class Assignment:
    """The partitions that the group gave us. All methods are called by the consumer's thread."""

    def __init__(
        self,
        consumer: Callable[[], Consumer],
        store: Store,
        cluster: Cluster,
        pending: Pending,
        metrics: Metrics,
        keeping: Keeping,
        clock: Callable[[], int],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._store = store
        self._cluster = cluster
        self._pending = pending
        self._metrics = metrics
        self._keeping = keeping
        self._clock = clock
        self._seconds = seconds
        self._places: set[Place] = set()
        self._unplaced: set[Place] = set()
        self._out_of_log: set[Place] = set()  # unplaced because their log had not their next offset
        # Came to us, and no flush of ours was taken since: their former owner's last one may still come.
        self._unproven: set[Place] = set()
        self._flushing: set[Place] = set()
        self._verifying: dict[Place, Position] = {}  # begun one record early
        self._unanswered: dict[Place, float] = {}  # unplaced, and when their leader last did not answer
        self._settle_at = 0.0

    @property
    def places(self) -> Collection[Place]:
        """All that is assigned."""
        return self._places

    @property
    def unplaced(self) -> Collection[Place]:
        """Those of which it is not known where to read on."""
        return self._unplaced

    def add(self, partitions: list[TopicPartition]) -> None:
        """Start to read these, each where the store says."""
        places = {_place(partition) for partition in partitions}
        self._places |= places
        self._unproven |= places
        self._flushing -= places  # a flush from before, when they were ours already, proves nothing
        starts = self._starts(places)
        # Of those without a start nothing is taken until `settle` has found it.
        self._consumer().incremental_assign(
            [self._from(place, starts.get(place)) for place in sorted(places)]
        )

    def remove(self, partitions: list[TopicPartition]) -> None:
        """Give these up, and what was read of them and is not flushed."""
        places = {_place(partition) for partition in partitions}
        self._places -= places
        self._unplaced -= places
        self._out_of_log -= places
        self._unproven -= places
        for place in places:
            self._verifying.pop(place, None)
            self._unanswered.pop(place, None)
        self._pending.release(
            [source for source in self._pending.sources if (source.topic, source.partition) in places]
        )

    def note_flush(self, moves: Iterable[OffsetMove]) -> None:
        """These are on their way to the store."""
        self._flushing = {(move.source.topic, move.source.partition) for move in moves}

    def note_taken(self) -> None:
        """The store has taken what was on its way: of these partitions the positions are as we have them."""
        self._unproven -= self._flushing

    def excuse(self, source: Source) -> bool:
        """Whether the stored offset may differ from ours by right; once for each time that it came to us.

        A rebalance does not wait for ever: the store may take the former owner's last flush when it is over.
        """
        place = (source.topic, source.partition)
        if place not in self._unproven:
            return False
        self._unproven.discard(place)
        return True

    def lose_place(
        self, places: Iterable[Place], *, no_such_offset: bool = False, cut_off: bool = False
    ) -> None:
        """It has to be found out where to read these on.

        `no_such_offset`: maybe the log has not their next offset; `cut_off`: it was cut off before it.
        """
        lost = self._places.intersection(places)
        self._unplaced |= lost
        if cut_off:
            self._out_of_log |= lost
        elif no_such_offset:
            # Of those that were begun one record early it may be that one that has expired.
            self._out_of_log |= lost - self._verifying.keys()

    def verified(self, records: Sequence[Record]) -> Sequence[Record]:
        """Records without those that were read only to see whether their log is the one that was read, and
        without those of logs that are not."""
        if not (self._verifying or self._out_of_log):
            return records
        return [record for record in records if self._is_to_be_counted(record)]

    def _is_to_be_counted(self, record: Record) -> bool:
        place = (record.topic() or "", record.partition() or 0)
        if place in self._out_of_log:
            # Read again from where `settle` finds. Counted now, they would move the position on, and a kill
            # before that is found would leave nothing that tells of the truncation.
            return False
        position, offset = self._verifying.get(place), record.offset()
        if position is None or offset is None:
            return True
        if offset < position.next_offset - 1:
            return False  # of a reading from before it was known where to begin: it tells nothing
        del self._verifying[place]
        if offset >= position.next_offset:
            return True
        if record.leader_epoch() != position.leader_epoch:
            self.lose_place([place], cut_off=True)
        return False

    def start_over(self) -> None:
        """Read everything again from where the store is."""
        self._verifying.clear()
        self._pending.drop()
        self.lose_place(self._places)

    def settle(self) -> bool:
        """Find out where to read on those that lost their place; whether it was found for any.

        To be called again and again: it asks once a second until all are placed.
        """
        if not self._unplaced or self._seconds() < self._settle_at:
            return False
        self._settle_at = self._seconds() + RETRY_SECONDS
        starts = self._starts(set(self._unplaced))
        if not starts:
            return False
        consumer = self._consumer()
        # The client seeks on no partition that it has stopped reading, but begins anew on a new one.
        consumer.incremental_unassign([TopicPartition(*place) for place in starts])
        consumer.incremental_assign([self._from(place, position) for place, position in starts.items()])
        return True

    def _starts(self, places: set[Place]) -> dict[Place, Position | None]:
        """Where to begin; a place of which that cannot be learnt now is left out and unplaced."""
        self._unplaced |= places
        try:
            ids = self._cluster.topic_ids({topic for topic, _ in places}, ASK_SECONDS)
            stored = self._store.positions()
        except (KafkaException, StoreUnavailableError) as error:
            log.warning(line("positions_unknown", partitions=len(places), detail=error))
            return {}
        sources = [Source(*place, ids[place[0]]) for place in places if place[0] in ids]
        starts = self._starts_of(sources, stored)
        self._unplaced -= starts.keys()
        self._out_of_log -= starts.keys()
        return starts

    def _starts_of(
        self, sources: Iterable[Source], stored: Mapping[Source, Position]
    ) -> dict[Place, Position | None]:
        """One without a leader keeps no other waiting: those that did not answer are asked last."""
        starts: dict[Place, Position | None] = {}
        failure: KafkaException | None = None
        enough = self._seconds() + ASK_SECONDS
        for source in sorted(sources, key=lambda one: (self._unanswered.get(one[:2], 0.0), one)):
            place = (source.topic, source.partition)
            try:
                starts[place] = self._start(source, stored)
                self._unanswered.pop(place, None)
            except KafkaException as error:
                failure, self._unanswered[place] = error, self._seconds()
            if self._seconds() >= enough:
                break
        if failure is not None:
            log.warning(line("positions_unknown", partitions=len(self._unanswered), detail=failure))
        return starts

    def _start(self, source: Source, stored: Mapping[Source, Position]) -> Position | None:
        if source in self._pending.sources:
            return self._within_the_log(source)
        position = believed(stored.get(source), self._clock())
        if position is None:
            self._note_if_made_anew(source, stored)
        self._pending.assign(source, position)
        return position

    def _note_if_made_anew(self, source: Source, stored: Mapping[Source, Position]) -> None:
        former = [
            other
            for other in {*stored, *self._pending.sources}
            if (other.topic, other.partition) == (source.topic, source.partition) and other != source
        ]
        if former:
            self._metrics.recreations.inc()
            log.warning(
                line(
                    "topic_recreated",
                    topic=source.topic,
                    partition=source.partition,
                    topic_id=source.topic_id,
                    former_ids=",".join(sorted(other.topic_id for other in former)),
                    reading_from="beginning",
                )
            )

    def _within_the_log(self, source: Source) -> Position | None:
        """Where to go on in a log that is the same but may not have the next offset."""
        position = self._pending.position(source)
        if position is None:
            return None
        low, high = self._ends(source)
        if position.next_offset < low:
            lost = low - position.next_offset
            self._metrics.expired.inc(lost)
            told = self._told(source, position, low)
            log.error(line("gap", **told, records=lost, why="removed before they were read"))
            return self._go_on_at(source, low)
        if position.next_offset <= high and (source.topic, source.partition) not in self._out_of_log:
            return position
        known_since = self._offset_at(source, self._clock() - self._keeping.ids // 2)
        # Never behind what comes next: a backlog may be older than that.
        start = min(position.next_offset, high, known_since)
        self._metrics.truncations.inc()
        log.error(line("log_truncated", **self._told(source, position, start), end=high))
        return self._go_on_at(source, start)

    def _from(self, place: Place, position: Position | None) -> TopicPartition:
        """Where to begin, one record early if that can tell something and was not tried in vain before."""
        tried = self._verifying.pop(place, None)
        if position is None:
            return TopicPartition(*place, OFFSET_BEGINNING)
        if position.leader_epoch < 0:
            return TopicPartition(*place, position.next_offset)
        if tried is not None or not position.next_offset:
            return TopicPartition(*place, position.next_offset, leader_epoch=position.leader_epoch)
        self._verifying[place] = position
        return TopicPartition(*place, position.next_offset - 1)

    def _told(self, source: Source, position: Position, start: int) -> dict[str, object]:
        return {
            "topic": source.topic,
            "partition": source.partition,
            "expected": position.next_offset,
            "reading_from": start,
        }

    def _ends(self, source: Source) -> tuple[int, int]:
        partition = TopicPartition(source.topic, source.partition)
        marks = self._consumer().get_watermark_offsets(partition, timeout=ASK_SECONDS)
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return marks

    def _offset_at(self, source: Source, time_ms: int) -> int:
        """The first record since then; the end where there is none.

        What a new leader wrote in place of what we read may lie anywhere behind the truncation. So all is
        read again of which the ids are still known: nothing is missed and nothing counted twice.
        """
        asked = TopicPartition(source.topic, source.partition, time_ms)
        (found,) = self._consumer().offsets_for_times([asked], timeout=ASK_SECONDS)
        if found.error is not None:
            raise KafkaException(found.error)
        return found.offset if found.offset >= 0 else self._ends(source)[1]

    def _go_on_at(self, source: Source, next_offset: int) -> Position | None:
        self._pending.reposition(source, next_offset)
        return self._pending.position(source)


def _place(partition: TopicPartition) -> Place:
    return partition.topic, partition.partition
