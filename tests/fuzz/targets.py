"""Every decoder of what comes from outside, and what must hold of whatever it accepts.

A check returns a word for what became of the input. It raises for a finding: `AssertionError` where
something was accepted that must not be, any other error where the decoder let out one that it does not
declare.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from hotkey_aggregator import events
from hotkey_operator.adapters.dimensions import DimensionReader, RawRecord
from hotkey_operator.engine import spec
from hotkey_sdk._lanes import Batch, lanes_of
from hotkey_sdk._producer import PATHS
from hotkey_sdk.routing import codec, envelope, report
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Dimension, Phase, Table
from tests.fuzz.mutations import mutated

GOLDEN = Path(__file__).parents[2] / "producer_sdk" / "golden"
REFUSED, ACCEPTED = "refused", "accepted"

Check = Callable[[bytes, Random], str]


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder: inputs to begin with, and what to do with one."""

    name: str
    seeds: tuple[bytes, ...]
    check: Check

    def run(self, seed: int, index: int) -> str:
        """Check input number `index`; it follows from the three alone."""
        random = Random(f"{seed}/{self.name}/{index}")
        return self.check(mutated(random, self.seeds), random)


def golden(pattern: str) -> tuple[bytes, ...]:
    """The golden files whose names fit."""
    found = tuple(path.read_bytes() for path in sorted(GOLDEN.glob(pattern)))
    assert found, f"no golden file {pattern} in {GOLDEN}"
    return found


def check_table(data: bytes, random: Random) -> str:
    """The document's bytes, and the parsed document as the Kubernetes API gives it."""
    try:
        table = codec.decode(data)
    except codec.TableError:
        _refused_as_document_too(data)
        return REFUSED
    assert codec.decode(codec.encode(table)) == table
    with contextlib.suppress(UnicodeDecodeError):  # in a field that nobody reads
        assert table == codec.from_document(msgspec.json.decode(data))
    _assert_safe(table)
    _assert_both_paths_agree(table, random)
    return ACCEPTED


def _refused_as_document_too(data: bytes) -> None:
    try:
        document = msgspec.json.decode(data)
        data = msgspec.json.encode(document)  # without names that stand there twice: all of them are checked
        codec.decode(data)
    except codec.TableError:
        pass
    except (ValueError, RecursionError):
        return
    else:
        return
    if isinstance(document, dict) and len(data) <= codec.MAX_TABLE_BYTES:
        try:
            codec.from_document(document)
        except codec.TableError:
            return
        raise AssertionError("refused as bytes, accepted as a document")


def _assert_safe(table: Table) -> None:
    """What invariant 1 asks of a table that is adopted: no record goes where nobody reads."""
    base = table.stream.topic
    assert base in table.read_set
    writable = {base: table.partitions} | {
        topic.name: topic.partitions for topic in table.topics if topic.phase is Phase.ACTIVE
    }
    for route in table.routes:
        assert route.topic in table.read_set
        assert all(0 <= shard.partition < writable[route.topic] for shard in route.shards)
        assert len(route.slots) & (len(route.slots) - 1) == 0
        assert 0 <= min(route.slots) <= max(route.slots) < len(route.shards)


def _assert_both_paths_agree(table: Table, random: Random) -> None:
    if sum(len(route.slots) for route in table.routes) > 5_000:
        return
    router = Router(table)
    values = {dimension.name: random.choice(("u", 7, b"\xff", "")) for dimension in table.dimensions}
    chosen = []
    for path in PATHS:
        lanes = lanes_of(router, Batch(), path.counts(), path)
        ordered = [route.key for route in table.routes if route.by]
        chosen.append([lanes[key].choose(b"v", values, None, 1_715_855_351_000) for key in ordered])
    assert all(each == chosen[0] for each in chosen)


_CURRENT = codec.decode(golden("table-1.json")[0])
_KEYS = envelope.PublicKeys.parse((GOLDEN / "public.keys").read_text())
_GENUINE = {envelope.open_envelope(data, _KEYS) for data in golden("envelope-1*.json")}


def check_envelope(data: bytes, random: Random) -> str:
    """Whatever stands in Redis: only what a trusted key signed is adopted, and epochs only grow."""
    following = Follower(_CURRENT.stream, _KEYS)
    if random.random() < 0.1:  # to verify a signature takes longer than all else here
        following.offer(golden_envelope)
    before = following.epoch
    outcome = following.offer(data)
    assert following.epoch >= before
    if outcome is Outcome.ADOPTED:
        assert envelope.open_envelope(data, _KEYS) in _GENUINE
        assert following.epoch > before
        return ACCEPTED
    assert following.epoch == before
    return ACCEPTED if outcome is Outcome.SAME else REFUSED


golden_envelope = golden("envelope-1.json")[0]


def check_report(data: bytes, random: Random) -> str:
    """What a client, or who poses as one, wrote of its epoch."""
    try:
        found = report.decode_report(data)
    except ValueError:
        return REFUSED
    assert 0 <= found.epoch <= codec.MAX_INTEGER
    assert len(found.client_id) <= report.CLIENT_ID_AT_MOST
    assert report.decode_report(report.encode_report(found)) == found
    return ACCEPTED


def check_key_report(data: bytes, random: Random) -> str:
    """What a producer wrote of its keys."""
    try:
        found = report.decode_key_report(data)
    except ValueError:
        return REFUSED
    assert len(found.partitions) <= report.PARTITIONS_AT_MOST
    assert all(
        len(key.key) <= report.KEY_BYTES_AT_MOST and key.records >= 0
        for partition in found.partitions
        for key in partition.keys
    )
    assert report.decode_key_report(report.encode_key_report(found)) == found
    return ACCEPTED


def check_policy(data: bytes, random: Random) -> str:
    """A policy's spec; the API server has parsed the JSON."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return REFUSED
    if not isinstance(document, dict):
        return REFUSED
    try:
        found = spec.parse_spec(document)
    except spec.SpecError:
        return REFUSED
    assert found == spec.parse_spec(document)
    assert 0 <= found.release.for_seconds < float("inf")
    names = {dimension.name for dimension in found.dimensions}
    assert all(set(rung) <= names for rung in found.spread.by)
    assert found.limits.max_hot_keys >= 1
    return ACCEPTED


_DIMENSIONS = (
    Dimension("user_id", json_path="$.user_id"),
    Dimension("nested", json_path="$.a.b[0]"),
    Dimension("country_id", header="x-country"),
    Dimension("hour", time_bucket_seconds=3_600),
)
_NESTED = b'{"user_id": 7, "a": {"b": ["x"]}}'
_TIMES = (None, 0, -1, 1_715_855_351_000, 2**63 - 1, -(2**63), 253_402_300_799_999, 253_402_300_800_000)


def check_dimensions(data: bytes, random: Random) -> str:
    """A record's value, headers and timestamp, which anybody may have written."""
    headers = [("x-country", random.choice((None, b"", data[:40]))), ("other", b"x")]
    reader = DimensionReader(_DIMENSIONS)
    moment = random.choice(_TIMES)
    found = reader.read(RawRecord(data, headers, moment))
    assert set(found) <= {dimension.name for dimension in _DIMENSIONS}
    assert all(type(value) is str for value in found.values())
    plan_headers: Any = headers
    table = _routed_by_all()
    chosen = []
    for path in PATHS:
        lane = lanes_of(Router(table), Batch(), path.counts(), path)[b"nike"]
        chosen.append(lane.choose(data, {"user_id": found.get("user_id")}, plan_headers, moment or 0))
    if moment:  # without one the moment is now, and two lanes may ask the clock at different ones
        assert all(each == chosen[0] for each in chosen)
    return REFUSED if reader.undecodable else ACCEPTED


def _routed_by_all() -> Table:
    route = msgspec.structs.replace(_CURRENT.routes[0], key=b"nike", by=("user_id", "country_id", "hour"))
    return msgspec.structs.replace(_CURRENT, dimensions=_DIMENSIONS, routes=(route,))


def check_event(data: bytes, random: Random) -> str:
    """A click as the aggregator reads it, alone and in a batch."""
    batch = events.decode_all([data, None, data])
    assert len(batch.clicks) + len(batch.refused) == 3
    try:
        click = events.decode(data)
    except events.NotAClickError:
        assert not batch.clicks
        return REFUSED
    assert list(batch.clicks) == [click, click]
    assert click.event_id
    assert 0 <= click.click_time <= events.LATEST_CLICK_TIME
    assert 0 <= events.cost_in_millionths(click.cost) <= events.MAX_COST * events.MILLIONTHS
    assert events.decode(events.encode(click)) == click
    return ACCEPTED


def targets() -> tuple[Target, ...]:
    """All of them."""
    return (
        Target("table", golden("table-*.json"), check_table),
        Target("envelope", golden("envelope-*.json"), check_envelope),
        Target("report", golden("report-*.json"), check_report),
        Target("key-report", golden("key-report-*.json"), check_key_report),
        Target("policy", golden("policy-*.json"), check_policy),
        Target(
            "dimensions", (*golden("event-*.json"), b'{"user_id": 7, "a": {"b": ["x"]}}'), check_dimensions
        ),
        Target("event", golden("event-*.json"), check_event),
    )
