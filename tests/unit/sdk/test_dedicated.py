"""What goes to a dedicated topic, as far as that shows without a broker: nothing is ever delivered."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

import hotkey_sdk
from hotkey_sdk import _dedicated
from hotkey_sdk._dedicated import fate_of
from hotkey_sdk.routing.resend import Fate
from hotkey_sdk.routing.router import Router
from tests.unit.sdk.tables import STREAM, route, table

pytestmark = pytest.mark.usefixtures("path")

BASE, HOT = STREAM.topic, f"{STREAM.topic}.hot.1.g1"
NOWHERE: dict[str, Any] = {
    "bootstrap.servers": "127.0.0.1:1",
    "log_level": 0,
    "hotkey.redis.url": "redis://127.0.0.1:1",
    "hotkey.allow.unsigned": True,
}
SECONDS = 30.0


class Ends:
    """What callbacks were told: value, code and topic."""

    def __init__(self) -> None:
        self.told: list[tuple[bytes | None, int | None, str | None]] = []

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.told.append((message.value(), error.code() if error else None, message.topic()))


def producer(**more: Any) -> hotkey_sdk.Producer:
    """A producer whose key `nike` has a topic of its own."""
    made = hotkey_sdk.Producer({**NOWHERE, **more})
    made.hotkey._lanes.adopt(BASE, Router(table(route(topic=HOT))))
    return made


FATES: dict[str, tuple[KafkaError, Fate]] = {
    "gone": (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), Fate.UNUSABLE),
    "its partition is gone": (KafkaError(KafkaError._UNKNOWN_PARTITION), Fate.UNUSABLE),
    "denied": (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), Fate.UNUSABLE),
    "too large": (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), Fate.REFUSED),
    "timed out": (KafkaError(KafkaError._MSG_TIMED_OUT), Fate.REFUSED),
    "its broker was let go": (KafkaError(KafkaError._DESTROY), Fate.REFUSED),
    "purged": (KafkaError(KafkaError._PURGE_INFLIGHT), Fate.FINAL),
    "fatal": (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "x", fatal=True), Fate.FINAL),
}


@pytest.mark.parametrize(("error", "fate"), FATES.values(), ids=FATES.keys())
def test_an_error_says_what_becomes_of_the_record(error: KafkaError, fate: Fate) -> None:
    assert fate_of(error) is fate


def test_what_no_topic_takes_is_told_once_and_of_the_base_topic() -> None:
    ends = Ends()
    sending = producer(**{"message.timeout.ms": 300})

    sending.produce(BASE, "v", "nike", on_delivery=ends)

    assert sending.flush(SECONDS) == 0
    assert ends.told == [(b"v", KafkaError._MSG_TIMED_OUT, BASE)]
    assert sending.hotkey.stats().sent_again == 1


def test_what_was_purged_is_not_sent_again() -> None:
    ends = Ends()
    sending = producer()
    sending.produce(BASE, "v", "nike", on_delivery=ends)

    sending.purge()

    assert sending.flush(SECONDS) == 0
    assert ends.told == [(b"v", KafkaError._PURGE_QUEUE, HOT)]


def waiting(sending: hotkey_sdk.Producer, values: list[Any], note: Ends) -> None:
    """Let these wait behind a record that was refused, while another is on its way."""
    dedicated = sending._dedicated
    assert dedicated is not None
    for value in ("first", "second"):
        sending.produce(BASE, value, "nike", on_delivery=note)
    (queue,) = (queue for queue in dedicated.book._queues.values() if queue.open)
    dedicated.book._turn(queue)
    for value in values:
        sending.produce(BASE, value, "nike", on_delivery=note)


def test_what_waits_counts_in_the_length_and_is_purged_with_the_rest() -> None:
    ends = Ends()
    sending = producer()
    waiting(sending, ["a", b"b", None], ends)
    assert sending.hotkey.stats().waiting == 3
    assert len(sending) >= 5, "the client's own events count too"

    sending.purge()

    assert sending.flush(SECONDS) == 0
    assert [value for value, _, _ in ends.told] == [b"a", b"b", None, b"first", b"second"]
    assert {code for _, code, _ in ends.told} == {KafkaError._PURGE_QUEUE}


def refused_by_base(sending: hotkey_sdk.Producer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the background thread try to send what waits, when the Kafka client takes nothing any more."""
    dedicated = sending._dedicated
    assert dedicated is not None
    for queue in dedicated.book._queues.values():
        queue.open = 0

    def produce(*_: object) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    monkeypatch.setattr(_dedicated, "_produce", produce)
    thread = threading.Thread(target=dedicated.push)
    thread.start()
    thread.join()


def test_a_caller_that_only_polls_hears_of_what_the_background_thread_could_not_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = Ends()
    sending = producer()
    waiting(sending, ["a", "b"], ends)
    refused_by_base(sending, monkeypatch)
    assert sending.hotkey.stats().waiting == 2

    sending.poll(0)

    assert ends.told == [(b"a", KafkaError._FATAL, BASE), (b"b", KafkaError._FATAL, BASE)]
    assert "poll" not in vars(sending), "a record's poll costs what it did"
    sending.purge()


def test_a_callback_that_raises_keeps_no_other_from_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    sending = producer()

    def raising(error: KafkaError | None, message: Message) -> None:
        ends(error, message)
        raise LookupError("the caller's own")

    waiting(sending, [], ends)
    sending.produce(BASE, "a", "nike", on_delivery=raising)
    sending.produce(BASE, "b", "nike", on_delivery=ends)
    refused_by_base(sending, monkeypatch)

    with pytest.raises(LookupError):
        sending.poll(0)
    sending.purge()

    assert [value for value, _, _ in ends.told[:2]] == [b"a", b"b"]


@pytest.mark.parametrize("is_taken", [True, False])
def test_an_interruption_leaves_no_record_without_an_end(
    monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    sending, ends, original = producer(), Ends(), _dedicated._produce

    def interrupted(*arguments: Any) -> None:
        if is_taken:
            original(*arguments)
        del arguments  # as the Kafka client, whose calls leave nothing behind
        raise KeyboardInterrupt

    monkeypatch.setattr(_dedicated, "_produce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sending.produce(BASE, "v", "nike", on_delivery=ends)
    monkeypatch.undo()
    sending.purge()
    sending.flush(SECONDS)

    assert sending._dedicated is not None
    assert sending._dedicated.book.on_its_way == 0
    assert len(ends.told) == is_taken


def test_no_more_may_wait_than_the_kafka_clients_own_queue_takes() -> None:
    sending = producer(**{"queue.buffering.max.messages": 3})
    waiting(sending, ["a", "b", "c"], Ends())

    with pytest.raises(BufferError):
        sending.produce(BASE, "d", "nike")
    sending.purge()


WRONG: dict[str, dict[str, Any]] = {
    "a value that is a number": {"value": 7},
    "headers that are a text": {"headers": "x"},
    "a header that is a number": {"headers": [("a", 7)]},
    "a header that is no pair": {"headers": [("a",)]},
    "a timestamp that is a fraction": {"timestamp": 1.5},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_what_the_kafka_client_would_refuse_is_refused_before_it_waits(wrong: dict[str, Any]) -> None:
    sending = producer()
    waiting(sending, [], Ends())

    with pytest.raises(TypeError):
        sending.produce(BASE, **({"value": "v", "key": "nike"} | wrong))

    assert sending.hotkey.stats().waiting == 0
    sending.purge()


def test_a_producer_that_hears_of_errors_only_keeps_off_dedicated_topics() -> None:
    ends = Ends()
    sending = producer(**{"delivery.report.only.error": True})

    sending.produce(BASE, "v", "nike", on_delivery=ends)
    sending.purge()

    assert sending.flush(SECONDS) == 0
    assert [topic for _, _, topic in ends.told] == [BASE]
    assert sending.hotkey.stats().not_durable == 1
