"""Onset to spread: from a key's turning hot until the slowest producer routes it, by the records in Kafka.

Every onset has a topic, a policy with the shipped defaults and producers of its own, so that no onset profits
from the one before. Nothing that is measured is accelerated.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import redis

from bench.figures import Onset, Quantiles
from bench.part import Goal, Run
from examples.demo.errors import DemoError
from examples.demo.evidence import Evidence, Span
from examples.demo.kube import GROUP, VERSION, Kube
from examples.demo.story import gather
from examples.demo.system import System
from examples.demo.view import View
from examples.demo.watch import Watch
from examples.load import Load
from hotkey_sdk.routing import names
from hotkey_sdk.routing.table import Stream

PARTITIONS, PRODUCERS, RECORDS_PER_SECOND = 12, 4, 5_000.0
HOT_SHARE, COOL_SHARE = 0.8, 0.005
BALANCED_RECORDS = (
    15_000  # before the onset: 3 s, and up to 1 s more, so that the operator's turn is anywhere
)
SPREAD_RECORDS = 20_000
READY_SECONDS, SPREAD_SECONDS = 60.0, 60.0
SETTLED_MILLISECONDS = 1_000
WATCH_SECONDS = 2
GOAL_P50, GOAL_WORST = 2.5, 6.0  # seconds from onset to spread


class Onsets(msgspec.Struct, frozen=True):
    """Every onset, in the order in which they were measured."""

    onsets: list[Onset]


def measure(run: Run) -> Onsets:
    """All onsets, with each shown as it is done."""
    onsets = []
    for onset in _onsets(run.root, run.onsets, run.seed):
        onsets.append(onset)
        run.say(f"onset {len(onsets)} of {run.onsets}: spread after {onset.slowest_producer:.2f} s")
    return Onsets(onsets)


STAGES: tuple[tuple[str, Callable[[Onset], float]], ...] = (
    ("the table with the route is written to Kubernetes", lambda o: o.table_written),
    ("its hint is published in Redis", lambda o: o.hint_published),
    ("the first producer routes", lambda o: o.first_producer),
    ("**the slowest producer routes: spread**", lambda o: o.slowest_producer),
)


def goals(result: Onsets) -> list[Goal]:
    """Of the slowest producer's first routed record."""
    spread = Quantiles.of([onset.slowest_producer for onset in result.onsets])
    return [
        Goal("onset to spread, p50", spread.p50, GOAL_P50, "s"),
        Goal("onset to spread, worst", spread.worst, GOAL_WORST, "s"),
    ]


def section(result: Onsets) -> str:
    """The seconds until each stage."""
    onsets, rows = result.onsets, []
    for name, value in STAGES:
        of = Quantiles.of([value(onset) for onset in onsets])
        rows.append(f"| {name} | {of.p50:.2f} | {of.p99:.2f} | {of.worst:.2f} |")
    before = Quantiles.of([onset.imbalance_before for onset in onsets])
    after = Quantiles.of([onset.imbalance_after for onset in onsets])
    return "\n".join(
        [
            "## Onset to spread\n",
            f"{len(onsets)} onsets with the shipped defaults; seconds from the onset until",
            "\n| stage | p50 | p99 | worst |\n|---|---|---|---|",
            *rows,
            f"\nImbalance (max/mean): {before.p50:.2f} before, {after.p50:.2f} after, at worst "
            f"{after.worst:.2f}.",
        ]
    )


def _onsets(root: Path, onsets: int, seed: int) -> Iterator[Onset]:
    """One figure an onset, on a stack and an operator of their own under `root`."""
    system, moments = System(root), random.Random(seed)
    try:
        system.start()
        system.start_operator()
        for number in range(onsets):
            yield _onset(system, f"clicks-{number}", moments.random())
    finally:
        system.stop()


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
    stages = Stages(system.kube, system.stack.redis.url, Stream(system.stack.kafka.cluster_id, name))
    try:
        watch.start()
        onset, end = _run(watch, load, stages, moment)
    finally:
        watch.stop()
        stages.stop()
        load.kill()
        system.kube.kubectl("delete", "hotkeypolicy", name, "-n", system.kube.namespace)
    figure = _figure(onset, end, stages, gather(topic))
    topic.delete()
    return figure


def _run(watch: Watch, load: Load, stages: Stages, moment: float) -> tuple[int, int]:
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


def _figure(onset: int, end: int, stages: Stages, evidence: Evidence) -> Onset:
    slowest = evidence.spread_at(PRODUCERS)
    if slowest is None:
        raise DemoError(f"only {len(evidence.first_routed)} of {PRODUCERS} producers routed the hot key")
    first = min(evidence.first_routed.values())
    before = evidence.imbalance(Span(onset, first))
    after = evidence.imbalance(Span(slowest + SETTLED_MILLISECONDS, end))
    if before is None or after is None:
        raise DemoError("there are too few records around the spread to tell the imbalance")
    table_written, hint_published = stages.seconds(onset)
    return Onset(
        table_written=table_written,
        hint_published=hint_published,
        first_producer=(first - onset) / 1000,
        slowest_producer=(slowest - onset) / 1000,
        imbalance_before=before,
        imbalance_after=after,
    )


class Stages:
    """Notes when the first table with a route was written and its hint published, in unix milliseconds.

    Both are seen from outside, by a watch and a subscription, so they hold some delay of their own.
    """

    def __init__(self, kube: Kube, redis_url: str, stream: Stream) -> None:
        self._kube, self._stream = kube, stream
        self._routed: tuple[int, int] | None = None  # epoch, time
        self._hinted: dict[int, int] = {}  # time by epoch
        self._closing = threading.Event()
        self._redis = redis.Redis.from_url(redis_url)
        self._hints = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._threads = [threading.Thread(target=note) for note in (self._note_table, self._note_hints)]

    def start(self) -> None:
        """Begin to note; what comes before is not seen."""
        self._hints.subscribe(names.hint_channel(self._stream))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        self._closing.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._hints.close()
        self._redis.close()

    def seconds(self, onset: int) -> tuple[float, float]:
        """From the onset to the table and to its hint. Raises `DemoError` when one was not seen."""
        epoch, written = self._routed or (0, 0)
        if epoch not in self._hinted:
            raise DemoError(f"{self._stream}: table {self._routed}, hints {self._hinted}: one was not seen")
        return (written - onset) / 1000, (self._hinted[epoch] - onset) / 1000

    def _note_table(self) -> None:
        while not self._closing.is_set():
            for table in self._kube.table_changes(self._stream.topic, WATCH_SECONDS):
                if table["spec"].get("routes"):
                    self._routed = int(table["spec"]["epoch"]), _now()
                    return

    def _note_hints(self) -> None:
        while not self._closing.is_set():
            hint = self._hints.get_message(timeout=0.2)
            if hint is not None:
                self._hinted[int(hint["data"])] = _now()


def _now() -> int:
    return time.time_ns() // 1_000_000
