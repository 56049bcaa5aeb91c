"""Redis, Kafka and the API server each gone and back, and the operator itself killed, under load.

Each test ends with the proof by ids: nothing that was acknowledged is missing, nothing stands there twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from examples.load import Load, prove
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import SigningKey, seal
from hotkey_sdk.routing.names import TABLE_DIGEST, TABLE_ENVELOPE, TABLE_EPOCH, table_key
from hotkey_sdk.routing.table import Table
from tests.stack.aggregator.process import AggregatorProcess
from tests.stack.operator.conftest import Proven, StartAggregator, StartLoad
from tests.stack.operator.process import Operator
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import RECOVERY_SECONDS, REPUBLISH_SECONDS, Recovery, eventually

HOT = {"trigger": {"recordsPerSecond": 500}}
NO_ROUTE_WANTED = {"trigger": {"recordsPerSecond": 1_000_000}}
ANOTHER_EPOCH = '{"spec":{"dimensions":[{"name":"user_id"}]}}'  # a change that every table must carry


def governed(scene: Scene, topic: str, spec: dict[str, Any]) -> Operator:
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic, **spec})
    scene.wait_for_condition("clicks", "Governing")
    scene.wait_for_published("clicks", topic)
    return operator


def change_epoch(scene: Scene) -> None:
    scene.kubectl("patch", "hkp", "clicks", "--type=merge", "-p", ANOTHER_EPOCH)


def fields(table: Table, envelope: bytes) -> dict[str, Any]:
    return {TABLE_EPOCH: table.epoch, TABLE_DIGEST: "x", TABLE_ENVELOPE: envelope}


def own_key(scene: Scene) -> SigningKey:
    return SigningKey.from_bytes(base64.b64decode(scene.secret("private.key")))


def lies(table: Table, key: SigningKey) -> dict[str, Any]:
    """What may stand in Redis instead of the table."""
    envelope = seal(codec.encode(table), key)
    older = msgspec.structs.replace(table, epoch=table.epoch - 1, routes=())
    old_envelope = seal(codec.encode(older), key)
    return {
        "nothing": None,
        "a string": b"hello",
        "a list": ["a", "b"],
        "no envelope": {TABLE_EPOCH: table.epoch},
        "malformed": fields(table, b"\xff{not json"),
        "truncated": fields(table, envelope[:-50]),
        "10 MB": fields(table, b"x" * 10_000_000),
        "wrongly signed": fields(table, seal(codec.encode(table), SigningKey.generate())),
        "unsigned": fields(table, seal(codec.encode(table), None)),
        "an older table": fields(older, old_envelope),
        "an older table under a higher epoch": fields(older, old_envelope)
        | {TABLE_EPOCH: table.epoch + 9_999},
    }


def test_whatever_stands_in_redis_is_replaced_by_the_table_and_nothing_is_lost(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    operator = governed(scene, topic, HOT)
    load = start_load(topic)
    table = scene.wait_for_routes("clicks", {b"nike"})
    key = table_key(scene.stream(topic))
    for lie, planted in lies(scene.wait_for_published("clicks", topic), own_key(scene)).items():
        # when it is put there
        with scene.redis() as client:
            client.delete(key)
            if isinstance(planted, bytes):
                client.set(key, planted)
            elif isinstance(planted, list):
                client.rpush(key, *planted)
            elif planted is not None:
                client.hset(key, mapping=planted)
        # then the table soon stands there again
        scene.wait_for_published("clicks", topic, REPUBLISH_SECONDS)
        assert operator.health() == 200, lie
    assert scene.wait_for_routes("clicks", {b"nike"}).epoch >= table.epoch
    eventually("it is told", lambda: "Republished" in scene.events("clicks"))
    proven(load, topic)


def test_redis_killed_and_back_gets_the_table_again_and_status_tells(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    governed(scene, topic, HOT)
    load = start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    scene.stack.redis.kill()
    try:
        scene.wait_for_condition("clicks", "RedisUnavailable")
        load.wait_for_acks(30, each=load.acked_count // 2 + 2_000)
    finally:
        scene.stack.redis.restart()
    # then it has the table again within seconds of its first answer, though it came back empty
    scene.wait_for_published("clicks", topic, REPUBLISH_SECONDS)
    scene.wait_for_condition("clicks", "Governing", seconds=RECOVERY_SECONDS)
    proven(load, topic)


def test_a_redis_that_is_wiped_has_the_table_again_within_seconds(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    governed(scene, topic, HOT)
    load = start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    scene.wait_for_published("clicks", topic)
    scene.stack.redis.wipe()
    scene.wait_for_published("clicks", topic, REPUBLISH_SECONDS)
    proven(load, topic)


def test_kafka_killed_and_back_is_told_and_governed_again(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    governed(scene, topic, HOT)
    load = start_load(topic)
    scene.stack.kafka.kill()
    try:
        message = scene.wait_for_condition("clicks", "KafkaUnavailable")
        assert topic in message
    finally:
        scene.stack.kafka.restart()
    recovery = Recovery()
    scene.wait_for_condition("clicks", "Governing", seconds=recovery.left)
    scene.wait_for_routes("clicks", {b"nike"}, recovery.left)
    scene.wait_for_published("clicks", topic, recovery.left)
    proven(load, topic)


def test_the_api_server_killed_and_back_is_survived_by_the_same_process(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    operator = governed(scene, topic, HOT)
    load = start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    before = scene.wait_for_published("clicks", topic)
    scene.stack.kubernetes.apiserver.kill()
    try:
        eventually("the operator says so", lambda: "KubernetesUnavailable" in operator.log())
        assert operator.health() == 200
        assert scene_published_epoch(scene, topic, before) == before.epoch
    finally:
        scene.stack.kubernetes.apiserver.restart()
    recovery = Recovery()
    change_epoch(scene)

    def taken_up() -> bool:
        table = scene.table("clicks")
        assert table is not None
        return table.epoch > before.epoch

    eventually("a change is taken up again", taken_up, recovery.left)
    scene.wait_for_published("clicks", topic, recovery.left)
    proven(load, topic)


def scene_published_epoch(scene: Scene, topic: str, known: Table) -> int:
    """The epoch that stands in Redis, unverified: the public keys cannot be read while the API is away."""
    with scene.redis() as client:
        found: Any = client.hget(table_key(scene.stream(topic)), TABLE_EPOCH)
    return int(found or 0)


def test_an_operator_killed_between_object_and_publication_publishes_after_its_restart(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    # given a Redis that does not answer, so that a publication hangs
    operator = governed(scene, topic, NO_ROUTE_WANTED)
    load = start_load(topic)
    before = scene.wait_for_published("clicks", topic)
    scene.stack.redis.pause()
    try:
        # when the object has the next epoch, the operator is killed
        change_epoch(scene)

        def written() -> int:
            table = scene.table("clicks")
            return table.epoch if table is not None and table.epoch > before.epoch else 0

        after = eventually("the object has the next epoch", written)
        operator.kill()
    finally:
        scene.stack.redis.resume()
    held = scene.published(topic)
    assert held is not None
    assert held.epoch == before.epoch < after

    # then its successor publishes what the object holds
    operator.start()
    assert scene.wait_for_published("clicks", topic, RECOVERY_SECONDS).epoch >= after
    proven(load, topic)


def test_an_operator_killed_at_any_time_goes_on_from_the_objects_and_every_click_is_counted_once(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven, start_aggregator: StartAggregator
) -> None:
    # given a stream that is governed and counted
    operator = governed(scene, topic, {**HOT, "release": {"for": "2s"}})
    counting = start_aggregator(topic)
    load = start_load(topic)

    # when the operator is killed as soon as the key is spread
    spread = scene.wait_for_routes("clicks", {b"nike"})
    operator.kill()
    operator.start()

    # then it goes on from there
    recovery = Recovery()
    scene.wait_for_condition("clicks", "Governing", seconds=recovery.left)
    assert scene.wait_for_routes("clicks", {b"nike"}, recovery.left).epoch >= spread.epoch
    scene.wait_for_published("clicks", topic, recovery.left)

    # and so it does when it is killed as soon as the key is merged back
    load.set_hot_share(0.0)
    merged = scene.wait_for_routes("clicks", set())
    operator.kill()
    operator.start()
    recovery = Recovery()
    assert scene.wait_for_published("clicks", topic, recovery.left).epoch >= merged.epoch > spread.epoch
    assert scene.wait_for_routes("clicks", set(), recovery.left).epoch >= merged.epoch

    # and every click is counted once
    proven(load, topic)
    assert_counted_once(counting, load, scene.ends(topic), topic)


def assert_counted_once(counting: AggregatorProcess, load: Load, ends: Mapping[int, int], topic: str) -> None:
    """Wait until all of the topic is counted; hold the counted ids against those sent and acknowledged."""
    reached = {partition: end for partition, end in ends.items() if end}
    counting.wait_until(
        lambda: counting.stored(topic) == reached, f"stored offsets {reached}", RECOVERY_SECONDS
    )
    ids, cells = counting.ids(), counting.counts()
    proof = prove(load.sent_ids(), load.acked_ids(), ids.elements())
    assert proof.holds, str(proof)
    assert proof.counted == counting.totals()["clicks"] == sum(cells.values())
    advertisers = {advertiser for advertiser, _, _ in cells}
    assert "nike" in advertisers
    assert not [each for each in advertisers if ":" in each], "shards are counted as advertisers"


def test_of_two_operators_the_one_that_loses_the_race_stands_by_and_says_so(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    # given two operators that govern the same policy
    operators = [scene.operator("first"), scene.operator("second")]
    scene.apply("clicks", {"topic": topic, **NO_ROUTE_WANTED})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic)

    # when both see a change at once: both have read the object before the API server answers either
    def raced() -> bool:
        name = f"d{len(scene.policy('clicks')['spec']['dimensions'])}"
        added = json.dumps([{"op": "add", "path": "/spec/dimensions/-", "value": {"name": name}}])
        scene.kubectl("patch", "hkp", "clicks", "--type=json", "-p", added)
        scene.stack.kubernetes.apiserver.pause()
        try:
            return_after_both_wait(scene)
        finally:
            scene.stack.kubernetes.apiserver.resume()
        scene.wait_for_published("clicks", topic, RECOVERY_SECONDS)
        return any("TableConflict" in operator.log() for operator in operators)

    eventually("one of the two loses a race", raced, seconds=120)

    # then it stands by, and both agree in the end
    recovery = Recovery()
    scene.wait_for_condition("clicks", "Governing", seconds=recovery.left)
    asked_for = len(scene.policy("clicks")["spec"]["dimensions"])
    eventually(
        "the table that is published has what the policy says",
        lambda: len(scene.wait_for_published("clicks", topic).dimensions) == asked_for,
        recovery.left,
    )
    proven(load, topic)


def return_after_both_wait(scene: Scene) -> None:
    """Two seconds of a frozen API server: both loops turn once a second and then wait for it."""
    with pytest.raises(AssertionError):
        scene.kubectl("get", "--raw=/readyz", "--request-timeout=2s")


def test_a_table_deleted_by_hand_is_made_again_from_what_redis_holds(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    governed(scene, topic, HOT)
    load = start_load(topic)
    scene.wait_for_routes("clicks", {b"nike"})
    spread = scene.wait_for_published("clicks", topic)
    scene.kubectl("delete", "hkrt", "clicks", "--timeout=30s")
    recovery = Recovery()
    rebuilt = scene.wait_for_routes("clicks", {b"nike"}, recovery.left)
    assert rebuilt.epoch > spread.epoch
    assert rebuilt.routes == spread.routes
    scene.wait_for_published("clicks", topic, recovery.left)
    proven(load, topic)
