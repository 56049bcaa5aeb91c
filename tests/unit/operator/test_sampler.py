"""What a sampling tells where Kafka refuses to hand out records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from hotkey_operator.adapters.dimensions import DimensionReader
from hotkey_operator.adapters.sampler import Sampler
from hotkey_operator.ports import SampleBudget

DENIED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: Topic authorization failed")
FAILED = KafkaError(KafkaError.UNKNOWN, "Broker: Unknown error")
Answer = Callable[[int, int], Message | None]  # what partition and offset give
Tell = Callable[..., dict[int, str | None]]


class Script:
    """The three calls that a sampler makes; what is assigned is handed out, or refused, once."""

    def __init__(self) -> None:
        self.answer: Answer = record
        self.left: list[TopicPartition] = []

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.left = list(partitions)

    def unassign(self) -> None:
        self.left = []

    def consume(self, *_: object, **__: object) -> list[Message]:
        left, self.left = self.left, []
        given = [(each.partition, each.offset + number) for each in left for number in range(100)]
        return [found for each in given if (found := self.answer(*each)) is not None]


def record(partition: int, offset: int) -> Message:
    return message(partition, offset, key=b"nike", value=b"v", headers=[], timestamp=(0, -1))


def refusal(error: KafkaError) -> Answer:
    return lambda partition, offset: message(partition, offset, error=error)


def nothing(partition: int, offset: int) -> None:
    return None


def message(partition: int, offset: int, **fields: Any) -> Message:
    return Message(topic="clicks", partition=partition, offset=offset, **fields)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def told(script: Script) -> Tell:
    sampler = Sampler(cast(Consumer, script), 1e9)

    def read(*partitions: int) -> dict[int, str | None]:
        """Sample once: each partition that is told of, and why it could not be read."""
        budget = SampleBudget(records_per_partition=10, runs_per_partition=1, seconds=0.05)
        windows = dict.fromkeys(partitions, (0, 50))
        reading = sampler.read("clicks", windows, DimensionReader(()), budget, 1)
        assert all(bool(each.runs) is (each.failure is None) for each in reading.samples)
        return {each.partition: each.failure for each in reading.samples}

    return read


def test_a_refused_partition_is_told_of_in_kafkas_words_with_what_to_do(script: Script, told: Tell) -> None:
    script.answer = refusal(DENIED)
    words = "Kafka: cannot sample partition 3 of clicks: Broker: Topic authorization failed"
    assert told(3) == {3: f"{words}; grant the operator Read on the topic"}


def test_any_other_error_of_a_fetch_is_told_as_it_is(script: Script, told: Tell) -> None:
    script.answer = refusal(FAILED)
    assert told(3) == {3: "Kafka: cannot sample partition 3 of clicks: Broker: Unknown error"}


def test_a_refusal_hides_no_other_partition(script: Script, told: Tell) -> None:
    script.answer = lambda partition, offset: (refusal(DENIED) if partition else record)(partition, offset)
    found = told(0, 1)
    assert found[0] is None
    assert "partition 1 " in str(found[1])


def test_a_refusal_that_the_client_does_not_tell_again_stands_until_a_record_comes(
    script: Script, told: Tell
) -> None:
    script.answer = refusal(DENIED)
    first = told(3)
    script.answer = nothing
    assert told(3) == first
    script.answer = record
    assert told(3) == {3: None}
    script.answer = nothing
    assert told(3) == {}
