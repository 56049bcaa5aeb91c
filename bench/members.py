"""What a hot key does to a consumer group: four members of `hotkey-aggregator` on one PostgreSQL, with the
hot key on one partition as Kafka's default has it, and as hotkey spreads it.

Each member is bounded to a share of a core, as a container is by its CPU limit, so that four of them fit the
machine beside the broker and PostgreSQL, which are not bounded. In both ways a backlog that is there before
any of it is read is worked off, then the same members carry a steady load.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
from confluent_kafka.admin import AdminClient

from bench.aggregators import Aggregator, Look, Offsets, Watch, new_database, over_sql
from bench.clicks import HOT_SHARE, Sending, Sent, Settings
from bench.cpu_limit import CpuLimit, cpu_seconds
from bench.part import Plot, Run
from bench.svg import COLORS, Line, lines
from devstack import Stack
from examples.demo.errors import DemoError
from examples.demo.stream import Topic

MEMBERS, PARTITIONS, BROKERS = 4, 48, 3
CORES = 0.15  # of each member
BACKLOG, STEADY_SECONDS = 2_500_000, 40.0
LOAD = 2.0  # steady clicks/s, in what one member works off
LOOK_SECONDS, WORK_SECONDS = 0.25, 300.0
GROWS = 0.05  # of the load: less is the saw of flushes
PLAIN, SPREAD = "one partition", "spread by hotkey"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    members: int
    partitions: int
    brokers: int
    backlog: int
    seconds: float
    flush_seconds: float

    @classmethod
    def of(cls, run: Run) -> Plan:
        """Of a run."""
        if run.quick:
            return cls(2, 4, 1, 5_000, 2.0, 0.5)
        return cls(MEMBERS, PARTITIONS, BROKERS, BACKLOG, STEADY_SECONDS, 5.0)


class Lag(msgspec.Struct, frozen=True):
    """Clicks that were sent and not counted at one moment, `at` seconds after the steady load began."""

    at: float
    worst_partition: int
    worst_member: int
    all: int


class Way(msgspec.Struct, frozen=True):
    """One way to place the clicks. `imbalance`: max/mean of the partitions' records. `seconds`: to work the
    backlog off. `cores`: what each member took meanwhile, the busiest first. `lags` under `rate` clicks/s."""

    name: str
    imbalance: float
    backlog: int
    seconds: float
    cores: list[float]
    rate: float
    lags: list[Lag]

    @property
    def per_second(self) -> float:
        """Clicks of the backlog."""
        return self.backlog / self.seconds


class Members(msgspec.Struct, frozen=True):
    """Both ways. `protocol`: of the group."""

    spread: Way
    plain: Way
    members: int
    partitions: int
    brokers: int
    cores: float
    protocol: str

    @property
    def gain(self) -> float:
        """How many times as fast the backlog is worked off when it is spread."""
        return self.spread.per_second / self.plain.per_second


def measure(run: Run) -> Members:
    """First as hotkey spreads it, which tells what a member can do, then plain, with the same steady load."""
    plan = Plan.of(run)
    with Stack(run.root, kubernetes=False, redis=False, postgres=True, brokers=plan.brokers) as stack:
        spread, protocol = _Trial(run, plan, stack, SPREAD).measure(None)
        plain, _ = _Trial(run, plan, stack, PLAIN).measure(spread.rate)
    return Members(spread, plain, plan.members, plan.partitions, plan.brokers, CORES, protocol)


class _Trial:
    def __init__(self, run: Run, plan: Plan, stack: Stack, name: str) -> None:
        self._run, self._plan, self._stack, self.name = run, plan, stack, name
        self._topic = "clicks-spread" if name == SPREAD else "clicks-plain"
        self._dsn = ""
        self._members: list[Aggregator] = []

    def measure(self, rate: float | None) -> tuple[Way, str]:
        """One way; `rate`: of the steady load, None: what follows from the backlog."""
        run, partitions, backlog = self._run, self._plan.partitions, self._plan.backlog
        topic = Topic(self._stack.kafka.bootstrap, self._topic, partitions)
        topic.create()
        self._dsn = new_database(self._stack.postgres.dsn, self._topic.replace("-", "_"))
        with self._group():
            with _frozen(self._pids):
                sent = self._send(count=backlog)
            ends = tuple(map(len, sent.times))
            with Watch(over_sql(self._dsn, self._topic, partitions), LOOK_SECONDS) as watch:
                with CpuLimit(self._pids, CORES):
                    seconds, cores = self._work_off(watch, ends)
                    run.say(
                        f"members, {self.name}: {backlog:,} clicks in {seconds:.1f} s, members took "
                        f"{', '.join(f'{each:.2f}' for each in cores)} cores"
                    )
                    rate = rate or LOAD * backlog / seconds / self._plan.members
                    lags = self._carry(watch, ends, rate, backlog)
                self._prove(watch, topic)
            last = lags[-1]
            run.say(f"members, {self.name}: lag {last.all:,} after {last.at:.0f} s of {rate:,.0f} clicks/s")
            way = Way(self.name, max(ends) * partitions / sum(ends), backlog, seconds, cores, rate, lags)
            return way, self._members[0].protocol

    @property
    def _pids(self) -> list[int]:
        return [member.pid for member in self._members]

    @contextmanager
    def _group(self) -> Iterator[None]:
        """All members, each with as many partitions."""
        settings = self._run.root / "consumer.properties"
        settings.write_text("session.timeout.ms=60000\n")  # they are frozen while the backlog is made
        flags = [
            f"--bootstrap-servers={self._stack.kafka.bootstrap}",
            f"--topic={self._topic}",
            f"--store={self._dsn}",
            f"--kafka-config={settings}",
            "--group-protocol=classic",
            f"--flush-seconds={self._plan.flush_seconds}",
        ]
        share = self._plan.partitions // self._plan.members
        with ExitStack() as stopping:
            for number in range(self._plan.members):
                member = Aggregator(self._run.root, f"{self._topic}-{number}", flags)
                member.start()
                stopping.callback(member.stop)
                self._members.append(member)
            for member in self._members:
                member.wait_for_partitions(lambda count: count == share)
            yield

    def _send(self, *, count: int) -> Sent:
        with Sending(self._settings("backlog", count=count), self._run.root / "sender.log") as sending:
            return sending.finish()

    def _settings(self, name: str, *, count: int, first: int = 0, rate: float = 0.0) -> Settings:
        return Settings(
            bootstrap=self._stack.kafka.bootstrap,
            topic=self._topic,
            partitions=self._plan.partitions,
            spread=self.name == SPREAD,
            journal=str(self._run.root / f"{self._topic}-{name}"),
            rate=rate,
            count=count,
            first=first,
            seed=self._run.seed,
        )

    def _work_off(self, watch: Watch, ends: Offsets) -> tuple[float, list[float]]:
        """Seconds, and the cores that each member took."""
        began, before = time.time(), [cpu_seconds(pid) for pid in self._pids]
        seconds = watch.wait_for(ends, WORK_SECONDS, self._check).at - began
        took = [cpu_seconds(pid) - was for pid, was in zip(self._pids, before, strict=True)]
        return seconds, sorted((each / seconds for each in took), reverse=True)

    def _check(self) -> None:
        for member in self._members:
            member.check()

    def _carry(self, watch: Watch, ends: Offsets, rate: float, first: int) -> list[Lag]:
        """The lag under the steady load."""
        owners = self._owners()
        settings = self._settings("steady", count=10**9, first=first, rate=rate)
        with Sending(settings, self._run.root / "sender.log") as sending:
            sending.wait_for_first()
            began = time.monotonic()
            while time.monotonic() - began < self._plan.seconds:
                sending.check()
                self._check()
                time.sleep(LOOK_SECONDS)
            sent = sending.stop()
        return lags(sent, ends, watch.looks, owners)

    def _owners(self) -> list[list[int]]:
        """Which partitions each member has."""
        admin = AdminClient({"bootstrap.servers": self._stack.kafka.bootstrap, "log_level": 0})
        group = f"hotkey-aggregator.{self._topic}"
        (found,) = (each.result(30) for each in admin.describe_consumer_groups([group]).values())
        return [[each.partition for each in one.assignment.topic_partitions] for one in found.members]

    def _prove(self, watch: Watch, topic: Topic) -> None:
        """Without the bound all is worked off; then every click was counted, and each id once."""
        ends = topic.wait_for_end_offsets()
        watch.wait_for(ends, WORK_SECONDS, self._check)
        totals = self._members[0].get("/totals")
        if not totals["clicks"] == totals["event_ids"] == sum(ends):
            raise DemoError(f"{self.name}: {sum(ends)} clicks were sent, the store holds {totals}")


@contextmanager
def _frozen(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def lags(sent: Sent, before: Offsets, looks: Sequence[Look], owners: Sequence[Sequence[int]]) -> list[Lag]:
    """The lag at each look since the first of these clicks. `before`: clicks that each partition had already.
    `owners`: the partitions of each member."""
    began = min(float(times[0]) for times in sent.times if len(times)) / 1000
    ended = max(float(times[-1]) for times in sent.times if len(times)) / 1000
    found = []
    for look in looks:
        if not began <= look.at <= ended:
            continue
        made = [int(np.searchsorted(times, look.at * 1000, side="right")) for times in sent.times]
        lag = [max(0, had + new - at) for had, new, at in zip(before, made, look.offsets, strict=True)]
        of_members = [sum(lag[partition] for partition in mine) for mine in owners]
        found.append(Lag(round(look.at - began, 2), max(lag), max(of_members), sum(lag)))
    return found


def plots(result: Members) -> Sequence[Plot]:
    """The worst member's lag over time, both ways."""
    colors = {PLAIN: COLORS[1], SPREAD: COLORS[0]}
    shown = [
        Line(way.name, [(lag.at, lag.worst_member) for lag in way.lags], colors[way.name])
        for way in (result.plain, result.spread)
    ]
    title = f"Lag of the worst of {result.members} members at {result.spread.rate:,.0f} clicks/s, in clicks"
    return [Plot("members", title, lines(title, "seconds", shown))]


def section(result: Members) -> str:
    """The figures for people."""
    rows = [_row(way) for way in (result.plain, result.spread)]
    lost = [_lag_row(way) for way in (result.plain, result.spread)]
    best = result.members * _busiest(result)
    per_member = f"{result.spread.per_second / result.members:,.0f}"
    return "\n".join(
        [
            "## The harm of a hot key\n",
            f"`python -m bench members`: {result.members} members of `hotkey-aggregator` in one group "
            f"(`--group-protocol {result.protocol}`, a flush every 5 s) on one PostgreSQL, "
            f"{result.partitions} partitions on {_brokers(result.brokers)}, {HOT_SHARE:.0%} of the clicks "
            "on one advertiser: on the one partition that Kafka's default partitioner gives it, and by a "
            "table of hotkey's planner, placed by the SDK's router.\n",
            f"What bounds it: **each member has {result.cores:g} of a core**, as by a container's CPU limit "
            "(stopped for the rest of each 100 ms when that is used up), so that the members do not "
            "compete for this machine's cores. PostgreSQL and Kafka are not bounded. A backlog is made "
            "while the members are frozen; then the time is taken until the store holds all of it.\n",
            "| hot key | max/mean of partitions | clicks | seconds | clicks/s | cores taken by each member |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"**Spread, the group works off {result.gain:.1f} times as many clicks per second.** The most "
            f"that can be gained is {best:.1f}: the member with the hot partition has "
            f"{_busiest(result):.0%} of the clicks, beside the hot key's its part of the others; spread, "
            f"each has 1/{result.members}. What every member does whatever it reads (see the idle ones' "
            "cores above) and the wait for the last flush take from it.\n",
            f"Then {result.spread.rate:,.0f} clicks/s come for {result.spread.lags[-1].at:.0f} s: {LOAD:g} "
            f"times what one member works off ({per_member}), {LOAD / result.members:.0%} of what all do. "
            "Lag: clicks that are sent and cannot be queried yet; up to five seconds' worth wait for the "
            "next flush.\n",
            "| hot key | worst partition's lag at the end | worst member's | all | worst member's, over "
            "time |",
            "|---|---|---|---|---|",
            *lost,
        ]
    )


def _busiest(result: Members) -> float:
    """The part of all clicks that the member with the hot partition has."""
    return HOT_SHARE + (1 - HOT_SHARE) / result.members


def _brokers(count: int) -> str:
    return "1 broker" if count == 1 else f"{count} brokers"


def _row(way: Way) -> str:
    cores = ", ".join(f"{each:.2f}" for each in way.cores)
    return (
        f"| {way.name} | {way.imbalance:.2f} | {way.backlog:,} | {way.seconds:.1f} | {way.per_second:,.0f} | "
        f"{cores} |"
    )


def _lag_row(way: Way) -> str:
    last, over = way.lags[-1], growth(way.lags)
    grows = f"grows by {over:,.0f} clicks/s" if over > GROWS * way.rate else "does not grow"
    return f"| {way.name} | {last.worst_partition:,} | {last.worst_member:,} | {last.all:,} | {grows} |"


def growth(of: Sequence[Lag]) -> float:
    """Clicks per second by which the worst member's lag grows: the slope of the line of least squares."""
    if len(of) < 2:
        return 0.0
    at, lag = [each.at for each in of], [each.worst_member for each in of]
    return float(np.polyfit(at, lag, 1)[0])
