"""Every way to send that the parts `overhead` and `resend` compare: the original client, a salt written by
hand, and the SDK on each of its paths, on one broker in one process. It prepares them; it measures nothing.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import confluent_kafka
import redis

import hotkey_sdk
from devstack import Stack
from examples.demo.errors import DemoError
from examples.demo.stream import Topic
from examples.load.clicks import ClickMaker
from examples.load.settings import LoadSettings
from hotkey_sdk._producer import PATHS
from hotkey_sdk.routing import names
from hotkey_sdk.routing.codec import encode
from hotkey_sdk.routing.envelope import SigningKey, digest, seal
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
    shard_key,
)

PARTITIONS = 12
SLOTS = 512  # as many as the operator plans for so many partitions
ROUTED_KEYS = 32  # in the table of the unrouted case: as many as limits.maxHotKeys allows by default
SALTS = 16
TABLE_SECONDS = 30.0
HOT = "nike"
SHARD_KEYS = [shard_key(HOT.encode(), number) for number in range(PARTITIONS)]

PLAIN_MANY, PLAIN_ONE = "plain, many keys", "plain, one key"
SALTED = "f-string salt"
CHOSEN = "12 shards, chosen beforehand"  # what spreading costs by itself, without looking anything up
# The peers themselves, by another client to another topic: how far from 1.00 the measurement is.
AGAIN_MANY, AGAIN_ONE = f"{PLAIN_MANY}, once more", f"{PLAIN_ONE}, once more"
OFF, EMPTY, UNROUTED = "no hotkey setting", "empty table", "unrouted key"
UNROUTED_GIVEN = "unrouted key, dimensions given"
ROUTED, ROUTED_BY = "routed key, any slot", "routed key, by user_id"
OWN, OWN_BY = "key with a topic of its own, any slot", "key with a topic of its own, by user_id"

# Each way of the SDK to send, and the way that sends the same records without it.
SDK_PEERS = {
    OFF: PLAIN_MANY,
    EMPTY: PLAIN_MANY,
    UNROUTED: PLAIN_MANY,
    UNROUTED_GIVEN: PLAIN_MANY,
    ROUTED: PLAIN_ONE,
    ROUTED_BY: PLAIN_ONE,
}
OWN_PEERS = {OWN: ROUTED, OWN_BY: ROUTED_BY}  # the same route within the base topic, which is not tracked

Record = tuple[bytes, str, dict[str, str], int]  # value, key, dimensions, a partition at random
Send = Callable[[confluent_kafka.Producer, str, Sequence[Record]], None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to send: `send(client, topic, records)`; `many` keys or one."""

    name: str
    client: confluent_kafka.Producer
    topic: str
    send: Send
    many: bool


# The loops hold nothing but the call: what else stood in them would dilute the ratios.


def plainly(client: confluent_kafka.Producer, topic: str, records: Sequence[Record]) -> None:
    """The call of a program that knows nothing of hotkey."""
    for value, key, _, _ in records:
        client.produce(topic, value, key)


def salted(client: confluent_kafka.Producer, topic: str, records: Sequence[Record]) -> None:
    """What people write by hand."""
    for value, key, _, _ in records:
        client.produce(topic, value, f"{key}:{random.randrange(SALTS)}")


def with_dimensions(client: Any, topic: str, records: Sequence[Record]) -> None:
    """The call of a program that tells the record's dimensions."""
    for value, key, dimensions, _ in records:
        client.produce(topic, value, key, dimensions=dimensions)


def chosen(client: confluent_kafka.Producer, topic: str, records: Sequence[Record]) -> None:
    """Shards that a program knows before it sends."""
    for value, _, _, partition in records:
        client.produce(topic, value, SHARD_KEYS[partition], partition)


def records(count: int, many: bool) -> list[Record]:
    """Clicks of 5,000 advertisers of equal share, or of one."""
    settings = LoadSettings(bootstrap="", topic="", run="bench", hot_key=HOT, hot_share=0.0 if many else 1.0)
    return list(_records(ClickMaker(settings, producer=0), count))


def as_new(records: Sequence[Record]) -> list[Record]:
    """The same of new objects, as a program has them for every record: in the cache, and hashed by no one."""
    return [
        (value[:1] + value[1:], key[:1] + key[1:], {"user_id": told["user_id"][:1] + told["user_id"][1:]}, at)
        for value, key, told, at in records
    ]


# Each way without the SDK: its loop, and whether it has many keys or one.
_ORIGINAL: dict[str, tuple[Send, bool]] = {
    PLAIN_MANY: (plainly, True),
    PLAIN_ONE: (plainly, False),
    AGAIN_MANY: (plainly, True),
    AGAIN_ONE: (plainly, False),
    SALTED: (salted, False),
    CHOSEN: (chosen, False),
}


class Ways:
    """Makes the ways to send, each with a topic of its own; `more`: settings for all of their clients."""

    def __init__(self, stack: Stack, name: str, **more: Any) -> None:
        self._stack = stack
        self._more = more
        self._key = SigningKey.generate()
        self._topics = (f"{name}-{number}" for number in itertools.count())

    def original(self, which: Sequence[str] = tuple(_ORIGINAL)) -> list[Way]:
        """confluent_kafka.Producer."""
        return [
            Way(name, confluent_kafka.Producer(self._config()), self._topic(), *_ORIGINAL[name])
            for name in which
        ]

    def sdk(self, path: str, which: Sequence[str] = tuple(SDK_PEERS)) -> list[Way]:
        """hotkey_sdk.Producer on one of its paths."""
        return [self._sdk(path, name) for name in which]

    def _sdk(self, path: str, name: str) -> Way:
        topic = self._topic()
        client = _producer_on(path, {**self._config(), **({} if name == OFF else self._own(topic))})
        send = with_dimensions if name in (UNROUTED_GIVEN, ROUTED_BY, OWN_BY) else plainly
        if name != OFF:
            self._publish(topic, routes(name, topic))
            _wait_for_table(client, name)
        return Way(f"{name} ({path})", client, topic, send, SDK_PEERS.get(name) == PLAIN_MANY)

    def _topic(self) -> str:
        topic = next(self._topics)
        Topic(self._stack.kafka.bootstrap, topic, PARTITIONS).create()
        return topic

    def _config(self) -> dict[str, Any]:
        """What all are given, so that the SDK's own defaults make no difference."""
        return {
            "bootstrap.servers": self._stack.kafka.bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 0,
            **self._more,
        }

    def _own(self, topic: str) -> dict[str, Any]:
        return {
            "hotkey.redis.url": self._stack.redis.url,
            "hotkey.public.keys": self._key.public_line,
            "hotkey.topics": topic,
        }

    def _publish(self, topic: str, routes: tuple[Route, ...]) -> None:
        stream = Stream(self._stack.kafka.cluster_id, topic)
        others = sorted({route.topic for route in routes} - {topic})
        for other in others:
            Topic(self._stack.kafka.bootstrap, other, PARTITIONS).create()
        table = Table(
            stream,
            PARTITIONS,
            epoch=1,
            seed=42,
            read_set=(topic, *others),
            dimensions=(Dimension("user_id"),),
            routes=routes,
            topics=tuple(DedicatedTopic(other, PARTITIONS, Phase.ACTIVE, "any-id") for other in others),
        )
        envelope = seal(encode(table), self._key)
        fields: dict[str, str | bytes] = {
            names.TABLE_EPOCH: str(table.epoch),
            names.TABLE_DIGEST: digest(envelope),
            names.TABLE_ENVELOPE: envelope,
        }
        with redis.Redis.from_url(self._stack.redis.url) as client:
            client.hset(names.table_key(stream), mapping=fields)


def _producer_on(path: str, config: dict[str, Any]) -> hotkey_sdk.Producer:
    """A producer on this path: the SDK's own class where that is the one in use, else one beside it."""
    in_use = PATHS.in_use
    if in_use.name == path:
        return hotkey_sdk.Producer(config)
    PATHS.take(next(each for each in PATHS if each.name == path))
    try:
        kind = type("Producer", (hotkey_sdk.Producer,), {"produce": hotkey_sdk.Producer.produce})
        made = kind(config)
        assert isinstance(made, hotkey_sdk.Producer)
        return made
    finally:
        PATHS.take(in_use)


def _wait_for_table(client: hotkey_sdk.Producer, name: str) -> None:
    deadline = time.monotonic() + TABLE_SECONDS
    while not any(table.epoch for table in client.hotkey.stats().source.tables):
        client.poll(0.05)
        if time.monotonic() > deadline:
            raise DemoError(f"{name}: no table within {TABLE_SECONDS:.0f} s: {client.hotkey.stats().source}")


def routes(name: str, topic: str, partitions: int = PARTITIONS) -> tuple[Route, ...]:
    """The routes of the table that this way has."""
    if name == EMPTY:
        return ()
    if name in (UNROUTED, UNROUTED_GIVEN):
        by = ("user_id",) if name == UNROUTED_GIVEN else ()
        return tuple(_route(topic, f"hot{n}".encode(), by, partitions) for n in range(ROUTED_KEYS))
    to = own_topic(topic) if name in OWN_PEERS else topic
    return (_route(to, HOT.encode(), ("user_id",) if name in (ROUTED_BY, OWN_BY) else (), partitions),)


def own_topic(base: str) -> str:
    """The dedicated topic that a route of `OWN` or `OWN_BY` names."""
    return f"{dedicated_prefix(base)}bench.g1"


def _route(topic: str, key: bytes, by: tuple[str, ...], partitions: int) -> Route:
    """One shard on every partition, as a plan for a key that makes nearly all of the load has it."""
    shards = []
    for partition in range(partitions):
        ids = (n for n in itertools.count() if partition_for(shard_key(key, n), partitions) == partition)
        shards.append(Shard(next(ids), partition))
    slots = tuple(number % partitions for number in range(SLOTS))
    return Route(key, topic, by, RecordKey.COMPOSITE, tuple(shards), slots)


def _records(maker: ClickMaker, count: int) -> Iterator[Record]:
    for number in range(count):
        click = maker.draw(number, at=1_790_000_000_000 + number)
        value = (
            f'{{"event_id":"{click.event_id}","advertiser_id":"{click.advertiser_id}","ad_id":"{click.ad_id}",'
            f'"user_id":"{click.user_id}","click_time":{click.click_time}}}'
        )
        yield value.encode(), click.advertiser_id, {"user_id": click.user_id}, random.randrange(PARTITIONS)
