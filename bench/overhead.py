"""CPU per record of `hotkey_sdk.Producer` against `confluent_kafka.Producer`, on one broker in one process.

Every round sends the same records in every way, in an order drawn anew; a way is compared with its peer of
the same round only, so what else the machine does falls on both.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
import redis

import hotkey_sdk
from bench.figures import Cost, Ratio, ratio
from bench.part import Run
from devstack import Stack
from examples.demo.errors import DemoError
from examples.demo.stream import Topic
from examples.load.clicks import ClickMaker
from examples.load.settings import LoadSettings
from hotkey_sdk.routing import names
from hotkey_sdk.routing.codec import encode
from hotkey_sdk.routing.envelope import SigningKey, digest, seal
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Dimension, RecordKey, Route, Shard, Stream, Table, shard_key

PARTITIONS = 12
SLOTS = 64
ROUTED_KEYS = 32  # in the table of the unrouted case: as many as limits.maxHotKeys allows by default
POLL_EVERY = 500
TABLE_SECONDS = 30.0
FLUSH_SECONDS = 60.0
HOT = "nike"

PLAIN_MANY, PLAIN_ONE = "plain, many keys", "plain, one key"
EMPTY, UNROUTED = "empty table", "unrouted key"
ROUTED, ROUTED_BY = "routed key, any slot", "routed key, by user_id"

# Each way to send, and the way that sends the same records without hotkey.
PEERS = {EMPTY: PLAIN_MANY, UNROUTED: PLAIN_MANY, ROUTED: PLAIN_ONE, ROUTED_BY: PLAIN_ONE}


@dataclass(frozen=True, slots=True)
class Record:
    """What is sent, made before anything is measured."""

    key: str
    value: bytes
    dimensions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to send: `send(record)` on `client` hands one record over."""

    name: str
    client: confluent_kafka.Producer
    send: Callable[[Record], None]
    records: tuple[Record, ...]


class Overhead(msgspec.Struct, frozen=True):
    """All costs, one list a round."""

    rounds: list[list[Cost]]

    def ratios(self) -> list[Ratio]:
        """Each case against its peer."""
        return [ratio(case, peer, self.rounds) for case, peer in PEERS.items()]


def measure(run: Run) -> Overhead:
    """All rounds, with each shown as it is done."""
    rounds = []
    for costs in _rounds(run.root, run.rounds, run.records, run.seed):
        rounds.append(costs)
        shown = ", ".join(f"{cost.case} {cost.process:.2f}" for cost in costs)
        run.say(f"round {len(rounds)} of {run.rounds}, CPU us per record: {shown}")
    return Overhead(rounds)


def section(result: Overhead) -> str:
    """The ratios of each case."""
    rows = [
        f"| {r.case} | {r.peer} | {_range(r.thread, r.thread_low, r.thread_high)} | "
        f"{_range(r.process, r.process_low, r.process_high)} | "
        f"{r.thread_microseconds:.2f} | {r.process_microseconds:.2f} |"
        for r in result.ratios()
    ]
    return "\n".join(
        [
            "## CPU per record\n",
            "`hotkey_sdk.Producer` against `confluent_kafka.Producer` in "
            f"{len(result.rounds)} paired rounds: median (range) of the ratios.\n",
            "| SDK | peer | `produce()` thread | whole process | us thread | us process |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _range(median: float, low: float, high: float) -> str:
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def _rounds(root: Path, rounds: int, records: int, seed: int) -> Iterator[list[Cost]]:
    """One list of costs a round, on a stack of its own under `root`; `records` are sent in each case."""
    with Stack(root, kubernetes=False) as stack:
        cases = _cases(stack, records)
        order = random.Random(seed)
        for case in cases:  # connections, topics' metadata and code are warm before the first round
            _cost(case)
        for _ in range(rounds):
            yield [_cost(case) for case in order.sample(cases, len(cases))]
        for case in cases:
            case.client.close()


def _cost(case: Case) -> Cost:
    thread, process = time.thread_time(), time.process_time()
    send, poll = case.send, case.client.poll
    for number, record in enumerate(case.records):
        send(record)
        if number % POLL_EVERY == 0:
            poll(0)
    thread = time.thread_time() - thread
    if left := case.client.flush(FLUSH_SECONDS):
        raise DemoError(f"{case.name}: {left} records were not answered within {FLUSH_SECONDS:.0f} s")
    process = time.process_time() - process
    count = len(case.records)
    return Cost(case.name, thread * 1e6 / count, process * 1e6 / count)


def _cases(stack: Stack, records: int) -> list[Case]:
    many, one = tuple(_records(records, hot_share=0.0)), tuple(_records(records, hot_share=1.0))
    key = SigningKey.generate()
    by_user = Dimension("user_id")
    others = tuple(_route(UNROUTED_TOPIC, f"hot{n}".encode(), ()) for n in range(ROUTED_KEYS))
    tables = {
        EMPTY: (EMPTY_TOPIC, ()),
        UNROUTED: (UNROUTED_TOPIC, others),
        ROUTED: (ROUTED_TOPIC, (_route(ROUTED_TOPIC, HOT.encode(), ()),)),
        ROUTED_BY: (ROUTED_BY_TOPIC, (_route(ROUTED_BY_TOPIC, HOT.encode(), ("user_id",)),)),
    }
    cases = [_plain(stack, PLAIN_MANY, many), _plain(stack, PLAIN_ONE, one)]
    for name, (topic, routes) in tables.items():
        Topic(stack.kafka.bootstrap, topic, PARTITIONS).create()
        stream = Stream(stack.kafka.cluster_id, topic)
        table = Table(stream, PARTITIONS, 1, 42, (topic,), dimensions=(by_user,), routes=routes)
        _publish(stack.redis.url, table, key)
        cases.append(_routing(stack, name, topic, key, one if PEERS[name] == PLAIN_ONE else many))
    return cases


EMPTY_TOPIC, UNROUTED_TOPIC, ROUTED_TOPIC, ROUTED_BY_TOPIC = "empty", "unrouted", "routed", "routed-by"


def _records(count: int, hot_share: float) -> Iterator[Record]:
    settings = LoadSettings(bootstrap="", topic="", run="bench", hot_key=HOT, hot_share=hot_share)
    maker = ClickMaker(settings, producer=0)
    for number in range(count):
        click = maker.draw(number, at=1_790_000_000_000 + number)
        value = (
            f'{{"event_id":"{click.event_id}","advertiser_id":"{click.advertiser_id}","ad_id":"{click.ad_id}",'
            f'"user_id":"{click.user_id}","click_time":{click.click_time}}}'
        )
        yield Record(click.advertiser_id, value.encode(), {"user_id": click.user_id})


def _config(stack: Stack) -> dict[str, Any]:
    """What both sides are given, so that the SDK's own defaults make no difference."""
    return {
        "bootstrap.servers": stack.kafka.bootstrap,
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 5,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 1_000_000,
        "log_level": 0,
    }


def _plain(stack: Stack, name: str, records: tuple[Record, ...]) -> Case:
    topic = name.replace(", ", "-").replace(" ", "-")
    Topic(stack.kafka.bootstrap, topic, PARTITIONS).create()
    client = confluent_kafka.Producer(_config(stack))

    def send(record: Record) -> None:
        client.produce(topic, record.value, record.key)

    return Case(name, client, send, records)


def _routing(stack: Stack, name: str, topic: str, key: SigningKey, records: tuple[Record, ...]) -> Case:
    settings = {"hotkey.redis.url": stack.redis.url, "hotkey.public.keys": key.public_line}
    client = hotkey_sdk.Producer({**_config(stack), **settings, "hotkey.topics": topic})
    deadline = time.monotonic() + TABLE_SECONDS
    while not any(table.epoch for table in client.hotkey.stats().source.tables):
        client.poll(0.05)
        if time.monotonic() > deadline:
            raise DemoError(f"{name}: no table within {TABLE_SECONDS:.0f} s: {client.hotkey.stats().source}")

    def send(record: Record) -> None:
        client.produce(topic, record.value, record.key, dimensions=record.dimensions)

    return Case(name, client, send, records)


def _route(topic: str, key: bytes, by: tuple[str, ...]) -> Route:
    """One shard on every partition, as a plan for a key that makes nearly all of the load has it."""
    shards = []
    for partition in range(PARTITIONS):
        ids = (n for n in itertools.count() if partition_for(shard_key(key, n), PARTITIONS) == partition)
        shards.append(Shard(next(ids), partition))
    slots = tuple(number % PARTITIONS for number in range(SLOTS))
    return Route(key, topic, by, RecordKey.COMPOSITE, tuple(shards), slots)


def _publish(redis_url: str, table: Table, key: SigningKey) -> None:
    envelope = seal(encode(table), key)
    fields: dict[str, str | bytes] = {
        names.TABLE_EPOCH: str(table.epoch),
        names.TABLE_DIGEST: digest(envelope),
        names.TABLE_ENVELOPE: envelope,
    }
    with redis.Redis.from_url(redis_url) as client:
        client.hset(names.table_key(table.stream), mapping=fields)
