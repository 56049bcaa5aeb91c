"""What people do with policies: wrong topics, two of them, wrong specs, deletion."""

from __future__ import annotations

import json
import threading
from typing import Any

import yaml

from hotkey_sdk import Producer
from tests.stack.operator.conftest import Proven, StartLoad
from tests.stack.operator.scene import ROOT, Scene, eventually

HOT = {"trigger": {"recordsPerSecond": 500}}
COLD = {"trigger": {"recordsPerSecond": 1_000_000}}


def test_a_policy_for_a_missing_topic_says_so_and_heals_when_the_topic_appears(
    scene: Scene, topic: str
) -> None:
    scene.operator()
    later = f"{topic}-later"
    scene.apply("clicks", {"topic": later, **COLD})
    assert later in scene.wait_for_condition("clicks", "TopicNotFound")
    assert scene.table("clicks") is None
    scene.topic(later)
    scene.wait_for_condition("clicks", "Governing")
    scene.wait_for_published("clicks", later)


def test_the_older_of_two_policies_governs_and_the_other_takes_over_when_it_is_deleted(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    scene.operator()
    scene.apply("first", {"topic": topic, **HOT})
    scene.wait_for_condition("first", "Governing")
    eventually("a second has passed since", lambda: seconds_apart(scene))
    scene.apply("second", {"topic": topic, **HOT})
    assert f"{scene.namespace}/first" in scene.wait_for_condition("second", "AnotherPolicy")
    load = start_load(topic)
    spread = scene.wait_for_routes("first", {b"nike"})
    assert scene.table("second") is None

    scene.kubectl("delete", "hkp", "first", "--timeout=60s")

    scene.wait_for_condition("second", "Governing")
    assert scene.wait_for_routes("second", {b"nike"}).epoch > spread.epoch
    scene.wait_for_published("second", topic)
    proven(load, topic)


def seconds_apart(scene: Scene) -> bool:
    """Whether an object made now is younger than the policy `first`: creation times are whole seconds."""
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "now", "namespace": scene.namespace},
    }
    asked = scene.kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=json.dumps(body))
    made: str = json.loads(asked)["metadata"]["creationTimestamp"]
    first: str = scene.policy("first")["metadata"]["creationTimestamp"]
    return made > first


def test_deleting_a_policy_returns_its_stream_to_plain_keys(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, **HOT})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic)
    spread = scene.wait_for_routes("clicks", {b"nike"})

    scene.kubectl("delete", "hkp", "clicks", "--timeout=60s")

    def returned() -> bool:
        held = scene.published(topic)
        assert held is not None
        return held.epoch > spread.epoch and held.routes == () and held.read_set == spread.read_set

    eventually("Redis holds a table without routes", returned)
    eventually("the tombstone goes once Redis has it", lambda: scene.table_object("clicks") is None)
    proven(load, topic)


def test_a_policy_can_be_deleted_while_redis_is_gone_and_its_tombstone_is_published_later(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic, **HOT})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic)
    spread = scene.wait_for_routes("clicks", {b"nike"})
    public_keys = scene.public_keys
    assert public_keys
    scene.stack.redis.kill()
    try:
        # the finalizer does not wait for Redis
        scene.kubectl("delete", "hkp", "clicks", "--timeout=60s")
        tombstone = scene.table_object("clicks")
        assert tombstone is not None
        assert tombstone["metadata"]["labels"]["hotkeys.dev/tombstone"] == "true"
        assert "ownerReferences" not in tombstone["metadata"]
        assert tombstone["spec"]["routes"] == []
        # and a restart does not forget it
        operator.kill()
        operator.start()
    finally:
        scene.stack.redis.restart()

    def returned() -> bool:
        held = scene.published(topic)
        assert held is not None, "nothing valid is published"
        return held.epoch > spread.epoch and held.routes == ()

    eventually("Redis holds the tombstone", returned)
    eventually("the tombstone goes once Redis has it", lambda: scene.table_object("clicks") is None)
    proven(load, topic)


def test_a_policy_deleted_while_the_operator_was_away_is_retired_when_it_is_back(
    scene: Scene, topic: str
) -> None:
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic, **COLD})
    before = scene.wait_for_published("clicks", topic)
    operator.kill()
    scene.kubectl("delete", "hkp", "clicks", "--wait=false")
    operator.start()
    eventually("the policy is gone", lambda: scene.is_gone("clicks"))

    def returned() -> bool:
        held = scene.published(topic)
        assert held is not None
        return held.epoch > before.epoch

    eventually("Redis holds the tombstone", returned)


def test_a_policy_made_again_under_the_same_name_goes_on_with_a_higher_epoch(
    scene: Scene, topic: str
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, **COLD})
    before = scene.wait_for_published("clicks", topic)
    scene.kubectl("delete", "hkp", "clicks", "--timeout=60s")
    other = scene.topic(f"{topic}-other")
    scene.apply("clicks", {"topic": other, **COLD})
    scene.wait_for_published("clicks", other)
    scene.kubectl("delete", "hkp", "clicks", "--timeout=60s")
    scene.apply("clicks", {"topic": topic, **COLD})
    scene.wait_for_condition("clicks", "Governing")
    assert scene.wait_for_published("clicks", topic).epoch > before.epoch


def test_what_is_not_yet_carried_out_is_answered_with_a_condition_that_names_the_field(
    scene: Scene, topic: str
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, **COLD, "dedicatedTopic": {"enabled": True}, "mode": "Propose"})
    message = scene.wait_for_condition("clicks", "FieldsNotCarriedOut", kind="NotYetSupported")
    assert "spec.dedicatedTopic" in message
    assert "spec.mode: Propose" in message


def test_a_spec_that_the_schema_let_pass_is_answered_with_a_condition_and_heals(
    scene: Scene, topic: str
) -> None:
    # given an object from before the schema's rules
    operator = scene.operator()
    definition = yaml.safe_load((ROOT / "crds" / "hotkeypolicies.yaml").read_text())
    scene.kubectl("apply", "-f", "-", stdin=json.dumps(without_rules(definition)))
    try:
        spec = {"topic": topic, **COLD, "spread": {"by": [["user_id"]]}}
        eventually("the rules are gone", lambda: accepted(scene, spec))
        # then the field is named, and the operator goes on
        assert "spec.spread.by" in scene.wait_for_condition("clicks", "InvalidSpec")
        scene.apply("fine", {"topic": topic, **COLD})
        assert operator.health() == 200
    finally:
        scene.kubectl("apply", "-f", str(ROOT / "crds"))
    eventually("it is an Event too", lambda: "InvalidSpec" in scene.events("clicks"))

    # when it is corrected
    scene.apply("clicks", {"topic": topic, **COLD})

    # then it is governed
    scene.wait_for_condition("clicks", "Governing")


def accepted(scene: Scene, spec: dict[str, Any]) -> bool:
    """The API server takes a changed schema into use a little later."""
    scene.apply("clicks", spec)
    return True


def without_rules(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            name: without_rules(value) for name, value in schema.items() if name != "x-kubernetes-validations"
        }
    return [without_rules(each) for each in schema] if isinstance(schema, list) else schema


def test_keys_of_every_kind_are_found_and_spread_and_null_keys_are_left_alone(scene: Scene) -> None:
    # given five topics, each with a hot key of another kind
    operator = scene.operator()
    kinds = {"empty": b"", "not-utf8": b"\xff\xfe\x00", "colon": b"a:1", "long": b"x" * 10_000, "null": None}
    topics = {kind: scene.topic(f"{scene.namespace}-{kind}", 6) for kind in kinds}
    for kind, topic in topics.items():
        scene.apply(kind, {"topic": topic, "trigger": {"recordsPerSecond": 100}})
    for kind in kinds:
        scene.wait_for_condition(kind, "Governing")
    producer = Producer(
        {
            "bootstrap.servers": scene.stack.kafka.bootstrap,
            "hotkey.redis.url": scene.stack.redis.url,
            "hotkey.public.keys": scene.public_keys,
        }
    )
    failed: list[object] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.02):
            for kind, key in kinds.items():
                for _ in range(8):
                    producer.produce(
                        topics[kind], b"{}", key, on_delivery=lambda e, _: failed.append(e) if e else None
                    )
            producer.poll(0)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        # then each is spread under its very bytes
        for kind, key in kinds.items():
            scene.wait_for_routes(kind, {key} if key is not None else set())
        for kind, topic in topics.items():
            scene.wait_for_published(kind, topic)
        eventually("null keys are told to be no dominant key", lambda: is_told(scene, "null"))
        eventually("records are routed", lambda: producer.hotkey.stats().routed > 100)
    finally:
        ended.set()
        sending.join()
    assert producer.flush(30) == 0
    assert failed == []
    assert operator.health() == 200


def is_told(scene: Scene, kind: str) -> bool:
    decision = scene.status(kind)["decision"]
    assert decision["reason"] in ("NoDominantKey", "Balanced", "Steady"), decision
    return True
