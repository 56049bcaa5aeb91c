"""What brokers refuse when a topic is to be made, by the reason that the operator then gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack import Stack
from hotkey_operator.adapters.topics import KafkaTopics
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import TopicRefused
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import fresh
from tests.simulation.memory import CONFIG
from tests.stack.denying import denying

OF_ONE_REQUEST = 10_000  # partitions: more of them are against the brokers' policy


@pytest.fixture
def topics(stack: Stack, run: Run) -> Iterator[KafkaTopics]:
    made = KafkaTopics({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    yield made
    run(made.close())


def test_a_topic_that_may_not_be_made_is_refused_for_the_lack_of_rights(
    run: Run, topics: KafkaTopics, stack: Stack
) -> None:
    name = fresh("hot")
    with denying(stack.kafka.bootstrap, name), pytest.raises(TopicRefused) as refused:
        run(topics.create(name, 1, CONFIG))
    assert refused.value.reason is Reason.NOT_AUTHORIZED
    assert run(topics.describe([name])) == {name: None}


def test_more_partitions_than_the_brokers_policy_allows_are_refused_as_too_many(
    run: Run, topics: KafkaTopics
) -> None:
    name = fresh("hot")
    with pytest.raises(TopicRefused) as refused:
        run(topics.create(name, OF_ONE_REQUEST + 1, CONFIG))
    assert refused.value.reason is Reason.TOPIC_QUOTA_EXCEEDED
    assert run(topics.describe([name])) == {name: None}


def test_a_name_that_no_topic_can_have_is_refused(run: Run, topics: KafkaTopics) -> None:
    with pytest.raises(TopicRefused) as refused:
        run(topics.create("no name", 1, CONFIG))
    assert refused.value.reason is Reason.TOPIC_NOT_MADE
