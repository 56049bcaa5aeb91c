"""Up to when the counts are complete: empty partitions hold nothing back, brokers out of reach do."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from devstack import Stack
from hotkey_sdk.routing.envelope import SigningKey
from tests.stack.aggregator.clicks import click, iso_minute, make_topic, send
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.counted import assert_ids
from tests.stack.aggregator.process import AggregatorProcess
from tests.stack.aggregator.test_read_set import publish


def now() -> int:
    return int(time.time() * 1000)


def watermark(aggregator: AggregatorProcess) -> float:
    """Unix milliseconds; -1 while nothing is told."""
    told = aggregator.readiness()["watermark"]
    return -1 if told is None else datetime.fromisoformat(told).timestamp() * 1000


def encoded(one: dict[str, Any]) -> bytes:
    return json.dumps(one).encode()


def test_partitions_without_clicks_hold_the_watermark_not_back(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a topic of which one partition has clicks, and one whose last click is old
    topic = new_topic(4)
    marking = aggregator(topic)
    marking.start()
    sent_at = now()
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(click("old", time_ms=sent_at - 3_600_000)))], 1)
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(click("new", time_ms=sent_at)))], 2)

    # then the counts are soon complete up to the newest one
    marking.wait_until(lambda: marking.totals()["clicks"] == 2, "both are counted")
    marking.wait_until(lambda: watermark(marking) >= sent_at, "the watermark passes the newest click")

    # and a late click corrects its window without taking the watermark back
    before = watermark(marking)
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(click("late", time_ms=sent_at - 3_600_000)))], 3)
    marking.wait_until(lambda: marking.totals()["clicks"] == 3, "the late click is counted")
    assert watermark(marking) >= before
    assert sorted(marking.counts().values()) == [1, 2]


def test_the_watermark_stands_while_no_broker_says_that_there_is_nothing_to_read(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given an aggregator that is up to date
    topic = new_topic(2)
    marking = aggregator(topic)
    marking.start()
    marking.wait_until(lambda: watermark(marking) > 0, "a watermark")

    # when the broker is gone
    stack.kafka.nodes[0].kill()
    gone_at = now()
    try:
        marking.wait_until(lambda: marking.readiness()["freshness_seconds"] > 6, "the counts get older")
        assert watermark(marking) <= gone_at

        # then it says so
        marking.wait_until(lambda: not marking.readiness()["ready"], "it is not ready")
        assert marking.readiness()["reasons"] == ["Kafka does not answer: what it holds is not read"]
    finally:
        stack.kafka.nodes[0].restart()

    # and goes on when the broker is back
    marking.wait_until(lambda: watermark(marking) > gone_at + 6_000, "the watermark goes on")
    marking.wait_until(lambda: marking.readiness()["ready"], "ready again")


DAY = 24 * 3_600_000


def test_a_late_click_corrects_its_window_as_long_as_that_is_kept(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given windows of 89 days ago and of now
    topic, long_ago = new_topic(2), now() - 89 * DAY
    long_ago -= long_ago % 60_000
    correcting = aggregator(topic)
    correcting.start()
    clicks = [click("old", time_ms=long_ago), click("new", time_ms=now())]
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(one)) for one in clicks], 0)
    correcting.wait_until(lambda: correcting.totals()["clicks"] == 2, "two clicks")
    before = correcting.counts()

    # when clicks come that are as late, and one that is too late
    late = [
        click("late-1", time_ms=long_ago + 1),
        click("late-2", time_ms=long_ago + 59_999),
        click("next minute", time_ms=long_ago + 60_000),
        click("too late", time_ms=now() - 90 * DAY - 60_000),
    ]
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(one)) for one in late], 1)

    # then their windows are corrected, and no other
    correcting.wait_until(lambda: correcting.totals()["clicks"] == 5, "five clicks")
    correcting.wait_until(lambda: correcting.totals()["dead"] == 1, "one that is too late")
    window = ("nike", "ad-1", iso_minute(long_ago))
    after = correcting.counts()
    assert before[window] == 1
    assert after == {**before, window: 3, ("nike", "ad-1", iso_minute(long_ago + 60_000)): 1}
    assert_ids(correcting, ["old", "new", "late-1", "late-2", "next minute"])
    assert [row["reason"] for row in correcting.dead()] == ["OutOfRetention"]


def test_a_hot_keys_topic_holds_nothing_back_after_the_key_was_merged_back(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a base topic and a hot key's, which is read and has had its last click an hour ago
    topic = new_topic(2)
    hot = f"{topic}.hot.0123abcd.g2"
    make_topic(stack.kafka.bootstrap, hot, 2)
    key = SigningKey.generate()
    publish(stack, topic, (topic, hot), 1, key, partitions=2)
    marking = aggregator(topic, redis_url=stack.redis.url_for("hotkey-consumer"), public_keys=key.public_line)
    marking.start()
    send(stack.kafka.bootstrap, hot, [(b"k", encoded(click("hot", time_ms=now() - 3_600_000)))], 0)
    marking.wait_until(lambda: marking.stored(hot) == {0: 1}, "the hot topic is read")

    # when its clicks go to the base topic again
    merged_at = now()
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(click("merged back", time_ms=merged_at)))], 1)

    # then the watermark passes them, and never went back
    seen: list[float] = []

    def passes() -> bool:
        seen.append(watermark(marking))
        return seen[-1] > merged_at

    marking.wait_until(passes, "the watermark passes the newest click")
    assert seen == sorted(seen)
    assert_ids(marking, ["hot", "merged back"])
