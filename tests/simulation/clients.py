"""Producers and a reader as the SDK makes them: its follower and router, polled and hinted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.report import ClientReport, Role, encode_report
from hotkey_sdk.routing.router import Destination, Router
from hotkey_sdk.routing.table import Stream
from tests.simulation.faults import Kind, Weather
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, StoredRecord
from tests.simulation.parts import Parts

POLL_SECONDS, JITTER = 1.0, (0.75, 1.25)
REPORT_SECONDS = 3.0
TICK_SECONDS = 0.25
USERS = 200  # few enough that every producer sends several records of each
BATCH_RECORDS = 4
GROUP = "readers"
SLOTS = 2**16  # the low bits of a slot count
LAG = 0.3  # of the partitions, at each look of the reader: partitions are read independently of each other

# Headers of a record that an order is promised for: its number, and within what numbers only grow.
SEQUENCE, WITHIN = "sequence", "within"


@dataclass
class Surroundings:
    """What every client of a run shares. `clock`: unix seconds; `adopted`: (client, epoch) as they happen."""

    stream: Stream
    keys: PublicKeys
    parts: Parts
    brokers: MemoryBrokers
    distribution: MemoryDistribution
    weather: Weather
    clock: Callable[[], float]
    adopted: Callable[[str, Follower], None]
    groups: MemoryGroups


class Client:
    """One client process: it follows the table, and reports the epoch that it applies."""

    def __init__(self, name: str, role: Role, around: Surroundings, chance: random.Random) -> None:
        self.name = name
        self.chance = chance
        self.around = around
        self.following = around.parts.make_follower(around.stream, around.keys)
        self._role = role
        self._hinted = asyncio.Event()
        self._reported_at = float("-inf")
        around.distribution.listeners.append(self._hint)

    @property
    def epoch(self) -> int:
        return self.following.follower.epoch

    async def follow(self) -> None:
        """Read on every hint and poll; never fail for what Redis does."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.001, 0.03))
            self._read_table()
            try:
                async with asyncio.timeout(POLL_SECONDS * self.chance.uniform(*JITTER)):
                    await self._hinted.wait()
            except TimeoutError:
                pass
            self._hinted.clear()

    def close(self) -> None:
        self.around.distribution.listeners.remove(self._hint)

    def _hint(self, stream: Stream, epoch: int) -> None:  # noqa: ARG002
        if not self.around.weather.is_on(Kind.HINTS_LOST) and not self.around.weather.is_on(Kind.REDIS_GONE):
            self._hinted.set()

    def _read_table(self) -> None:
        if self.around.weather.is_on(Kind.REDIS_GONE):
            return
        envelope = self.around.distribution.envelope(self.around.stream)
        if envelope is not None and self.following.offer(envelope) is Outcome.ADOPTED:
            self.around.adopted(self.name, self.following.follower)
        if self.around.clock() - self._reported_at >= REPORT_SECONDS:
            self._reported_at = self.around.clock()
            report = ClientReport(self.name, self._role, self.epoch, self._reported_at)
            self.around.distribution.plant_report(self.around.stream, self.name, encode_report(report))


@dataclass
class Ledger:
    """Record ids: those that were acknowledged, how often each was read, and what was read out of order.

    `ordered`: how many records were read that an order was promised for.
    """

    acknowledged: set[bytes] = field(default_factory=set)
    read: dict[bytes, int] = field(default_factory=dict)
    ordered: int = 0
    overtaken: list[bytes] = field(default_factory=list)
    _last: dict[bytes, int] = field(default_factory=dict)

    def note(self, record: StoredRecord) -> None:
        """Take down that the record was read."""
        self.read[record.value] = self.read.get(record.value, 0) + 1
        headers = dict(record.headers)
        within, sequence = headers.get(WITHIN), headers.get(SEQUENCE)
        if within is None or sequence is None:
            return
        self.ordered += 1
        if int(sequence) < self._last.get(within, 0):
            self.overtaken.append(record.value)
        self._last[within] = int(sequence)


class SimulatedProducer(Client):
    """Sends every key at its rate; `rates` gives records/s of each key at a time of the run."""

    def __init__(
        self,
        name: str,
        around: Surroundings,
        chance: random.Random,
        rates: Callable[[], dict[bytes, float]],
        ledger: Ledger,
    ) -> None:
        super().__init__(name, Role.PRODUCER, around, chance)
        self._rates = rates
        self._ledger = ledger
        self._sent = self._slot = 0

    async def produce(self) -> None:
        owed: dict[bytes, float] = {}
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for key, rate in self._rates().items():
                owed[key] = owed.get(key, self.chance.random()) + rate * TICK_SECONDS
                while owed[key] >= 1:
                    owed[key] -= 1
                    self._send(key)

    def _send(self, key: bytes) -> None:
        self._sent += 1
        record_id = b"%b-%d" % (self.name.encode(), self._sent)
        user = f"u{self.chance.randrange(USERS)}"
        if self._sent % BATCH_RECORDS == 0:
            self._slot = self.chance.randrange(SLOTS)  # of routes without an order: one for a batch
        router = self.following.follower.router
        destination = self.around.parts.choose(router, key, user, self._slot) if router else None
        record_key, partition = self._place(key, destination)
        headers = {"user": user.encode(), **self._promise(router, key, user)}
        self.around.brokers.append(self.around.stream.topic, partition, record_key, record_id, headers)
        self._ledger.acknowledged.add(record_id)

    def _promise(self, router: Router | None, key: bytes, user: str) -> dict[str, bytes]:
        """One producer, same key, same dimension values, in send order, between two route changes."""
        plan = router.plans.get(key) if router else None
        if router is None or plan is None or not plan.ordered:
            return {}
        within = b"%b %b %b, epoch %d" % (self.name.encode(), key, user.encode(), router.table.epoch)
        return {WITHIN: within, SEQUENCE: b"%d" % self._sent}

    def _place(self, key: bytes, destination: Destination | None) -> tuple[bytes, int]:
        if destination is None:
            return key, partition_for(key, self.around.brokers.partitions(self.around.stream.topic))
        return destination.key or key, destination.partition


class SimulatedReader(Client):
    """Reads the table's read set and always the base topic, and remembers every id."""

    def __init__(self, name: str, around: Surroundings, chance: random.Random, ledger: Ledger) -> None:
        super().__init__(name, Role.CONSUMER, around, chance)
        self._ledger = ledger
        self._positions: dict[tuple[str, int], int] = {}

    async def consume(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            places = self._places()
            self.chance.shuffle(places)
            for place in places:
                if self.chance.random() >= LAG:
                    self._read(*place)

    def drain(self) -> None:
        """Read all that is there."""
        for place in self._places():
            self._read(*place)

    def _places(self) -> list[tuple[str, int]]:
        table = self.following.follower.table
        topics = sorted({self.around.stream.topic, *(table.read_set if table else ())})
        return [(topic, place) for topic in topics for place in range(self.around.brokers.partitions(topic))]

    def _read(self, topic: str, partition: int) -> None:
        position = self._positions.get((topic, partition), 0)
        records = self.around.brokers.read(topic, partition, position)
        for record in records:
            self._ledger.note(record)
        self._positions[topic, partition] = position + len(records)
        self.around.groups.commit(GROUP, topic, partition, position + len(records))
