"""Redis killed, paused, wiped and brought back under load: sends go on, and tables arrive again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import hotkey_sdk
from hotkey_sdk._stats import SourceStats
from tests.stack.sdk.scene import Load, Scene, until


@pytest.fixture
def valkey(scene: Scene) -> Iterator[object]:
    """Redis, running again after the test whatever the test did to it."""
    part = scene.stack.redis
    yield part
    part.resume()
    part.restart()


def source(producer: hotkey_sdk.Producer) -> SourceStats:
    return producer.hotkey.stats().source


def epoch(producer: hotkey_sdk.Producer) -> int:
    return source(producer).tables[0].epoch if source(producer).tables else 0


@pytest.fixture
def load(
    scene: Scene, valkey: object, start_load: Callable[[hotkey_sdk.Producer], Load]
) -> tuple[Load, hotkey_sdk.Producer]:
    """Load that is spread by a table of epoch 5."""
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(scene.table(scene.route(), epoch=5))
    until(lambda: epoch(producer) == 5, producer.hotkey.stats)
    return start_load(producer), producer


def test_redis_killed_and_started_empty(scene: Scene, load: tuple[Load, hotkey_sdk.Producer]) -> None:
    sending, producer = load
    scene.stack.redis.kill()
    until(lambda: source(producer).reachable is False, producer.hotkey.stats)
    routed = producer.hotkey.stats().routed
    sending.goes_on()
    assert producer.hotkey.stats().routed > routed

    scene.stack.redis.restart()
    until(lambda: source(producer).reachable is True, producer.hotkey.stats)
    until(lambda: source(producer).tables[0].state == "Missing", producer.hotkey.stats)
    sending.goes_on()
    assert epoch(producer) == 5

    scene.publish(scene.table(scene.route(partitions=(0, 2)), epoch=6))
    until(lambda: epoch(producer) == 6, producer.hotkey.stats)
    until(lambda: [report.epoch for report in scene.reports()] == [6], scene.reports)
    sending.prove()


def test_redis_paused_and_resumed(scene: Scene, load: tuple[Load, hotkey_sdk.Producer]) -> None:
    sending, producer = load
    scene.stack.redis.pause()
    until(lambda: source(producer).reachable is False, producer.hotkey.stats)
    routed = producer.hotkey.stats().routed
    sending.goes_on()
    assert producer.hotkey.stats().routed > routed

    scene.stack.redis.resume()
    scene.publish(scene.table(scene.route(partitions=(0, 2)), epoch=6))
    until(lambda: epoch(producer) == 6, producer.hotkey.stats)
    sending.prove()


def test_redis_wiped(scene: Scene, load: tuple[Load, hotkey_sdk.Producer]) -> None:
    sending, producer = load
    scene.stack.redis.wipe()
    until(lambda: source(producer).tables[0].state == "Missing", producer.hotkey.stats)
    sending.goes_on()
    assert epoch(producer) == 5

    scene.publish(scene.table(scene.route(), epoch=5))
    until(lambda: source(producer).tables[0].state == "Current", producer.hotkey.stats)
    sending.prove()


def test_a_producer_that_starts_while_redis_is_down_sends_plain_keys(
    scene: Scene, valkey: object, start_load: Callable[[hotkey_sdk.Producer], Load]
) -> None:
    scene.stack.redis.kill()
    producer = scene.producer()
    sending = start_load(producer)
    sending.goes_on()
    until(lambda: source(producer).reachable is False, producer.hotkey.stats)
    assert producer.hotkey.stats().routed == 0

    scene.stack.redis.restart()
    scene.publish(scene.table(scene.route(), epoch=5))
    until(lambda: producer.hotkey.stats().routed > 0, producer.hotkey.stats)
    sending.prove()


def test_closing_while_redis_is_down_ends(scene: Scene, valkey: object) -> None:
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    until(lambda: len(scene.reports()) == 1, producer.hotkey.stats)
    scene.stack.redis.pause()

    producer.produce(scene.topic, "v", "k")
    producer.close()

    scene.stack.redis.resume()
    assert [message.value() for message in scene.read()] == [b"v"]
