"""Makes the golden vectors that an SDK in another language repeats.

`python -m tests.contract.sdk.make_vectors` writes them to producer_sdk/vectors/; docs/adding-a-language.md
says how to use them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from hotkey_sdk.routing import codec, envelope
from hotkey_sdk.routing.codec import TableError
from hotkey_sdk.routing.partitioner import murmur2, partition_for
from hotkey_sdk.routing.router import Router, time_bucket
from hotkey_sdk.routing.slots import Value, slot_hash
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

FOLDER = Path(__file__).parents[3] / "producer_sdk" / "vectors"
COMMAND = "python -m tests.contract.sdk.make_vectors"

KEY = envelope.SigningKey.from_bytes(bytes(range(32)))  # for tests: its private half is no secret
STREAM = Stream("cluster-1", "clicks")
HEADER_HOUR = 1715855351000  # 2024-05-16T10:29:11Z


ACTIVE, WAITING = "clicks.hot.0a1b2c3d.g7", "clicks.hot.0a1b2c3d.g8"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def placement() -> list[dict[str, Any]]:
    keys = [b"", b"nike", b"nike:7", b"a:1", b"21", b"foobar", "é".encode(), b"\xff\x00\x80", b"x" * 1000]
    keys += [shard_key(b"nike", number) for number in (0, 1, 10, 123_456, codec.MAX_SHARD_ID)]
    counts = (1, 2, 12, 48, 96, 1000)
    return [
        {
            "keyBase64": b64(key),
            "murmur2": murmur2(key),
            "partition": {str(count): partition_for(key, count) for count in counts},
        }
        for key in keys
    ]


def slots() -> list[dict[str, Any]]:
    cases: list[tuple[int, list[Value]]] = [
        (0, []),
        (0, [""]),
        (0, ["a"]),
        (42, ["u1"]),
        (42, ["u1", "de"]),
        (42, ["u1d", "e"]),
        (42, ["", "de"]),
        (42, ["é", "日本"]),
        (42, [7]),
        (42, ["7"]),
        (42, [-3, 2**70]),
        (2**53 - 1, ["x" * 300, "2024051610"]),
    ]
    return [
        {
            "seed": seed,
            "values": [str(value) for value in values],
            "hash": str(slot_hash(seed, values)),
            "slotOf16": slot_hash(seed, values) & 15,
            "slotOf65536": slot_hash(seed, values) & 65_535,
        }
        for seed, values in cases
    ]


def example() -> Table:
    """One table with all that a table can hold."""
    ids = [n for p in (3, 5, 9) for n in range(100) if partition_for(b"nike:%d" % n, 12) == p]
    places = {n: partition_for(b"nike:%d" % n, 12) for n in ids}
    chosen = [next(n for n in ids if places[n] == p) for p in (3, 5, 9)]
    nike = tuple(Shard(n, places[n]) for n in chosen)
    many = tuple(Shard(n, n % 24) for n in range(300))
    return Table(
        stream=STREAM,
        partitions=12,
        epoch=1_790_000_001,
        seed=2**53 - 1,
        read_set=("clicks", ACTIVE, WAITING),
        dimensions=(
            Dimension("user_id", json_path="$.user_id"),
            Dimension("country_id", header="x-country"),
            Dimension("hour", time_bucket_seconds=3600),
        ),
        routes=(
            Route(b"nike", "clicks", ("user_id",), RecordKey.COMPOSITE, nike, (0, 1, 2, 0, 1, 2, 0, 1)),
            Route(b"a:1", "clicks", ("country_id", "hour"), RecordKey.PRESERVE, nike, (0, 1, 2, 2)),
            Route(b"\xff\x00", "clicks", (), RecordKey.COMPOSITE, nike[:1], (0,)),
            Route(
                "é".encode(),
                ACTIVE,
                ("user_id",),
                RecordKey.PRESERVE,
                many,
                tuple((index * 7) % 300 for index in range(512)),
            ),
        ),
        topics=(
            DedicatedTopic(ACTIVE, 24, Phase.ACTIVE, "AAAAAAAAAAAAAAAAAAAAAQ", "é".encode()),
            DedicatedTopic(WAITING, 6, Phase.PREPARE, key=b"\xff\x00"),
        ),
    )


def routing() -> list[dict[str, Any]]:
    router = Router(example())
    cases: list[dict[str, Any]] = [
        {"keyBase64": b64(b"adidas"), "dimensions": {"user_id": "u1"}},
        {"keyBase64": b64(b"nike:7"), "dimensions": {"user_id": "u1"}},
        *({"keyBase64": b64(b"nike"), "dimensions": {"user_id": f"u{n}"}} for n in range(8)),
        {"keyBase64": b64(b"nike"), "dimensions": {}},
        {"keyBase64": b64(b"a:1"), "dimensions": {}, "headers": [["x-country", "de"], ["x-country", "se"]]},
        {"keyBase64": b64(b"a:1"), "dimensions": {"country_id": "fr"}, "headers": [["x-country", "de"]]},
        {"keyBase64": b64(b"a:1"), "dimensions": {"country_id": "fr", "hour": "2024051609"}},
        {"keyBase64": b64(b"\xff\x00"), "dimensions": {}},
        *({"keyBase64": b64("é".encode()), "dimensions": {"user_id": str(n)}} for n in range(4)),
    ]
    for case in cases:
        case["timestampMs"] = HEADER_HOUR
        to = router.route(
            base64.b64decode(case["keyBase64"]),
            case["dimensions"],
            headers=[(name, value) for name, value in case.get("headers", [])],
            timestamp_ms=HEADER_HOUR,
        )
        case["destination"] = to and {
            "topic": to.topic,
            "partition": to.partition,
            "keyBase64": case["keyBase64"] if to.key is None else b64(to.key),
        }
    return cases


def refused() -> list[dict[str, Any]]:
    """Documents that every reader refuses."""
    changes: dict[str, dict[str, Any]] = {
        "a newer schema": {"schema": 2},
        "an unknown required feature": {"required": ["dedicatedTopics", "fences"]},
        "a route to a topic that is not dedicated": {"dedicated": []},
        "a route to a topic that consumers may not follow yet": {
            "dedicated": [{"name": ACTIVE, "partitions": 24, "phase": "Prepare"}]
        },
        "a shard beyond the partitions of a dedicated topic": {
            "dedicated": [{"name": ACTIVE, "partitions": 23, "phase": "Active"}]
        },
        "a dedicated topic that is not read": {"readSet": ["clicks", ACTIVE]},
        "a dedicated topic in a phase of its own": {
            "dedicated": [{"name": ACTIVE, "partitions": 24, "phase": "Deleted"}]
        },
        "the base topic is not read": {"readSet": ["other"]},
        "no partitions": {"partitions": 0},
        "a shard beyond the partitions": {"partitions": 4},
        "an epoch that JSON readers round": {"epoch": 2**53},
        "an epoch that is no integer": {"epoch": "7"},
    }
    made = []
    for name, change in changes.items():
        document = codec.to_document(example()) | change
        try:
            codec.from_document(document)
        except TableError:
            made.append({"name": name, "change": change})
            continue
        raise AssertionError(f"{name}: not refused")
    return made


def tables() -> dict[str, Any]:
    data = codec.encode(example())
    signed, unsigned = envelope.seal(data, KEY), envelope.seal(data, None)
    return {
        "note": "the private key is for tests only",
        "privateKeyBase64": b64(KEY.private_bytes),
        "publicLine": KEY.public_line,
        "document": codec.to_document(example()),
        "canonicalBase64": b64(data),
        "canonicalSha256": envelope.digest(data),
        "envelope": signed.decode(),
        "envelopeSha256": envelope.digest(signed),
        "unsignedEnvelope": unsigned.decode(),
        "refusedWithChange": refused(),
    }


def buckets() -> list[dict[str, Any]]:
    moments = (0, HEADER_HOUR, 1_715_903_999_999, 4_102_444_800_000)
    widths = (60, 900, 3600, 21_600, 86_400, 604_800)
    return [
        {"timestampMs": moment, "widthSeconds": width, "bucket": time_bucket(moment, width)}
        for moment in moments
        for width in widths
    ]


def vectors() -> dict[str, str]:
    """File name to its text."""
    contents: dict[str, Any] = {
        "partitioner.json": placement(),
        "slots.json": slots(),
        "time_buckets.json": buckets(),
        "table.json": tables(),
        "routing.json": routing(),
    }
    return {
        name: json.dumps({"madeBy": COMMAND, "cases": cases}, indent=1, ensure_ascii=False) + "\n"
        for name, cases in contents.items()
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in vectors().items():
        (FOLDER / name).write_text(text)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
