"""What the operator takes: CPU and memory of its process, for one stream and for very many partitions.

The load is moderate and even, so that nothing is hot: this is what watching costs. The operator's process is
looked at from outside, through /proc.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.part import Goal, Run
from examples.demo.errors import DemoError
from examples.demo.kube import GROUP, VERSION
from examples.demo.program import Program
from examples.demo.system import System

CREATE_SECONDS, READY_SECONDS, LEADERS_SECONDS = 240.0, 240, 600.0
TOPICS_AT_ONCE, POLICIES_AT_ONCE = 10, 10
SETTLE_SECONDS, WINDOW_SECONDS, WINDOWS = 30.0, 20.0, 4
QUICK_SECONDS = 3.0
RECORD = b'{"user_id": "0123456789", "country_id": "DE", "url": "https://example.org/a/page/somewhere"}'
GOAL_CORES = 0.2  # at 10,000 partitions
TOGETHER = 20  # records of one partition: the client sends a request for each, however little it holds
HERTZ = os.sysconf("SC_CLK_TCK")


class Scale(msgspec.Struct, frozen=True):
    """How much is governed: `topics`, one policy each, of so many partitions, with records/s over all."""

    topics: int
    partitions: int
    records_per_second: int

    @property
    def all_partitions(self) -> int:
        """Of all topics."""
        return self.topics * self.partitions

    @property
    def name(self) -> str:
        """For people."""
        streams = "1 stream" if self.topics == 1 else f"{self.topics} streams"
        return f"{streams} of {self.partitions} partitions"


SCALES = (Scale(1, 12, 2_000), Scale(100, 100, 5_000))
QUICK = (Scale(2, 3, 200),)


class Cost(msgspec.Struct, frozen=True):
    """One scale: `cores` of each window, 1 is a whole core; memory at the end and at most, in MiB."""

    scale: Scale
    cores: list[float]
    window_seconds: float
    resident_mib: float
    peak_mib: float


class Costs(msgspec.Struct, frozen=True):
    """All scales."""

    costs: list[Cost]
    quick: bool


def measure(run: Run) -> Costs:
    """Each scale with a stack and an operator of its own."""
    costs = []
    for number, scale in enumerate(QUICK if run.quick else SCALES):
        cost = _cost(run, run.root / str(number), scale)
        run.say(f"{scale.name}: {statistics.median(cost.cores):.3f} cores, {cost.resident_mib:.0f} MiB")
        costs.append(cost)
    return Costs(costs, run.quick)


def _cost(run: Run, root: Path, scale: Scale) -> Cost:
    system = System(root, busy_brokers=True)
    topics = [f"clicks-{number}" for number in range(scale.topics)]
    load = None
    try:
        system.start()
        _create(system.stack.kafka.bootstrap, topics, scale.partitions)
        operator = system.start_operator()
        load = Load(system.stack.kafka.bootstrap, topics, scale)
        load.start()
        _govern(system, topics)
        settle, window = (QUICK_SECONDS,) * 2 if run.quick else (SETTLE_SECONDS, WINDOW_SECONDS)
        time.sleep(settle)
        cores = [_cores(operator, window) for _ in range(1 if run.quick else WINDOWS)]
        load.check()
        return Cost(scale, cores, window, *_memory(operator.pid))
    finally:
        if load is not None:
            load.stop()
        system.stop()


def _create(bootstrap: str, topics: Sequence[str], partitions: int) -> None:
    """Make the topics, a few at a time, and wait until all partitions have leaders."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for start in range(0, len(topics), TOPICS_AT_ONCE):
        new = [NewTopic(name, partitions, 1) for name in topics[start : start + TOPICS_AT_ONCE]]
        made = admin.create_topics(new, operation_timeout=CREATE_SECONDS, request_timeout=CREATE_SECONDS)
        for future in made.values():
            future.result(CREATE_SECONDS)
    deadline = time.monotonic() + LEADERS_SECONDS
    while waiting := _without_leaders(admin, topics, partitions):
        if time.monotonic() > deadline:
            raise DemoError(
                f"{waiting} partitions have no leader {LEADERS_SECONDS:.0f} s after their creation"
            )
        time.sleep(0.5)


def _without_leaders(admin: AdminClient, topics: Sequence[str], partitions: int) -> int:
    found = admin.list_topics(timeout=30).topics
    led = sum(
        each.leader >= 0 for name in topics if name in found for each in found[name].partitions.values()
    )
    return len(topics) * partitions - led


def _govern(system: System, topics: Sequence[str]) -> None:
    """One policy for each topic, with the shipped defaults, all of them ready."""
    namespace = system.kube.namespace
    policies = [
        {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "HotKeyPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"topic": name},
        }
        for name in topics
    ]
    for start in range(0, len(policies), POLICIES_AT_ONCE):
        listed = {"apiVersion": "v1", "kind": "List", "items": policies[start : start + POLICIES_AT_ONCE]}
        system.kube.kubectl("create", "-f", "-", manifest=listed)
    deadline = time.monotonic() + READY_SECONDS
    jsonpath = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    while True:
        ready = system.kube.kubectl("get", "hotkeypolicies", "-n", namespace, "-o", jsonpath).split()
        if ready.count("True") == len(topics):
            return
        system.check()
        if time.monotonic() > deadline:
            raise DemoError(f"only {ready.count('True')} of {len(topics)} policies are ready: {system.root}")
        time.sleep(1)


class Load:
    """Plain records at an even rate over all partitions of all topics, from a thread of this process."""

    def __init__(self, bootstrap: str, topics: Sequence[str], scale: Scale) -> None:
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "linger.ms": 100,
            "enable.idempotence": True,
        }
        self._producer = Producer(config)
        self._topics, self._scale = topics, scale
        self._closing = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def check(self) -> None:
        """Raise `DemoError` when a record could not be sent."""
        if self._failure is not None:
            raise DemoError(f"the load failed: {self._failure}")

    def stop(self) -> None:
        """End sending; what is queued is dropped."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._producer.purge()

    def _send(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._closing.wait(0.05):
            due = int((time.monotonic() - began) * self._scale.records_per_second)
            for number in range(sent, due):
                place = number // TOGETHER % self._scale.all_partitions
                topic, partition = divmod(place, self._scale.partitions)
                key = b"advertiser-%d" % (number % 10_007)
                self._produce(self._topics[topic], partition, key)
            sent = due

    def _produce(self, topic: str, partition: int, key: bytes) -> None:
        with contextlib.suppress(BufferError):  # a broker that is short of CPU gets fewer records
            self._producer.produce(topic, RECORD, key, partition, on_delivery=self._told)
        self._producer.poll(0)

    def _told(self, error: object, _: object) -> None:
        if error is not None and not self._closing.is_set():
            self._failure = str(error)


def _cores(operator: Program, seconds: float) -> float:
    began, before = time.monotonic(), _cpu_seconds(operator.pid)
    time.sleep(seconds)
    operator.check()
    return (_cpu_seconds(operator.pid) - before) / (time.monotonic() - began)


def _cpu_seconds(pid: int) -> float:
    """User and system time of all threads, as proc(5) has them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def _memory(pid: int) -> tuple[float, float]:
    """Resident memory now and at most, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)
           if name in ("VmRSS", "VmHWM")}  # fmt: skip
    return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024


def goals(result: Costs) -> Sequence[Goal]:
    """The CPU at 10,000 partitions."""
    return [
        Goal(f"operator, {cost.scale.name}", statistics.median(cost.cores), GOAL_CORES, "cores")
        for cost in result.costs
        if cost.scale.all_partitions >= 10_000
    ]


def section(result: Costs) -> str:
    """The figures for people."""
    rows = [
        f"| {cost.scale.name} | {cost.scale.records_per_second} | {statistics.median(cost.cores):.3f} | "
        f"{min(cost.cores):.3f}-{max(cost.cores):.3f} | {cost.resident_mib:.0f} | {cost.peak_mib:.0f} |"
        for cost in result.costs
    ]
    windows = f"{len(result.costs[0].cores)} windows of {result.costs[0].window_seconds:.0f} s"
    return "\n".join(
        [
            "## Operator\n",
            "CPU and memory of the operator's process while it watches an even load with the shipped "
            f"defaults, one policy a topic; median and range of {windows}.\n",
            "| governed | records/s | cores | range | MiB | MiB at most |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
