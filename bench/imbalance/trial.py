"""hotkey on one load: live until the operator has spread it and settled, then the records that count."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from bench.imbalance.draws import Mix, best_imbalance, heaviest, records
from bench.imbalance.rows import Adoption, Row, Workload
from bench.imbalance.sender import Settings
from bench.imbalance.senders import Senders
from examples.demo.errors import DemoError
from examples.demo.kube import GROUP, VERSION, Kube
from examples.demo.stream import Topic
from examples.demo.system import System
from examples.demo.view import View
from examples.demo.watch import Watch
from hotkey_sdk.routing.codec import from_document
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Table

PRODUCERS = 4
START_SECONDS, SETTLE_SECONDS, SEND_SECONDS = 60.0, 60.0, 180.0
NEVER_SECONDS = 20.0  # a key that was not spread by then is left as it is
WATCH_SECONDS = 2
HOTKEY = "hotkey"


class Trial(msgspec.Struct, frozen=True):
    """One load for hotkey. `count`: records in all; `live_rate`: records/s in all, before them."""

    workload: Workload
    partitions: int
    mix: Mix
    by: str
    count: int
    live_rate: float
    settled_seconds: float
    seed: int

    @property
    def name(self) -> str:
        """Of its topic and policy."""
        return (
            f"{self.workload}-{self.by or 'any'}-{self.partitions}".lower()
            .replace(" ", "-")
            .replace("_", "-")
        )


def row(system: System, trial: Trial) -> Row:
    """Measure one trial on a running system, with a topic and a policy of its own."""
    topic = system.topic(trial.name, trial.partitions)
    topic.create()
    try:
        with _governed(system, trial):
            return _row(system, trial, topic)
    finally:
        topic.delete()


def _row(system: System, trial: Trial, topic: Topic) -> Row:
    watch, tables = Watch(topic, system.kube, trial.name, system.check), Tables(system.kube, trial.name)
    senders = Senders(_settings(system, trial), system.root / "senders.log")
    watch.start()
    tables.start()
    try:
        with senders:
            began = time.monotonic()
            view = _settle(watch, trial)
            settled, waited = _is_quiet(tables, trial), time.monotonic() - began
            senders.tell("pause", "paused", START_SECONDS)
            ends, started = topic.wait_for_end_offsets(), time.time()
            senders.tell("send", "sent", SEND_SECONDS)
            grown = zip(ends, topic.wait_for_end_offsets(), strict=True)
            counts = tuple(after - before for before, after in grown)
    finally:
        watch.stop()
        tables.stop()
    if sum(counts) != trial.count:
        raise DemoError(f"{trial.name}: {trial.count} records were sent, {sum(counts)} arrived")
    before, during = tables.split(started)
    used = (*before[-1:], *during)
    adoption = Adoption(
        waited_seconds=round(waited, 1),
        settled=settled,
        tables_before=len(before),
        tables_during=len(during),
        routes=len(used[-1].routes) if used else 0,
        shards=sum(len(route.shards) for route in used[-1].routes) if used else 0,
        slots=max((len(route.slots) for route in used[-1].routes), default=0) if used else 0,
        decision=view.policy.decision,
        told=next((f"{key.reason}: {key.message}" for key in view.policy.keys), view.policy.decision_message),
    )
    drawn = _drawn(trial)
    return Row(
        workload=trial.workload,
        partitions=trial.partitions,
        method=HOTKEY,
        by=trial.by,
        records=counts,
        pairs=pairs(trial, drawn, used),
        bound=bound(trial.mix, trial.partitions),
        adoption=adoption,
    )


@contextmanager
def _governed(system: System, trial: Trial) -> Iterator[None]:
    kube = system.kube
    kube.kubectl("apply", "-f", "-", manifest=policy(kube.namespace, trial))
    try:
        yield
    finally:
        kube.kubectl("delete", "hotkeypolicy", trial.name, "-n", kube.namespace)


def policy(namespace: str, trial: Trial) -> Mapping[str, Any]:
    """The shipped defaults, and the order that is asked for, if any."""
    spec: dict[str, Any] = {"topic": trial.name}
    if trial.by:
        spec["dimensions"] = [{"name": trial.by, "from": {"jsonPath": f"$.{trial.by}"}}]
        spec["spread"] = {"by": [[trial.by]], "ordering": "PerDimension"}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "HotKeyPolicy",
        "metadata": {"name": trial.name, "namespace": namespace},
        "spec": spec,
    }


def _settings(system: System, trial: Trial) -> list[Settings]:
    return [
        Settings(
            bootstrap=system.stack.kafka.bootstrap,
            topic=trial.name,
            redis_url=system.stack.redis.url,
            public_keys=f"file:{system.public_keys_file}",
            mix=trial.mix,
            number=number,
            producers=PRODUCERS,
            live_rate=trial.live_rate / PRODUCERS,
            count=trial.count,
            seed=trial.seed,
        )
        for number in range(PRODUCERS)
    ]


def _settle(watch: Watch, trial: Trial) -> View:
    """Wait until all producers apply a table with routes and no other has come for a while, or none comes."""
    watch.wait_for(
        "all producers follow the table", lambda view: view.policy.applied_by(PRODUCERS), START_SECONDS
    )
    live = time.monotonic()
    epoch, since = -1, live

    def settled(view: View) -> bool:
        nonlocal epoch, since
        now = time.monotonic()
        if view.table_epoch != epoch:
            epoch, since = view.table_epoch, now
        if now - live >= (SETTLE_SECONDS if view.routes else NEVER_SECONDS):
            return True
        applied = view.policy.applied_by(PRODUCERS) and view.policy.epoch == epoch
        return bool(view.routes) and applied and now - since >= trial.settled_seconds

    return watch.wait_for("the load is spread", settled, SETTLE_SECONDS + START_SECONDS)


def _is_quiet(tables: Tables, trial: Trial) -> bool:
    before, _ = tables.split(time.time())
    return bool(before) and not tables.split(time.time() - trial.settled_seconds)[1]


def _drawn(trial: Trial) -> set[int]:
    """The keys that have records at all."""
    found: set[int] = set()
    for producer in range(PRODUCERS):
        found.update(records(trial.mix, trial.count, producer, PRODUCERS, trial.seed))
    return found


def pairs(trial: Trial, drawn: set[int], tables: tuple[Table, ...]) -> int:
    """(key, partition) pairs under the tables that were current: a key's home, or its route's shards."""
    found: set[tuple[int, int]] = set()
    for table in tables or (None,):
        routes = {route.key: route for route in table.routes} if table else {}
        for index in drawn:
            key = trial.mix.keys[index].encode()
            route = routes.get(key)
            if route is None:
                found.add((index, partition_for(key, trial.partitions)))
            else:
                found |= {(index, shard.partition) for shard in route.shards}
    return len(found)


def bound(mix: Mix, partitions: int) -> float:
    """`best_imbalance` of a mix: the first key is the hot one, its users keep together."""
    if mix.zipf is None:
        return 1.0
    background = [0.0] * partitions
    for key, part in zip(mix.keys[1:], mix.part[1:], strict=True):
        background[partition_for(key.encode(), partitions)] += part
    return best_imbalance(background, mix.part[0], heaviest(mix.zipf))


class Tables:
    """Notes every table with routes that is written to Kubernetes, and when it was seen."""

    def __init__(self, kube: Kube, name: str) -> None:
        self._kube, self._name = kube, name
        self._seen: dict[int, tuple[float, Table]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._note, name="tables", daemon=True)

    def start(self) -> None:
        """Begin to note."""
        self._thread.start()

    def stop(self) -> None:
        """Note no more."""
        self._closing.set()
        self._thread.join()

    def split(self, at: float) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
        """The tables seen before `at` (unix seconds), and those since, in the order of their epochs."""
        seen = sorted(self._seen.items())
        before = tuple(table for _, (when, table) in seen if when < at)
        return before, tuple(table for _, (when, table) in seen if when >= at)

    def _note(self) -> None:
        while not self._closing.is_set():
            for found in self._kube.table_changes(self._name, WATCH_SECONDS):
                table = from_document(found["spec"])
                if table.routes:
                    self._seen.setdefault(table.epoch, (time.time(), table))
