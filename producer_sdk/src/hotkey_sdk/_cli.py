"""`python -m hotkey_sdk check` and `python -m hotkey_sdk table`: look at what the SDK sees, in words."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka

from hotkey_sdk import __version__
from hotkey_sdk._producer import PATHS
from hotkey_sdk._selftest import KEYS, SelfTestError, disagreements, librdkafka_places
from hotkey_sdk._store import RedisStore, StoreUnavailableError
from hotkey_sdk.routing import names
from hotkey_sdk.routing.agreement import misplaced
from hotkey_sdk.routing.envelope import KeyFormatError, PublicKeys
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.table import DedicatedTopic, Dimension, Route, Stream, Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all is well, 1 when it is not, 2 for a wrong command line."""
    options = _parser().parse_args(arguments)
    return _check() if options.command == "check" else _table(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m hotkey_sdk", description="Look at what the hotkey SDK sees.")
    parser.add_argument("--version", action="version", version=f"hotkey_sdk {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="whether this Kafka client puts keys where hotkey's plans expect them")
    table = commands.add_parser("table", help="read a stream's table from Redis, verify and explain it")
    table.add_argument("--redis-url", default=os.environ.get("HOTKEY_REDIS_URL", "redis://127.0.0.1:6379"))
    table.add_argument("--cluster-id", required=True, help="the Kafka cluster's id")
    table.add_argument("--topic", required=True, help="the base topic")
    table.add_argument("--public-keys", default="", help="lines keyId:base64, or file:PATH")
    table.add_argument("--allow-unsigned", action="store_true")
    return parser


def _check() -> int:
    version = confluent_kafka.libversion()[0]
    print(f"hotkey_sdk {__version__}, confluent-kafka {confluent_kafka.__version__}, librdkafka {version}")
    print(f"path of a record: {PATHS.in_use.name}")
    try:
        partitions, places = librdkafka_places(KEYS)
    except (SelfTestError, confluent_kafka.KafkaException) as error:
        print(f"partitioner: not checked: {error}")
        return 1
    wrong = disagreements(partitions, places)
    for line in wrong:
        print(f"partitioner: {line}")
    if not wrong:
        print(f"partitioner: murmur2_random agrees on {len(places)} keys and {partitions} partitions")
    return 1 if wrong else 0


def _table(options: argparse.Namespace) -> int:
    stream = Stream(options.cluster_id, options.topic)
    try:
        follower = Follower(stream, _keys(options.public_keys), options.allow_unsigned)
    except (KeyFormatError, OSError) as error:
        print(f"--public-keys: {error}", file=sys.stderr)
        return 2
    try:
        store = RedisStore(options.redis_url)
    except ValueError as error:
        print(f"--redis-url: {error}", file=sys.stderr)
        return 2
    try:
        found = store.read({stream: ""})[stream]
    except StoreUnavailableError as error:
        print(f"{options.redis_url} does not answer: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    if found.envelope is None:
        print(f"{names.table_key(stream)}: {found.why or 'nothing there'}")
        print(
            "no policy governs this topic, or the cluster has another id: see status.clusterId of the policy"
        )
        return 1
    outcome = follower.offer(found.envelope)
    if outcome is not Outcome.ADOPTED or follower.table is None:
        print(f"{names.table_key(stream)}: clients refuse it: {outcome}: {follower.refusal}")
        return 1
    print("\n".join(_explain(follower.table, len(found.envelope))))
    return 0


def _keys(text: str) -> PublicKeys:
    return PublicKeys.parse(Path(text[5:]).read_text() if text.startswith("file:") else text)


def _explain(table: Table, size: int) -> list[str]:
    lines = [
        f"table of {table.stream}: epoch {table.epoch}, {table.partitions} partitions, {size} bytes",
        f"consumers read: {', '.join(table.read_set)}",
        *(f"dimension {dimension.name}: {_source_of(dimension)}" for dimension in table.dimensions),
    ]
    lines += [_explain_dedicated(topic) for topic in table.topics]
    if not table.routes:
        lines.append("no key is routed: every key goes to the base topic under its own name")
    for route in table.routes:
        lines += _explain_route(route)
    return lines + [f"warning: {each}" for each in misplaced(table)]


def _explain_dedicated(topic: DedicatedTopic) -> str:
    of = "of no key yet" if topic.key is None else f"of key {topic.key!r}"
    known = f"id {topic.topic_id}" if topic.topic_id else "not seen by the brokers yet"
    return f"dedicated topic {topic.name}: {topic.phase}, {topic.partitions} partitions, {of}, {known}"


def _source_of(dimension: Dimension) -> str:
    if dimension.header is not None:
        return f"header {dimension.header}, or produce(dimensions=...)"
    if dimension.time_bucket_seconds is not None:
        return f"the record's time in UTC, {dimension.time_bucket_seconds} s wide"
    return "produce(dimensions=...)"


def _explain_route(route: Route) -> list[str]:
    how = f"by {', '.join(route.by)}" if route.by else "batch by batch (no order asked for)"
    slots = Counter(route.slots)
    lines = [f"key {route.key!r}: {len(route.shards)} shards on {route.topic}, {how}, {route.record_key}"]
    for index, shard in enumerate(route.shards):
        share = slots[index] / len(route.slots)
        lines.append(f"  shard {shard.id}: partition {shard.partition}, {share:.1%} of the values")
    return lines
