"""From the decision that a key gets a topic of its own until the first record is in it, on the real stack:
with a topic that is warm, and with one that has to be made.

Every round has a stream, a policy and consumers of its own, so that none profits from the one before. Nothing
that is measured is accelerated; the policy's trigger is low, so that little load is enough.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition

import hotkey_sdk
from bench.aggregators import Aggregator
from bench.figures import Quantiles
from bench.part import Goal, Plot, Run
from bench.svg import COLORS, Curve, curves
from examples.demo.errors import DemoError
from examples.demo.kube import GROUP, VERSION
from examples.demo.system import System
from examples.demo.view import PolicyView
from examples.load import Load, LoadError
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.table import DedicatedTopic, Phase

PARTITIONS, OWN_PARTITIONS, PRODUCERS = 3, 4, 2
CALM_RECORDS, HOT_RECORDS, HOT_SHARE, CALM_SHARE = 60.0, 1_500.0, 0.8, 0.02
TRIGGER = 120  # records/s of a partition; HOT_RECORDS are 500 on each, so the key fits nowhere
ROUNDS = 6  # of each kind
READY_SECONDS, DECIDE_SECONDS, LOOK_SECONDS = 60.0, 60.0, 0.05
GOALS = {True: 2.0, False: 6.0}  # seconds from the decision to the first record; warm, new

Line = Mapping[str, Any]
_T = TypeVar("_T")


class Round(msgspec.Struct, frozen=True):
    """One round, in seconds from the operator's decision.

    `named`: the RoutingTable object lists the topic for the key. `recorded`: it has the topic's id too.
    `read`: every group has committed an offset on each partition. None: so it was before. `active`: it
    says that the topic is written. `published`: Redis has that. `first`: the first record was handed to a
    producer that went there.
    """

    warm: bool
    named: float
    recorded: float | None
    read: float | None
    active: float
    published: float
    first: float


class Dedicated(msgspec.Struct, frozen=True):
    """All rounds, and why others could not be measured."""

    rounds: list[Round]
    failures: list[str] = []

    def of(self, *, warm: bool) -> list[Round]:
        """The rounds of one kind."""
        return [each for each in self.rounds if each.warm == warm]


def measure(run: Run) -> Dedicated:
    """New and warm by turns. A round that fails is told, and the others are measured."""
    system, rounds, failures = System(run.root), list[Round](), list[str]()
    kinds = (False, True) * (1 if run.quick else ROUNDS)
    try:
        system.start()
        system.start_operator()
        for number, warm in enumerate(kinds, 1):
            try:
                rounds.append(_round(system, f"clicks-{number}", warm=warm))
            except (DemoError, LoadError, KafkaException) as error:
                system.check()
                failures.append(str(error))
                run.say(f"round {number} of {len(kinds)} failed: {error}")
            else:
                took = f"{_kind(warm=warm)} topic: first record after {rounds[-1].first:.2f} s"
                run.say(f"round {number} of {len(kinds)}, {took}")
    finally:
        system.stop()
    if not rounds:
        raise DemoError(f"no round could be measured: {'; '.join(failures)}")
    return Dedicated(rounds, failures)


def _round(system: System, name: str, *, warm: bool) -> Round:
    topic = system.topic(name, PARTITIONS)
    topic.create()
    groups = (f"hotkey-aggregator.{name}", f"{name}-reader")
    with ExitStack() as stack:
        stack.callback(system.kube.kubectl, "delete", "hotkeypolicy", name, "-n", system.kube.namespace)
        system.kube.kubectl("apply", "-f", "-", manifest=_policy(system, name, groups, warm=warm))
        aggregator = Aggregator(system.root, name, _flags(system, name))
        aggregator.start()
        stack.callback(aggregator.stop)
        reader = stack.enter_context(Reader(system, name, groups[1]))
        load = system.load(name, {"producers": PRODUCERS, "records_per_second": CALM_RECORDS,
                                  "hot_share": CALM_SHARE})  # fmt: skip
        stack.callback(load.kill)
        committed = stack.enter_context(Committed(system.stack.kafka.bootstrap, groups))
        aggregator.wait_for_partitions(PARTITIONS.__le__)
        _wait("the reader has partitions", reader.assigned, READY_SECONDS, system.check)
        _calm(system, name, load, committed, warm=warm)
        load.set_hot_share(HOT_SHARE)
        load.set_records_per_second(HOT_RECORDS)
        own = _wait("the key gets a topic", lambda: _given(system, name), DECIDE_SECONDS, system.check)
        read = _wait("all groups read it", lambda: committed.on(own), DECIDE_SECONDS, system.check)
        own_topic = system.topic(own.name, own.partitions)
        _wait("records", lambda: sum(own_topic.end_offsets() or ()) or None, DECIDE_SECONDS, system.check)
        load.stop()
        first = min(message.timestamp()[1] for message in own_topic.records())
    return figure(_lines(system.root / "logs" / "operator.log"), name, read, first, warm=warm)


def _policy(system: System, name: str, groups: Sequence[str], *, warm: bool) -> dict[str, Any]:
    own = {"enabled": True, "partitions": OWN_PARTITIONS, "warm": int(warm)}
    spec = {"topic": name, "trigger": {"recordsPerSecond": TRIGGER}, "dedicatedTopic": own,
            "consumers": {"groups": list(groups)}}  # fmt: skip
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "HotKeyPolicy",
        "metadata": {"name": name, "namespace": system.kube.namespace},
        "spec": spec,
    }


def _flags(system: System, name: str) -> list[str]:
    return [
        f"--bootstrap-servers={system.stack.kafka.bootstrap}",
        f"--topic={name}",
        f"--redis-url={system.stack.redis.url}",
        f"--public-keys=file:{system.public_keys_file}",
        f"--db={system.root / name}.duckdb",
    ]


def _calm(system: System, name: str, load: Load, committed: Committed, *, warm: bool) -> None:
    """Wait until all are there, none is hot, and a warm topic is idle and read."""

    def governed() -> bool | None:
        view = PolicyView.of((system.kube.policy(name) or {}).get("status", {}))
        return (view.ready and view.applied_by(PRODUCERS)) or None

    def stocked() -> float | None:
        idle = [topic for topic in _topics(system, name) if topic.phase is Phase.IDLE]
        return committed.on(idle[0]) if idle else None

    load.start()
    _wait("the policy governs all producers", governed, READY_SECONDS, system.check)
    if warm:
        _wait("a topic is warm", stocked, READY_SECONDS, system.check)


def _topics(system: System, name: str) -> tuple[DedicatedTopic, ...]:
    found = system.kube.table(name)
    return codec.from_document(found["spec"]).topics if found is not None else ()


def _given(system: System, name: str) -> DedicatedTopic | None:
    """The topic that the key waits for, or has."""
    return next((topic for topic in _topics(system, name) if topic.key is not None), None)


def _wait(what: str, look: Callable[[], _T | None], seconds: float, check: Callable[[], None]) -> _T:
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        check()
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {seconds:.0f} s")
        time.sleep(LOOK_SECONDS)
    return found


class Reader:
    """An SDK consumer of its own group, which reads what the table says; a context."""

    def __init__(self, system: System, topic: str, group: str) -> None:
        self._consumer = hotkey_sdk.Consumer(
            {
                "bootstrap.servers": system.stack.kafka.bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "log_level": 0,
                "hotkey.redis.url": system.stack.redis.url,
                "hotkey.public.keys": f"file:{system.public_keys_file}",
            }
        )
        self._topic = topic
        self._assigned, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def assigned(self) -> bool | None:
        """Whether the group has given it partitions; None until then."""
        return self._assigned.is_set() or None

    def _run(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=lambda _, __: self._assigned.set())
        while not self._closing.is_set():
            self._consumer.poll(0.2)
        self._consumer.close()


class Committed:
    """What groups have committed, asked without joining them; a context."""

    def __init__(self, bootstrap: str, groups: Sequence[str]) -> None:
        settings = {"bootstrap.servers": bootstrap, "enable.auto.commit": False, "log_level": 0}
        self._consumers = [Consumer({**settings, "group.id": group}) for group in groups]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in self._consumers:
            consumer.close()

    def on(self, topic: DedicatedTopic) -> float | None:
        """Now, in unix seconds, where every group has an offset on each partition of the topic."""
        asked = [TopicPartition(topic.name, partition) for partition in range(topic.partitions)]
        try:
            found = [each for consumer in self._consumers for each in consumer.committed(asked, timeout=5)]
        except KafkaException:
            return None  # it is not there yet, or its coordinator is not
        return time.time() if all(each.offset >= 0 for each in found) else None


def _lines(log: Path) -> Iterator[Line]:
    with log.open() as lines:
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line)


def figure(lines: Iterable[Line], name: str, read: float, first: int, *, warm: bool) -> Round:
    """One round by the operator's log: `read` in unix seconds, `first` in unix milliseconds.

    An Event is logged behind the table that was written in its turn. Raises `DemoError` where one is missing.
    """
    writes: list[Line] = []
    decided: Line | None = None
    between: list[Line] = []
    for line in lines:
        if line.get("event") == "table written" and line["topic"] == name:
            writes.append(line)
            between.append(line)
        elif line.get("event") == "event" and str(line["policy"]).endswith(f"/{name}") and writes:
            if line["reason"] == "Preparing" and decided is None:
                decided, between = writes[-1], []
            elif line["reason"] == "Dedicated" and decided is not None:
                return _figure(decided, between[:-1], writes[-1], read, first, warm=warm)
    raise DemoError(f"the operator logged no events Preparing and Dedicated of policy {name}")


def _figure(
    decided: Line, between: Sequence[Line], active: Line, read: float, first: int, *, warm: bool
) -> Round:
    since = int(decided["planned_ms"])

    def after(milliseconds: float) -> float:
        return round((milliseconds - since) / 1000, 3)

    recorded = None if warm or not between else after(between[0]["written_ms"])
    return Round(
        warm,
        named=after(decided["written_ms"]),
        recorded=recorded,
        read=None if warm else after(1000 * read),
        active=after(active["written_ms"]),
        published=after(active["published_ms"]),
        first=after(first),
    )


def goals(result: Dedicated) -> Sequence[Goal]:
    """The slowest round of each kind."""
    found = [
        Goal(f"first record in a {_kind(warm=warm)} topic, slowest of {len(rounds)}",
             max(each.first for each in rounds), GOALS[warm], "s")
        for warm in (True, False)
        if (rounds := result.of(warm=warm))
    ]  # fmt: skip
    return [*found, Goal("rounds that could not be measured", len(result.failures), 0)]


def _kind(*, warm: bool) -> str:
    return "warm" if warm else "new"


STAGES = {
    "named": "named: the RoutingTable object lists the topic for the key",
    "recorded": "recorded: the topic is made, and its id stands in the object",
    "read": "read: both groups have committed an offset on each partition",
    "active": "active: the object says that it is written",
    "published": "published: Redis has that table",
    "first": "**first record**",
}


def plots(result: Dedicated) -> Sequence[Plot]:
    """How many rounds had their first record by when."""
    of = [
        Curve(f"{_kind(warm=warm)} topic", [each.first for each in result.of(warm=warm)], color)
        for warm, color in zip((True, False), COLORS, strict=False)
    ]
    title = "Share of rounds whose key has records in its own topic"
    goals = [(f"goal, {_kind(warm=warm)}", most) for warm, most in GOALS.items()]
    drawn = curves(title, "seconds from the decision", of, goals)
    return [Plot("dedicated", title, drawn)]


def section(result: Dedicated) -> str:
    """How it was measured, and the seconds until each stage."""
    rows = [f"| {told} | {_cells(result, stage)} |" for stage, told in STAGES.items()]
    failed = "".join(f"\n\nNot measured: {why}." for why in result.failures)
    table = "\n".join(
        [
            "| seconds from the decision | warm, p50 | worst | new, p50 | worst |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )
    return f"{_METHOD}\n\n{table}{failed}"


_METHOD = f"""## A topic of its own

*How long after the operator has decided that a key gets a topic of its own is the first record in it?*

`python -m bench dedicated`: {PRODUCERS} producer processes with the SDK send to a topic of {PARTITIONS}
partitions. Then one key is so hot that it does not fit on the base topic. Two groups must read a topic before
it is written: an aggregator (DuckDB) and a plain program with `hotkey_sdk.Consumer`, both as they are
shipped. The dedicated topic has {OWN_PARTITIONS} partitions. *Warm*: the policy says
`dedicatedTopic.warm: 1`, and the key turns hot when that topic is idle and read by both. *New*: there is
none.

- The **decision** is the moment at which the operator's turn has planned what it then tells by the Event
  `Preparing` (`planned_ms` of its log line `table written`). The key has been hot for some seconds by then,
  since topics are kept for ever: that is not part of the figures.
- The **first record** is read from the dedicated topic: the earliest of its records' timestamps, which are
  the producers' own.
- *Read* is asked for every {1000 * LOOK_SECONDS:.0f} ms, by others than the operator, which asks once a turn.
- Every round has a topic, a policy, consumers and producers of its own."""


def _cells(result: Dedicated, stage: str) -> str:
    cells = []
    for warm in (True, False):
        seconds = [at for each in result.of(warm=warm) if (at := getattr(each, stage)) is not None]
        of = Quantiles.of(seconds) if seconds else None
        cells.append(f"{of.p50:.2f} | {of.worst:.2f}" if of else "- | -")
    return " | ".join(cells)
