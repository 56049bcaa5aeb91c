"""A soak from its start to its proof: the load and the faults as the seed draws them, then the checks."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from hotkey_sdk.routing.names import dedicated_prefix
from tests.soak import faults, heat
from tests.soak.faults import PRODUCERS, Fault
from tests.soak.programs import told
from tests.soak.proof import Proof, prove
from tests.soak.strikes import Strikes
from tests.soak.summary import Goals, Summary
from tests.soak.watch import Agreement, Watch
from tests.soak.world import TOPIC, World
from tests.stack.operator.waiting import eventually

TICK_SECONDS = 0.1
SAY_SECONDS = 10.0
COPY_SECONDS = 45.0
FIRST_FAULT_SECONDS = 8.0
LOST_SECONDS = 60.0  # what is not counted so long after the end is lost
HELD_SECONDS = 30.0  # a surge goes on for, while its key has no topic of its own
LISTED_SECONDS = 45.0  # the operator looks at the names of all topics each half minute
ASK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many faults, what has to come of it, and how long a run may go on until it has."""

    seconds: float
    faults: tuple[Fault, ...]
    goals: Goals
    more_seconds: float = 0.0

    @classmethod
    def full(cls, seed: int, seconds: float, count: int, goals: Goals, more_seconds: float = 0.0) -> Plan:
        chance = random.Random(f"faults {seed}")
        drawn = faults.draw(chance, count, FIRST_FAULT_SECONDS, seconds - FIRST_FAULT_SECONDS)
        return cls(seconds, drawn, goals, more_seconds)

    @classmethod
    def short(cls, seed: int, seconds: float, goals: Goals, more_seconds: float) -> Plan:
        chance = random.Random(f"faults {seed}")
        drawn = faults.of_short_run(chance, FIRST_FAULT_SECONDS, seconds - FIRST_FAULT_SECONDS)
        return cls(seconds, drawn, goals, more_seconds)


class Soak:
    """One run on a world that was started."""

    def __init__(self, world: World, plan: Plan, say: Callable[[str], None]) -> None:
        self._world, self._plan = world, plan
        self._said = say
        self._began = time.monotonic()
        self.watch = Watch(world)
        self.strikes = Strikes(world, self._say)

    def _say(self, text: str) -> None:
        self._said(f"{time.monotonic() - self._began:7.1f} s  {text}")

    def run(self) -> Summary:
        """Load and faults, then peace, then the proof."""
        self._began = time.monotonic()
        self.watch.start()
        try:
            self._drive()
            self._say("no more faults: waiting until the last one is over")
            self.strikes.finish()
            ended = time.monotonic()
            agreed = self._converged()
            self._world.order(stop=True)
            seconds = time.monotonic() - self._began
            self._end_producers()
            proof, counted_seconds = self._proven()
            return self._summary(seconds, agreed - ended if agreed else None, proof, counted_seconds)
        finally:
            self.strikes.give_up()
            self.watch.stop()

    def _drive(self) -> None:
        phases = heat.phases(random.Random(f"heat {self._world.scale.seed}"))
        phase, due, late = heat.CALM, next(phases), 0.0
        strikes = iter(self._plan.faults)
        fault = next(strikes, None)
        said_at, copied_at = 0.0, 0.0
        while (at := time.monotonic() - self._began) < self._plan.seconds or self._goes_on(at):
            if at >= due.at + late + (HELD_SECONDS if self._is_awaited(phase) else 0.0):
                self._order(due)
                phase, due, late = due, next(phases), at - due.at
            if fault is not None and at >= fault.at:
                self.strikes.strike(fault)
                fault = next(strikes, None)
            self.strikes.supervise()
            if at - copied_at >= COPY_SECONDS:
                copied_at = at
                self.strikes.keep_copy()
            if at - said_at >= SAY_SECONDS:
                said_at = at
                self._say(self._progress())
            time.sleep(TICK_SECONDS)

    def _is_awaited(self, phase: heat.Phase) -> bool:
        """Whether it is a surge whose key has no topic of its own yet: brokers and operator may be down."""
        return phase.is_surge and not self.watch.keys_of_own.intersection(phase.shares)

    def _goes_on(self, at: float) -> bool:
        """Whether a run whose time is over goes on, because too little has happened yet."""
        goals, changes = self._plan.goals, self.watch.changes
        own = sum(count for kind, count in changes.items() if "dedicated" in kind)
        lacks = sum(changes.values()) < goals.changes or own < goals.own_changes
        return lacks and at < self._plan.seconds + self._plan.more_seconds

    def _order(self, phase: heat.Phase) -> None:
        rate = phase.rate * self._world.scale.rate / PRODUCERS
        self._world.order(rate=rate, shares=dict(phase.shares))

    def _progress(self) -> str:
        watch, done = self.watch, len(self.strikes.done)
        own = sum(count for kind, count in watch.changes.items() if "dedicated" in kind)
        table = watch.table
        phases = Counter(topic.phase.value for topic in table.topics) if table else Counter[str]()
        acked = sum(self._acked(number) for number in self._world.numbers)
        return (
            f"acked={acked} changes={sum(watch.changes.values())} dedicated={own} faults={done} "
            f"epoch={table.epoch if table else 0} routes={len(table.routes) if table else 0} "
            f"topics={dict(phases)}"
        )

    def _acked(self, number: int) -> int:
        path = self._world.journals / f"producer-{number}.acked"
        return path.stat().st_size // 4 if path.exists() else 0

    def _converged(self) -> float | None:
        """When all agreed, as the monotonic clock has it; the heat stays as it is meanwhile."""
        agreement: Agreement | None = None
        deadline = time.monotonic() + self._plan.goals.converge_seconds
        while time.monotonic() < deadline:
            self.strikes.supervise()
            agreement = self.watch.agreement()
            if agreement is not None and agreement.holds:
                self._say(f"converged: {agreement}")
                return time.monotonic()
            time.sleep(TICK_SECONDS)
        self._say(f"NOT converged: {agreement}")
        return None

    def _end_producers(self) -> None:
        """Until each has sent what it held; one that hangs is killed, and what it had is not acknowledged."""
        deadline = time.monotonic() + LOST_SECONDS
        while any(each.is_running for each in self._world.producers) and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        for each in self._world.producers:
            if each.is_running:
                self._say(f"{each.name} did not end: killed")
                each.kill()

    def _proven(self) -> tuple[Proof, float]:
        """The proof, and how long after the end it held, or was given up."""
        began = time.monotonic()
        while True:
            proof = prove(self._world.run, self._world.journals, self._world.numbers, self._ids())
            took = time.monotonic() - began
            if proof.lost == 0 or took > LOST_SECONDS:
                return proof, took
            self.strikes.supervise()
            self._say(f"{proof.counted} of {proof.acked} acknowledged are counted")
            time.sleep(ASK_AGAIN_SECONDS)

    def _ids(self) -> Iterator[str]:
        store = self._world.store()
        try:
            for chunk in store.event_ids():
                yield from chunk
        finally:
            store.close()

    def _summary(
        self, seconds: float, converged: float | None, proof: Proof, counted_seconds: float
    ) -> Summary:
        world = self._world
        store = world.store()
        totals = store.totals()
        store.close()
        stories = [told(world.journals, number) for number in world.numbers]
        failed: Counter[str] = Counter()
        for story in stories:
            failed.update(story.failed)
        orphans, topics = self._orphans()
        ids = totals.event_ids + totals.forgotten
        more = [*proof.named, *self.strikes.failed, *self._unequal(totals.clicks, ids)]
        made = Summary(
            seed=world.scale.seed,
            seconds=round(seconds, 1),
            records=proof.acked,
            records_per_second=round(proof.acked / seconds, 1),
            counted=proof.counted,
            route_changes=dict(sorted(self.watch.changes.items())),
            faults=faults.counted(self.strikes.done),
            lost=proof.lost,
            twice=proof.doubled + max(0, totals.clicks - ids),
            unknown=proof.unknown,
            dead_letters=totals.dead,
            dedicated_topics=topics,
            orphans=orphans,
            converged_seconds=None if converged is None else round(converged, 1),
            counted_seconds=round(counted_seconds, 1),
            epochs_back=(*self.watch.went_back, *self._epochs_back()),
            ended_by_themselves=dict(self.strikes.ended),
            read_twice=self._duplicates(),
            sent_again=sum(story.sent_again for story in stories),
            queue_full=sum(story.queue_full for story in stories),
            not_acknowledged=dict(failed),
        )
        return made.judged(self._plan.goals, tuple(more))

    @staticmethod
    def _unequal(clicks: int, ids: int) -> list[str]:
        """In words, when what was counted is not as much as there are ids."""
        return [f"{clicks} clicks are counted for {ids} ids"] if clicks != ids else []

    def _duplicates(self) -> int:
        names = "hotkey_aggregator_clicks_duplicate_total"
        return int(sum(each.metrics().get(names, 0.0) for each in self._world.aggregators))

    def _orphans(self) -> tuple[tuple[str, ...], int]:
        """The dedicated topics that no table lists, and how many there are in all."""
        prefix, deadline = dedicated_prefix(TOPIC), time.monotonic() + LISTED_SECONDS
        while True:
            found = {name for name in self._topics() if name.startswith(prefix)}
            table = self.watch.table
            orphans = found - set(table.read_set if table else ())
            if not orphans or time.monotonic() > deadline:
                return tuple(sorted(orphans)), len(found)
            time.sleep(ASK_AGAIN_SECONDS)

    def _topics(self) -> set[str]:
        return eventually("the brokers tell what topics there are", self._world.topics)

    def _epochs_back(self) -> Iterator[str]:
        """Where a client went back to an older table."""
        for number in self._world.numbers:
            for before, after in pairwise(told(self._world.journals, number).epochs):
                if after < before:
                    yield f"producer {number} went from {before} to {after}"
        for aggregator in self._world.aggregators:
            for before, after in _adopted(aggregator.log.read_text(errors="replace")):
                if after < before:
                    yield f"{aggregator.name} went from {before} to {after}"


def _adopted(log: str) -> Iterator[tuple[int, int]]:
    """Pairs of epochs that one process adopted one after the other."""
    for life in re.split(r"event=starting|event=started", log):
        yield from pairwise(int(epoch) for epoch in re.findall(r"event=table_adopted .*?epoch=(\d+)", life))


def write(summary: Summary) -> bytes:
    """The summary as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
