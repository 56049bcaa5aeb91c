"""One seeded run: the real operator loop and the SDK's routing over in-memory ports, and what must hold.

Phases: quiet, then `nike` is hot with faults, then calm (it must be spread), then `nike` is cold with faults,
then calm (it must be merged back). Even seeds ask for no order, odd ones for an order of each user's records.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import Turn
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import PublicKeys, SigningKey
from hotkey_sdk.routing.follower import Follower
from hotkey_sdk.routing.table import Stream, Table
from tests.simulation import virtual
from tests.simulation.clients import (
    GROUP,
    Client,
    Ledger,
    SimulatedProducer,
    SimulatedReader,
    Surroundings,
)
from tests.simulation.faults import (
    COOL_FIRST,
    Fault,
    FaultyBrokers,
    FaultyDistribution,
    FaultyGroups,
    FaultyTables,
    Killed,
    Kind,
    Weather,
    draw,
)
from tests.simulation.groups import MemoryGroups
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables
from tests.simulation.parts import REAL, Parts

START = 1_790_000_000.0  # unix seconds at which a run begins
TOPIC, PARTITIONS, MORE_PARTITIONS = "clicks", 6, 9
PRODUCERS = 3
HOT_AT, COLD_AT, SPREAD_BY, END = 6.0, COOL_FIRST - 2, COOL_FIRST - 2, 100.0
PACES = (1.0, 1.0, 3.0, 10.0)  # how often quiet partitions are read, in seconds
EVEN_SECONDS, EVEN = 10.0, 2.5  # max/mean over so many seconds: a few records; unspread it is above 4
QUIET = {b"k%d" % i: 1.2 / PRODUCERS for i in range(20)}  # records/s of one producer
HOT = {**QUIET, b"nike": 60.0 / PRODUCERS}
VERY_HOT = {**QUIET, b"nike": 180.0 / PRODUCERS}  # so hot that one producer's part alone is over the trigger
LAG_SECONDS = 10
POLICY: dict[str, Any] = {
    "topic": TOPIC,
    "dimensions": [{"name": "user_id", "from": {"header": "user"}}],
    "trigger": {"recordsPerSecond": 40},
    "release": {"for": "6s"},
}
ORDERED_POLICY = {**POLICY, "spread": {"by": [["user_id"]], "ordering": "PerDimension"}}


def _watched(seed: int) -> dict[str, object]:
    """Every second pair of seeds has the readers' lag as a trigger too; they keep up."""
    if seed // 2 % 2 == 0:
        return {}
    return {
        "trigger": {**POLICY["trigger"], "lagSeconds": LAG_SECONDS},
        "consumers": {"groups": [GROUP]},
    }


@dataclass
class Report:
    """What became of a run. `problems` is empty when everything held."""

    seed: int
    faults: tuple[Fault, ...]
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    records: int = 0
    tables: int = 0  # different ones that clients adopted


class World:
    """Everything of one run; `parts` is where a test plants its bug."""

    def __init__(
        self,
        seed: int,
        parts: Parts,
        faults: tuple[Fault, ...] | None,
        unadopted: int = 0,
    ) -> None:
        self.unadopted = unadopted
        self.chance = random.Random(seed)
        self.report = Report(seed, draw(self.chance) if faults is None else faults)
        self.loop_time = 0.0
        self.ref = PolicyRef("ads", "clicks")
        self.brokers = MemoryBrokers(self.clock)
        self.brokers.create(TOPIC, PARTITIONS)
        self.distribution = MemoryDistribution(self.clock)
        self.tables = MemoryTables()
        self.groups = MemoryGroups()
        self.stream = Stream("memory-cluster", TOPIC)
        signing = SigningKey.from_bytes(b"k" * 32)
        self.signer = EnvelopeSigner(signing)
        self.weather = Weather(self.report.faults, self.chance, self.now, self.tell)
        self.pace_seconds = PACES[seed % len(PACES)]
        self.spec: PolicySpec = parse_spec({**(ORDERED_POLICY if seed % 2 else POLICY), **_watched(seed)})
        self.ledger = Ledger()
        self.adopted: dict[str, list[int]] = {}
        self.contents: dict[int, bytes] = {}
        self.in_object: set[bytes] = set()
        self.copies = [self.distribution.snapshot()]
        self.around = Surroundings(
            self.stream,
            PublicKeys.of([signing]),
            parts,
            self.brokers,
            self.distribution,
            self.weather,
            self.clock,
            self._adopted,
            self.groups,
        )
        self.producers: list[SimulatedProducer] = []
        self.strangers: dict[Client, asyncio.Task[None]] = {}
        self.started = 0
        self.tasks: dict[Client, list[asyncio.Task[None]]] = {}

    def now(self) -> float:
        """Seconds of the run."""
        return asyncio.get_running_loop().time() if _running() else 0.0

    def clock(self) -> float:
        return START + self.now()

    def tell(self, what: str) -> None:
        self.report.trace.append(f"{self.now():8.3f}  {what}")

    def fail(self, what: str) -> None:
        self.tell(f"FAILED: {what}")
        self.report.problems.append(what)

    def ends(self) -> list[int]:
        return [len(self.brokers.read(TOPIC, p, 0)) for p in range(self.brokers.partitions(TOPIC))]

    def ports(self) -> Ports:
        return Ports(
            FaultyBrokers(self.brokers, self.weather),
            FaultyDistribution(self.distribution, self.weather),
            FaultyTables(self.tables, self.weather, self._written),
            self.signer,
            FaultyGroups(self.groups, self.weather),
        )

    def rates(self) -> dict[bytes, float]:
        hot = VERY_HOT if self.unadopted else HOT
        return hot if HOT_AT <= self.now() < COLD_AT else QUIET

    def _written(self, table: Table) -> None:
        self.in_object.add(codec.encode(table))

    def _adopted(self, client: str, follower: Follower) -> None:
        table = follower.table
        assert table is not None
        data = codec.encode(table)
        self.tell(f"{client} adopts epoch {table.epoch}")
        self.adopted.setdefault(client, []).append(table.epoch)
        if data not in self.in_object:
            self.fail(f"{client} applies epoch {table.epoch}, which was never in the object")
        if self.contents.setdefault(table.epoch, data) != data:
            self.fail(f"two different tables were published under epoch {table.epoch}")

    def start(self, client: Client, *work: asyncio.Task[None]) -> None:
        self.tasks[client] = list(work)

    def start_producer(self) -> None:
        self.started += 1
        name = f"producer-{self.started}"
        made = SimulatedProducer(
            name, self.around, random.Random(self.chance.random()), self.rates, self.ledger
        )
        if self.started <= self.unadopted:
            self.strangers[made] = asyncio.create_task(made.produce())  # it never follows a table
            return
        self.producers.append(made)
        self.start(made, asyncio.create_task(made.follow()), asyncio.create_task(made.produce()))

    def stop(self, client: Client) -> None:
        for task in self.tasks.pop(client):
            task.cancel()
        client.close()


def simulate(
    seed: int,
    parts: Parts = REAL,
    faults: tuple[Fault, ...] | None = None,
    unadopted: int = 0,
) -> Report:
    """Run one seed to its end. `unadopted`: how many of the producers know no tables."""
    world = World(seed, parts, faults, unadopted)
    virtual.run(_run(world))
    return world.report


async def _run(world: World) -> None:
    reader = SimulatedReader("reader", world.around, random.Random(world.chance.random()), world.ledger)
    world.start(reader, asyncio.create_task(reader.follow()), asyncio.create_task(reader.consume()))
    for _ in range(PRODUCERS):
        world.start_producer()
    operator = Operator(world)
    background = [asyncio.create_task(operator.run()), asyncio.create_task(_backups(world))]
    background.append(asyncio.create_task(_strike(world, operator)))
    await asyncio.sleep(SPREAD_BY - EVEN_SECONDS)
    before = world.ends()
    await asyncio.sleep(EVEN_SECONDS)
    _check_spread(world, before)
    await asyncio.sleep(END - SPREAD_BY)
    _check_merged_back(world)
    for client in list(world.tasks):
        world.stop(client)
    for stranger in world.strangers.values():
        stranger.cancel()
    world.report.tables = len(world.contents)
    reader.drain()
    _check_records(world)
    _check_order(world)
    _check_epochs(world)
    for task in background:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Operator:
    """The operator's process: turns a second apart, killed and started again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turning: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Keep one process running, as Kubernetes does."""
        while True:
            self._turning = asyncio.create_task(self.process())
            await asyncio.wait([self._turning])
            failure = None if self._turning.cancelled() else self._turning.exception()
            if failure is not None and not isinstance(failure, Killed):
                self._world.fail(f"the operator's loop raised {failure!r}")
            self._world.tell("operator is down")
            await asyncio.sleep(self._world.chance.uniform(0.1, 3.0))

    async def process(self) -> None:
        """One process from its start; with a memory of its own."""
        turn = Turn(self._world.ports(), self._world.ref, self._world.spec)
        self._world.tell("operator starts")
        try:
            await self._turns(turn)
        except Killed:
            return

    async def _turns(self, turn: Turn) -> None:
        while True:
            seed, pace = self._world.chance.randrange(2**32), self._world.pace_seconds
            outcome = await turn.step(self._world.clock(), seed, pace_seconds=pace)
            decision = outcome.decision
            said = f"{decision.reason}: {decision.message}" if decision else outcome.failure or "stands by"
            self._world.tell(f"operator: {said}")
            await asyncio.sleep(1.0)

    def kill(self) -> None:
        if self._turning is not None:
            self._turning.cancel()


async def _backups(world: World) -> None:
    while True:
        await asyncio.sleep(2.5)
        world.copies.append(world.distribution.snapshot())


async def _strike(world: World, operator: Operator) -> None:
    """Do what the faults say, each at its time."""
    for fault in world.report.faults:
        await asyncio.sleep(max(0.0, fault.at - world.now()))
        world.tell(f"FAULT: {fault.kind}" + (f" for {fault.seconds:.1f} s" if fault.seconds else ""))
        _do(world, operator, fault)


def _do(world: World, operator: Operator, fault: Fault) -> None:
    match fault.kind:
        case Kind.CRASH:
            operator.kill()
        case Kind.CRASH_BETWEEN:
            world.weather.kill_after_write = True
        case Kind.REDIS_WIPED | Kind.REDIS_OLDER | Kind.GARBAGE:
            _spoil_redis(world, fault.kind)
        case Kind.OBJECT_LOST:
            world.tables.lose(world.ref)
        case Kind.CONFLICT:
            world.tables.touch(world.ref)
        case Kind.PARTITIONS_ADDED:
            world.brokers.grow(TOPIC, MORE_PARTITIONS)
        case Kind.PRODUCER_RESTARTS:
            world.stop(world.producers.pop(0))
            world.start_producer()
        case Kind.TWO_OPERATORS:
            task = asyncio.create_task(operator.process())
            asyncio.get_running_loop().call_later(fault.seconds, task.cancel)


def _spoil_redis(world: World, kind: Kind) -> None:
    if kind is Kind.REDIS_WIPED:
        world.distribution.wipe()
    elif kind is Kind.REDIS_OLDER:
        world.distribution.restore(world.chance.choice(world.copies))
    else:
        world.distribution.plant(world.stream, world.chance.choice([b"garbage", {"epoch": "7"}]))


def _check_spread(world: World, before: list[int]) -> None:
    """Long after the last fault of the hot phase: the key is spread, everywhere, and the load is even."""
    table = _check_agreement(world)
    if table is None or table.route(b"nike") is None:
        world.fail(f"nike is not spread at {world.now():.0f} s although it is hot since {HOT_AT:.0f} s")
        return
    appended = [end - start for start, end in zip(before, world.ends(), strict=True)]
    imbalance = max(appended) * len(appended) / sum(appended)
    world.tell(f"in the last {EVEN_SECONDS:.0f} s the partitions took {appended}, imbalance {imbalance:.2f}")
    if imbalance > EVEN:
        world.fail(f"imbalance is {imbalance:.2f} although nike is spread: {appended} records")


def _check_merged_back(world: World) -> None:
    table = _check_agreement(world)
    if table is not None and table.routes:
        world.fail(f"nike is still spread at {world.now():.0f} s although it is cold since {COLD_AT:.0f} s")


def _check_agreement(world: World) -> Table | None:
    """Object, Redis and every client hold one table."""
    stored = world.tables.peek(world.ref)
    if stored is None:
        world.fail(f"there is no RoutingTable object at {world.now():.0f} s")
        return None
    envelope = world.distribution.envelope(world.stream)
    if envelope is None or world.signer.open(envelope, world.stream) != stored.table:
        world.fail(f"Redis does not hold the object's table, epoch {stored.table.epoch}")
    for client in world.tasks:
        if client.epoch != stored.table.epoch:
            world.fail(f"{client.name} applies epoch {client.epoch}, the object holds {stored.table.epoch}")
    return stored.table


def _check_records(world: World) -> None:
    """By id: every acknowledged record was read once, and none that was never sent."""
    read, sent = world.ledger.read, world.ledger.acknowledged
    world.report.records = len(sent)
    if lost := sent - set(read):
        world.fail(f"{len(lost)} acknowledged records were not read, such as {min(lost)!r}")
    if unknown := set(read) - sent:
        world.fail(f"{len(unknown)} records were read that nobody sent, such as {min(unknown)!r}")
    if twice := [record for record, times in read.items() if times > 1]:
        world.fail(f"{len(twice)} records were read more than once, such as {min(twice)!r}")


def _check_order(world: World) -> None:
    """By sequence number: what a producer sent of one user by one table was read in the order of sending."""
    ledger = world.ledger
    if world.spec.spread.by and not ledger.ordered:
        world.fail("the policy asks for an order, and no record was sent by a route that has one")
    if ledger.overtaken:
        world.fail(
            f"{len(ledger.overtaken)} of {ledger.ordered} records were read after a later one of the same "
            f"user and producer, such as {ledger.overtaken[0]!r}"
        )


def _check_epochs(world: World) -> None:
    for client, epochs in world.adopted.items():
        for old, new in pairwise(epochs):
            if new <= old:
                world.fail(f"{client} went from epoch {old} back to {new}")


def _running() -> bool:
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False
