"""Which keys are found and spread: of any bytes, of any field of the event, and never null."""

from __future__ import annotations

from examples.load.settings import KeyField
from tests.stack.operator.conftest import Proven, StartLoad, StartSender
from tests.stack.operator.scene import Scene
from tests.stack.operator.sender import Record
from tests.stack.operator.waiting import eventually

KEYS = {"empty": b"", "not-utf8": b"\xff\xfe\x00", "colon": b"a:1", "long": b"x" * 10_000}


def test_keys_of_every_kind_are_found_and_spread_under_their_very_bytes(
    scene: Scene, start_sender: StartSender
) -> None:
    # given a topic for each kind of key, and a load of which that key is all
    operator = scene.operator()
    topics = {kind: scene.topic(f"{scene.namespace}-{kind}", 6) for kind in KEYS}
    for kind, topic in topics.items():
        scene.apply(kind, {"topic": topic, "trigger": {"recordsPerSecond": 100}})
    for kind in KEYS:
        scene.wait_for_condition(kind, "Governing")
    records = [Record(topics[kind], key) for kind, key in KEYS.items()]
    sender = start_sender(lambda number: records[number % len(records)], 1_600.0)

    # then each is spread, and its producer follows
    for kind, key in KEYS.items():
        scene.wait_for_routes(kind, {key})
        scene.wait_for_published(kind, topics[kind])
    routed = sender.producer.hotkey.stats().routed
    eventually("more is routed", lambda: sender.producer.hotkey.stats().routed > routed + 100)
    sender.assert_all_arrived_once(*topics.values())
    assert operator.health() == 200


def test_null_keys_are_no_dominant_key_however_many_there_are(
    scene: Scene, topic: str, start_sender: StartSender
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": {"recordsPerSecond": 100}})
    scene.wait_for_condition("clicks", "Governing")
    sender = start_sender(lambda _: Record(topic, None, partition=0), 400.0)

    def is_told() -> bool:
        decision = scene.status("clicks")["decision"]
        assert decision["reason"] == "NoDominantKey", decision
        return True

    eventually("null keys are told to be no dominant key", is_told)
    table = scene.wait_for_published("clicks", topic)
    assert table.routes == ()
    sender.assert_all_arrived_once(topic)


def test_the_key_may_be_the_ad_or_the_region(scene: Scene, start_load: StartLoad, proven: Proven) -> None:
    # given two streams, each keyed by another field of the click
    scene.operator()
    hot = {KeyField.AD: "ad-7", KeyField.REGION: "north"}
    topics = {field: scene.topic(f"{scene.namespace}-{field.name.lower()}") for field in hot}
    names = {field: field.name.lower() for field in hot}
    for field, topic in topics.items():
        scene.apply(names[field], {"topic": topic, "trigger": {"recordsPerSecond": 300}})
        scene.wait_for_condition(names[field], "Governing")
    loads = {
        field: start_load(topic, producers=1, records_per_second=1_000.0, key_field=field, hot_key=hot[field])
        for field, topic in topics.items()
    }

    # then its hot key is spread
    for field, topic in topics.items():
        (route,) = scene.wait_for_routes(names[field], {hot[field].encode()}).routes
        assert len({shard.partition for shard in route.shards}) > 1
        scene.wait_for_published(names[field], topic)
        proven(loads[field], topic)
