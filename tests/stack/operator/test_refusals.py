"""What a person reads where nothing is spread: the reason in `kubectl describe`, as status and as Event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.stack.operator.conftest import StartSender
from tests.stack.operator.scene import Scene
from tests.stack.operator.sender import ANY_PARTITION, Record
from tests.stack.operator.waiting import eventually

TRIGGER = {"recordsPerSecond": 100}
BY_A_HEADER = {
    "dimensions": [{"name": "country_id", "from": {"header": "x-country"}}],
    "spread": {"by": [["country_id"]]},
}


def one_hot(number: int) -> bytes:
    return b"nike" if number % 5 else b"cold%d" % number


def two_hot(number: int) -> bytes:
    """The bigger one is worth a route alone: without it the hottest partition is cooler."""
    if number % 10 < 6:
        return b"nike"
    return b"adidas" if number % 10 < 9 else b"cold%d" % number


def none_hot(number: int) -> bytes:
    return b"cold%d" % (number % 1_000)


@dataclass(frozen=True)
class Refusal:
    """A stream that is refused: its policy, its topic's settings and its records; `routes` that stand."""

    reason: str
    key: Callable[[int], bytes]
    spec: Mapping[str, Any] = field(default_factory=dict)
    topic: Mapping[str, str] = field(default_factory=dict)
    partition: int = ANY_PARTITION
    routes: int = 0


REFUSALS = {
    "a header that nobody sends": Refusal("DimensionsNotVisible", one_hot, BY_A_HEADER),
    "a compacted topic": Refusal("TopicCompacted", one_hot, topic={"cleanup.policy": "compact"}),
    "a hot key over the limit": Refusal("TooManyHotKeys", two_hot, {"limits": {"maxHotKeys": 1}}, routes=1),
    "many keys on one partition": Refusal("NoDominantKey", none_hot, partition=3),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_person_reads_why_a_hot_stream_is_not_spread(
    scene: Scene, start_sender: StartSender, refusal: Refusal
) -> None:
    # given a governed topic
    scene.operator()
    topic = scene.topic(f"{scene.namespace}-clicks", 6, **refusal.topic)
    scene.apply("clicks", {"topic": topic, "trigger": TRIGGER, **refusal.spec})
    scene.wait_for_condition("clicks", "Governing")

    # when a partition of it is too hot
    sender = start_sender(lambda n: Record(topic, refusal.key(n), refusal.partition), 800.0)

    # then the reason stands in the policy's status and in an Event
    def is_told() -> bool:
        decision = scene.status("clicks")["decision"]
        assert decision["reason"] == refusal.reason, decision
        return True

    eventually("the decision names the reason", is_told)

    def is_described() -> bool:
        status, events = scene.described("clicks")
        assert refusal.reason in status, status
        assert refusal.reason in events, events
        return True

    eventually("kubectl describe names the reason", is_described)
    table = scene.wait_for_published("clicks", topic)
    assert len(table.routes) == refusal.routes
    sender.assert_all_arrived_once(topic)
