"""Everything of one run, and what is noted of it as it happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import PublicKeys, SigningKey
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Phase, Stream, Table
from tests.simulation import scenario as scenarios
from tests.simulation.bystander import BystandingGroup
from tests.simulation.clients import Surroundings
from tests.simulation.coordinator import Coordinator
from tests.simulation.faults import Fault, draw
from tests.simulation.groups import MemoryGroups
from tests.simulation.kafka_client import Leaders
from tests.simulation.ledger import Ledger
from tests.simulation.members import Downstream, Member
from tests.simulation.memory import (
    MemoryBrokers,
    MemoryDistribution,
    MemoryTables,
    MemoryTopics,
    StoredRecord,
)
from tests.simulation.parts import Parts
from tests.simulation.producers import SimulatedProducer
from tests.simulation.scenario import BYSTANDER, GROUP, PRODUCERS, TOPIC, Bystander, Rates
from tests.simulation.sink import Sink
from tests.simulation.weather import (
    FaultyBrokers,
    FaultyDistribution,
    FaultyGroups,
    FaultyTables,
    FaultyTopics,
    Weather,
    described,
)

START = 1_790_000_000.0  # unix seconds at which a run begins
MEMBERS = 2
PACES = (1.0, 1.0, 3.0, 10.0)  # how often quiet partitions are read, in seconds
SIGNING = SigningKey.from_bytes(b"k" * 32)
UID = "0a1b2c3d-4e5f"


@dataclass
class Report:
    """What became of a run. `problems` is empty when everything held."""

    seed: int
    faults: tuple[Fault, ...]
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    records: int = 0  # that were acknowledged
    dedicated: int = 0  # of those that were sent, to dedicated topics
    resent: int = 0  # to the base topic after a dedicated topic had refused them
    tables: int = 0  # different ones that clients adopted


@dataclass(frozen=True, slots=True)
class Log:
    """A topic as it was, with all its records."""

    name: str
    topic_id: str
    partitions: list[list[StoredRecord]]


class World:
    """One run's; `parts` is where a test plants its bug. To be made in a running loop."""

    def __init__(self, seed: int, parts: Parts, faults: tuple[Fault, ...] | None, unadopted: int) -> None:
        self.unadopted = unadopted
        self.parts = parts
        self.chance = random.Random(seed)
        self.scenario = scenarios.of(seed, unadopted)
        drawn = draw(self.chance, self.scenario.seasons, self.scenario.never, self.scenario.thaw_at)
        self.report = Report(seed, drawn if faults is None else faults)
        self.now: Callable[[], float] = asyncio.get_running_loop().time
        self.weather = Weather(self.report.faults, self.chance, self.now, self.tell)
        self.pace_seconds = PACES[seed // 5 % len(PACES)]
        self.is_hot = True  # whether producers still send
        self._stores()
        self._notes()
        self._clients()

    def _stores(self) -> None:
        self.ref = PolicyRef("ads", "clicks", UID)
        self.brokers = MemoryBrokers(self.clock)
        self.brokers.create(TOPIC, self.scenario.partitions)
        self.topics = MemoryTopics(self.brokers)
        self.distribution = MemoryDistribution(self.clock)
        self.tables = MemoryTables()
        self.groups = MemoryGroups()
        self.stream = Stream("memory-cluster", TOPIC)
        self.signer = EnvelopeSigner(SIGNING)
        self.copies = [self.distribution.snapshot()]

    def _notes(self) -> None:
        self.ledger = Ledger()
        self.adopted: dict[str, list[int]] = {}
        self.contents: dict[int, bytes] = {}
        self.in_object: set[bytes] = set()
        self.deleted_at: dict[str, float] = {}  # dedicated topics, by a person
        self.last_written: Table | None = None
        self.readable = {TOPIC}  # topics of every read set that was ever published
        self.recorded: set[str] = set()  # names of dedicated topics that ever stood in the object
        self.graves: list[Log] = []

    def _clients(self) -> None:
        self.around = Surroundings(
            self.stream,
            PublicKeys.of([SIGNING]),
            self.parts,
            self.brokers,
            self.distribution,
            self.weather,
            self.clock,
            self._adopted,
            self.fail,
        )
        self.leaders = Leaders(self.brokers, self.weather, TOPIC, self._appended)
        self.coordinator = Coordinator(GROUP, self.brokers, self.groups, self.now)
        self.sink = Sink(self.parts.make_store(), self.parts, self.weather)
        self.downstream = Downstream(self.coordinator, self.sink)
        self.producers: list[SimulatedProducer] = []
        self.members: list[Member] = []
        self.bystander = BystandingGroup(TOPIC, self.brokers, self.groups)
        self._made = self._joined = 0
        self.background: list[asyncio.Task[None]] = []

    def clock(self) -> float:
        return START + self.now()

    def tell(self, what: str) -> None:
        self.report.trace.append(f"{self.now():8.3f}  {what}")

    def fail(self, what: str) -> None:
        if what not in self.report.problems:
            self.tell(f"FAILED: {what}")
            self.report.problems.append(what)

    def ports(self) -> Ports:
        return Ports(
            FaultyBrokers(self.brokers, self.weather),
            FaultyDistribution(self.distribution, self.weather, self),
            FaultyTables(self.tables, self.weather, self),
            self.signer,
            FaultyGroups(self.groups, self.weather),
            topics=FaultyTopics(self.topics, self.weather, self),
        )

    def start(self) -> None:
        """Bring up all clients."""
        for _ in range(MEMBERS):
            self.start_member()
        for _ in range(PRODUCERS):
            self.start_producer()
        if self.scenario.bystander is not Bystander.NONE:
            self.spawn(self.bystander.consume())
            self.spawn(self._put_in_order())

    def spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.background.append(task)

    def start_producer(self) -> None:
        self._made += 1
        producer = SimulatedProducer(
            self._made,
            self.around,
            random.Random(self.chance.random()),
            self._rates,
            self.ledger,
            self.leaders,
            follows=self._made > self.unadopted,
        )
        self.producers.append(producer)
        producer.start()

    def _rates(self) -> Rates:
        """What one producer sends: those that are awake share all that there is."""
        awake = sum(not producer.process.is_frozen for producer in self.producers)
        return self.scenario.rates(self.now(), max(1, awake)) if self.is_hot else {}

    def start_member(self, *, stays: bool = True) -> Member:
        """`stays`: another one comes once this one is gone."""
        self._joined += 1
        chance = random.Random(self.chance.random())
        died = self._died if stays else self._left
        member = Member(self._joined, self.around, chance, self.downstream, died)
        self.members.append(member)
        member.start()
        return member

    def kill_member(self, member: Member) -> None:
        if member in self.members:
            member.die("killed")

    def written(self, table: Table) -> None:
        """The object holds another table now: what must be true of it and of the one before."""
        last, self.last_written = self.last_written, table
        self.in_object.add(codec.encode(table))
        if TOPIC not in table.read_set:
            self.fail(f"epoch {table.epoch}: the base topic is not in the read set")
        for route in table.routes:
            if route.topic != TOPIC and route.topic not in self.readable:
                self.fail(f"epoch {table.epoch} writes to {route.topic}, which no published read set had")
        self._check_transitions(table, last)
        if last is not None and table.epoch <= last.epoch:
            self.fail(f"the object went from epoch {last.epoch} to {table.epoch}")
        before = {topic.name for topic in last.topics} if last is not None else self.recorded
        for topic in table.topics:
            if topic.name not in before and topic.name in self.recorded:
                self.fail(f"epoch {table.epoch} gives the name {topic.name} a second time")
        self.recorded |= {topic.name for topic in table.topics}
        self._check_readers(table, last)

    def _check_readers(self, table: Table, last: Table | None) -> None:
        """What is written from now on, every group that has to read it reads."""
        before = {route.topic for route in last.routes} if last is not None else set()
        for topic in table.topics:
            seen = self.brokers.seen(topic.name)
            is_new = topic.phase is Phase.ACTIVE and topic.name not in before
            if not is_new or seen is None or seen.topic_id != topic.topic_id:
                continue
            for group in self._registered():
                held = [self.groups.offset(group, topic.name, place) for place in range(topic.partitions)]
                if None in held:
                    told = f"writes to {topic.name}, which group {group} does not read"
                    self.fail(f"epoch {table.epoch} {told}")

    def _registered(self) -> tuple[str, ...]:
        """The groups that a topic waits for: those of the policy, and one that it names not at all."""
        match self.scenario.bystander:
            case Bystander.DOES_NOT_FOLLOW:
                return GROUP, BYSTANDER
            case Bystander.UNLISTED if self.now() < self.scenario.in_order_at:
                return GROUP, BYSTANDER
        return (GROUP,)

    def _check_transitions(self, table: Table, last: Table | None) -> None:
        """A key has one topic at most, is prepared one at most, and none while another is on its way back."""
        for topic in table.topics:
            before = last.dedicated(topic.name) if last is not None else topic
            begins = before is None or (before.phase, before.key) != (topic.phase, topic.key)
            others = [
                other.phase
                for other in table.topics
                if other.name != topic.name and other.key == topic.key and topic.key is not None
            ]
            if (topic.phase in others and topic.phase in (Phase.PREPARE, Phase.ACTIVE)) or (
                begins and topic.phase is Phase.PREPARE and Phase.RETURN in others
            ):
                self.fail(
                    f"epoch {table.epoch}: {topic.key!r} is in two transitions at once: {described(table)}"
                )

    def published(self, epoch: int, envelope: bytes) -> None:  # noqa: ARG002
        """Redis holds another table now."""
        self.readable |= set(self.signer.open(envelope, self.stream).read_set)

    def created(self, name: str) -> None:
        """The operator made a topic."""
        self.tell(f"topic {name} is made")
        if name not in self.recorded:
            self.fail(f"topic {name} was made before the object had its name")

    def _appended(self, topic: str) -> None:
        if topic not in self.readable:
            self.fail(f"{topic} was written, and no published read set had it")

    def _adopted(self, client: str, router: Router) -> None:
        table = router.table
        data = codec.encode(table)
        self.tell(f"{client} adopts epoch {table.epoch}")
        self.adopted.setdefault(client, []).append(table.epoch)
        if data not in self.in_object:
            self.fail(f"{client} applies epoch {table.epoch}, which was never in the object")
        if self.contents.setdefault(table.epoch, data) != data:
            self.fail(f"two different tables were published under epoch {table.epoch}")

    def _left(self, member: Member, why: str) -> None:
        self.members.remove(member)
        self.tell(f"{member.name} is gone: {why}")

    def _died(self, member: Member, why: str) -> None:
        self._left(member, why)

        async def replace() -> None:
            await asyncio.sleep(self.chance.uniform(0.3, 3.0))
            self.tell(f"{self.start_member().name} starts")

        self.spawn(replace())

    async def _put_in_order(self) -> None:
        await asyncio.sleep(self.scenario.in_order_at)
        self.tell(f"group {self.bystander.process.name} is put in order")
        self.bystander.follows = self.scenario.bystander is Bystander.DOES_NOT_FOLLOW

    def stop(self) -> None:
        for client in [*self.producers, *self.members]:
            client.stop()
        for task in self.background:
            task.cancel()

    def delete_topic(self, name: str) -> None:
        """As a person may: its records are kept here, for the checks alone."""
        self.deleted_at[name] = self.now()
        seen = self.brokers.seen(name)
        assert seen is not None
        logs = [list(self.brokers.read(name, p, 0)) for p in range(seen.partitions)]
        self.graves.append(Log(name, seen.topic_id, logs))
        self.brokers.delete(name)
        self.groups.forget_topic(name)

    def logs(self) -> list[Log]:
        """All that were ever written to."""
        living = []
        for name in self.brokers.names:
            seen = self.brokers.seen(name)
            if seen is not None:
                logs = [list(self.brokers.read(name, p, 0)) for p in range(seen.partitions)]
                living.append(Log(name, seen.topic_id, logs))
        return [*self.graves, *living]

    def hot_topics(self) -> list[str]:
        """The dedicated topics that exist."""
        return [name for name in self.brokers.names if name.startswith(dedicated_prefix(TOPIC))]
