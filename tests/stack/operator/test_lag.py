"""A real consumer group falls behind: for a hot key's sake, and for no key's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.stack.operator.conftest import Proven, StartLoad
from tests.stack.operator.scene import Scene
from tests.stack.operator.slow_group import SlowGroup
from tests.stack.operator.waiting import eventually

LAG_SECONDS = 5.0
LAG_WAIT_SECONDS = 120.0  # a backlog takes its time to grow, and to be worked off
RECORDS_PER_SECOND = 600.0
StartGroup = Callable[..., str]


@pytest.fixture
def start_group(scene: Scene) -> Iterator[StartGroup]:
    """`start_group(topic, members=, records_per_second=)` starts a group that has the topic; its name."""
    groups: list[SlowGroup] = []

    def start(topic: str, *, members: int, records_per_second: float) -> str:
        name = f"billing-{uuid4().hex[:8]}"
        groups.append(SlowGroup(scene.stack, name, topic, members, records_per_second))
        groups[-1].start()
        eventually("the group has all partitions", lambda: groups[-1].assigned == 12)
        return name

    yield start
    for group in groups:
        group.stop()


def policy(topic: str, group: str) -> dict[str, Any]:
    """One with a trigger in records that is never reached."""
    trigger = {"recordsPerSecond": 100_000, "lagSeconds": LAG_SECONDS}
    return {"topic": topic, "trigger": trigger, "consumers": {"groups": [group]}}


def lag_seconds(scene: Scene, group: str) -> float:
    """How far status tells that the group is behind; fails where it could not be asked."""
    found = [each for each in scene.status("clicks").get("consumerLag", []) if each["group"] == group]
    assert len(found) == 1, scene.status("clicks")
    seconds = found[0].get("seconds")
    assert seconds is not None, found
    return float(seconds)


@pytest.mark.timeout(600)
def test_a_consumer_that_is_slow_behind_one_hot_key_gets_the_key_spread_and_catches_up(
    scene: Scene, topic: str, start_load: StartLoad, start_group: StartGroup, proven: Proven
) -> None:
    # given a group of which one member has a partition with 80 % of the records and cannot keep up
    scene.operator()
    group = start_group(topic, members=3, records_per_second=RECORDS_PER_SECOND / 2)
    scene.apply("clicks", policy(topic, group))
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic, records_per_second=RECORDS_PER_SECOND)

    # then the key is spread, far below the trigger in records, and the reason names the lag
    before: set[str] = set()

    def spread() -> bool:
        events, table = scene.events("clicks"), scene.table("clicks")
        if table is not None and table.routes:
            return {route.key for route in table.routes} == {b"nike"}
        before.update(events)
        raise AssertionError((events, scene.status("clicks").get("decision")))

    eventually("the key is spread", spread, LAG_WAIT_SECONDS)
    assert "SlowConsumer" not in before
    eventually("the change is an Event", lambda: "Spread" in scene.events("clicks"))
    _, events = scene.described("clicks")
    assert f"group {group} is " in events
    assert " s behind on it" in events

    # and the group catches up
    def caught_up() -> bool:
        seconds = lag_seconds(scene, group)
        assert seconds < LAG_SECONDS, seconds
        return True

    eventually("the group has caught up", caught_up, LAG_WAIT_SECONDS)
    proven(load, topic)


@pytest.mark.timeout(600)
def test_a_group_that_is_slow_everywhere_is_told_of_and_nothing_moves(
    scene: Scene, topic: str, start_load: StartLoad, start_group: StartGroup, proven: Proven
) -> None:
    # given a group whose every member manages a third of what comes
    scene.operator()
    group = start_group(topic, members=3, records_per_second=RECORDS_PER_SECOND / 9)
    scene.apply("clicks", policy(topic, group))
    scene.wait_for_condition("clicks", "Governing")
    load = start_load(topic, records_per_second=RECORDS_PER_SECOND, hot_share=0.0)

    # then that is told, in status and as an Event
    def told() -> bool:
        decision = scene.status("clicks").get("decision", {})
        assert decision.get("reason") == "SlowConsumer", scene.status("clicks")
        return group in decision["message"]

    eventually("the group is called slow", told, LAG_WAIT_SECONDS)
    eventually("it is an Event", lambda: "SlowConsumer" in scene.events("clicks"))
    eventually("it is far behind", lambda: lag_seconds(scene, group) > LAG_SECONDS)

    # and nothing moved
    table = scene.table("clicks")
    assert table is not None
    assert table.routes == ()
    proven(load, topic)
