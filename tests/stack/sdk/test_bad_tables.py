"""What stands in Redis may be anything: under load nothing is lost and the last good table stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import hotkey_sdk
from hotkey_sdk.routing import codec, names
from hotkey_sdk.routing.envelope import SigningKey, seal
from hotkey_sdk.routing.table import Stream, Table
from tests.stack.sdk.scene import Load, Scene, until


def good(scene: Scene, epoch: int) -> Table:
    return scene.table(scene.route(), epoch=epoch)


def of_another_stream(scene: Scene) -> bytes:
    plain = scene.table(epoch=9)
    other = Table(
        Stream(scene.stream.cluster_id, "other"),
        plain.partitions,
        9,
        plain.seed,
        ("other",),
        plain.dimensions,
    )
    return seal(codec.encode(other), scene.key)


def sealed(scene: Scene, table: Table) -> bytes:
    return seal(codec.encode(table), scene.key)


BAD: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "nonsense": (lambda _: b"nonsense", "Malformed"),
    "truncated": (lambda scene: sealed(scene, scene.table(epoch=9))[:-20], "Malformed"),
    "a wrong payload": (lambda scene: seal(b'{"schema":1}', scene.key), "Malformed"),
    "10 MB": (lambda _: b"x" * 10_000_000, "TooBig"),
    "unsigned": (lambda scene: seal(codec.encode(scene.table(epoch=9)), None), "BadSignature"),
    "a foreign signature": (
        lambda scene: seal(codec.encode(scene.table(epoch=9)), SigningKey.generate()),
        "BadSignature",
    ),
    "another stream's": (of_another_stream, "WrongStream"),
    "older": (lambda scene: sealed(scene, scene.table(epoch=4)), "Older"),
}


def state(producer: hotkey_sdk.Producer) -> str:
    return producer.hotkey.stats().source.tables[0].state


@pytest.fixture
def load(scene: Scene, start_load: Callable[[hotkey_sdk.Producer], Load]) -> tuple[Load, hotkey_sdk.Producer]:
    """Load that is spread by a table of epoch 5."""
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(good(scene, 5))
    until(
        lambda: producer.hotkey.stats().source.tables[:1] != () and state(producer) == "Current",
        producer.hotkey.stats,
    )
    return start_load(producer), producer


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_table_changes_nothing_and_loses_nothing(
    scene: Scene,
    load: tuple[Load, hotkey_sdk.Producer],
    make: Callable[[Scene], bytes],
    expected: str,
) -> None:
    sending, producer = load
    scene.put(make(scene))
    until(lambda: state(producer) == expected, producer.hotkey.stats)
    routed = producer.hotkey.stats().routed

    sending.goes_on()

    assert producer.hotkey.stats().source.tables[0].epoch == 5
    assert producer.hotkey.stats().routed > routed, "the last good table is still applied"
    scene.publish(good(scene, 10))
    until(lambda: producer.hotkey.stats().source.tables[0].epoch == 10, producer.hotkey.stats)
    sending.prove()


def test_a_wrong_type_at_any_of_its_keys_changes_nothing(
    scene: Scene, load: tuple[Load, hotkey_sdk.Producer]
) -> None:
    sending, producer = load
    reports = names.reports_key(scene.stream, "hotkey-producer")
    scene.redis.delete(names.table_key(scene.stream), reports)
    scene.redis.rpush(names.table_key(scene.stream), "a list")
    scene.redis.set(reports, "a text")
    until(lambda: state(producer) == "WrongType", producer.hotkey.stats)

    sending.goes_on()

    assert producer.hotkey.stats().source.tables[0].epoch == 5
    scene.redis.delete(reports)
    scene.publish(good(scene, 10))
    until(lambda: [report.epoch for report in scene.reports()] == [10], scene.reports)
    sending.prove()
