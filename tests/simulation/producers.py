"""Producers as the SDK makes them: its follower, its router and its book of what dedicated topics refuse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from confluent_kafka import KafkaError, KafkaException

from hotkey_aggregator.events import Click, encode
from hotkey_sdk._dedicated import fate_of
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import Role
from hotkey_sdk.routing.resend import Fate, Queue, Resends, Way
from hotkey_sdk.routing.router import Destination, Router
from tests.simulation.clients import Client, Surroundings
from tests.simulation.faults import Kind
from tests.simulation.kafka_client import KafkaClient, Leaders
from tests.simulation.ledger import Ledger
from tests.simulation.scenario import Rates

TICK_SECONDS = 0.5
USERS = 200  # few enough that every producer sends several records of each
BATCH_RECORDS = 4
SLOTS = 2**16  # the low bits of a slot count
QUEUE_RECORDS, FULL_RECORDS = 1_000, 6
BOOK_RECORDS, BOOK_BYTES = 400, 100_000

# Headers of a record that an order is promised for: its number, and within what numbers only grow.
SEQUENCE, WITHIN = "sequence", "within"


@dataclass(slots=True, eq=False)
class Outgoing:
    """One record as its caller gave it."""

    key: bytes
    value: bytes
    headers: Mapping[str, bytes]
    told: Callable[[KafkaError | None], None]


class SimulatedProducer(Client):
    """Sends every key at its rate; `rates` gives records/s of each key. `follows` False: without SDK."""

    def __init__(
        self,
        number: int,
        around: Surroundings,
        chance: random.Random,
        rates: Callable[[], Rates],
        ledger: Ledger,
        leaders: Leaders,
        *,
        follows: bool = True,
    ) -> None:
        super().__init__(f"producer-{number}", Role.PRODUCER, around, chance)
        self._rates, self._ledger = rates, ledger
        self.follows = follows
        self._sent = self._slot = 0
        self._base = around.stream.topic
        self._client = KafkaClient(
            self.process,
            leaders,
            number,
            chance,
            idempotent=around.parts.idempotent,
            room=lambda: FULL_RECORDS if around.weather.is_on(Kind.QUEUE_FULL) else QUEUE_RECORDS,
        )
        self.book: Resends[Outgoing] = around.parts.make_resends(
            BOOK_RECORDS, BOOK_BYTES, lambda record: len(record.value)
        )
        self._draining = False

    @property
    def on_its_way(self) -> int:
        """Records whose callers were told nothing yet."""
        return self._client.queued + self.book.kept

    def start(self) -> None:
        if self.follows:
            super().start()
        self.run(self.produce())

    def took_up(self, router: Router) -> None:
        self.book.forget_others({route.topic for route in router.table.routes} - {self._base})

    async def produce(self) -> None:
        owed: dict[bytes, float] = {}
        while True:
            await self.process.sleep(TICK_SECONDS)
            if self.book.kept:
                self._push()
            for key, rate in self._rates().items():
                owed[key] = owed.get(key, self.chance.random()) + rate * TICK_SECONDS
                while owed[key] >= 1:
                    owed[key] -= 1
                    self._send(key)

    def _send(self, key: bytes) -> None:
        user = f"u{self.chance.randrange(USERS)}"
        if self._sent % BATCH_RECORDS == 0:
            self._slot = self.chance.randrange(SLOTS)  # of routes without an order: one for a batch
        router = self.router
        to = self.around.parts.choose(router, key, user, self._slot) if router else None
        record = self._record(key, user, router)
        try:
            if to is None:
                self._to_base(record)
            elif to.topic == self._base:
                self._produce(to.topic, to.partition, to.key or key, record, record.told)
            else:
                self._to_dedicated(to, record)
        except BufferError:
            return  # the caller was told at once that it is not sent
        self._ledger.sent[f"{self.name}-{self._sent}"] = key.decode()

    def _record(self, key: bytes, user: str, router: Router | None) -> Outgoing:
        self._sent += 1
        event_id, name = f"{self.name}-{self._sent}", key.decode()
        click = Click(event_id, name, event_id, user, int(self.around.clock() * 1000))
        headers = {"user": user.encode(), **self._promise(router, key, user)}
        return Outgoing(key, encode(click), headers, partial(self._told, event_id))

    def _promise(self, router: Router | None, key: bytes, user: str) -> dict[str, bytes]:
        """One producer, same key, same dimension values, in send order, between two route changes."""
        plan = router.plans.get(key) if router else None
        epoch = router.table.epoch if router else 0
        if plan is None or (len(plan.route.shards) == 1 and not plan.ordered):
            within = b"%b %b, epoch %d" % (self.name.encode(), key, epoch)
        elif plan.ordered:
            within = b"%b %b %b, epoch %d" % (self.name.encode(), key, user.encode(), epoch)
        else:
            return {}
        return {WITHIN: within, SEQUENCE: b"%d" % self._sent}

    def _told(self, event_id: str, error: KafkaError | None) -> None:
        self._ledger.end(event_id, asyncio.get_running_loop().time(), good=error is None)

    def _produce(
        self,
        topic: str,
        partition: int,
        key: bytes,
        record: Outgoing,
        done: Callable[[KafkaError | None], None],
    ) -> None:
        self._client.produce(topic, partition, key, record.value, record.headers, done)

    def _to_base(self, record: Outgoing) -> None:
        partition = partition_for(record.key, self.around.brokers.partitions(self._base))
        self._produce(self._base, partition, record.key, record, record.told)

    def _to_dedicated(self, to: Destination, record: Outgoing) -> None:
        """As `DedicatedSends.send` has it, over the same book."""
        if self.book.kept:
            self._push()
        queue = self.book.queue(to.topic, to.partition)
        way, number = self.book.enter(queue, asyncio.get_running_loop().time())
        match way:
            case Way.WAIT:
                self.book.wait(queue, record)
            case Way.FULL:
                raise BufferError("Local: Queue full")
            case Way.BASE:
                self._to_base(record)
            case Way.DEDICATED:
                self._ledger.dedicated += 1
                done = partial(self._settled, queue, number, record)
                try:
                    self._produce(to.topic, to.partition, to.key or record.key, record, done)
                except KafkaException as error:
                    self._settled(queue, number, record, error.args[0])
                except BufferError:
                    if self.book.ended(queue):
                        self._push()
                    raise

    def _settled(
        self, queue: Queue[Outgoing], number: int, record: Outgoing, error: KafkaError | None
    ) -> None:
        if error is None:
            due = self.book.delivered(queue)
        elif fate_of(error) is Fate.FINAL:
            due = self.book.ended(queue)
        else:
            now = asyncio.get_running_loop().time()
            due = self.book.refused(queue, number, record, fate_of(error), error.name(), now)
        if due:
            self._push()
        if error is None or fate_of(error) is Fate.FINAL:
            record.told(error)

    def _push(self) -> None:
        """Send to the base topic what waits for it and may go now."""
        if self._draining:
            return
        self._draining = True
        before = self.book.resent
        try:
            self.book.drain(self._send_again)
        finally:
            self._draining = False
            self._ledger.resent += self.book.resent - before

    def _send_again(self, record: Outgoing) -> bool:
        try:
            self._to_base(record)
        except BufferError:
            return False
        return True
