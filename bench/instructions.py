"""Sends 3,000 records in one way to the mock cluster inside librdkafka, for valgrind to count instructions:

    valgrind --tool=callgrind --toggle-collect=ENTRY --callgrind-out-file=F python -m bench.instructions WAY
    callgrind_annotate --inclusive=yes F

ENTRY is `method_vectorcall_VARARGS_KEYWORDS` for the original, `produce` for the compiled SDK.
"""

from __future__ import annotations

import os
import sys

import confluent_kafka

import hotkey_sdk
from bench import senders
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Dimension, Stream, Table

RECORDS = 3_000
TOPIC = "t"
PARTITIONS = 4  # that many the mock cluster gives a topic
CONFIG = {
    "bootstrap.servers": "mock",
    "test.mock.num.brokers": 1,
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "log_level": 0,
}
WAYS = (senders.PLAIN_ONE, senders.PLAIN_MANY, *senders.SDK_PEERS)


def main(way: str) -> None:
    """Ends at once: what happens after the last record is not to be counted."""
    client = confluent_kafka.Producer(CONFIG) if way in WAYS[:2] else _ours(way)
    many = senders.SDK_PEERS.get(way, way) == senders.PLAIN_MANY
    records = senders.as_new(senders.records(RECORDS, many))
    send = senders.with_dimensions if way in (senders.UNROUTED_GIVEN, senders.ROUTED_BY) else senders.plainly
    for partition in range(PARTITIONS):
        client.produce(TOPIC, b"", b"first", partition)
    client.flush(10)
    send(client, TOPIC, records)
    os._exit(0)


def _ours(way: str) -> confluent_kafka.Producer:
    producer = hotkey_sdk.Producer(CONFIG)
    if way != senders.OFF:
        table = Table(
            Stream("c", TOPIC),
            PARTITIONS,
            1,
            42,
            (TOPIC,),
            (Dimension("user_id"),),
            senders.routes(way, TOPIC, PARTITIONS),
        )
        producer.hotkey._lanes.adopt(TOPIC, Router(table))
    return producer


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in WAYS:
        sys.exit(f"usage: python -m bench.instructions WAY, one of: {', '.join(map(repr, WAYS))}")
    main(sys.argv[1])
