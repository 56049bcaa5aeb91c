"""Which keys do not get on with a topic of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotkey_operator.engine.heavy import KeyLoad
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import TopicFacts
from hotkey_operator.engine.own_topic import watched
from hotkey_operator.engine.pressure import Load
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.told_topics import no_topic_of_its_own
from hotkey_operator.engine.topic_memory import TopicMemory
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import DedicatedTopic, Phase
from tests.unit.engine.stream import START, STREAM, spec, table

HOME = partition_for(b"nike", 4)
OWN = DedicatedTopic("clicks.hot.0a1b2c3d.g7", 2, Phase.ACTIVE, "id-1", b"nike")


def at_home(records: float) -> Situation:
    """`nike` is all that a sample of its home partition has, which is hot by its rate, or not."""
    policy = spec(
        trigger={"recordsPerSecond": 1_000, "lagSeconds": 30, "for": "0s"}, dedicatedTopic={"enabled": True}
    )
    load = Load(tuple(records if p == HOME else 10.0 for p in range(4)), None)
    memory, topic = Memory(over_since={HOME: START - 60}), TopicFacts(STREAM, 4, False)
    keys = {b"nike": KeyLoad(b"nike", records, 0.0, {HOME: records})}
    return Situation(policy, START, topic, table(partitions=4), memory, load, load, (HOME,), False, keys)


@pytest.mark.parametrize(("records", "shunned"), [(1_500.0, True), (200.0, False)])
def test_a_backlog_of_a_keys_records_is_no_sign_that_its_producers_do_not_follow(
    records: float, shunned: bool
) -> None:
    s = at_home(records)

    memory = watched(s, table(partitions=4, topics=(OWN,)), TopicMemory())

    assert memory.is_shunned(b"nike", START) is shunned


def test_a_key_that_is_not_tried_again_for_a_while_is_told_why() -> None:
    s = at_home(1_500.0)
    s = replace(s, memory=replace(s.memory, topics=TopicMemory().shunning(b"nike", START - 60)))

    (told,) = no_topic_of_its_own(s, b"nike")

    assert told.reason is Reason.PARTIAL_ADOPTION
    assert "did not write to the last one" in told.why
