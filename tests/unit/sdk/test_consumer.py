"""What a consumer does with an error that comes while it already has records to hand out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Message

import hotkey_sdk
from hotkey_sdk import _consumer

SETTINGS: dict[str, Any] = {
    "bootstrap.servers": "127.0.0.1:1",
    "group.id": "g",
    "log_level": 0,
    "hotkey.redis.url": "redis://127.0.0.1:1",
    "hotkey.allow.unsigned": True,
}


@pytest.fixture
def consumer() -> Iterator[hotkey_sdk.Consumer]:
    with hotkey_sdk.Consumer(SETTINGS) as made:
        yield made


def a_record_then(error: BaseException) -> Callable[..., list[Message]]:
    """In place of the Kafka client's, which raises in the middle of a call at nobody's will."""
    answers: list[list[Message] | BaseException] = [[Message(topic="t", value=b"v")], error]

    def consume(*_: object) -> list[Message]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return consume


def by_poll(consumer: hotkey_sdk.Consumer) -> object:
    return consumer.poll(0)


def by_consume(consumer: hotkey_sdk.Consumer) -> object:
    return consumer.consume(1, 0)


@pytest.mark.parametrize("next_call", [by_poll, by_consume])
def test_an_error_comes_out_of_the_next_call_after_what_was_read(
    consumer: hotkey_sdk.Consumer,
    monkeypatch: pytest.MonkeyPatch,
    next_call: Callable[[hotkey_sdk.Consumer], object],
) -> None:
    monkeypatch.setattr(_consumer, "_consume", a_record_then(LookupError("the caller's own")))

    assert [message.value() for message in consumer.consume(10, 60)] == [b"v"]
    with pytest.raises(LookupError):
        next_call(consumer)
    assert not next_call(consumer), "it comes out once"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_not_held_back(
    consumer: hotkey_sdk.Consumer, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    monkeypatch.setattr(_consumer, "_consume", a_record_then(interruption()))

    with pytest.raises(interruption):
        consumer.consume(10, 60)
