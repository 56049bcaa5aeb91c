"""The consumer reads what the tables of its topics say, from the start, without a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import confluent_kafka
import msgspec
import pytest
from confluent_kafka import KafkaException, Message, TopicPartition
from confluent_kafka.admin._acl import AclOperation

import hotkey_sdk
from hotkey_sdk.routing.table import DedicatedTopic, Phase
from tests.stack.sdk.scene import PARTITIONS, Scene, until
from tests.stack.sdk.test_dedicated import deny


def fill(scene: Scene, topic: str, count: int, name: str) -> set[bytes]:
    """Put `count` records with ids into the topic; the ids."""
    producer = confluent_kafka.Producer({"bootstrap.servers": scene.stack.kafka.bootstrap, "log_level": 0})
    ids = {f"{name}-{number}".encode() for number in range(count)}
    for each in ids:
        producer.produce(topic, each, each)
    assert producer.flush(30) == 0
    return ids


def by_poll(consumer: hotkey_sdk.Consumer) -> list[Message]:
    message = consumer.poll(0.2)
    return [] if message is None else [message]


def by_consume(consumer: hotkey_sdk.Consumer) -> list[Message]:
    return consumer.consume(500, 0.2)


def read_until(
    consumer: hotkey_sdk.Consumer,
    wanted: set[bytes],
    read: Callable[[hotkey_sdk.Consumer], list[Message]] = by_consume,
) -> list[bytes]:
    """Read until every wanted id was seen; all that was read. An error message is a failure."""
    found: list[bytes] = []

    def go_on() -> bool:
        for message in read(consumer):
            assert message.error() is None, message.error()
            found.append(message.value() or b"")
        return wanted <= set(found)

    until(go_on, lambda: (sorted(wanted - set(found))[:5], len(found), consumer.hotkey.stats()))
    return found


def wait_for_assignment(consumer: hotkey_sdk.Consumer, partitions: int) -> None:
    def assigned() -> bool:
        assert not [message for message in consumer.consume(1, 0.1) if message.error() is not None]
        return len(consumer.assignment()) == partitions

    until(assigned, lambda: (len(consumer.assignment()), consumer.hotkey.stats()))


VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {},
    "cooperative": {"partition.assignment.strategy": "cooperative-sticky"},
    "new protocol": {"group.protocol": "consumer"},
}


@pytest.mark.parametrize("read", [by_poll, by_consume])
@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("reset", ["latest", "earliest"])
def test_a_second_topic_that_holds_records_is_read_from_its_start(
    scene: Scene,
    settings: dict[str, Any],
    read: Callable[[hotkey_sdk.Consumer], list[Message]],
    reset: str,
) -> None:
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 3)
    old = fill(scene, second, 300, "old")
    consumer = scene.consumer(**settings, **{"auto.offset.reset": reset, "enable.auto.commit": False})
    consumer.subscribe([scene.topic])
    scene.publish(scene.table(epoch=4))
    wait_for_assignment(consumer, PARTITIONS)

    scene.publish(scene.table(epoch=5, read_set=(second,)))

    found = read_until(consumer, old, read)
    wait_for_assignment(consumer, PARTITIONS + 3)
    new = fill(scene, scene.topic, 50, "base") | fill(scene, second, 50, "new")
    found += read_until(consumer, new, read)
    assert sorted(found) == sorted(old | new), "each once"
    until(lambda: _epochs(scene, consumer) == [5], scene.reports)


def _epochs(scene: Scene, consumer: hotkey_sdk.Consumer) -> list[int]:
    consumer.poll(0.05)
    return [report.epoch for report in scene.reports() if report.role == "consumer"]


def test_the_start_position_of_each_new_partition_is_committed(scene: Scene) -> None:
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 3)
    consumer = scene.consumer(**{"auto.offset.reset": "latest", "enable.auto.commit": False})
    scene.publish(scene.table(epoch=5, read_set=(second,)))
    consumer.subscribe([scene.topic])
    places = [TopicPartition(second, number) for number in range(3)]

    def committed() -> list[int]:
        consumer.poll(0.1)
        return [place.offset for place in consumer.committed(places, timeout=10)]

    until(lambda: committed() == [0, 0, 0], lambda: (committed(), consumer.hotkey.stats()))
    assert consumer.hotkey.stats().added_topics == (second,)


def test_two_members_commit_the_start_of_a_topic_that_is_only_prepared(scene: Scene) -> None:
    """Writes move there when every group has a committed offset on each partition, and not before."""
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 4)
    members = [scene.consumer(**{"enable.auto.commit": False}) for _ in range(2)]
    for member in members:
        member.subscribe([scene.topic])
    prepared = DedicatedTopic(second, 4, Phase.PREPARE, "any-id", b"nike")
    table = scene.table(epoch=5, read_set=(second,))
    scene.publish(msgspec.structs.replace(table, topics=(prepared,)))
    places = [TopicPartition(second, number) for number in range(4)]

    def committed() -> list[int]:
        for member in members:
            member.poll(0.05)
        return [place.offset for place in members[0].committed(places, timeout=10)]

    until(lambda: committed() == [0, 0, 0, 0], lambda: (committed(), members[0].hotkey.stats()))
    assert {member.hotkey.stats().added_topics for member in members} == {(second,)}


def test_what_the_group_has_committed_on_is_read_again_even_without_a_table(scene: Scene) -> None:
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 1)
    first = scene.consumer(**{"auto.offset.reset": "earliest", "enable.auto.commit": False})
    scene.publish(scene.table(epoch=5, read_set=(second,)))
    first.subscribe([scene.topic])
    old = fill(scene, second, 20, "old")
    read_until(first, old)
    first.commit(asynchronous=False)
    first.close()
    scene.clients.remove(first)
    new = fill(scene, second, 20, "new")
    scene.redis.delete(f"hotkey:{{{scene.stream}}}:table")

    again = scene.consumer(**{"auto.offset.reset": "latest", "enable.auto.commit": False})
    again.subscribe([scene.topic])

    assert sorted(read_until(again, new)) == sorted(new), "from where the group was"


def test_a_topic_that_does_not_exist_yet_is_neither_created_nor_an_error(scene: Scene) -> None:
    second = f"{scene.topic}.hot.x.g1"
    consumer = scene.consumer(**{"auto.offset.reset": "earliest"})
    consumer.subscribe([scene.topic])
    scene.publish(scene.table(epoch=5, read_set=(second,)))
    wait_for_assignment(consumer, PARTITIONS)
    until(lambda: _epochs(scene, consumer) == [0], scene.reports)
    until(lambda: consumer.hotkey.stats().source.tables[0].epoch == 5, consumer.hotkey.stats)

    read_until(consumer, fill(scene, scene.topic, 5, "base"))
    assert second not in scene.admin.list_topics(timeout=10).topics
    assert consumer.hotkey.stats().added_topics == ()
    assert _epochs(scene, consumer) == [0], "a read set that is not yet read is not reported as applied"
    scene.create(second, 2)

    read_until(consumer, fill(scene, second, 20, "new"))
    until(lambda: _epochs(scene, consumer) == [5], scene.reports)


def test_an_added_topic_that_may_not_be_read_is_left_out_and_the_base_topic_read_on(scene: Scene) -> None:
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 3)
    allow = deny(scene, AclOperation.READ)
    try:
        consumer = scene.consumer(**{"auto.offset.reset": "earliest"})
        consumer.subscribe([scene.topic])
        scene.publish(scene.table(epoch=5, read_set=(second,)))
        until(lambda: _is_added_then_left_out(consumer, second), consumer.hotkey.stats)
        sent = fill(scene, scene.topic, 50, "base")

        assert sorted(read_until(consumer, sent, by_poll)) == sorted(sent)
    finally:
        allow()


def _is_added_then_left_out(consumer: hotkey_sdk.Consumer, topic: str) -> bool:
    message = consumer.poll(0.1)
    assert message is None or message.error() is None, message.error()
    return topic in consumer._read_set._denied and consumer.hotkey.stats().added_topics == ()


def test_the_callers_callbacks_keep_working(scene: Scene) -> None:
    second = f"{scene.topic}.hot.x.g1"
    scene.create(second, 2)
    seen: dict[str, list[TopicPartition]] = {"assign": [], "revoke": []}
    consumer = scene.consumer(**{"auto.offset.reset": "latest"})

    def on_assign(who: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        assert who is consumer
        seen["assign"] += partitions
        who.assign(partitions)

    def on_revoke(who: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        seen["revoke"] += partitions

    consumer.subscribe([scene.topic], on_assign=on_assign, on_revoke=on_revoke)
    wait_for_assignment(consumer, PARTITIONS)
    old = fill(scene, second, 50, "old")
    scene.publish(scene.table(epoch=5, read_set=(second,)))

    assert set(read_until(consumer, old)) == old
    assert {each.topic for each in seen["assign"]} == {scene.topic, second}
    assert {each.topic for each in seen["revoke"]} == {scene.topic}


def test_an_exception_of_a_callback_comes_out_and_reading_goes_on(scene: Scene) -> None:
    consumer = scene.consumer(**{"auto.offset.reset": "earliest"})
    raised: list[Exception] = []

    def on_assign(who: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        raise LookupError("the caller's own")

    def come_out() -> bool:
        try:
            consumer.poll(0.1)
        except LookupError as error:
            raised.append(error)
        return bool(raised)

    consumer.subscribe([scene.topic], on_assign=on_assign)
    until(come_out, consumer.hotkey.stats)

    ids = fill(scene, scene.topic, 20, "base")
    assert set(read_until(consumer, ids)) == ids


def test_a_pattern_is_handed_on_as_it_is(scene: Scene) -> None:
    ids = fill(scene, scene.topic, 10, "base")
    consumer = scene.consumer(**{"auto.offset.reset": "earliest"})

    consumer.subscribe([f"^{scene.topic}$"])

    assert set(read_until(consumer, ids)) == ids
    assert consumer.hotkey.stats().added_topics == ()


def test_it_behaves_as_the_original_without_settings_of_its_own(scene: Scene) -> None:
    ids = fill(scene, scene.topic, 30, "base")
    consumer = hotkey_sdk.Consumer(
        {
            "bootstrap.servers": scene.stack.kafka.bootstrap,
            "group.id": uuid4().hex,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    with consumer:
        consumer.subscribe([scene.topic])
        assert set(read_until(consumer, ids)) == ids
        assert not consumer.hotkey.enabled
        consumer.unsubscribe()
    with pytest.raises((RuntimeError, KafkaException)):
        consumer.poll(0)


def test_redis_down_does_not_keep_it_from_reading(scene: Scene) -> None:
    ids = fill(scene, scene.topic, 30, "base")
    consumer = scene.consumer(
        **{"auto.offset.reset": "earliest", "hotkey.redis.url": "redis://127.0.0.1:1/0"}
    )
    consumer.subscribe([scene.topic])

    assert set(read_until(consumer, ids)) == ids

    def tells() -> bool:
        consumer.poll(0.1)  # the cluster's id, and with it the table's name, is learned while it polls
        return consumer.hotkey.stats().source.reachable is False

    until(tells, consumer.hotkey.stats)
