"""Every acknowledged click is counted once, whatever happens to the aggregator or to Kafka."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from devstack import Stack
from hotkey_aggregator.store import CountQuery, Flush, Keeping, OffsetMove, Position, Store
from hotkey_aggregator.stores import StoreAddress
from tests.stack.aggregator.clicks import Load, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.counted import assert_all_counted_once, assert_ids, count_on
from tests.stack.aggregator.process import AggregatorProcess, wait_until


@contextmanager
def stored_in(aggregator: AggregatorProcess) -> Iterator[Store]:
    """The store of an aggregator that ended."""
    store = StoreAddress(f"duckdb:{aggregator.db}").open(Keeping())
    yield store
    store.close()


@pytest.mark.parametrize(
    ("seed", "flags"),
    [
        # Short pauses: some kills come before the first flush is done.
        (1, {"flush_seconds": 0.3}),
        # A flush every few records: kills come during flushes.
        (2, {"flush_seconds": 0.05, "max_pending": 50}),
        # Long between flushes: kills come with much un-flushed.
        (3, {"flush_seconds": 2.0}),
    ],
)
def test_nothing_is_lost_or_doubled_when_the_aggregator_is_killed_again_and_again(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, seed: int, flags: dict[str, object]
) -> None:
    # given an aggregator under load
    topic, dice = new_topic(6), random.Random(seed)
    victim = aggregator(topic, **flags)
    with Load(stack.kafka.bootstrap, topic, partitions=6, seed=seed) as load:
        victim.start()
        count_on(victim)

        # when it is killed at random moments and started again
        for kill in range(5):
            time.sleep(dice.uniform(0.0, 0.6))  # the moment of the fault, not a wait for anything
            victim.kill()
            victim.start()
            if kill % 2:
                count_on(victim)
        load.stop()

    # then
    assert_all_counted_once(stack, [victim], topic, load.acknowledged)
    assert victim.terminate() == 0


def test_nothing_is_lost_or_doubled_when_partitions_come_and_go_between_group_members(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given an aggregator with much un-flushed
    topic = new_topic(6)
    member = aggregator(topic, flush_seconds=1.0)
    with Load(stack.kafka.bootstrap, topic, partitions=6, seed=4) as load:
        member.start()
        count_on(member)

        # when another member of the group takes half of the partitions, and leaves again
        for _ in range(2):
            guest = Consumer(
                {
                    "bootstrap.servers": stack.kafka.bootstrap,
                    "group.id": f"aggregator-of-{topic}",
                    "partition.assignment.strategy": "cooperative-sticky",
                    "enable.auto.commit": False,
                    "log_level": 0,
                }
            )
            guest.subscribe([topic])

            def has_half(member_of_the_group: Consumer = guest) -> bool:
                member_of_the_group.poll(0.1)
                return len(member_of_the_group.assignment()) == 3

            wait_until(has_half, "the guest has half of the partitions", guest.assignment)
            guest.close()
            member.wait_until(
                lambda: member.metric("hotkey_aggregator_assigned_partitions") == 6, "all partitions back"
            )
            count_on(member)
        load.stop()

    # then
    assert_all_counted_once(stack, [member], topic, load.acknowledged)


def test_nothing_is_lost_or_doubled_when_the_broker_is_killed(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(3)
    counting = aggregator(topic)
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=5, per_second=1000) as load:
        counting.start()
        count_on(counting)
        stack.kafka.nodes[0].kill()
        stack.kafka.nodes[0].restart()
        count_on(counting)
        load.stop()
    assert_all_counted_once(stack, [counting], topic, load.acknowledged)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_flushes_what_waits(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, signal_number: int
) -> None:
    # given clicks that wait for a flush in an hour
    topic = new_topic(1)
    stopping = aggregator(topic, flush_seconds=3600)
    stopping.start()
    sent = [f"e{number}" for number in range(300)]
    send_clicks(stack.kafka.bootstrap, topic, sent)
    stopping.wait_until(lambda: stopping.metric("hotkey_aggregator_pending_events") == 300, "300 waiting")
    assert stopping.totals()["clicks"] == 0

    # when
    code = stopping.terminate(signal_number)

    # then
    assert code == 0, stopping.log_end()
    with stored_in(stopping) as store:
        assert Counter(one for chunk in store.event_ids() for one in chunk) == Counter(sent)
        assert [count.clicks for count in store.counts(CountQuery())] == [300]


def test_many_waiting_events_are_flushed_before_their_time(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(1)
    eager = aggregator(topic, flush_seconds=3600, max_pending=100)
    eager.start()
    send_clicks(stack.kafka.bootstrap, topic, [f"e{number}" for number in range(250)])
    eager.wait_until(lambda: eager.totals()["clicks"] >= 100, "a flush at 100 waiting events")


def test_what_waits_in_newly_assigned_partitions_is_flushed_before_a_whole_interval(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(1)
    send_clicks(stack.kafka.bootstrap, topic, [f"e{number}" for number in range(50)])
    taking_over = aggregator(topic, flush_seconds=60)
    taking_over.start()
    taking_over.wait_until(lambda: taking_over.totals()["clicks"] == 50, "a flush", seconds=55)


def test_offsets_rewound_by_hand_in_the_store_double_nothing(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given
    topic = new_topic(2)
    rewound = aggregator(topic)
    rewound.start()
    for partition in range(2):
        ids = [f"p{partition}-{number}" for number in range(200)]
        send_clicks(stack.kafka.bootstrap, topic, ids, partition)
    rewound.wait_until(lambda: rewound.totals()["clicks"] == 400, "400 clicks")
    assert rewound.terminate() == 0

    # when one partition's offset is set back and the other's to the beginning
    with stored_in(rewound) as store:
        moves = [
            OffsetMove(source, position.next_offset, Position((50, 0)[source.partition]))
            for source, position in store.positions().items()
        ]
        store.commit(Flush(moves=tuple(moves)))
    send_clicks(stack.kafka.bootstrap, topic, ["new"])
    rewound.start()

    # then all of it is read again and only the new click is counted
    rewound.wait_until(lambda: rewound.stored(topic) == {0: 201, 1: 200}, "read to the end")
    assert rewound.ids() == Counter([f"p{p}-{n}" for p in range(2) for n in range(200)] + ["new"])
    assert rewound.totals()["clicks"] == 401
    rewound.wait_for_metric("hotkey_aggregator_clicks_duplicate_total", 150 + 200)


def test_offsets_on_the_broker_are_for_people_and_nothing_rests_on_them(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a group that somebody moved beyond clicks that were not counted yet
    topic = new_topic(1)
    group = f"aggregator-of-{topic}"
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    send_clicks(stack.kafka.bootstrap, topic, [f"e{number}" for number in range(100)])
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 60)])
    altered = admin.alter_consumer_group_offsets([moved])[group].result(60)
    assert [partition.error for partition in altered.topic_partitions or []] == [None]

    # when
    counting = aggregator(topic)
    counting.start()

    # then all are counted
    counting.wait_until(lambda: counting.totals()["clicks"] == 100, "100 clicks")

    # and the broker is told the store's offset (asked as no member: AdminClient's call may end the process)
    asking = Consumer({"bootstrap.servers": stack.kafka.bootstrap, "group.id": group, "log_level": 0})

    def committed() -> list[int]:
        return [place.offset for place in asking.committed([TopicPartition(topic, 0)], timeout=10)]

    counting.wait_until(lambda: committed() == [100], "the broker has the store's offset")
    asking.close()


def test_offsets_rewound_by_hand_on_the_broker_make_nothing_be_read_again(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, database: str
) -> None:
    # given an aggregator that was ended when all was counted, and has left its group
    topic = new_topic(1)
    group = f"aggregator-of-{topic}"
    sent = [f"e{number}" for number in range(100)]
    rewound = aggregator(topic, store=database)
    rewound.start()
    send_clicks(stack.kafka.bootstrap, topic, sent)
    rewound.wait_until(lambda: rewound.totals()["clicks"] == 100, "100 clicks")
    assert rewound.terminate() == 0

    # when the group's offsets are set back
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 10)])

    def is_moved() -> bool:
        altered = admin.alter_consumer_group_offsets([moved])[group].result(60)
        return [partition.error for partition in altered.topic_partitions or []] == [None]

    wait_until(is_moved, "the offsets are set back", lambda: group)
    send_clicks(stack.kafka.bootstrap, topic, ["new"])
    rewound.start()

    # then it goes on where the store is
    rewound.wait_until(lambda: rewound.totals()["clicks"] >= 101, "the new click is counted")
    assert_ids(rewound, [*sent, "new"])
    rewound.wait_for_metric("hotkey_aggregator_clicks_counted_total", 1)
    assert rewound.metric("hotkey_aggregator_clicks_duplicate_total") == 0


def test_a_second_aggregator_of_the_group_ends_the_first_instead_of_sharing_with_it(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, tmp_path: Path
) -> None:
    # given
    topic = new_topic(4)
    first = aggregator(topic)
    first.start()
    first.wait_until(lambda: first.metric("hotkey_aggregator_assigned_partitions") == 4, "4 partitions")

    # when one with a store of its own joins under the same group
    second = aggregator(topic, db=tmp_path / "second.duckdb")
    second.start()

    # then it takes over whole, and the first says why it ends
    assert first.process.wait(timeout=120) == 1
    assert "another aggregator runs in this group" in first.log_end()
    second.wait_until(lambda: second.metric("hotkey_aggregator_assigned_partitions") == 4, "4 partitions")
