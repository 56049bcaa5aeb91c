"""The peers on real Kafka: their records, placed record by record, sent to the partitions that they chose."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

import confluent_kafka

from bench.imbalance.draws import Mix, records
from bench.imbalance.peers import Method, Pairs, placed
from bench.imbalance.rows import Row, Workload
from bench.imbalance.trial import PRODUCERS
from examples.demo.errors import DemoError
from examples.demo.stream import Topic
from examples.demo.system import System

WORKERS = 2
CHUNK = 20_000
QUEUED = 500_000
FLUSH_SECONDS = 120.0
HOT = frozenset({0})  # the key that is salted: the first of a mix


def rows(
    system: System, workload: Workload, mix: Mix, partitions: int, count: int, seed: int
) -> Iterable[Row]:
    """One row a peer, all on one topic that is deleted afterwards."""
    topic = system.topic(f"peers-{workload}-{partitions}".lower().replace(" ", "-"), partitions)
    topic.create()
    try:
        for method, pairs in _placed(mix, partitions, count, seed).items():
            grown = _sent(topic, mix, pairs)
            yield Row(workload, partitions, method, "", grown, len(pairs))
    finally:
        topic.delete()


def _placed(mix: Mix, partitions: int, count: int, seed: int) -> dict[Method, Pairs]:
    """What each peer makes of the records, its producers added up."""
    tasks = [(mix, partitions, count, producer, seed) for producer in range(PRODUCERS)]
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as workers:
        of_producers = list(workers.map(_of_producer, tasks))
    return {method: sum((found[method] for found in of_producers), Pairs()) for method in Method}


def _of_producer(task: tuple[Mix, int, int, int, int]) -> dict[Method, Pairs]:
    mix, partitions, count, producer, seed = task
    drawn = records(mix, count, producer, PRODUCERS, seed)
    salts = f"{seed}/salts/{producer}"
    return {method: placed(method, mix.keys, drawn, partitions, salts, HOT) for method in Method}


def _sent(topic: Topic, mix: Mix, pairs: Pairs) -> tuple[int, ...]:
    """Send the records; how far each partition's end offset went, which is what was sent, or an error."""
    before = topic.wait_for_end_offsets()
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": topic.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": QUEUED + CHUNK,
            "log_level": 0,
        }
    )
    for (key, partition), count in sorted(pairs.items()):
        _send(producer, topic.name, mix.keys[key], partition, count)
    left = producer.flush(FLUSH_SECONDS)
    grown = tuple(end - start for start, end in zip(before, topic.wait_for_end_offsets(), strict=True))
    wanted = _by_partition(pairs, topic.partitions)
    if left or grown != wanted:
        raise DemoError(
            f"{topic.name}: {sum(wanted)} records were sent, {sum(grown)} arrived, {left} are left"
        )
    return grown


def _send(producer: confluent_kafka.Producer, topic: str, key: str, partition: int, count: int) -> None:
    message = {"key": key, "value": b"1"}
    for start in range(0, count, CHUNK):
        producer.produce_batch(topic, [message] * min(CHUNK, count - start), partition=partition)
        producer.poll(0)
        while len(producer) > QUEUED:
            producer.poll(0.02)


def _by_partition(pairs: Pairs, partitions: int) -> Sequence[int]:
    found = [0] * partitions
    for (_, partition), count in pairs.items():
        found[partition] += count
    return tuple(found)
