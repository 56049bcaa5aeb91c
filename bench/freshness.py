"""How fresh the counts are: from the click to the moment when it can be queried, of every click, and how soon
they are fresh again after `kill -9`.

One load, consumer groups beside each other: an aggregator with DuckDB, and two with one PostgreSQL by each of
Kafka's group protocols. It is watched from outside which offsets each store has committed, and known when
each of them was clicked. The aggregators' own metric is shown beside, not relied on.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from bench.aggregators import Aggregator, Look, Watch, new_database, over_http, over_sql
from bench.clicks import HOT_SHARE, Sending, Sent, Settings
from bench.part import Goal, Plot, Run
from bench.svg import COLORS, Curve, Line, curves, lines
from devstack import Stack
from examples.demo.errors import DemoError
from examples.demo.stream import Topic

RATE, PARTITIONS, SECONDS = 10_000.0, 48, 600.0
SETTLE_SECONDS = 10.0  # of the load before it counts, and until the first kill: neither is a steady state
KILLS, KILL_SECONDS = 5, 25.0
STAGGER_SECONDS = 0.4  # so that kills do not all come at one moment between two flushes
RESTART_SECONDS = 1.0  # what a kubelet takes to start a container again, the first time
LOOK_SECONDS = 0.1
CATCH_UP_SECONDS = 120.0
FRESH_SECONDS, AGAIN_SECONDS = 7.0, 20.0
STEADY_SECONDS = 10.0  # it has to stay fresh for so long
DUCKDB, CLASSIC, CONSUMER = "DuckDB", "PostgreSQL, classic", "PostgreSQL, consumer"
TOPIC = "clicks"
STEPS = 200  # of the curve
BUCKET = re.compile(r'^hotkey_aggregator_freshness_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)

Seconds = npt.NDArray[np.float64]


class Freshness(msgspec.Struct, frozen=True):
    """Seconds from click to queryable, of all clicks. `steps`: quantiles at equal distances, with 0 and 1.

    `own`: the bound of the bucket of the aggregator's own histogram (age of the watermark at each flush) that
    holds its 99th percentile, None beyond all.
    """

    clicks: int
    p50: float
    p99: float
    worst: float
    steps: list[float]
    own: float | None


class Kill(msgspec.Struct, frozen=True):
    """One `kill -9`. `seconds`: until all is fresh again, None when it was not before the next. `worst`: the
    most that a click waited meanwhile."""

    member: str
    seconds: float | None
    worst: float


class Stored(msgspec.Struct, frozen=True):
    """One store. `protocol`: of the group. `ids`: that it holds: those that were sent, each counted once.
    `ages`: of the oldest click that could not be queried, in seconds, so long after the first kill."""

    store: str
    members: int
    protocol: str
    freshness: Freshness
    kills: list[Kill]
    ids: int
    ages: list[tuple[float, float]]


class Measured(msgspec.Struct, frozen=True):
    """All stores. `rate`: clicks/s that came, over `seconds`."""

    stores: list[Stored]
    rate: float
    seconds: float
    partitions: int
    kill_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rate: float
    partitions: int
    seconds: float
    settle_seconds: float
    kills: int
    kill_seconds: float
    flush_seconds: float

    @classmethod
    def of(cls, run: Run) -> Plan:
        """Of a run."""
        if run.quick:
            return cls(500.0, 4, 2.0, 1.0, 1, 5.0, 0.5)
        return cls(RATE, PARTITIONS, SECONDS, SETTLE_SECONDS, KILLS, KILL_SECONDS, 5.0)


class Group:
    """One store's aggregators, and what is seen of them."""

    def __init__(self, store: str, members: Sequence[Aggregator], watch: Watch) -> None:
        self.store, self.members, self.watch = store, members, watch
        self.kills: list[tuple[float, str]] = []
        self.own: float | None = None

    def check(self) -> None:
        """Raise `DemoError` when a member is gone."""
        for member in self.members:
            member.check()

    def kill(self, number: int) -> None:
        """Kill one member, in turn; it is started again by `restart`."""
        member = self.members[number % len(self.members)]
        self.kills.append((time.time(), member.name))
        member.kill()

    def restart(self, number: int) -> None:
        """Start the member that was killed."""
        self.members[number % len(self.members)].start()


def measure(run: Run) -> Measured:
    """The load without faults, then the kills, then the proof."""
    plan = Plan.of(run)
    with (
        Stack(run.root, kubernetes=False, redis=False, postgres=True) as stack,
        ExitStack() as closing,
    ):
        topic = Topic(stack.kafka.bootstrap, TOPIC, plan.partitions)
        topic.create()
        groups = [closing.enter_context(each) for each in _groups(run, stack, plan)]
        settings = _settings(run, stack, plan)
        sending = closing.enter_context(Sending(settings, run.root / "sender.log"))
        sending.wait_for_first()
        period = _undisturbed(run, plan, groups, sending)
        _kill(run, plan, groups, sending)
        sent = sending.stop()
        stored = [_stored(run, group, sent, settings, period) for group in groups]
    return Measured(
        stored, _per_second(sent, period), period[1] - period[0], plan.partitions, plan.kill_seconds
    )


def _settings(run: Run, stack: Stack, plan: Plan) -> Settings:
    return Settings(
        bootstrap=stack.kafka.bootstrap,
        topic=TOPIC,
        partitions=plan.partitions,
        spread=True,
        journal=str(run.root / "sent"),
        rate=plan.rate,
        seed=run.seed,
    )


def _groups(run: Run, stack: Stack, plan: Plan) -> Iterator[AbstractContextManager[Group]]:
    yield _duckdb(run, stack, plan)
    yield _postgres(run, stack, plan, CLASSIC)
    yield _postgres(run, stack, plan, CONSUMER)


@contextmanager
def _duckdb(run: Run, stack: Stack, plan: Plan) -> Iterator[Group]:
    flags = [*_flags(stack, plan), f"--db={run.root / 'clicks.duckdb'}", "--group=duckdb"]
    member = Aggregator(run.root, "duckdb", flags)
    ask = over_http(member, TOPIC, plan.partitions)
    with _started([member], plan), Watch(ask, LOOK_SECONDS) as watch:
        yield Group(DUCKDB, [member], watch)


@contextmanager
def _postgres(run: Run, stack: Stack, plan: Plan, name: str) -> Iterator[Group]:
    protocol = name.rpartition(" ")[2]
    dsn = new_database(stack.postgres.dsn, protocol)
    flags = [
        *_flags(stack, plan), f"--store={dsn}", f"--group={protocol}", f"--group-protocol={protocol}"
    ]  # fmt: skip
    members = [Aggregator(run.root, f"{protocol}-{number}", flags) for number in range(2)]
    ask = over_sql(dsn, TOPIC, plan.partitions)
    with _started(members, plan), Watch(ask, LOOK_SECONDS) as watch:
        yield Group(name, members, watch)


def _flags(stack: Stack, plan: Plan) -> list[str]:
    """The defaults of the product but for where things are."""
    return [
        f"--bootstrap-servers={stack.kafka.bootstrap}",
        f"--topic={TOPIC}",
        f"--flush-seconds={plan.flush_seconds}",
    ]


@contextmanager
def _started(members: Sequence[Aggregator], plan: Plan) -> Iterator[None]:
    with ExitStack() as stopping:
        for member in members:
            member.start()
            stopping.callback(member.stop)
        for member in members:
            member.wait_for_partitions(lambda count: count == plan.partitions // len(members))
        yield


def _undisturbed(run: Run, plan: Plan, groups: Sequence[Group], sending: Sending) -> tuple[float, float]:
    """From when until when (unix seconds) clicks count."""
    _wait(plan.settle_seconds, groups, sending)
    began = time.time()
    minutes = max(1, math.ceil(plan.seconds / 60))
    for minute in range(1, minutes + 1):
        _wait(min(60.0, began + plan.seconds - time.time()), groups, sending)
        run.say(f"freshness: {minute} of {minutes} minutes of {plan.rate:,.0f} clicks/s")
    ended = time.time()
    for group in groups:
        group.own = own_percentile([member.text("/metrics") for member in group.members])
    _wait(plan.settle_seconds, groups, sending)
    return began, ended


def _wait(seconds: float, groups: Iterable[Group], sending: Sending) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        sending.check()
        for group in groups:
            group.check()
        time.sleep(min(left, 0.5))


def _kill(run: Run, plan: Plan, groups: Sequence[Group], sending: Sending) -> None:
    """The groups in turn, so that not all of them start again at once."""
    pause = plan.kill_seconds / len(groups) - RESTART_SECONDS
    for number in range(plan.kills):
        run.say(f"freshness: kill -9 number {number + 1} of {plan.kills}")
        for group in groups:
            group.kill(number)
            time.sleep(RESTART_SECONDS)
            group.restart(number)
            _wait(pause + number * STAGGER_SECONDS, groups, sending)
    _wait(plan.kill_seconds * (1 - 1 / len(groups)), groups, sending)
    for group in groups:
        group.kills.append((time.time(), ""))


def _per_second(sent: Sent, period: tuple[float, float]) -> float:
    began, ended = period
    count = sum(int(np.sum((times >= began * 1000) & (times < ended * 1000))) for times in sent.times)
    return count / (ended - began)


def _stored(run: Run, group: Group, sent: Sent, settings: Settings, period: tuple[float, float]) -> Stored:
    """What was seen of one store, when it holds all clicks."""
    group.watch.wait_for(tuple(map(len, sent.times)), CATCH_UP_SECONDS, group.check)
    looks = group.watch.looks
    waited = waits(sent, looks, period)
    freshness = Freshness(
        clicks=len(waited),
        p50=float(np.quantile(waited, 0.5)),
        p99=float(np.quantile(waited, 0.99)),
        worst=float(waited.max()),
        steps=[round(float(step), 3) for step in np.quantile(waited, np.linspace(0, 1, STEPS + 1))],
        own=group.own,
    )
    run.say(f"freshness, {group.store}: p99 {freshness.p99:.2f} s of {freshness.clicks:,} clicks")
    kills = [
        kill(sent, looks, member, (at, until))
        for (at, member), (until, _) in zip(group.kills, group.kills[1:], strict=False)
    ]
    again = ", ".join("never" if each.seconds is None else f"{each.seconds:.1f} s" for each in kills)
    run.say(f"freshness, {group.store}: fresh again after {again}")
    ids = _proven(group, settings, sent.count)
    shown = ages(sent, looks, (group.kills[0][0], group.kills[-1][0]))
    return Stored(
        group.store,
        len(group.members),
        group.members[0].protocol,
        freshness,
        kills,
        ids,
        [(round(at - group.kills[0][0], 2), round(age, 2)) for at, age in shown],
    )


def _proven(group: Group, settings: Settings, count: int) -> int:
    """How many ids the store holds. Raises `DemoError` unless those that were sent are counted, each once."""
    totals = group.members[0].get("/totals")
    times = bytearray(count)
    unknown = 0
    for name in group.members[0].ids():
        run, _, number = name.rpartition("-")
        if run == settings.run and number.isdigit() and int(number) < count:
            times[int(number)] += 1
        else:
            unknown += 1
    if not totals["clicks"] == count == times.count(1) or unknown:
        raise DemoError(
            f"{group.store}: {count} clicks were sent, {totals['clicks']} counted; of the ids "
            f"{times.count(0)} are missing, {count - times.count(0) - times.count(1)} doubled, {unknown} "
            "unknown"
        )
    return times.count(1)


def waits(sent: Sent, looks: Sequence[Look], period: tuple[float, float]) -> Seconds:
    """Seconds from click to the first look that shows it, of each click of the period (unix seconds)."""
    began, ended = (1000 * at for at in period)
    at = np.array([look.at for look in looks])
    found = []
    for partition, times in enumerate(sent.times):
        reached = np.maximum.accumulate(np.array([look.offsets[partition] for look in looks]))
        first = np.searchsorted(reached, np.arange(len(times)), side="right")
        counted = (times >= began) & (times < ended)
        if np.any(first[counted] == len(looks)):
            raise ValueError(f"partition {partition} holds clicks that no look shows")
        found.append(at[first[counted]] - times[counted] / 1000)
    return np.concatenate(found)


def ages(sent: Sent, looks: Sequence[Look], period: tuple[float, float]) -> list[tuple[float, float]]:
    """At each look of a period (unix seconds): the age of the oldest click that cannot be queried, or 0."""
    found = []
    for look in looks:
        if not period[0] <= look.at <= period[1]:
            continue
        oldest = [
            float(times[at]) / 1000
            for times, at in zip(sent.times, look.offsets, strict=True)
            if at < len(times) and times[at] <= look.at * 1000
        ]
        found.append((look.at, look.at - min(oldest, default=look.at)))
    return found


def kill(sent: Sent, looks: Sequence[Look], member: str, period: tuple[float, float]) -> Kill:
    """What became of a kill at the begin of the period, which ends with the next one.

    All is fresh again when every partition has had a flush since, and for two flushes from then on no click
    that cannot be queried is older than a fresh one may be.
    """
    began, ended = period
    return Kill(
        member, _again(sent, looks, period), float(waits(sent, looks, (began - FRESH_SECONDS, ended)).max())
    )


def _again(sent: Sent, looks: Sequence[Look], period: tuple[float, float]) -> float | None:
    began, ended = period
    before = [look.offsets for look in looks if look.at < began][-1]
    moved = [
        look.at
        for look in looks
        if began <= look.at <= ended and all(now > was for now, was in zip(look.offsets, before, strict=True))
    ]
    if not moved:
        return None
    seen = ages(sent, looks, (moved[0], ended))
    late = [at for at, age in seen if age > FRESH_SECONDS]
    steady = (at for at, _ in seen if not any(at <= other <= at + STEADY_SECONDS for other in late))
    again = next(steady, None)
    return None if again is None else again - began


def own_percentile(metrics: Sequence[str], part: float = 0.99) -> float | None:
    """The bound of the bucket that holds this quantile of the aggregators' freshness histograms, taken
    together; None when it is beyond them."""
    counts: dict[float, float] = {}
    for text in metrics:
        for bound, count in BUCKET.findall(text):
            counts[float(bound)] = counts.get(float(bound), 0.0) + float(count)
    total = counts.get(math.inf, 0.0)
    bounds = [bound for bound, count in counts.items() if total and count >= part * total]
    least = min(bounds, default=math.inf)
    return None if math.isinf(least) else least


def goals(result: Measured) -> Sequence[Goal]:
    """Of each store; a kill after which it was never fresh again counts as endless."""
    found = []
    for each in result.stores:
        again = max(math.inf if one.seconds is None else one.seconds for one in each.kills)
        of_all, of_kills = (
            f"p99 at {RATE:,.0f} clicks/s",
            f"again after kill -9, slowest of {len(each.kills)}",
        )
        found += [
            Goal(f"freshness of {each.store}, {of_all}", each.freshness.p99, FRESH_SECONDS, "s"),
            Goal(f"freshness of {each.store}, {of_kills}", again, AGAIN_SECONDS, "s"),
        ]
    return found


def plots(result: Measured) -> Sequence[Plot]:
    """How fresh the clicks were, and the age of what cannot be queried while members are killed."""
    colors = dict(zip((DUCKDB, CLASSIC, CONSUMER), COLORS, strict=False))
    title = "Seconds from a click to being queryable: part of all clicks"
    reached = [Curve(each.store, each.freshness.steps, colors[each.store]) for each in result.stores]
    killed = (
        "Age of the oldest click that cannot be queried, while aggregators are killed with -9, in seconds"
    )
    over = [Line(each.store, each.ages, colors[each.store]) for each in result.stores]
    fresh = [("goal", FRESH_SECONDS)]
    return [
        Plot("freshness", title, curves(title, "seconds", reached, fresh)),
        Plot("kills", killed, lines(killed, "seconds since the first kill", over, fresh)),
    ]


def section(result: Measured) -> str:
    """The figures for people."""
    proofs = [f"{each.ids:,} in {each.store}" for each in result.stores]
    return "\n".join(
        [
            "## Freshness\n",
            f"`python -m bench freshness`: {result.rate:,.0f} clicks/s for {result.seconds:.0f} s on "
            f"{result.partitions} partitions, {HOT_SHARE:.0%} of one advertiser, spread by a table of "
            "hotkey's planner. Groups with the shipped defaults read them beside each other: one "
            "aggregator with DuckDB, and two with PostgreSQL by each of Kafka's group protocols "
            "(`consumer` with a session of 10 s on the broker). A click's freshness is the time from its "
            "`click_time`, when it was handed to the producer, to the first look, every "
            f"{1000 * LOOK_SECONDS:.0f} ms, at which the store's committed offsets are past it: by HTTP "
            "(DuckDB), by SQL (PostgreSQL). So the time between two looks counts as age. *Own metric*: the "
            "bucket with the 99th percentile of `hotkey_aggregator_freshness_seconds`. That is how far "
            "behind the counts are when a flush is committed; until the next one, 5 s later, they grow "
            "older, and a click may have waited through all of that.\n",
            "| store | clicks | p50 | p99 | worst | own metric, p99 at most |",
            "|---|---|---|---|---|---|",
            *map(_row, result.stores),
            "\n### Fresh again after kill -9\n",
            "The same load runs on. In each group one aggregator is killed with -9 (of two in turn) and "
            f"started again {RESTART_SECONDS:g} s later, about what a kubelet takes for the first restart "
            "of a container (its back-off between later ones is not part of this). Fresh again: every "
            f"partition has had a flush since, and for {STEADY_SECONDS:g} s from then on no click that "
            f"cannot be queried is older than {FRESH_SECONDS:g} s, so the backlog is worked off.\n",
            "| store | fresh again after, each kill | slowest | the most that a click waited |",
            "|---|---|---|---|",
            *map(_kill_row, result.stores),
            f"\nIn the end each store was asked for all ids: {', '.join(proofs)}, which are those that were "
            "sent, each counted once.",
        ]
    )


def _row(each: Stored) -> str:
    found = each.freshness
    own = "beyond its buckets" if found.own is None else f"{found.own:g} s"
    return (
        f"| {each.store}, {each.members} member{'s' * (each.members > 1)} | {found.clicks:,} | "
        f"{found.p50:.2f} s | {found.p99:.2f} s | {found.worst:.2f} s | {own} |"
    )


def _kill_row(each: Stored) -> str:
    after = ["not before the next" if one.seconds is None else f"{one.seconds:.1f} s" for one in each.kills]
    known = [one.seconds for one in each.kills if one.seconds is not None]
    slowest = f"{max(known):.1f} s" if len(known) == len(each.kills) else "**never**"
    most = max(one.worst for one in each.kills)
    return f"| {each.store} | {', '.join(after)} | {slowest} | {most:.1f} s |"
