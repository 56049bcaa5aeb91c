"""Runs one counter through what a topic holds, and takes a sample at each of its commits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bench.processes import cpu_seconds, peak_megabytes
from bench.sink.rows import Counter
from bench.sink.steady import Sample, Steady, steady
from examples.demo.errors import DemoError

LOOK_SECONDS = 0.03
ASK_SECONDS = 30.0
CREATE_SECONDS = 120.0
STALLED_SECONDS = 180.0


class Measure(msgspec.Struct, frozen=True):
    """One counter in one round of so many `events`. `peak_megabytes`: of the first of its processes.
    `upkeep`: CPU seconds that all of them cost later; None where it was not measured."""

    row: str
    events: int
    steady: Steady
    peak_megabytes: float
    upkeep: float | None


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and what it holds: of each partition the first offset and the one after the last."""

    bootstrap: str
    name: str
    partitions: int

    def create(self) -> None:
        """Make it; returns when each of its partitions answers."""
        admin = self._admin()  # its answers come while it lives
        admin.create_topics([NewTopic(self.name, self.partitions, 1)])[self.name].result(ASK_SECONDS)
        deadline = time.monotonic() + CREATE_SECONDS
        while True:
            try:
                self.bounds()
            except KafkaException as error:  # metadata come before leaders
                if time.monotonic() > deadline:
                    raise DemoError(f"the topic {self.name} is not there: {error}") from None
                time.sleep(1)
            else:
                return

    def bounds(self) -> dict[int, tuple[int, int]]:
        """First offset and end of each partition."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bounds", "log_level": 0})
        try:
            consumer.list_topics(self.name, timeout=ASK_SECONDS)
            return {
                number: consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=10)
                for number in range(self.partitions)
            }
        finally:
            consumer.close()

    def clear(self) -> None:
        """Remove all records; offsets go on."""
        ends = [TopicPartition(self.name, number, end) for number, (_, end) in self.bounds().items()]
        admin = self._admin()
        for deleted in admin.delete_records(ends).values():
            deleted.result(ASK_SECONDS)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which events are measured: from the first commit with `warm` of them to the last but `tail`; not fewer
    than `least`."""

    warm: int
    least: int
    tail: int


def measured(counter: Counter, topic: Topic, stretch: Stretch) -> Measure:
    """Let it count all that the topic holds. Raises `DemoError` when it stalls or counts something else."""
    bounds = topic.bounds()
    sent = sum(end - first for first, end in bounds.values())
    samples = list[Sample]()
    committed = _Committed(topic, counter.group, bounds)
    counter.start()
    try:
        moved = time.monotonic()
        while not samples or samples[-1].events < sent:
            counter.check()
            events = committed.events()
            if events > (samples[-1].events if samples else 0):
                moved = time.monotonic()
                samples.append(Sample(events, cpu_seconds(*counter.pids), moved))
            elif time.monotonic() > moved + STALLED_SECONDS:
                raise DemoError(f"{counter.name} has stalled: {samples[-1:]} of {sent:,} events")
            time.sleep(LOOK_SECONDS)
        found = steady(samples, stretch.warm, sent - stretch.tail, stretch.least)
        peak = peak_megabytes(counter.pids[0])
        counter.finish(sent)
    finally:
        committed.close()
        counter.stop()
    return Measure(counter.name, sent, found, round(peak, 1), counter.upkeep())


class _Committed:
    """How many of a topic's events a group has committed, asked as if by a member, without joining."""

    def __init__(self, topic: Topic, group: str, bounds: Mapping[int, tuple[int, int]]) -> None:
        self._consumer = Consumer({"bootstrap.servers": topic.bootstrap, "group.id": group, "log_level": 0})
        self._asked = [TopicPartition(topic.name, number) for number in bounds]
        self._first = {number: first for number, (first, _) in bounds.items()}

    def events(self) -> int:
        """0 while the broker does not know: it may be busy with something else."""
        try:
            found = self._consumer.committed(self._asked, timeout=ASK_SECONDS)
        except KafkaException:
            return 0
        return sum(max(0, one.offset - self._first[one.partition]) for one in found)

    def close(self) -> None:
        self._consumer.close()
