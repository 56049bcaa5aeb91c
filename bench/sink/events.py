"""The clicks that are counted: JSON of some 170 bytes with random UUIDs as ids, 80 % of them of one
advertiser.

A minute of traffic in a topic, the hot advertiser's clicks over all partitions, as hotkey's routes leave
them. The record key is `advertiser/ad`: the aggregator does not look at it, and a peer whose state is by
record key can so count windows per advertiser and ad without sending every record on to another topic first.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message, Producer

from examples.load import LoadError
from hotkey_sdk.routing.partitioner import partition_for

HOT, HOT_SHARE, HOT_ADS = "nike", 0.8, 200
ADVERTISERS, ADS_EACH = 1_000, 4
USERS = 1_000_000
COUNTRIES = ("DE", "US", "FR", "PL", "BR", "IN")
DEVICES = ("mobile", "desktop", "tablet")
JITTER_MILLISECONDS = 2_000
LATER_MILLISECONDS = 3_600_000
CHUNK = 10_000
FLUSH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Event:
    """One record."""

    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Ad:
    """What is the same in all clicks of an ad. `partition`: of all of them; None for any."""

    key: bytes
    middle: str
    partition: int | None


@dataclass
class Traffic:
    """`count` clicks within `milliseconds` from `start` (unix milliseconds), always the same but for their
    ids.

    The last click of each partition is an hour later than the others, so that windows close whose end is told
    by later clicks alone.
    """

    partitions: int
    count: int
    start: int
    milliseconds: int = 60_000
    seed: int = 1
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def __iter__(self) -> Iterator[Event]:
        ads, weights = self._ads()
        body = self.count - self.partitions
        for first in range(0, body, CHUNK):
            size = min(CHUNK, body - first)
            times = [self._time(first + n, body) for n in range(size)]
            yield from self._clicks(self.dice.choices(ads, cum_weights=weights, k=size), times)
        last = Ad(f"{HOT}/ad-0".encode(), _middle(HOT, 0), None)
        for partition in range(self.partitions):
            for event in self._clicks([last], [self.start + self.milliseconds + LATER_MILLISECONDS]):
                yield Event(partition, event.key, event.value)

    def _time(self, number: int, of: int) -> int:
        return self.start + number * self.milliseconds // of + int(self.dice.random() * JITTER_MILLISECONDS)

    def _ads(self) -> tuple[list[Ad], list[float]]:
        """All ads, and the cumulative weights of their clicks: within an advertiser by 1/rank."""
        found, weights, total = list[Ad](), list[float](), 0.0
        quiet = sum(1 / (rank + 10) for rank in range(ADVERTISERS))
        owners = [(HOT, HOT_ADS, HOT_SHARE)]
        owners += [
            (f"advertiser-{n}", ADS_EACH, (1 - HOT_SHARE) / (n + 10) / quiet) for n in range(ADVERTISERS)
        ]
        for owner, ads, share in owners:
            partition = None if owner == HOT else partition_for(owner.encode(), self.partitions)
            ranks = sum(1 / rank for rank in range(1, ads + 1))
            for rank in range(1, ads + 1):
                number = len(found)
                found.append(Ad(f"{owner}/ad-{number}".encode(), _middle(owner, number), partition))
                total += share / rank / ranks
                weights.append(total)
        return found, weights

    def _clicks(self, ads: list[Ad], times: list[int]) -> Iterator[Event]:
        draw, digits = self.dice.random, os.urandom(16 * len(ads)).hex()
        for at, (ad, time) in enumerate(zip(ads, times, strict=True)):
            id, chance = digits[32 * at : 32 * at + 32], draw()
            user = int(chance * USERS)
            value = (
                f'{{"event_id":"{id[:8]}-{id[8:12]}-{id[12:16]}-{id[16:20]}-{id[20:]}"{ad.middle}{user}"'
                f',"click_time":{time},"country":"{COUNTRIES[user % 6]}","device":"{DEVICES[user % 3]}"}}'
            )
            partition = int(draw() * self.partitions) if ad.partition is None else ad.partition
            yield Event(partition, ad.key, value.encode())


def _middle(advertiser: str, ad: int) -> str:
    return f',"advertiser_id":"{advertiser}","ad_id":"ad-{ad}","user_id":"u-'


COMPRESSION, LINGER_MILLISECONDS = "lz4", 50


def send(bootstrap: str, topic: str, traffic: Traffic) -> int:
    """Send them all and wait until all are acknowledged; bytes of their values. Raises `LoadError`."""
    failures = list[str]()

    def failed(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": COMPRESSION,
            "linger.ms": LINGER_MILLISECONDS,
            "queue.buffering.max.messages": 500_000,
            "delivery.report.only.error": True,
            "on_delivery": failed,
            "log_level": 0,
        }
    )
    size = 0
    for event in traffic:
        size += len(event.value)
        while True:
            try:
                producer.produce(topic, event.value, event.key, event.partition)
                break
            except BufferError:
                producer.poll(0.05)
    left = producer.flush(FLUSH_SECONDS)
    if left or failures:
        raise LoadError(f"{left} clicks were not answered, {len(failures)} were refused: {failures[:1]}")
    return size
