"""What people do with policies: wrong topics, two of them, wrong specs, deletion."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.stack.operator.conftest import Proven, StartLoad
from tests.stack.operator.scene import ROOT, Scene
from tests.stack.operator.waiting import RECOVERY_SECONDS, REPUBLISH_SECONDS, Recovery, eventually

HOT = {"trigger": {"recordsPerSecond": 500}}
COLD = {"trigger": {"recordsPerSecond": 1_000_000}}


def test_a_policy_for_a_missing_topic_says_so_and_governs_it_once_it_appears(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    scene.operator()
    later = f"{topic}-later"
    scene.apply("clicks", {"topic": later, **HOT})
    assert later in scene.wait_for_condition("clicks", "TopicNotFound")
    assert scene.table("clicks") is None

    scene.topic(later)
    recovery = Recovery()
    load = start_load(later)

    scene.wait_for_condition("clicks", "Governing", seconds=recovery.left)
    scene.wait_for_routes("clicks", {b"nike"}, recovery.left)
    scene.wait_for_published("clicks", later, recovery.left)
    proven(load, later)


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

    recovery = Recovery()
    scene.wait_for_condition("second", "Governing", seconds=recovery.left)
    assert scene.wait_for_routes("second", {b"nike"}, recovery.left).epoch > spread.epoch
    scene.wait_for_published("second", topic, recovery.left)
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

    recovery = Recovery()
    eventually("Redis holds the tombstone", returned, REPUBLISH_SECONDS)
    buried = "the tombstone goes once Redis has it"
    eventually(buried, lambda: scene.table_object("clicks") is None, recovery.left)
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
    recovery = Recovery()
    eventually("the policy is gone", lambda: scene.is_gone("clicks"), recovery.left)

    def returned() -> bool:
        held = scene.published(topic)
        assert held is not None
        return held.epoch > before.epoch

    eventually("Redis holds the tombstone", returned, recovery.left)


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
    scene.apply("clicks", {"topic": topic, **COLD, "clusterRef": {"name": "main"}, "mode": "Propose"})
    message = scene.wait_for_condition("clicks", "FieldsNotCarriedOut", kind="NotYetSupported")
    assert "spec.clusterRef" in message
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
        scene.apply("fine", {"topic": scene.topic(f"{topic}-fine"), **COLD})
        scene.wait_for_condition("fine", "Governing")
        assert operator.health() == 200
    finally:
        scene.kubectl("apply", "-f", str(ROOT / "crds"))
    eventually("it is an Event too", lambda: "InvalidSpec" in scene.events("clicks"))

    # when it is corrected
    scene.apply("clicks", {"topic": topic, **COLD})

    # then it is governed
    scene.wait_for_condition("clicks", "Governing", seconds=RECOVERY_SECONDS)


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
