"""Members of the sink's group: what the SDK's consumer and the aggregator's pipeline do, in their order.

What to read is the real read set's to say, from where the real assignment's, what is counted the real pending
batch's. Here is only the loop around them, which in the product has threads and Kafka's client in it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TopicPartition

from hotkey_aggregator.assignment import Assignment
from hotkey_aggregator.broker_offsets import BrokerOffsets
from hotkey_aggregator.columns import Record
from hotkey_aggregator.lookout import Lookout
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pending import Pending
from hotkey_aggregator.store import Keeping, OffsetConflictError, StoreUnavailableError
from hotkey_sdk.routing.report import Role
from hotkey_sdk.routing.router import Router
from tests.simulation.clients import Client, Surroundings
from tests.simulation.coordinator import Coordinator, Place
from tests.simulation.fetching import KafkaAdmin, KafkaConsumer
from tests.simulation.parts import as_the_payload_says
from tests.simulation.scenario import GROUP
from tests.simulation.sink import Flight, Sink

TURN_SECONDS = (0.5, 1.1)
FLUSH_SECONDS = 2.0
HANDOVER_SECONDS = 4.0
SETTLE_SECONDS = 1.0
RECORDS = 400  # at once, of a partition
LAG = 0.3  # of the partitions, at each turn: partitions are read independently of each other
METRICS = Metrics()  # nobody looks at them


@dataclass(frozen=True, slots=True)
class Downstream:
    """What all members share."""

    coordinator: Coordinator
    sink: Sink


class Failed(Exception):
    """The process ends itself, as it has to."""


class Member(Client):
    """One aggregator process. `died`: called once it is gone."""

    def __init__(
        self,
        number: int,
        around: Surroundings,
        chance: random.Random,
        down: Downstream,
        died: Callable[[Member, str], None],
    ) -> None:
        super().__init__(f"consumer-{number}", Role.CONSUMER, around, chance, GROUP)
        self._down, self._died = down, died
        self._base = around.stream.topic
        self._now = asyncio.get_running_loop().time
        self._read_set = around.parts.make_read_set(self._now)
        self._read_set.meet([self._base])
        self._version = 0
        self._consumer = KafkaConsumer(
            self.name, around.brokers, down.coordinator, around.weather, around.parts.start
        )
        admin: Any = KafkaAdmin(around.brokers, around.weather)
        keeping = Keeping()
        self._pending = Pending(keeping)
        consumer: Any = self._consumer
        self._assignment = Assignment(
            lambda: consumer,
            down.sink.store,
            admin,
            self._pending,
            METRICS,
            keeping,
            self._milliseconds,
            self._now,
        )
        self._lookout = Lookout(admin, self._assignment, self._pending, 0, self._milliseconds, self._now)
        self._killed = asyncio.Event()
        self._flight = Flight(down.sink, self.process, self._killed, chance)
        self._offsets = BrokerOffsets()
        self._subscribed = frozenset({self._base, *self._stored_topics()})
        self._topics = around.parts.subscribe(self._base, self._subscribed - {self._base})
        self._unsettled: set[Place] = set()
        self._settle_at = self._flush_at = 0.0
        self._joins = True
        self._leaves = False
        self._failure = ""

    @property
    def applied(self) -> int:
        return self._read_set.covered(self._topics).get(self._base, 0)

    def took_up(self, router: Router) -> None:
        self._read_set.adopt(self._base, router)

    def start(self) -> None:
        super().start()
        self.run(self._live())

    def stop(self) -> None:
        super().stop()
        self._flight.forget()

    def die(self, why: str) -> None:
        """The process is gone, from one moment to the next."""
        if not self.process.gone:
            self.stop()
            self._died(self, why)

    def leave(self) -> None:
        """Stop as on SIGTERM: at its next turn it flushes and gives its partitions up."""
        self._leaves = True

    def _milliseconds(self) -> int:
        return int(self.around.clock() * 1000)

    def _stored_topics(self) -> set[str]:
        return {source.topic for source in self._down.sink.store.positions()}

    async def _live(self) -> None:
        turns, death = self.run(self._turns()), self.run(self._die_in_a_flush())
        await asyncio.wait([turns, death], return_when=asyncio.FIRST_COMPLETED)
        if turns.done():
            self._down.coordinator.leave(self.name)  # it ends in order
        self.die(self._failure or ("leaves" if turns.done() else "killed"))

    async def _die_in_a_flush(self) -> None:
        await self._killed.wait()

    async def _turns(self) -> None:
        try:
            await self._work()
        except Failed as error:
            self._failure = str(error)

    async def _work(self) -> None:
        self._flush_at = self._now() + FLUSH_SECONDS
        while not self._leaves:
            await self.process.sleep(self.chance.uniform(*TURN_SECONDS))
            self._collect()
            self._keep_up()
            await self._rebalance()
            self._settle()
            self._lookout.look(self._known_topics)
            self._assignment.settle()
            if not self._flight.is_under_way and self._now() >= self._flush_at:
                self._begin_flush()
            self._take()
        await self._drain()

    def _keep_up(self) -> None:
        """As the SDK's consumer: the subscription is what the read set says."""
        consumer: Any = self._consumer
        self._read_set.survey(consumer)
        if self._version == self._read_set.version:
            return
        self._version = self._read_set.version
        added = self._read_set.added(self._subscribed)
        self._topics = self.around.parts.subscribe(self._base, (self._subscribed - {self._base}) | added)

    async def _rebalance(self) -> None:
        mine = self._down.coordinator.heartbeat(self.name, self._topics, joins=self._joins)
        self._joins = mine is None
        had = frozenset(self._assignment.places)
        if mine is None:
            self._flight.cut_off()
            self._give_up(had)
            return
        if gone := had - mine:
            await self._drain()
            self._give_up(gone)
        if new := mine - had:
            self._assignment.add([TopicPartition(*place) for place in sorted(new)])
            self._unsettled |= {place for place in new if place[0] != self._base}
            self._flush_at = min(self._flush_at, self._now() + 0.2 * FLUSH_SECONDS)

    def _give_up(self, places: frozenset[Place]) -> None:
        self._assignment.remove([TopicPartition(*place) for place in sorted(places)])
        self._consumer.incremental_unassign([TopicPartition(*place) for place in sorted(places)])
        self._offsets.keep(self._pending.sources)
        self._down.coordinator.release(self.name, places)

    def _settle(self) -> None:
        """As the SDK's consumer: commit the start of added partitions that have no committed offset yet."""
        if not self._unsettled or self._now() < self._settle_at or not self.around.parts.commits_starts:
            return
        self._settle_at = self._now() + SETTLE_SECONDS
        coordinator = self._down.coordinator
        for place in sorted(self._unsettled & set(self._assignment.places)):
            if coordinator.committed(place) is None:
                coordinator.commit(self.name, place, 0)
        self._unsettled.clear()

    def _known_topics(self) -> set[str]:
        return {self._base, *self._topics, *(topic for topic, _ in self._assignment.places)}

    def _take(self) -> None:
        records: list[Record] = []
        placed = [
            place for place in sorted(self._assignment.places) if place not in self._assignment.unplaced
        ]
        for place in placed:
            if place not in self._consumer.offsets or self.chance.random() < LAG:
                continue
            found = self._consumer.fetch(place, RECORDS)
            if found is None:
                self._assignment.lose_place([place], no_such_offset=True)
            else:
                records += found
            if not self.around.brokers.seen(place[0]):
                self._read_set.suspect()
        if records:
            counted_as = self.around.parts.counted_as
            if counted_as is not as_the_payload_says:
                records = [counted_as(record) for record in records]
            self._pending.take(self._assignment.verified(records), self._milliseconds())

    def _begin_flush(self) -> None:
        self._flush_at = self._now() + FLUSH_SECONDS
        flush = self._pending.flush(self._milliseconds())
        if flush.moves:
            self._assignment.note_flush(flush.moves)
            self._flight.begin(flush)

    def _collect(self) -> None:
        """As the pipeline: take in what became of the flush that was under way."""
        try:
            if not self._flight.land():
                return
        except OffsetConflictError as error:
            self._take_refusal(error)
            return
        except StoreUnavailableError:
            self._assignment.start_over()
            return
        self._assignment.note_taken()
        consumer: Any = self._consumer
        positions = self._down.sink.store.positions()
        self._offsets.publish(consumer, positions, self._pending.sources)

    def _take_refusal(self, error: OffsetConflictError) -> None:
        if self._flight.was_cut_off:
            raise Failed(str(error))
        theirs = error.source not in self._pending.sources
        if not theirs and not self._assignment.excuse(error.source):
            raise Failed(str(error))
        self._assignment.start_over()

    async def _drain(self) -> None:
        if await self._flight.wait(HANDOVER_SECONDS):
            self._collect()
            self._begin_flush()
            await self._flight.wait(HANDOVER_SECONDS)
        self._collect()
