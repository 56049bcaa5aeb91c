"""Records that are no clicks: kept, brought to their topic, put back when they are clicks by now."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from devstack import Stack
from hotkey_aggregator.events import Reason
from hotkey_aggregator.replay import ReplayError, ReplayOrder, replay
from hotkey_aggregator.store import HOUR_MILLISECONDS, Keeping
from tests.stack.aggregator.clicks import click, ends, make_topic, producer, send, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.counted import assert_ids
from tests.stack.aggregator.process import AggregatorProcess, wait_until

DAY = 24 * HOUR_MILLISECONDS


def encoded(one: dict[str, Any]) -> bytes:
    return json.dumps(one).encode()


def now() -> int:
    return int(time.time() * 1000)


def letters(stack: Stack, topic: str, number: int) -> list[dict[str, Any]]:
    """The first letters of a dead-letter topic, waited for: value, key and headers."""
    reader = Consumer({"bootstrap.servers": stack.kafka.bootstrap, "group.id": "letters", "log_level": 0})
    found: list[dict[str, Any]] = []

    def all_there() -> bool:
        there = reader.list_topics(timeout=10).topics
        if topic not in there:
            return False
        if not reader.assignment():
            reader.assign([TopicPartition(topic, one, OFFSET_BEGINNING) for one in there[topic].partitions])
        for message in reader.consume(500, 0.2):
            if message.error() is None:
                headers = dict(message.headers() or ())
                found.append({"value": message.value(), "key": message.key(), **headers})
        return len(found) >= number

    wait_until(all_there, f"{number} letters", lambda: found)
    reader.close()
    return found


def order(topic: str, **changes: Any) -> ReplayOrder:
    return ReplayOrder(
        **{
            "base": topic,
            "dead": f"{topic}.dead",
            "group": f"replay-of-{topic}",
            "keeping": Keeping(),
            **changes,
        }
    )


def replayed(stack: Stack, topic: str, **changes: Any) -> str:
    out = io.StringIO()
    config = {"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0}
    replay(order(topic, **changes), config, out=out, progress=io.StringIO())
    return out.getvalue().strip()


def test_what_is_no_click_is_in_the_dead_letter_topic_with_where_it_stood_and_why(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given records that are none, between clicks
    topic = new_topic(5)
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (b"nike:7", b"click!", "NotJson"),
        (None, None, "Empty"),
        (b"\xff", encoded({**click("negative"), "cost": -1}), "NotAClick"),
        (b"k", encoded(click("1970", time_ms=0)), "OutOfRetention"),
        (b"k", encoded(click("9999", time_ms=253_402_300_799_999)), "FromTheFuture"),
    ]
    sender = producer(stack.kafka.bootstrap)
    for key, value, _ in bad:
        sender.produce(topic, value, key, partition=2, headers=[("trace", b"t-1")])
    sender.produce(topic, encoded(click("good")), b"k", partition=2)
    assert sender.flush(30) == 0

    # when
    burying = aggregator(topic)
    burying.start()

    # then
    found = letters(stack, f"{topic}.dead", len(bad))
    burying.wait_until(lambda: burying.totals()["clicks"] == 1, "the click is counted")
    seen = {int(one["hotkey-dead-offset"]): one for one in found}
    assert sorted(seen) == [0, 1, 2, 3, 4]
    for offset, (key, value, reason) in enumerate(bad):
        letter = seen[offset]
        assert (letter["key"], letter["value"], letter["trace"]) == (key, value, b"t-1")
        assert letter["hotkey-dead-reason"].decode() == reason
        assert (letter["hotkey-dead-topic"], letter["hotkey-dead-partition"]) == (topic.encode(), b"2")
        assert letter["hotkey-dead-detail"]
        assert len(letter["hotkey-dead-topic-id"]) == 22

    # and the topic is as safe as the base topic, and the store needs to keep the records no longer
    topics = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0}).list_topics(timeout=10)
    dead_topic = topics.topics[f"{topic}.dead"]
    assert {len(one.replicas) for one in dead_topic.partitions.values()} == {1}
    assert len(dead_topic.partitions) == 3
    burying.wait_until(
        lambda: burying.metric("hotkey_aggregator_dead_letters_delivered_total") == 5, "all delivered"
    )
    assert {row["offset"] for row in burying.dead()} == {0, 1, 2, 3, 4}


def test_letters_wait_in_the_store_while_the_topic_cannot_be_written_and_no_click_waits_for_them(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a dead-letter topic that refuses all records
    topic = new_topic(1)
    dead = f"{topic}-bin"
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    make_topic(stack.kafka.bootstrap, dead, 1)
    set_size(admin, dead, 78)
    burying = aggregator(topic, dead_letter_topic=dead)
    burying.start()

    # when
    send(stack.kafka.bootstrap, topic, [(b"k", b"no click at all, whatever it is")] * 3)
    send_clicks(stack.kafka.bootstrap, topic, ["e1", "e2"])

    # then clicks are counted, the letters are kept and it is said
    burying.wait_until(lambda: "event=dead_letters_wait" in burying.log_text(), "it says so")
    burying.wait_until(lambda: burying.totals()["clicks"] == 2, "the clicks are counted")
    assert burying.totals()["dead"] == 3
    assert burying.metric("hotkey_aggregator_dead_letter_failures_total") > 0

    # and they come after a restart when it can be written
    set_size(admin, dead, 1_000_000)
    assert burying.terminate() == 0
    burying.start()
    assert {one["hotkey-dead-offset"] for one in letters(stack, dead, 3)} == {b"0", b"1", b"2"}


def set_size(admin: AdminClient, topic: str, size: int) -> None:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
    )

    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def test_letters_that_are_clicks_by_now_are_put_back_once_and_the_others_stay(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given clicks that were too old for an aggregator that keeps an hour, and garbage
    topic = new_topic(1)
    old = [f"old-{number}" for number in range(7)]
    strict = aggregator(topic, retention="1h")
    strict.start()
    records = [(b"nike", encoded(click(one, time_ms=now() - DAY))) for one in old]
    send(stack.kafka.bootstrap, topic, [*records, (b"k", b"garbage"), (None, None)])
    send_clicks(stack.kafka.bootstrap, topic, ["new"])
    letters(stack, f"{topic}.dead", 9)
    assert strict.terminate() == 0

    # when one that keeps 90 days counts on, and they are put back
    lenient = aggregator(topic)
    lenient.start()
    assert replayed(stack, topic, dry_run=True) == (
        "would be: 7 put back (OutOfRetention 7), 2 kept (Empty 1, NotJson 1)"
    )
    assert replayed(stack, topic, reason=Reason.EMPTY).startswith("0 put back, 9 kept")
    first = replayed(stack, topic, limit=3)
    second = replayed(stack, topic)
    third = replayed(stack, topic)

    # then each is counted once
    assert first.startswith("3 put back (OutOfRetention 3)")
    assert second.startswith("4 put back (OutOfRetention 4)")
    assert third == "0 put back, 2 kept (Empty 1, NotJson 1)"
    lenient.wait_until(lambda: lenient.totals()["clicks"] == 8, "all are counted")
    assert lenient.ids() == Counter([*old, "new"])
    reached = ends(stack.kafka.bootstrap, topic)
    lenient.wait_until(lambda: lenient.stored(topic) == reached, "read to the end")
    assert lenient.totals()["clicks"] == 8


def run_replay(stack: Stack, topic: str, module: str = "hotkey_aggregator") -> subprocess.Popen[str]:
    """The command, as a process."""
    flags = [f"--bootstrap-servers={stack.kafka.bootstrap}", f"--topic={topic}", f"--group=of-{topic}"]
    command = [sys.executable, "-m", module, "replay", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def bury(stack: Stack, aggregator: MakeAggregator, topic: str, *old: str) -> AggregatorProcess:
    """Too old for an aggregator that keeps an hour; one that keeps 90 days runs when they are buried."""
    strict = aggregator(topic, retention="1h")
    strict.start()
    records = [(b"nike", encoded(click(one, time_ms=now() - DAY))) for one in old]
    send(stack.kafka.bootstrap, topic, [*records, (b"k", b"garbage")])
    letters(stack, f"{topic}.dead", len(records) + 1)
    assert strict.terminate() == 0
    lenient = aggregator(topic)
    lenient.start()
    return lenient


def test_letters_whose_putting_back_was_interrupted_or_done_twice_at_once_are_counted_once(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given letters
    topic, old = new_topic(1), [f"old-{number}" for number in range(10)]
    lenient = bury(stack, aggregator, topic, *old)

    # when putting them back is interrupted between sending and noting
    killed = run_replay(stack, topic, "tests.stack.aggregator.deadly_replay")
    assert killed.wait(timeout=120) == -signal.SIGKILL
    lenient.wait_until(lambda: lenient.totals()["clicks"] >= 4, "some are counted")

    # and started twice at once
    twice = [run_replay(stack, topic) for _ in range(2)]
    told = [one.communicate(timeout=90) for one in twice]
    assert [one.returncode for one in twice] == [0, 0], told

    # then each is counted once, though some were sent again
    lenient.wait_until(lambda: lenient.totals()["clicks"] >= 10, "all are counted")
    reached = ends(stack.kafka.bootstrap, topic)
    lenient.wait_until(lambda: lenient.stored(topic) == reached, "read to the end")
    assert_ids(lenient, old)
    assert reached[0] > 11 + 10


def test_letters_of_a_topic_that_is_gone_go_to_the_base_topic(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a letter from a dedicated topic that was deleted meanwhile
    topic, gone = new_topic(1), "hot-1"
    hot = f"{topic}.hot.0123abcd.g1"
    make_topic(stack.kafka.bootstrap, f"{topic}.dead", 1)
    letter = encoded(click(gone, time_ms=now() - DAY))
    sender = producer(stack.kafka.bootstrap)
    headers: list[tuple[str, str | bytes | None]] = [
        ("hotkey-dead-reason", b"OutOfRetention"),
        ("hotkey-dead-topic", hot.encode()),
    ]
    sender.produce(f"{topic}.dead", letter, b"nike", headers=headers)
    assert sender.flush(30) == 0

    # when
    assert replayed(stack, topic).startswith("1 put back")

    # then
    counting = aggregator(topic)
    counting.start()
    counting.wait_until(lambda: counting.totals()["clicks"] >= 1, "it is counted")
    assert_ids(counting, [gone])
    assert counting.stored(topic) == {0: 1}


def test_letters_of_a_stream_whose_base_topic_is_gone_stay_and_it_is_said(stack: Stack) -> None:
    base = "clicks-that-are-gone"
    make_topic(stack.kafka.bootstrap, f"{base}.dead", 1)
    send(stack.kafka.bootstrap, f"{base}.dead", [(b"nike", encoded(click("e1", time_ms=now())))])
    with pytest.raises(ReplayError, match=f"the topic {base}, which letters go back to, does not exist"):
        replayed(stack, base)
    make_topic(stack.kafka.bootstrap, base, 1)
    assert replayed(stack, base).startswith("1 put back")


def test_putting_back_where_no_record_ever_died_does_nothing(stack: Stack, new_topic: MakeTopic) -> None:
    assert replayed(stack, new_topic(1)) == "0 put back, 0 kept"


@pytest.mark.parametrize("length", [100_000])
def test_a_record_as_big_as_the_base_topic_takes_fits_into_the_dead_letter_topic(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, length: int
) -> None:
    topic = new_topic(1)
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    set_size(admin, topic, length + 200)
    burying = aggregator(topic)
    burying.start()
    send(stack.kafka.bootstrap, topic, [(b"k", b"x" * length)])
    (letter,) = letters(stack, f"{topic}.dead", 1)
    assert len(letter["value"]) == length
