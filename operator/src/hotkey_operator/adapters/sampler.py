"""Reads random records of partitions' tails with one kept consumer, and counts what that costs the brokers.

A run is a few neighbouring records. Runs that lie close together are read in one go, as a fetch brings whole
batches anyway. It must not know what a policy is, nor what a record says.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord
from hotkey_operator.engine.model import PartitionSample, SampledRecord
from hotkey_operator.ports import SampleBudget, Unavailable

SAMPLING_BYTES_PER_SECOND = 4_000_000.0  # of all streams
FETCH_BYTES = 16 * 1024  # of one partition at once; a bigger batch comes whole
SAMPLER: dict[str, Any] = {
    "group.id": "hotkey-operator-sampler",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted",  # what is not committed yet, or never, loads a partition as well
    "fetch.wait.max.ms": 20,
    "fetch.error.backoff.ms": 50,
    "fetch.queue.backoff.ms": 1,  # the pause that the next run would wait for
    "max.partition.fetch.bytes": FETCH_BYTES,
    "queued.min.messages": 100,
    "queued.max.messages.kbytes": 2_048,  # what is fetched ahead of big records is thrown away
}
_SAVED_SECONDS = 2.0  # of the budget may be spent at once
_GAP = 64  # records between two runs are read through: asking anew costs more
_GAP_BYTES = 4 * FETCH_BYTES  # unless they are big
_OVERHEAD_BYTES = 24  # of a record beside its key and value
_RECORD_BYTES = 500  # until a topic's records were seen,
_AT_ONCE = 16  # and so many are taken at once then: they may be big
_POLL_SECONDS = 0.02


@dataclass(slots=True)
class _Run:
    """Offsets `start` <= offset < `end`, and the records found there."""

    start: int
    end: int
    records: list[SampledRecord] = field(default_factory=list)


@dataclass(slots=True)
class _Stretch:
    """Runs of one partition that are read in one go, up to `position`. `data`: bytes of what was read."""

    partition: int
    runs: list[_Run]
    position: int
    done: bool = False
    data: int = 0
    error: KafkaError | None = None

    @property
    def end(self) -> int:
        return self.runs[-1].end


@dataclass(frozen=True, slots=True)
class Reading:
    """What one sampling gave."""

    samples: tuple[PartitionSample, ...]
    undecodable: int


class Sampler:
    """Samples with `consumer`, one call at a time. `bytes_read`: at most, so far; `cut`: samplings for which
    `bytes_per_second` did not suffice."""

    def __init__(
        self, consumer: Consumer, bytes_per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bytes_read = 0
        self.cut = 0
        self._consumer = consumer
        self._rate = bytes_per_second
        self._clock = clock
        self._saved = _SAVED_SECONDS * bytes_per_second
        self._saved_at = clock()
        self._record_bytes: dict[str, float] = {}
        self._refused: dict[tuple[str, int], str] = {}  # the client tells a refusal once

    def read(
        self,
        topic: str,
        windows: Mapping[int, tuple[int, int]],
        reader: DimensionReader,
        budget: SampleBudget,
        seed: int,
    ) -> Reading:
        """Random runs of each window. Raises `Unavailable` where nothing may be read now."""
        mean = self._mean(topic)
        plans = {
            p: _plan(p, first, end, budget, random.Random(seed + p), mean)
            for p, (first, end) in windows.items()
        }
        plans = {p: stretches for p, stretches in plans.items() if stretches}
        if not plans:
            return Reading((), 0)
        allowed = self._allowed(budget)
        affordable = self._affordable(topic, plans, allowed)
        self._read_all(topic, affordable, reader, allowed, self._clock() + budget.seconds)
        found = (self._sample(topic, p, stretches) for p, stretches in affordable.items())
        samples = tuple(sorted((each for each in found if each is not None), key=lambda each: each.partition))
        self._learn(topic, samples)
        return Reading(samples, reader.undecodable)

    def _allowed(self, budget: SampleBudget) -> float:
        """The bytes that may be read now."""
        now = self._clock()
        self._saved = min(_SAVED_SECONDS * self._rate, self._saved + (now - self._saved_at) * self._rate)
        self._saved_at = now
        if self._saved <= 0:
            self.cut += 1
            raise Unavailable(f"Kafka: sampling has used up its {self._rate:.0f} bytes/s of all streams")
        return min(self._saved, budget.bytes)

    def _affordable(
        self, topic: str, plans: Mapping[int, list[_Stretch]], allowed: float
    ) -> dict[int, list[_Stretch]]:
        """The first partitions, as many as the bytes will do for; one in any case."""
        chosen: dict[int, list[_Stretch]] = {}
        for partition, stretches in plans.items():
            allowed -= sum(self._fetched(topic, stretch.runs[0].start, stretch.end) for stretch in stretches)
            if chosen and allowed < 0:
                self.cut += 1
                break
            chosen[partition] = stretches
        return chosen

    def _fetched(self, topic: str, first: int, end: int) -> float:
        """Bytes that reading [first, end) takes: whole fetches."""
        return max(FETCH_BYTES, self._mean(topic) * (end - first))

    def _mean(self, topic: str) -> float:
        """Bytes of a record, as far as they are known."""
        return self._record_bytes.get(topic, _RECORD_BYTES) + _OVERHEAD_BYTES

    def _read_all(
        self,
        topic: str,
        plans: Mapping[int, list[_Stretch]],
        reader: DimensionReader,
        allowed: float,
        deadline: float,
    ) -> None:
        """The first stretch of every partition side by side, then the second, until all or enough is read."""
        try:
            for number in range(max(len(stretches) for stretches in plans.values())):
                together = {p: plans[p][number] for p in plans if number < len(plans[p])}
                self._consumer.assign(
                    [TopicPartition(topic, p, stretch.position) for p, stretch in together.items()]
                )
                self._fill(together, reader, deadline, allowed, topic in self._record_bytes)
                spent = sum(_charge(stretch) for stretch in together.values())
                self._spend(spent)
                allowed -= spent
                if self._clock() >= deadline:
                    return
                if allowed <= 0:
                    self.cut += 1
                    return
        finally:
            self._consumer.unassign()

    def _fill(
        self,
        stretches: Mapping[int, _Stretch],
        reader: DimensionReader,
        deadline: float,
        allowed: float,
        is_known: bool,
    ) -> None:
        """Read them to their ends, or as far as time and bytes do. `is_known`: how big records are."""
        while wanted := sum(each.end - each.position for each in stretches.values() if not each.done):
            left = deadline - self._clock()
            if left <= 0 or sum(each.data for each in stretches.values()) >= allowed:
                return
            at_once = wanted if is_known else min(wanted, _AT_ONCE)
            for message in self._consumer.consume(at_once, timeout=min(left, _POLL_SECONDS)):
                _take(message, stretches, reader)

    def _sample(self, topic: str, partition: int, stretches: Sequence[_Stretch]) -> PartitionSample | None:
        """What was read; where nothing was, why it was refused, be it an earlier time."""
        sample = _sample(partition, stretches, _cost(stretches))
        if sample is not None:
            self._refused.pop((topic, partition), None)
            return sample
        error = next((stretch.error for stretch in stretches if stretch.error is not None), None)
        if error is not None:
            self._refused[topic, partition] = _refusal(topic, partition, error)
        why = self._refused.get((topic, partition))
        return PartitionSample(partition, (), failure=why) if why is not None else None

    def _spend(self, spent: int) -> None:
        self._saved -= spent
        self.bytes_read += spent

    def _learn(self, topic: str, samples: Sequence[PartitionSample]) -> None:
        sizes = [record.size_bytes for sample in samples for run in sample.runs for record in run]
        if sizes:
            self._record_bytes[topic] = sum(sizes) / len(sizes)


def _charge(stretch: _Stretch) -> int:
    """What reading it took: the client fetches ahead and does not tell how much, so a whole fetch at least"""
    return max(FETCH_BYTES, stretch.data)


def _cost(stretches: Sequence[_Stretch]) -> int:
    return sum(_charge(stretch) for stretch in stretches if stretch.data or stretch.done)


def _plan(
    partition: int, first: int, end: int, budget: SampleBudget, chance: random.Random, mean_bytes: float
) -> list[_Stretch]:
    """Runs at random offsets that do not overlap, one in each of equal parts of the window; the stretches in
    random order, so that reading only some of them is fair as well. Of big records the runs are shorter."""
    records, runs_at_most = budget.of(partition)
    records = min(records, int(budget.bytes / mean_bytes))
    count = min(runs_at_most, end - first)
    if count <= 0:
        return []
    bounds = [first + (end - first) * i // count for i in range(count + 1)]
    length = max(1, records // count)
    runs = []
    for low, high in itertools.pairwise(bounds):
        size = min(length, high - low)
        start = chance.randint(low, high - size)
        runs.append(_Run(start, start + size))
    stretches = list(_stretches(partition, runs, min(_GAP, _GAP_BYTES / mean_bytes)))
    chance.shuffle(stretches)
    return stretches


def _stretches(partition: int, runs: Sequence[_Run], gap: float) -> Iterator[_Stretch]:
    together: list[_Run] = []
    for run in runs:
        if together and run.start - together[-1].end > gap:
            yield _Stretch(partition, together, together[0].start)
            together = []
        together = [*together, run]
    yield _Stretch(partition, together, together[0].start)


def _take(message: Message, stretches: Mapping[int, _Stretch], reader: DimensionReader) -> None:
    partition, offset = message.partition(), message.offset()
    stretch = stretches.get(-1 if partition is None else partition)
    if stretch is None or stretch.done:
        return
    error = message.error()
    if error is not None or offset is None:
        stretch.done = True
        if error is None or error.code() != KafkaError._PARTITION_EOF:
            stretch.error = error
        elif offset is not None:
            stretch.position = max(stretch.position, min(offset, stretch.end))
        return
    if offset >= stretch.end:
        stretch.position, stretch.done = stretch.end, True
        return
    stretch.position = max(stretch.position, offset + 1)
    stretch.done = stretch.position == stretch.end
    key, value = _bytes(message.key()), _bytes(message.value())
    size = len(key or b"") + len(value or b"")
    stretch.data += size + _OVERHEAD_BYTES
    run = next((run for run in stretch.runs if run.start <= offset < run.end), None)
    if run is not None:
        kind, timestamp = message.timestamp()
        headers: Any = message.headers() or []
        read = reader.read(RawRecord(value, headers, timestamp if kind else None))
        run.records.append(SampledRecord(key, size, read))


def _refusal(topic: str, partition: int, error: KafkaError) -> str:
    """Kafka's own words, and what to do where it is known."""
    denied = error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    remedy = "; grant the operator Read on the topic" if denied else ""
    return f"Kafka: cannot sample partition {partition} of {topic}: {error.str()}{remedy}"


def _sample(partition: int, stretches: Sequence[_Stretch], bytes_read: int) -> PartitionSample | None:
    """The runs that were read, in the order of their offsets; None where none holds a record."""
    read = sorted(
        ((run, min(run.end, stretch.position)) for stretch in stretches for run in stretch.runs),
        key=lambda each: each[0].start,
    )
    read = [(run, end) for run, end in read if end > run.start]
    if not any(run.records for run, _ in read):
        return None
    runs = tuple(tuple(run.records) for run, _ in read)
    return PartitionSample(partition, runs, tuple((run.start, end) for run, end in read), bytes_read)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
