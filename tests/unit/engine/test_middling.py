"""Which keys that are no giants are moved off a hot partition."""

from __future__ import annotations

from dataclasses import replace

from hotkey_operator.engine.heavy import KeyLoad
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.middling import chosen
from hotkey_operator.engine.model import TopicFacts
from hotkey_operator.engine.pressure import Load
from hotkey_operator.engine.situation import Situation
from tests.unit.engine.stream import START, STREAM, spec, table

LOAD = Load((160.0, 100.0, 100.0, 100.0), None)
KEYS = {name: KeyLoad(name, rate, 0.0, {0: rate}) for name, rate in ((b"nike", 40.0), (b"adidas", 30.0))}


def test_the_rest_of_a_key_with_its_own_topic_is_not_moved_as_a_whole() -> None:
    policy = spec(trigger={"recordsPerSecond": 150, "for": "0s"})
    memory, topic = Memory(over_since={0: START - 60}), TopicFacts(STREAM, 4, False)
    s = Situation(policy, START, topic, table(partitions=4), memory, LOAD, LOAD, (0,), False, KEYS)
    assert [key.key for key in chosen(s, 8)] == [b"nike"]

    assert [key.key for key in chosen(replace(s, aside=frozenset({b"nike"})), 8)] == [b"adidas"]
