"""What it takes that records of a dedicated topic may come back: the rate at which a tail that its topic does
not take is sent again to the base topic, and what following each record of a dedicated topic costs.

Rates are held against `confluent_kafka.Producer` on the same broker, round by round; costs are taken as in
the part `overhead`, by its code.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import confluent_kafka
import msgspec
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from bench import overhead, senders
from bench.figures import Paired, Quantiles, Ratio, Sandwich
from bench.part import Goal, Run
from bench.senders import Record, Way, Ways, own_topic
from devstack import Stack
from examples.demo.errors import DemoError
from examples.demo.stream import Topic
from hotkey_sdk._producer import PATHS

TAIL, ROUNDS, USERS = 100_000, 7, 100
COST_ROUNDS = 60
SAY_EVERY = 20
FLUSH_SECONDS, KNOWN_SECONDS, LOOK_SECONDS = 120.0, 30.0, 0.02
TAIL_LEAST = 0.99  # of the records that are queued
GOAL = 2.0  # times the raw producer's time: half its rate
REFUSED = "event=dedicated_topic_refused"  # the SDK's line, at the first record that is refused


class Refusal(StrEnum):
    """Why the dedicated topic takes nothing."""

    DENIED = "denied"  # the producer may not write to it
    DELETED = "deleted"  # a person has deleted it


class Tail(msgspec.Struct, frozen=True):
    """One tail: seconds from the first refusal until the last record was acknowledged by the base topic;
    `noticed`: from when the broker went on until that refusal; `cpu`: of the process, in seconds."""

    refusal: Refusal
    seconds: float
    noticed: float
    cpu: float


class Resend(msgspec.Struct, frozen=True):
    """All rounds, and what each way to send cost beside its peer. `raw`: seconds, and CPU seconds, of the
    original client for as many records, in the same rounds."""

    records: int
    raw: list[float]
    raw_cpu: list[float]
    tails: list[Tail]
    costs: list[Paired]
    path: str

    def of(self, refusal: Refusal) -> list[Tail]:
        """The tails of one kind, round by round."""
        return [tail for tail in self.tails if tail.refusal is refusal]


def measure(run: Run) -> Resend:
    """The tails, then the costs."""
    records, rounds = (2_000, 1) if run.quick else (TAIL, ROUNDS)
    with Stack(run.root, kubernetes=False) as stack:
        bench = Bench(stack, records)
        raw, raw_cpu, tails = list[float](), list[float](), list[Tail]()
        for number in range(rounds):
            seconds, cpu = bench.raw()
            raw.append(seconds)
            raw_cpu.append(cpu)
            tails += [bench.tail(refusal) for refusal in Refusal]
            told = ", ".join(f"{tail.refusal} {tail.seconds:.2f} s" for tail in tails[-len(Refusal) :])
            run.say(f"round {number + 1} of {rounds}: raw {seconds:.2f} s, {told}")
        costs = _costs(run, stack)
    return Resend(records, raw, raw_cpu, tails, costs, PATHS.in_use.name)


@dataclass(slots=True)
class Ends:
    """The delivery callback: which record was taken by which topic."""

    taken: list[tuple[bytes | None, str | None]] = field(default_factory=list)
    failures: list[KafkaError] = field(default_factory=list)

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.taken.append((message.value(), message.topic()))
        if error is not None:
            self.failures.append(error)


class Bench:
    """Rounds on one stack, each with topics and clients of its own."""

    def __init__(self, stack: Stack, records: int) -> None:
        self._stack, self._count = stack, records
        self._ways = Ways(stack, "tail")
        self._admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
        self._path = PATHS.in_use.name
        self._settings = {"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0}

    def raw(self) -> tuple[float, float]:
        """Seconds and CPU seconds of the original client, from the first `produce()` to the last answer."""
        (way,) = self._ways.original((senders.PLAIN_ONE,))
        ends = Ends()
        way.client.produce(way.topic, b"first", b"first")
        _flush(way)
        records = _records(self._count)
        began, cpu = time.monotonic(), time.process_time()
        for value, user in records:
            way.client.produce(way.topic, value, senders.HOT, on_delivery=ends)
            del user  # the original client knows no dimensions
        _flush(way)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        way.client.close()
        check(records, ends, way.topic, self._read(way.topic))
        return took, cpu

    def tail(self, refusal: Refusal) -> Tail:
        """Queue records for a dedicated topic that is no longer to be had, and wait until base has all.

        The broker stands still while they are queued, so that none is refused before all of them are.
        """
        (way,) = self._ways.sdk(self._path, (senders.OWN_BY,))
        ends, records, own = Ends(), _records(self._count), own_topic(way.topic)
        way.client.produce(way.topic, b"first", b"first")
        _flush(way)
        broker = self._stack.kafka.nodes[0]
        with self._refused(refusal, own), _Refusals(own) as refusals:
            broker.pause()
            try:
                _queue(way, records, ends)
            finally:
                cpu, began = time.process_time(), time.monotonic()
                broker.resume()
            _flush(way)
            ended, cpu = time.monotonic(), time.process_time() - cpu
            way.client.close()
        check(records, ends, way.topic, self._read(way.topic))
        return Tail(refusal, ended - refusals.at, refusals.at - began, cpu)

    def _read(self, topic: str) -> list[bytes]:
        """The topic's records but the first, partition by partition in their order."""
        found = sorted(
            Topic(self._stack.kafka.bootstrap, topic, senders.PARTITIONS).records(),
            key=lambda message: (message.partition() or 0, message.offset() or 0),
        )
        return [value for message in found if (value := message.value()) is not None and value != b"first"]

    @contextlib.contextmanager
    def _refused(self, refusal: Refusal, own: str) -> Iterator[None]:
        if refusal is Refusal.DELETED:
            self._admin.delete_topics([own])[own].result()
            _wait("the topic is gone", lambda: self._is_unknown(own))
            yield
            return
        bindings = _denial(own)
        for future in self._admin.create_acls(bindings).values():
            future.result()
        try:
            _wait("nobody may write to the topic", lambda: self._is_denied(own))
            yield
        finally:
            filters = [
                AclBindingFilter(
                    each.restype, each.name, each.resource_pattern_type, each.principal, each.host,
                    each.operation, each.permission_type,
                )
                for each in bindings
            ]  # fmt: skip
            for removed in self._admin.delete_acls(filters).values():
                removed.result()

    def _is_unknown(self, topic: str) -> bool:
        return self._admin.list_topics(topic, timeout=10).topics[topic].error is not None

    def _is_denied(self, topic: str) -> bool:
        """Asked with a record by another client; what it may still write there is nobody's."""
        errors = list[KafkaError | None]()
        client = confluent_kafka.Producer(self._settings)
        client.produce(topic, b"asked", on_delivery=lambda error, _: errors.append(error))
        client.flush(FLUSH_SECONDS)
        return [error.code() if error else None for error in errors] == [
            KafkaError.TOPIC_AUTHORIZATION_FAILED
        ]


def _denial(own: str) -> list[AclBinding]:
    """All is allowed to all, as without any ACL, but writing."""
    return [
        AclBinding(ResourceType.TOPIC, own, ResourcePatternType.LITERAL, "User:*", "*", operation, permission)
        for operation, permission in (
            (AclOperation.ALL, AclPermissionType.ALLOW),
            (AclOperation.WRITE, AclPermissionType.DENY),
        )
    ]


class _Refusals(logging.Handler):
    """Notes when the SDK logs that it writes to the topic no more; a context."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self._topic = f"topic={topic} "
        self._log = logging.getLogger("hotkey_sdk")
        self._at: float | None = None

    @property
    def at(self) -> float:
        """Then, by `time.monotonic`. Raises `DemoError` where nothing was refused."""
        if self._at is None:
            raise DemoError("the dedicated topic took all: there was no tail to send again")
        return self._at

    def emit(self, record: logging.LogRecord) -> None:
        """Note the first such line."""
        text = record.getMessage()
        if self._at is None and text.startswith(REFUSED) and self._topic in text:
            self._at = time.monotonic()

    def __enter__(self) -> _Refusals:
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)


def _records(count: int) -> list[tuple[bytes, str]]:
    """Records with ids, and the user of each; of each user's the numbers grow."""
    filler = b"x" * 100
    return [(b'{"event_id":"%d","rest":"%b"}' % (n, filler), f"u{n % USERS}") for n in range(count)]


def _queue(way: Way, records: Sequence[tuple[bytes, str]], ends: Ends) -> None:
    for value, user in records:
        way.client.produce(  # type: ignore[call-arg]
            way.topic, value, senders.HOT, on_delivery=ends, dimensions={"user_id": user}
        )


def check(records: Sequence[tuple[bytes, str]], ends: Ends, base: str, found: Sequence[bytes]) -> None:
    """Each record was told once, with no error, and the base topic has each that it took, once, and each
    user's in order. Raises `DemoError`, also where another topic took more than a few (a broker may for a
    moment after a topic's deletion, and then they are gone with it)."""
    sent = [value for value, _ in records]
    if ends.failures or Counter(value for value, _ in ends.taken) != Counter(sent):
        raise DemoError(f"not each record was told once and well: {ends.failures[:3]}")
    taken = Counter(value for value, topic in ends.taken if topic == base)
    if len(taken) < TAIL_LEAST * len(sent):
        raise DemoError(f"the base topic took {len(taken)} of {len(sent)} records: there was no tail")
    if Counter(found) != taken:
        lost, more = len({*taken} - {*found}), len(found) - len({*found})
        raise DemoError(f"the base topic lacks {lost} records and has {more} twice")
    number = {value: at for at, value in enumerate(sent)}
    by_user = defaultdict[str, list[int]](list)
    for value in found:
        by_user[records[number[value]][1]].append(number[value])
    if unordered := [user for user, numbers in by_user.items() if numbers != sorted(numbers)]:
        raise DemoError(f"the records of {len(unordered)} users are not in the order of sending")


def _flush(way: Way) -> None:
    if left := way.client.flush(FLUSH_SECONDS):
        raise DemoError(f"{way.name}: {left} records were not answered within {FLUSH_SECONDS:.0f} s")


def _wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + KNOWN_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"not within {KNOWN_SECONDS:.0f} s: {what}")
        time.sleep(LOOK_SECONDS)


# The costs.

CALLED = ", with on_delivery"


def _noted(_: object, __: object) -> None:
    """What a program that wants to hear of each delivery gives."""


def plainly(client: confluent_kafka.Producer, topic: str, records: Sequence[Record]) -> None:
    """As `senders.plainly`, with a callback."""
    for value, key, _, _ in records:
        client.produce(topic, value, key, on_delivery=_noted)


def _costs(run: Run, stack: Stack) -> list[Paired]:
    path, rounds = PATHS.in_use.name, min(run.rounds, COST_ROUNDS)
    ways = Ways(stack, "cost")
    original = ways.original((senders.PLAIN_MANY, senders.PLAIN_ONE))
    own = ways.sdk(path, (senders.OFF, senders.EMPTY, senders.UNROUTED, *_ROUTED))
    called = [
        replace(way, name=way.name + CALLED, send=plainly)
        for way in own
        if way.name in (f"{senders.ROUTED} ({path})", f"{senders.OWN} ({path})")
    ]
    found: dict[str, list[Sandwich]] = {}
    peers = peers_of(path)
    made = [*original, *own, *called]
    for number, sandwiches in enumerate(overhead.rounds(made, peers, rounds, run.records, run.seed), 1):
        for sandwich in sandwiches:
            found.setdefault(sandwich[1].case, []).append(sandwich)
        if number % SAY_EVERY == 0 or number == rounds:
            run.say(f"costs: round {number} of {rounds}")
    return [Paired.of(found[way]) for way in peers if way in found]


_ROUTED = (senders.ROUTED, senders.ROUTED_BY, *senders.OWN_PEERS)


def peers_of(path: str) -> dict[str, str]:
    """Each way to send, and the one that it is held against: what is tracked, against the same untracked."""

    def on(name: str) -> str:
        return f"{name} ({path})"

    plain = (senders.OFF, senders.EMPTY, senders.UNROUTED, senders.ROUTED, senders.ROUTED_BY)
    return {
        **{on(way): senders.SDK_PEERS[way] for way in plain},
        **{on(way): on(peer) for way, peer in senders.OWN_PEERS.items()},
        on(senders.OWN) + CALLED: on(senders.ROUTED) + CALLED,
    }


def goals(result: Resend) -> Sequence[Goal]:
    """Of each kind of tail, and of what is not tracked."""
    tails = [
        Goal(f"tail of a {refusal} topic, time against raw", _times(result, refusal).value, GOAL, "times")
        for refusal in Refusal
    ]
    found = {each.case: each for each in result.costs}
    costs = [
        Goal(f"CPU of {name} against the original", round(_thread(found[way]).value, 2), most, "times")
        for name, most in overhead.GOALS.items()
        if (way := f"{name} ({overhead.COMPILED})") in found
    ]
    return [*tails, *costs]


def _times(result: Resend, refusal: Refusal) -> Ratio:
    """The tails' time over the original client's in the same rounds, with its interval."""
    return Ratio.of([tail.seconds for tail in result.of(refusal)], result.raw)


def _thread(paired: Paired) -> Ratio:
    return Ratio.of(paired.thread, paired.peer_thread)


def section(result: Resend) -> str:
    """The rates, and the costs."""
    raw, cpu = result.records / Quantiles.of(result.raw).p50, _micros(result, result.raw_cpu)
    rows = [f"| confluent_kafka.Producer, `produce()` to the last answer | {raw:,.0f} | 1.00 | {cpu} | |"]
    rows += [_tail_row(result, refusal) for refusal in Refusal]
    return "\n".join(
        [
            "## Records that come back",
            "",
            "*How fast does a tail that its dedicated topic does not take reach the base topic, and what "
            "does it cost to be ready for that?*",
            "",
            _METHOD.format(records=result.records, rounds=len(result.raw), users=USERS),
            "",
            "| | records/s, p50 | times the raw producer's time | CPU us a record | noticed after, p50 |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *_cost_lines(result),
        ]
    )


_METHOD = """`python -m bench resend`: {records:,} records of one key, of {users} users, are queued in one
`hotkey_sdk.Producer` for a dedicated topic while the broker stands still (SIGSTOP). Then it goes on, and the
topic takes none of them: the producer is *denied* it (an ACL), or it is *deleted*. Measured from the first
record that is refused (the SDK's log line `dedicated_topic_refused`) until the base topic has acknowledged
the last one: all refusals, putting the records in order, and sending them. After each of {rounds} rounds the
base topic is read: every event id is there once, each user's in the order of sending, and the caller's
callback was called once for each, with no error. The raw producer sends the same records in the same rounds
to a base topic of its own, under the same key and with the same callback."""


def _tail_row(result: Resend, refusal: Refusal) -> str:
    tails, times = result.of(refusal), _times(result, refusal)
    seconds = Quantiles.of([tail.seconds for tail in tails])
    noticed = Quantiles.of([tail.noticed for tail in tails])
    return (
        f"| **hotkey_sdk.Producer, topic {refusal}** | {result.records / seconds.p50:,.0f} | "
        f"{times.value:.2f} ({times.low:.2f}-{times.high:.2f}) | "
        f"{_micros(result, [tail.cpu for tail in tails])} | {noticed.p50:.2f} s |"
    )


def _micros(result: Resend, cpu: Iterable[float]) -> str:
    return f"{1e6 * Quantiles.of(list(cpu)).p50 / result.records:.1f}"


def _cost_lines(result: Resend) -> list[str]:
    """What tracking costs in words, and every way beside its peer."""
    text = [
        "### What following each record costs",
        "",
        "A record of a dedicated topic is followed until its end, so that it can be sent again; within the "
        "base topic nothing is. Measured as *CPU per record* above, in this run: each way between two runs "
        "of its peer; sums over sums, 95 % interval. A key with a topic of its own is held against the same "
        "route within the base topic.",
        "",
    ]
    text += [f"- {_added(each)}" for each in result.costs if each.case.startswith(tuple(senders.OWN_PEERS))]
    return [
        *text,
        "",
        "| way | peer | runs | `produce()` thread | whole process | us thread | us process |",
        "|---|---|---|---|---|---|---|",
        *map(overhead.row, result.costs),
    ]


def _added(paired: Paired) -> str:
    thread, process = (
        1000 * (sum(own) - sum(peer)) / len(own)
        for own, peer in ((paired.thread, paired.peer_thread), (paired.process, paired.peer_process))
    )
    return (
        f"{paired.case}: {thread:,.0f} ns more in `produce()`, {process:,.0f} ns more in the whole process, "
        "the answer included"
    )
