"""The whole way: a hot key is found, spread, followed by producers, and merged back after it has cooled."""

from __future__ import annotations

import os
import signal

from tests.stack.operator.conftest import Proven, StartLoad
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import RECOVERY_SECONDS, eventually

QUICK = {"recordsPerSecond": 500}
RELEASE = {"for": "3s"}


def test_a_hot_key_is_spread_while_it_is_hot_and_merged_back_when_it_cooled(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    # given a governed topic and a load of which one advertiser makes 80 %
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": QUICK, "release": RELEASE})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic)

    # then its key is spread over several partitions, in the object and in Redis as clients verify it
    table = scene.wait_for_routes("clicks", {b"nike"})
    (route,) = table.routes
    assert len({shard.partition for shard in route.shards}) > 6
    scene.wait_for_published("clicks", topic)

    # and status tells so, and that both producers follow
    def followed() -> bool:
        status = scene.status("clicks")
        assert status["producers"] == "2/2", status
        assert status["epoch"] == scene.table("clicks").epoch, status  # type: ignore[union-attr]
        return bool(status["hotKeys"] == 1 and float(status["imbalance"]) > 1)

    eventually("status tells of one hot key that all producers follow", followed)
    assert scene.condition("clicks", "Hot")[:1] == ("True",)

    def measured() -> bool:
        (key,) = scene.status("clicks")["keys"]
        assert (key["key"], key["shards"]) == ("nike", len(route.shards)), key
        assert 0.6 < key["share"] < 1, key
        return True

    eventually("the key's share is told", measured)
    published = scene.table_object("clicks")
    assert published is not None
    assert published["status"]["publishedEpoch"] == table.epoch
    (owner,) = published["metadata"]["ownerReferences"]
    assert owner["uid"] == scene.policy("clicks")["metadata"]["uid"]

    # when the key cools
    load.set_hot_share(0.0)

    # then it is a plain key again, and both were told
    merged = scene.wait_for_routes("clicks", set())
    assert merged.epoch > table.epoch
    scene.wait_for_published("clicks", topic)
    eventually("both changes are Events", lambda: {"Spread", "MergedBack"} <= scene.events("clicks"))
    assert (
        f'hotkey_operator_hot_keys{{namespace="{scene.namespace}",policy="clicks"}} 0.0'
        in operator.measured()
    )
    proven(load, topic)
    assert operator.stop() == 0


def test_status_tells_which_part_of_the_producers_applies_the_table_when_one_is_stopped(
    scene: Scene, topic: str, start_load: StartLoad
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": {"recordsPerSecond": 100_000}})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic, producers=3, records_per_second=600.0)
    eventually("three producers follow", lambda: scene.status("clicks")["producers"] == "3/3")

    # when one of three is stopped and the epoch changes, by a dimension more
    stopped = load.pids[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        scene.kubectl(
            "patch", "hkp", "clicks", "--type=merge", "-p", '{"spec":{"dimensions":[{"name":"user_id"}]}}'
        )

        # then two of three apply it
        eventually("two of three follow", lambda: scene.status("clicks")["producers"] == "2/3")
    finally:
        os.kill(stopped, signal.SIGCONT)
    again = "three producers follow again"
    eventually(again, lambda: scene.status("clicks")["producers"] == "3/3", RECOVERY_SECONDS)


def test_a_changed_spec_is_taken_up_by_the_running_loop(
    scene: Scene, topic: str, start_load: StartLoad
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, "mode": "Observe", "trigger": QUICK})
    start_load(topic)

    # given a policy that only observes: it says what it would do and does nothing
    def observes() -> bool:
        status = scene.status("clicks")
        assert status["decision"]["reason"] == "Observing", status
        return bool(status["plan"]["keys"])

    eventually("the plan is told", observes)
    table = scene.table("clicks")
    assert table is not None
    assert table.routes == ()

    # when it is told to act
    scene.apply("clicks", {"topic": topic, "mode": "Automatic", "trigger": QUICK})

    # then it does
    scene.wait_for_routes("clicks", {b"nike"})
    eventually("there is no plan any more", lambda: "plan" not in scene.status("clicks"))


def test_routes_are_planned_anew_in_one_epoch_when_the_topic_gets_more_partitions(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    scene.operator()
    scene.apply("clicks", {"topic": topic, "trigger": QUICK})
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic)
    before = scene.wait_for_routes("clicks", {b"nike"})
    assert before.partitions == 12

    scene.grow(topic, 18)

    def planned_anew() -> bool:
        table = scene.table("clicks")
        assert table is not None
        assert table.partitions == 18, (table.partitions, scene.status("clicks")["decision"])
        (route,) = table.routes
        return any(shard.partition >= 12 for shard in route.shards)

    eventually("the plan is for 18 partitions", planned_anew)
    scene.wait_for_published("clicks", topic)
    eventually("it is told", lambda: "Repartitioned" in scene.events("clicks"))
    proven(load, topic)
