"""What was once written stays readable: files that are never made anew, one set for each version.

A change of a format adds files; it changes none. A new schema version must still read the version before.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hotkey_aggregator import events
from hotkey_operator.engine.spec import parse_spec
from hotkey_sdk.routing import codec, envelope, report
from hotkey_sdk.routing.codec import SCHEMA, TableError, UnknownFeatureError
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.router import Destination, Router
from hotkey_sdk.routing.table import Phase, Stream

GOLDEN = Path(__file__).parents[3] / "producer_sdk" / "golden"
STREAM = Stream("cluster-1", "clicks")


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def test_this_version_and_the_one_before_have_golden_files_and_are_read() -> None:
    versions = [version for version in (SCHEMA - 1, SCHEMA) if version >= 1]

    for version in versions:
        found = sorted(GOLDEN.glob(f"table-{version}*.json"))
        assert found, f"schema {version} has no golden file: write one, and keep it"
        for path in found:
            assert codec.decode(path.read_bytes()).stream == STREAM


def test_a_table_from_before_there_were_dedicated_topics_means_what_it_meant() -> None:
    table = codec.decode(golden("table-1.json"))

    assert (table.epoch, table.read_set, table.topics) == (1_790_000_001, ("clicks",), ())
    router = Router(table)
    assert router.route("nike", {"user_id": "u-17"}) == Destination("clicks", 0, b"nike:11")
    assert router.route(b"\xff\x00", slot=1) == Destination("clicks", 0, None)
    assert router.route("puma") is None


def test_a_table_with_dedicated_topics_means_what_it_meant() -> None:
    table = codec.decode(golden("table-1-dedicated.json"))

    hot = "clicks.hot.0a1b2c3d.g1790000001"
    assert [topic.phase for topic in table.topics] == [Phase.ACTIVE, Phase.PREPARE, Phase.IDLE, Phase.RETURN]
    assert Router(table).route("nike", {"user_id": "u-17"}) == Destination(hot, 1, b"nike:1")
    assert table.partitions_of(hot) == 4


@pytest.mark.parametrize("name", ["table-1.json", "table-1-dedicated.json"])
def test_what_is_written_today_is_what_was_written_then(name: str) -> None:
    assert codec.encode(codec.decode(golden(name))) == golden(name)


def test_a_reader_from_before_refuses_a_table_that_writes_to_dedicated_topics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would send records where it does not watch what becomes of them."""
    monkeypatch.setattr(codec, "FEATURES", frozenset[str]())

    with pytest.raises(UnknownFeatureError, match="dedicatedTopics"):
        codec.decode(golden("table-1-dedicated.json"))
    assert codec.decode(golden("table-1.json"))


@pytest.mark.parametrize(
    "change", [{"required": ["timeTravel"]}, {"schema": SCHEMA + 1}, {"required": ["dedicatedTopics", "x"]}]
)
def test_what_this_reader_does_not_know_is_refused_even_where_it_cannot_read_the_rest(
    change: dict[str, object],
) -> None:
    document = json.loads(golden("table-1.json")) | change | {"routes": "in another form"}

    with pytest.raises(UnknownFeatureError, match="update hotkey_sdk"):
        codec.decode(json.dumps(document).encode())


def test_an_unknown_field_that_is_not_required_is_ignored() -> None:
    document = json.loads(golden("table-1.json")) | {"colour": "red"}
    document["routes"][0]["colour"] = "red"

    assert codec.decode(json.dumps(document).encode()) == codec.decode(golden("table-1.json"))


def test_envelopes_of_either_of_two_keys_are_adopted() -> None:
    """As while the signing key is changed."""
    following = Follower(STREAM, envelope.PublicKeys.parse((GOLDEN / "public.keys").read_text()))

    assert following.offer(golden("envelope-1.json")) is Outcome.ADOPTED
    assert following.offer(golden("envelope-1-dedicated.json")) is Outcome.ADOPTED
    assert following.table == codec.decode(golden("table-1-dedicated.json"))


def test_reports_are_read() -> None:
    producer, consumer = (report.decode_report(golden(f"report-1{kind}.json")) for kind in ("", "-consumer"))
    keys = report.decode_key_report(golden("key-report-1.json"))

    assert (producer.role, producer.epoch, producer.group) == (report.Role.PRODUCER, 1_790_000_001, None)
    assert (consumer.role, consumer.epoch, consumer.group) == (report.Role.CONSUMER, 1_790_000_005, "counts")
    assert keys.partitions[0].keys[0] == report.HeavyKey(b"nike", 7_600, 0, 912_000)


def test_clicks_and_policies_are_read() -> None:
    click, least = events.decode(golden("event-1.json")), events.decode(golden("event-1-least.json"))
    policy = parse_spec(json.loads(golden("policy-v1alpha1.json")))

    assert (click.event_id, click.cost, least.advertiser_id) == ("0190-7", 0.25, "a:1")
    assert (policy.topic, policy.consumer_groups, policy.dedicated.warm) == ("clicks", ("counts",), 1)
    assert parse_spec(json.loads(golden("policy-v1alpha1-least.json"))).topic == "clicks"


BEYOND: dict[str, bytes] = {
    "a report of many bytes": b'{"client_id":"%s"' % (b"x" * 20_000),
    "a client's name of many characters": golden("report-1.json").replace(b"checkout", b"x" * 1_025),
    "an epoch beyond the largest": golden("report-1.json").replace(b"1790000001,", b"9007199254740992,"),
    "an epoch below zero": golden("report-1.json").replace(b"1790000001,", b"-1,"),
    "a report that is nested deeply": b'{"x":' * 2_500,
}


@pytest.mark.parametrize("data", BEYOND.values(), ids=BEYOND.keys())
def test_a_report_beyond_its_bounds_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        report.decode_report(data)


def test_a_table_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(TableError, match="at most"):
        codec.decode(golden("table-1.json") + b" " * codec.MAX_TABLE_BYTES)
