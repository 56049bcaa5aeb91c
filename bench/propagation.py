"""Propagation: from the RoutingTable object's being written until each of many clients applies the table.

The operator's own adapters and executor write, to a real Kubernetes API and a real Valkey; what is followed
is decided by nobody, so nothing but the way of a table is measured.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import kubernetes
import msgspec
import redis

from bench import senders
from bench.figures import Quantiles, thinned
from bench.part import Goal, Plot, Run
from bench.svg import COLORS, Curve, curves
from bench.table_clients import Clients, Fleet, Kind
from devstack.valkey import USERS
from examples.demo.errors import DemoError
from examples.demo.system import System
from hotkey_operator.act.executor import apply
from hotkey_operator.adapters.kubernetes import KubernetesTables
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.adapters.signer import EnvelopeSigner
from hotkey_operator.engine.model import Decision, PublishTable, WriteTable
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import PolicyRef, Ports
from hotkey_operator.stages import Stages
from hotkey_sdk.routing.envelope import SigningKey
from hotkey_sdk.routing.table import Dimension, Stream, Table

TOPIC, PARTITIONS = "clicks", senders.PARTITIONS
PROCESSES, CLIENTS = 5, 10  # of each process
PAUSE_SECONDS = 1.0  # at most, at random, between the last client's having a table and the next table
START_SECONDS, APPLY_SECONDS = 60.0, 30.0
GOALS = {"hint": 1.0, "blocked": 2.5}  # seconds, p99
DRAWN = 200  # points of a curve

PRODUCER, DEAF = "hotkey-producer", "bench-deaf"  # users of Redis; the second may subscribe to nothing


class Way(msgspec.Struct, frozen=True):
    """How tables reach one kind of client. `epochs`: tables that are written."""

    name: str
    title: str
    kind: Kind
    deaf: bool
    epochs: int


WAYS = (
    Way("hint", "**SDK, with the hint**", Kind.SDK, deaf=False, epochs=100),
    Way("blocked", "**SDK, pub/sub blocked**", Kind.SDK, deaf=True, epochs=60),
    Way("subscriber", "peer: pub/sub alone", Kind.SUBSCRIBER, deaf=False, epochs=40),
    Way("poller", "peer: polling alone", Kind.POLLER, deaf=False, epochs=40),
)


class Epoch(msgspec.Struct, frozen=True):
    """One table, in seconds since its object stood: when it had been `began` (below 0), was `published`,
    and when each client had it."""

    began: float
    published: float
    applied: list[float]

    @property
    def slowest(self) -> float:
        """When the last client had it."""
        return max(self.applied)


class Propagation(msgspec.Struct, frozen=True):
    """The tables of each way, and the size of a table's envelope."""

    epochs: dict[str, list[Epoch]]
    envelope_bytes: int


def measure(run: Run) -> Propagation:
    """Each way with clients of its own, on one stack."""
    system, draw = System(run.root), random.Random(run.seed)
    epochs: dict[str, list[Epoch]] = {}
    try:
        system.start()
        with Writer(system) as writer:
            for way in WAYS:
                number = 3 if run.quick else way.epochs
                with Fleet(_clients(system, way, writer), PROCESSES) as fleet:
                    epochs[way.name] = _epochs(writer, fleet, number, draw)
                last = Quantiles.of([each.slowest for each in epochs[way.name]])
                run.say(f"{way.name}: the last of {fleet.size} after {last.p50:.3f} s (p50)")
            return Propagation(epochs, writer.envelope_bytes)
    finally:
        system.stop()


def _clients(system: System, way: Way, writer: Writer) -> Clients:
    store = system.stack.redis
    if way.deaf:
        with redis.Redis.from_url(store.url) as client:
            rules = deaf(USERS.read_text())
            client.execute_command("ACL SETUSER", DEAF, *rules)
    user = DEAF if way.deaf else PRODUCER
    return Clients(
        way.kind, 0, CLIENTS, store.url_for(user), writer.public_keys, system.stack.kafka.cluster_id, TOPIC
    )


def deaf(users: str) -> list[str]:
    """The rules of the producers' user without channels, for one of another name. What stands in brackets
    is one rule."""
    line = next(line for line in users.splitlines() if line.startswith(f"user {PRODUCER} "))
    rules = re.findall(r"\([^)]*\)|\S+", line.removeprefix(f"user {PRODUCER}").replace(PRODUCER, DEAF))
    return [rule for rule in rules if not rule.startswith("&")]


def _epochs(writer: Writer, fleet: Fleet, number: int, draw: random.Random) -> list[Epoch]:
    """So many tables, each when all clients have had the one before for a random while."""
    writer.write()
    fleet.moments(writer.epoch, START_SECONDS)
    found = []
    for _ in range(number):
        time.sleep(draw.uniform(0, PAUSE_SECONDS))  # else it would fall into step with the clients' polls
        began = time.monotonic()
        written, published = writer.write()
        moments = fleet.moments(writer.epoch, APPLY_SECONDS)
        applied = [round(at - written, 4) for at in moments]
        found.append(Epoch(round(began - written, 4), round(published - written, 4), applied))
    return found


class Writer:
    """Writes one table after the other as the operator does: the object, then Redis; a context."""

    def __init__(self, system: System) -> None:
        config = kubernetes.config.new_client_from_config(str(system.kube.kubeconfig))  # type: ignore[no-untyped-call]
        key = SigningKey.generate()
        self.public_keys = key.public_line
        self.epoch = int(time.time())
        self.envelope_bytes = 0
        self._signer = EnvelopeSigner(key)
        self._distribution = RedisDistribution(system.stack.redis.url_for("hotkey-operator"))
        self._ports = Ports(
            brokers=cast("Any", None),
            distribution=self._distribution,
            tables=KubernetesTables(config),
            signer=self._signer,
        )
        self._ref = PolicyRef(system.kube.namespace, TOPIC)
        self._stream = Stream(system.stack.kafka.cluster_id, TOPIC)
        self._version: str | None = None
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._distribution.close())
        self._runner.close()

    def write(self) -> tuple[float, float]:
        """Write the next table; when its object stood and when Redis had it, by `time.monotonic`."""
        self.epoch += 1
        table = self._table()
        self.envelope_bytes = len(self._signer.seal(table))
        moments: list[float] = []

        def clock() -> float:
            moments.append(time.monotonic())
            return moments[-1]

        ports = Stages(clock).around(self._ports)
        actions = (WriteTable(table, self._version), PublishTable(table))
        done = self._runner.run(apply(ports, self._ref, Decision(actions, Reason.SPREAD, "measured")))
        if done.stored is None or done.published_epoch != self.epoch:
            raise DemoError(
                f"the table was not published: {done.conflict or done.unwritten or done.unpublished}"
            )
        self._version = done.stored.resource_version
        written, published = moments
        return written, published

    def _table(self) -> Table:
        """As many routes as limits.maxHotKeys allows by default, each over all partitions."""
        routes = senders.routes(senders.UNROUTED_GIVEN, TOPIC)
        dimensions = (Dimension("user_id"),)
        return Table(self._stream, PARTITIONS, self.epoch, 42, (TOPIC,), dimensions, routes)


def goals(result: Propagation) -> Sequence[Goal]:
    """Of the last client of each table."""
    found = {name: Quantiles.of(_slowest(epochs)) for name, epochs in result.epochs.items()}
    return [
        Goal(f"propagation to the last of {_clients_of(result)} clients, {told}, p99 of {of.samples}",
             of.p99, GOALS[name], "s")
        for name, told in (("hint", "with the hint"), ("blocked", "pub/sub blocked"))
        if (of := found.get(name)) is not None
    ]  # fmt: skip


def plots(result: Propagation) -> Sequence[Plot]:
    """How many clients had a table by when."""
    title = "Share of clients that have a new table"
    of = [
        Curve(way.title.replace("*", ""), thinned(_applied(result.epochs[way.name]), DRAWN), color)
        for way, color in zip(WAYS, COLORS, strict=False)
        if way.name in result.epochs
    ]
    drawn = curves(title, "seconds since the RoutingTable object stood", of)
    return [Plot("propagation", title, drawn)]


def section(result: Propagation) -> str:
    """How it was measured, and the seconds until clients have a table."""
    rows = [
        f"| {way.title} | {len(epochs)} | {_row(_applied(epochs))} | {_row(_slowest(epochs))} |"
        for way in WAYS
        if (epochs := result.epochs.get(way.name)) is not None
    ]
    every = [epoch for epochs in result.epochs.values() for epoch in epochs]
    writing = Quantiles.of([-epoch.began for epoch in every])
    publishing = Quantiles.of([epoch.published for epoch in every])
    table = "\n".join(
        [
            "| | tables | each client: p50 | p99 | worst | last client: p50 | p99 | worst |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    return f"""## Propagation

*How long after the operator has written a table does every client apply it?*

`python -m bench propagation`: seconds from the API server's answer that the RoutingTable object stands until
each of {_clients_of(result)} clients applies the table. The operator's own code writes (its executor, its
adapters for Kubernetes and Redis): first the object, then Redis, with the hint. A table has 32 routes, as
many as `limits.maxHotKeys` allows by default, each over {PARTITIONS} partitions: an envelope of
{result.envelope_bytes / 1000:.0f} kB. {PROCESSES} processes hold {CLIENTS} clients each; they share the
machine with all else.

- **SDK**: the table source of `hotkey_sdk.Producer` as it is shipped (poll each second, 0.75 to 1.25 s by
  chance): it reads, verifies the signature, decodes, and builds the lanes that records are routed by; then it
  has applied the table. *Blocked*: it connects as a user who may subscribe to nothing, so that it polls.
- **Peers**, as one would write them, on the same writer: *pub/sub alone* fetches the table when it hears of
  it (and misses for good what is published while it is not connected), *polling alone* asks at the SDK's
  interval. Neither verifies, decodes or builds anything.
- The next table comes up to {PAUSE_SECONDS:g} s after the last client has had the one before, at random,
  so that it does not keep step with polls. *Last client*: the slowest of each table; the goals are of it.

{table}

Writing the object takes {1000 * writing.p50:.0f} ms (p50; p99 {1000 * writing.p99:.0f}), then publishing
{1000 * publishing.p50:.0f} ms (p99 {1000 * publishing.p99:.0f}), which is part of the figures above."""


def _row(seconds: Sequence[float]) -> str:
    of = Quantiles.of(seconds)
    return f"{of.p50:.3f} | {of.p99:.3f} | {of.worst:.3f}"


def _applied(epochs: Sequence[Epoch]) -> list[float]:
    return [at for epoch in epochs for at in epoch.applied]


def _slowest(epochs: Sequence[Epoch]) -> list[float]:
    return [epoch.slowest for epoch in epochs]


def _clients_of(result: Propagation) -> int:
    return max(len(epoch.applied) for epochs in result.epochs.values() for epoch in epochs)
