"""What comes from outside is bounded: as much as a reader allows is read, and one more is refused as a whole.

docs/protocol.md states these bounds. Those of single fields are in the unit tests of the codec.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotkey_sdk.routing import codec, envelope, report
from hotkey_sdk.routing.report import HeavyKey, KeyReport, PartitionCount

GOLDEN = Path(__file__).parents[3] / "producer_sdk" / "golden"
Change = Callable[[dict[str, Any], int], None]


def read_set(document: dict[str, Any], count: int) -> None:
    document["readSet"] = ["clicks", *(f"t{number}" for number in range(count - 1))]


def dedicated(document: dict[str, Any], count: int) -> None:
    names = [f"t{number}" for number in range(count)]
    document["readSet"] = ["clicks", *names][:1000]
    document["dedicated"] = [{"name": name, "partitions": 1, "phase": "Idle"} for name in names]


def dimensions(document: dict[str, Any], count: int) -> None:
    document["dimensions"] += [{"name": f"d{n}"} for n in range(count - len(document["dimensions"]))]


def routes(document: dict[str, Any], count: int) -> None:
    one = document["routes"][0]
    one.pop("keyBase64", None)
    document["routes"] = [one | {"key": f"k{number}"} for number in range(count)]


def by(document: dict[str, Any], count: int) -> None:
    names = [f"d{number}" for number in range(count)]
    document["dimensions"] = [{"name": name} for name in names]
    document["routes"] = [document["routes"][0] | {"by": names}]


def shards(document: dict[str, Any], count: int) -> None:
    many = [{"id": number, "partition": 0} for number in range(count)]
    document["routes"] = [document["routes"][0] | {"shards": many, "slots": "AAAAAA=="}]


def slots(document: dict[str, Any], bits: int) -> None:
    packed = base64.b64encode(bytes(2**bits)).decode()
    document["routes"] = [document["routes"][0] | {"slots": packed}]


def names(document: dict[str, Any], length: int) -> None:
    document["clusterId"] = "c" * length


def topics(document: dict[str, Any], length: int) -> None:
    document["readSet"].append("t" * length)


def topic_ids(document: dict[str, Any], length: int) -> None:
    dedicated(document, 1)
    document["dedicated"][0]["topicId"] = "i" * length


def json_paths(document: dict[str, Any], length: int) -> None:
    document["dimensions"].append({"name": "more", "jsonPath": "$" * length})


def required(document: dict[str, Any], count: int) -> None:
    document["required"] = ["dedicatedTopics"] * count


TABLES: dict[str, tuple[Change, int]] = {
    "topics of the read set": (read_set, 1_000),
    "dedicated topics": (dedicated, 999),
    "dimensions": (dimensions, 64),
    "routes": (routes, 4_096),
    "dimensions of a route": (by, 16),
    "shards of a route": (shards, 65_536),
    "slots of a route": (slots, 16),
    "characters of a name": (names, 249),
    "characters of a topic's name": (topics, 249),
    "characters of a topic's id": (topic_ids, 64),
    "characters of a JSON path": (json_paths, 1_024),
    "required features": (required, 64),
}


@pytest.mark.parametrize(("change", "most"), TABLES.values(), ids=TABLES.keys())
def test_a_table_may_hold_so_much_and_no_more(change: Change, most: int) -> None:
    golden = (GOLDEN / "table-1.json").read_text()
    full, over = json.loads(golden), json.loads(golden)
    change(full, most)
    change(over, most + 1)

    assert codec.from_document(full).epoch == codec.decode(golden.encode()).epoch
    with pytest.raises(codec.TableError):
        codec.from_document(over)


def test_an_envelope_and_a_table_may_have_so_many_bytes_and_no_more() -> None:
    golden = (GOLDEN / "table-1.json").read_bytes()
    full = golden + b" " * (codec.MAX_TABLE_BYTES - len(golden))

    sealed = envelope.seal(full, None)
    assert len(sealed) < envelope.MAX_ENVELOPE_BYTES, "the largest table fits into an envelope"
    assert codec.decode(envelope.open_envelope(sealed, envelope.PublicKeys(), allow_unsigned=True))
    with pytest.raises(codec.TableError, match="at most"):
        codec.decode(full + b" ")
    padded = sealed + b" " * (envelope.MAX_ENVELOPE_BYTES - len(sealed))
    assert envelope.open_envelope(padded, envelope.PublicKeys(), allow_unsigned=True) == full
    with pytest.raises(envelope.EnvelopeTooBigError):
        envelope.open_envelope(padded + b" ", envelope.PublicKeys(), allow_unsigned=True)


def told(**change: Any) -> bytes:
    return json.dumps(json.loads((GOLDEN / "report-1-consumer.json").read_text()) | change).encode()


REPORTS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "characters of a client id": (lambda n: told(client_id="c" * n), 1_024),
    "characters of a group": (lambda n: told(group="g" * n), 1_024),
    "epoch": (lambda n: told(epoch=n), 2**53 - 1),
    "bytes": (lambda n: told().ljust(n), 4_096),
}


@pytest.mark.parametrize(("make", "most"), REPORTS.values(), ids=REPORTS.keys())
def test_a_report_may_hold_so_much_and_no_more(make: Callable[[int], bytes], most: int) -> None:
    assert report.decode_report(make(most))
    with pytest.raises(ValueError, match=r"."):
        report.decode_report(make(most + 1))


def counted(*partitions: PartitionCount) -> bytes:
    """As a liar writes it, who checks nothing."""
    plain = report.encode_key_report(KeyReport("p1", 1.0, 2.0, 1.0))
    return json.dumps(
        json.loads(plain) | {"partitions": [json.loads(report_of(each)) for each in partitions]}
    ).encode()


def report_of(partition: PartitionCount) -> bytes:
    return msgspec.json.encode(partition)


def keys(count: int, size: int = 1) -> tuple[HeavyKey, ...]:
    return (HeavyKey(b"k" * size, 1, 0, 1),) * count


KEY_REPORTS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "partitions": (lambda n: counted(*(PartitionCount(p, 1) for p in range(n))), 2_000),
    "keys of a partition": (lambda n: counted(PartitionCount(0, 1, keys=keys(n))), 8),
    "keys in all": (
        lambda n: counted(*(PartitionCount(p, 1, keys=keys(1)) for p in range(n))),
        256,
    ),
    "bytes of a key": (lambda n: counted(PartitionCount(0, 1, keys=keys(1, n))), 249),
    "a partition's number": (lambda n: counted(PartitionCount(n, 1)), 100_000),
    "a count": (lambda n: counted(PartitionCount(0, n)), 2**53),
    "bytes": (lambda n: counted().ljust(n), 256 * 1024),
}


@pytest.mark.parametrize(("make", "most"), KEY_REPORTS.values(), ids=KEY_REPORTS.keys())
def test_a_report_of_keys_may_hold_so_much_and_no_more(make: Callable[[int], bytes], most: int) -> None:
    assert report.decode_key_report(make(most))
    with pytest.raises(ValueError, match=r"."):
        report.decode_key_report(make(most + 1))


NESTED = (
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"routes":' + b"[" * 200_000,
    b'{"partitions":' + b"[" * 60_000,
)


@pytest.mark.parametrize("data", NESTED, ids=lambda data: data[:14].decode())
def test_what_is_nested_deeply_is_refused_by_every_reader(data: bytes) -> None:
    for read in (codec.decode, report.decode_report, report.decode_key_report):
        with pytest.raises(ValueError, match=r"."):
            read(data)
    with pytest.raises(envelope.MalformedEnvelopeError):
        envelope.open_envelope(data, envelope.PublicKeys())
