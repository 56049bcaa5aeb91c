"""Onset to spread: from a key's turning hot until the slowest producer routes it, by the records in Kafka.

Every onset has a topic, a policy with the shipped defaults and producers of its own, so that no onset profits
from the one before. Nothing that is measured is accelerated.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import redis
from confluent_kafka import KafkaException

from bench.figures import Onset, Quantiles
from bench.part import Goal, Plot, Run
from bench.svg import COLORS, Curve, curves
from examples.demo.errors import DemoError
from examples.demo.evidence import Evidence, Span
from examples.demo.kube import GROUP, VERSION
from examples.demo.story import gather
from examples.demo.system import System
from examples.demo.view import View
from examples.demo.watch import Watch
from examples.load import Load, LoadError
from hotkey_sdk.routing import names
from hotkey_sdk.routing.report import decode_report
from hotkey_sdk.routing.table import Stream

PARTITIONS, PRODUCERS, RECORDS_PER_SECOND = 12, 4, 5_000.0
HOT_SHARE, COOL_SHARE = 0.8, 0.005
BALANCED_RECORDS = (
    15_000  # before the onset: 3 s, and up to 1 s more, so that the operator's turn is anywhere
)
SPREAD_RECORDS = 20_000
READY_SECONDS, SPREAD_SECONDS = 60.0, 60.0
SETTLED_MILLISECONDS = 1_000
LOOK_SECONDS = 0.005
GOAL_P50, GOAL_WORST = 2.5, 6.0  # seconds from onset to spread


class Onsets(msgspec.Struct, frozen=True):
    """Every onset, in the order in which they were measured, and why others could not be."""

    onsets: list[Onset]
    failures: list[str] = []


def measure(run: Run) -> Onsets:
    """All onsets, with each shown as it is done. One that fails is told, and the others are measured."""
    onsets, failures = list[Onset](), list[str]()
    for number, onset in enumerate(_onsets(run.root, run.onsets, run.seed), 1):
        if isinstance(onset, Onset):
            onsets.append(onset)
            run.say(f"onset {number} of {run.onsets}: spread after {onset.spread:.2f} s")
        else:
            failures.append(str(onset))
            run.say(f"onset {number} of {run.onsets} failed: {onset}")
    if not onsets:
        raise DemoError(f"no onset could be measured: {'; '.join(failures) or 'none was asked for'}")
    return Onsets(onsets, failures)


STAGES = {
    "sensed": "sensed: a turn saw a partition over the trigger",
    "waited": "waited: `trigger.for` is over, and the turn that acts has read the end offsets",
    "sampled": "sampled: it has read records",
    "planned": "planned: it has decided",
    "written": "written: the RoutingTable object stands",
    "published": "published: the table stands in Redis",
    "first_record": "first record: the first producer routes",
    "adopted": "adopted: every producer has reported the table",
    "spread": "**spread: the slowest producer routes**",
}
DRAWN = ("sensed", "waited", "planned", "published", "spread")  # the others lie on top of these


def goals(result: Onsets) -> list[Goal]:
    """Of the slowest producer's first routed record."""
    spread = Quantiles.of([onset.spread for onset in result.onsets])
    return [
        Goal(f"onset to spread, p50 of {spread.samples}", spread.p50, GOAL_P50, "s"),
        Goal(f"onset to spread, worst of {spread.samples}", spread.worst, GOAL_WORST, "s"),
        Goal("onsets that could not be measured", len(result.failures), 0),
    ]


def plots(result: Onsets) -> list[Plot]:
    """How many onsets had reached each stage by when."""
    of = [
        Curve(STAGES[stage].replace("*", ""), _seconds(result, stage), color)
        for stage, color in zip(DRAWN, COLORS, strict=False)
    ]
    title = f"Share of {len(result.onsets)} onsets that had reached a stage"
    goals = [(f"p50 goal {GOAL_P50:g} s", GOAL_P50), (f"worst goal {GOAL_WORST:g} s", GOAL_WORST)]
    return [
        Plot("onset", "Onset to spread, stage by stage", curves(title, "seconds from the onset", of, goals))
    ]


def section(result: Onsets) -> str:
    """How it was measured, and the seconds until each stage."""
    rows, before = [], [0.0] * len(result.onsets)
    for stage, name in STAGES.items():
        seconds = _seconds(result, stage)
        of = Quantiles.of(seconds)
        own = Quantiles.of([until - since for until, since in zip(seconds, before, strict=True)])
        rows.append(f"| {name} | {of.p50:.2f} | {of.p99:.2f} | {of.worst:.2f} | {own.p50:.3f} |")
        before = seconds
    hot = Quantiles.of([onset.imbalance_before for onset in result.onsets])
    even = Quantiles.of([onset.imbalance_after for onset in result.onsets])
    table = "\n".join(
        ["| seconds from the onset | p50 | p99 | worst | this stage, p50 |", "|---|---|---|---|---|", *rows]
    )
    failed = "".join(f"\n\nNot measured: {why}." for why in result.failures)
    return f"{_METHOD}\n\n{table}\n\n{_imbalance(hot, even)}{failed}"


_METHOD = f"""## Onset to spread

*How long does one advertiser melt a partition before every producer spreads its clicks?*

{PRODUCERS} producer processes send {RECORDS_PER_SECOND:,.0f} clicks/s to a topic of {PARTITIONS} partitions,
evenly over 5,000 advertisers. Then one advertiser turns into {HOT_SHARE:.0%} of them: the **onset**, the
instant at which the load tells its producers. A HotKeyPolicy with nothing but the topic governs it, so the
shipped defaults hold: more than 1,000 records/s of one partition for 1 s.

- **Spread** is read from the records in Kafka, not from anybody's word: the timestamp of the first record
  whose key is not the one its payload names, for the slowest producer. Timestamps are the producers' own, on
  the same clock as the onset.
- Every onset has a topic, a policy and producers of its own, so that none profits from the one before. It
  begins 3 to 4 s after the load, at a random moment of the operator's turn.
- *Sensed* to *published* are the operator's own times, from its log line `table written`; *adopted* is seen
  in Redis, where the producers report.
- p99 is by nearest rank: with fewer than 100 onsets it is the worst one."""


def _imbalance(hot: Quantiles, even: Quantiles) -> str:
    return (
        f"Imbalance (max/mean) from the onset to the first routed record: {hot.p50:.2f}; from 1 s after the "
        f"spread on: {even.p50:.2f}, at worst {even.worst:.2f}."
    )


def _seconds(result: Onsets, stage: str) -> list[float]:
    return [getattr(onset, stage) for onset in result.onsets]


def _onsets(root: Path, onsets: int, seed: int) -> Iterator[Onset | DemoError]:
    """One figure an onset, or why there is none, on a stack and an operator of their own under `root`."""
    system, moments = System(root), random.Random(seed)
    try:
        system.start()
        system.start_operator()
        for number in range(onsets):
            yield _or_error(system, f"clicks-{number}", moments.random())
    finally:
        system.stop()


def _or_error(system: System, name: str, moment: float) -> Onset | DemoError:
    """Raises `DemoError` all the same when a program ended: then no other onset can be measured either."""
    try:
        return _onset(system, name, moment)
    except (DemoError, LoadError, KafkaException) as error:
        system.check()
        return error if isinstance(error, DemoError) else DemoError(str(error))


def _onset(system: System, name: str, moment: float) -> Onset:
    topic = system.topic(name, PARTITIONS)
    topic.create()
    policy = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "HotKeyPolicy",
        "metadata": {"name": name, "namespace": system.kube.namespace},
        "spec": {"topic": name},
    }
    system.kube.kubectl("apply", "-f", "-", manifest=policy)
    watch = Watch(topic, system.kube, name, system.check)
    load = system.load(name, {"producers": PRODUCERS, "hot_share": COOL_SHARE})
    stages = Adoption(system.stack.redis.url, Stream(system.stack.kafka.cluster_id, name))
    try:
        watch.start()
        onset, end = _run(watch, load, stages, moment)
    finally:
        watch.stop()
        stages.stop()
        load.kill()
        system.kube.kubectl("delete", "hotkeypolicy", name, "-n", system.kube.namespace)
    written = _table_written(system.root / "logs" / "operator.log", name)
    figure = _figure(onset, end, written, stages, gather(topic))
    topic.delete()
    return figure


def _run(watch: Watch, load: Load, stages: Adoption, moment: float) -> tuple[int, int]:
    """The load's turn and the end of the records to look at, both in unix milliseconds."""
    load.start()
    watch.acked = lambda: load.acked_count
    watch.wait_for("the policy governs all producers", _governed, READY_SECONDS)
    _send(watch, load, BALANCED_RECORDS + int(moment * RECORDS_PER_SECOND))
    stages.start()
    onset = _now()
    load.set_hot_share(HOT_SHARE)
    watch.wait_for("the hot key is spread", _spread, SPREAD_SECONDS)
    _send(watch, load, SPREAD_RECORDS)
    end = _now()
    load.stop()
    return onset, end


def _governed(view: View) -> bool:
    return view.policy.ready and view.policy.applied_by(PRODUCERS)


def _spread(view: View) -> bool:
    told = view.policy.epoch >= view.table_epoch
    return bool(view.routes) and told and view.policy.applied_by(PRODUCERS)


def _send(watch: Watch, load: Load, records: int) -> None:
    goal = load.acked_count + records
    watch.wait_for(f"{goal} clicks acknowledged", lambda view: view.acked >= goal, 60.0)


def _table_written(log: Path, topic: str) -> Mapping[str, int]:
    """The operator's line about the first table with a route: its times in unix milliseconds."""
    with log.open() as lines:
        for line in lines:
            if '"table written"' not in line:
                continue
            told: dict[str, Any] = json.loads(line)
            if told["topic"] == topic and told["routes"]:
                return {name: at for name, at in told.items() if name.endswith("_ms")} | {
                    "epoch": told["epoch"]
                }
    raise DemoError(f"{log} has no line 'table written' with a route of topic {topic}")


def _figure(onset: int, end: int, told: Mapping[str, int], seen: Adoption, evidence: Evidence) -> Onset:
    slowest = evidence.spread_at(PRODUCERS)
    if slowest is None:
        raise DemoError(f"only {len(evidence.first_routed)} of {PRODUCERS} producers routed the hot key")
    first = min(evidence.first_routed.values())
    before = evidence.imbalance(Span(onset, first))
    after = evidence.imbalance(Span(slowest + SETTLED_MILLISECONDS, end))
    if before is None or after is None:
        raise DemoError("there are too few records around the spread to tell the imbalance")

    def since(at: int) -> float:
        return (at - onset) / 1000

    return Onset(
        sensed=since(told.get("sensed_ms", told["observed_ms"])),
        waited=since(told["rates_read_ms"]),
        sampled=since(told.get("sampled_ms", told["rates_read_ms"])),
        planned=since(told["planned_ms"]),
        written=since(told["written_ms"]),
        published=since(told["published_ms"]),
        first_record=since(first),
        adopted=since(seen.at(told["epoch"])),
        spread=since(slowest),
        imbalance_before=before,
        imbalance_after=after,
    )


class Adoption:
    """Notes when all producers had reported an epoch, as it is seen in Redis, in unix milliseconds."""

    def __init__(self, redis_url: str, stream: Stream) -> None:
        self._stream = stream
        self._epochs: dict[int, int] = {}  # when all producers applied at least this one
        self._closing = threading.Event()
        self._redis = redis.Redis.from_url(redis_url)
        self._thread = threading.Thread(target=self._note, name="adoption")

    def start(self) -> None:
        """Begin to note; what was adopted before counts as adopted now."""
        self._thread.start()

    def stop(self) -> None:
        """Note no more."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._redis.close()

    def at(self, epoch: int) -> int:
        """When all producers had reported this epoch or a later one. Raises `DemoError` if they never did."""
        found = [at for applied, at in self._epochs.items() if applied >= epoch]
        if not found:
            raise DemoError(f"{self._stream}: not all producers reported epoch {epoch}, only {self._epochs}")
        return min(found)

    def _note(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            reports = self._redis.hvals(names.reports_key(self._stream, names.reporter(None)))
            epochs = [decode_report(report).epoch for report in cast("list[bytes]", reports)]
            if len(epochs) >= PRODUCERS:
                self._epochs.setdefault(min(epochs), _now())


def _now() -> int:
    return time.time_ns() // 1_000_000
