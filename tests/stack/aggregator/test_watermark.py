"""Up to when the counts are complete: empty partitions hold nothing back, brokers out of reach do."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from devstack import Stack
from tests.stack.aggregator.clicks import click, send
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.process import AggregatorProcess


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
    finally:
        stack.kafka.nodes[0].restart()

    # then it goes on when the broker is back
    marking.wait_until(lambda: watermark(marking) > gone_at + 6_000, "the watermark goes on")
