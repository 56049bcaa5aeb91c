"""What the demo does, step by step. Each step waits for what it brought about, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.demo import summary
from examples.demo.counts import Counts
from examples.demo.errors import DemoError
from examples.demo.evidence import Evidence
from examples.demo.picture import svg
from examples.demo.stream import Topic
from examples.demo.summary import Course, Verdict
from examples.demo.system import ROOT, System
from examples.demo.view import View
from examples.demo.watch import Watch
from examples.load import Load, prove
from examples.load.settings import LoadOptions

TOPIC, POLICY, PARTITIONS = "clicks", "clicks", 12
HOT_KEY, HOT_SHARE, COOL_SHARE = "nike", 0.8, 0.005
PRODUCERS, RECORDS_PER_SECOND = 4, 5_000.0
TRIGGER = 1_000.0  # records/s of one partition: the default of a policy
BALANCED_RECORDS = 30_000  # what is sent evenly before the onset
SPREAD_RECORDS = 60_000  # and while the key is spread
PLAIN_RECORDS = 15_000  # and after it was merged back

READY_SECONDS = 60.0
SPREAD_SECONDS = 60.0
MERGE_SECONDS = 180.0
DRAIN_SECONDS = 120.0
TRACE_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the person asked for."""

    root: Path
    trace: Path | None = None
    speed: float = 1.0
    keep: bool = False
    picture: Path | None = None


@dataclass(frozen=True, slots=True)
class Turns:
    """When the load turned and what followed, in unix milliseconds."""

    onset: int | None
    cooled: int
    merged_back: int | None


class Story:
    """One run of the demo on a system that is not yet started."""

    def __init__(self, plan: Plan, system: System) -> None:
        self._plan, self._system = plan, system
        self._watch: Watch | None = None
        self.step = "starting"

    def prologue(self) -> None:
        """Everything before there is something to look at; the dev stack reports its own progress."""
        with self._named("start Kafka, the Kubernetes API and Valkey, apply the custom resources"):
            self._system.start()
        with self._named(f"create the topic {TOPIC} with {PARTITIONS} partitions"):
            self._topic = self._system.topic(TOPIC, PARTITIONS)
            self._topic.create()
        self._watch = Watch(self._topic, self._system.kube, POLICY, self._system.check)

    def play(self) -> tuple[Verdict, ...]:
        """From the operator's start to the verdicts."""
        self.watch.start()
        counts = self._start_programs()
        load = self._system.load(TOPIC, self._load_options())
        turns = self._replay(load) if self._plan.trace else self._heat_and_cool(load)
        with self._step("the aggregator counts the rest"):
            ends = self._topic.end_offsets() or ()
            counts.wait_for_offsets(TOPIC, ends, DRAIN_SECONDS, self._system.check)
        with self._step("read every record back and compare"):
            self.watch.stop()
            return self._judge(load, turns, counts)

    def close(self) -> None:
        """Look no more; the system is left as it is."""
        if self._watch is not None:
            self._watch.stop()

    @property
    def watch(self) -> Watch:
        """What is seen of the system; there after the prologue."""
        if self._watch is None:
            raise DemoError("there is nothing to look at before the prologue")
        return self._watch

    def _start_programs(self) -> Counts:
        with self._step("start the operator: hotkey-operator run"):
            self._system.start_operator()
        with self._step(
            "apply a policy with the shipped defaults: kubectl apply -f examples/demo/policy.yaml"
        ):
            self._system.kube.kubectl("apply", "-f", str(ROOT / "examples" / "demo" / "policy.yaml"))
            self.watch.wait_for("the policy is Ready", lambda view: view.policy.ready, READY_SECONDS)
        with self._step("start the aggregator: hotkey-aggregator run"):
            return self._system.start_aggregator(TOPIC)

    def _load_options(self) -> LoadOptions:
        if self._plan.trace is not None:
            return {
                "producers": PRODUCERS,
                "trace": str(self._plan.trace.absolute()),
                "speed": self._plan.speed,
            }
        return {
            "producers": PRODUCERS,
            "records_per_second": RECORDS_PER_SECOND,
            "hot_key": HOT_KEY,
            "hot_share": COOL_SHARE,
        }

    def _heat_and_cool(self, load: Load) -> Turns:
        with self._step(f"{PRODUCERS} producers send {RECORDS_PER_SECOND:.0f} clicks/s, evenly"):
            load.start()
            self.watch.acked = lambda: load.acked_count
            self.watch.wait_for(
                "all producers follow the table",
                lambda view: view.policy.applied_by(PRODUCERS),
                READY_SECONDS,
            )
            self._send(load, BALANCED_RECORDS)
        onset = self._turn(load, HOT_SHARE)
        with self._step(f"ONSET: {HOT_KEY} makes {HOT_SHARE:.0%} of the clicks"):
            self._wait_until_spread(SPREAD_SECONDS)
        with self._step(f"{HOT_KEY} is spread; the load goes on"):
            self._send(load, SPREAD_RECORDS)
            self._draw()
        cooled = self._turn(load, COOL_SHARE)
        with self._step(f"{HOT_KEY} cools to {COOL_SHARE:.1%}; it is merged back after release.for (60 s)"):
            merged = self._wait_until_merged_back()
            self._send(load, PLAIN_RECORDS)
        with self._step("stop the load"):
            load.stop()
        return Turns(onset, cooled, merged)

    def _replay(self, load: Load) -> Turns:
        with self._step(f"replay {self._plan.trace} at {self._plan.speed:g} times its speed"):
            load.start(wait_seconds=0)
            self.watch.acked = lambda: load.acked_count
            load.wait_until_done(TRACE_SECONDS)
            self._draw()
        cooled = _now()
        with self._step("what was spread is merged back after release.for (60 s)"):
            return Turns(None, cooled, self._wait_until_merged_back())

    def _turn(self, load: Load, share: float) -> int:
        at = _now()
        load.set_hot_share(share)
        return at

    def _wait_until_spread(self, seconds: float) -> None:
        def spread(view: View) -> bool:
            told = view.policy.epoch >= view.table_epoch
            return bool(view.routes) and told and view.policy.applied_by(PRODUCERS)

        self.watch.wait_for(f"{HOT_KEY} is spread and every producer applies it", spread, seconds)

    def _wait_until_merged_back(self) -> int:
        self.watch.wait_for("no key is routed", lambda view: not view.routes, MERGE_SECONDS)
        return _now()

    def _send(self, load: Load, records: int) -> None:
        goal = load.acked_count + records
        seconds = 30.0 + 3 * records / RECORDS_PER_SECOND
        self.watch.wait_for(f"{goal} clicks acknowledged", lambda view: view.acked >= goal, seconds)

    def _draw(self) -> None:
        if self._plan.picture is not None:
            self._plan.picture.write_text(svg(self.watch.scene()))

    def _judge(self, load: Load, turns: Turns, counts: Counts) -> tuple[Verdict, ...]:
        evidence = gather(self._topic)
        onset = turns.onset if self._plan.trace is None else evidence.overload(TRIGGER)
        course = Course(onset, turns.cooled, turns.merged_back, PRODUCERS)
        proof = prove(load.sent_ids(), load.acked_ids(), counts.ids())
        return summary.verdicts(course, evidence, proof, summary.counts(evidence.windows, counts.windows()))

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.watch.title = name
        self.watch.tell(name)
        with self._named(name):
            yield

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """A failure inside is told to be this step's."""
        self.step = name
        yield


def gather(topic: Topic) -> Evidence:
    """All that the topic's records tell."""
    evidence = Evidence(topic.partitions)
    for message in topic.records():
        partition, (_, at), value = message.partition(), message.timestamp(), message.value()
        if partition is None or value is None:
            raise DemoError(
                f"a record of {topic.name} has no partition or no value: the load sends none such"
            )
        evidence.add(partition, at, message.key(), value)
    return evidence


def _now() -> int:
    return time.time_ns() // 1_000_000
