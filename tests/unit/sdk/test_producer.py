"""The producer as a drop-in, as far as that shows without a broker: settings, signatures and refusals."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaException

import hotkey_sdk
from hotkey_sdk import SettingsError, _producer, _selftest
from hotkey_sdk._source import TableSource

pytestmark = pytest.mark.usefixtures("path")

NOWHERE: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
OWN: dict[str, Any] = {"hotkey.redis.url": "redis://127.0.0.1:1", "hotkey.allow.unsigned": True}


def ours(**more: Any) -> hotkey_sdk.Producer:
    return hotkey_sdk.Producer({**NOWHERE, **OWN, **more})


class Pair:
    """The original and ours; what they were given to deliver is told when it is given up."""

    def __init__(self, own: dict[str, Any]) -> None:
        self._sent: dict[str, list[object]] = {"original": [], "ours": []}
        self.original = confluent_kafka.Producer({**NOWHERE, "on_delivery": self._note("original")})
        self.ours = hotkey_sdk.Producer({**NOWHERE, **own, "on_delivery": self._note("ours")})

    def _note(self, name: str) -> Any:
        def note(error: object, message: confluent_kafka.Message) -> None:
            self._sent[name].append((message.topic(), message.key(), message.value()))

        return note

    def sent(self) -> tuple[list[object], list[object]]:
        """Topic, key and value of all that was queued, by the original and by ours."""
        for producer in (self.original, self.ours):
            producer.purge()
            producer.flush(10)
        return self._sent["original"], self._sent["ours"]


WAYS: dict[str, dict[str, Any]] = {
    "without settings": {},
    "with settings": OWN,
    "with key reports": {**OWN, "hotkey.report.keys": True},
}


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Every way of use; nothing is ever delivered."""
    made = Pair(WAYS[request.param])
    yield made
    made.sent()


def test_it_is_a_confluent_producer() -> None:
    assert issubclass(hotkey_sdk.Producer, confluent_kafka.Producer)
    assert issubclass(hotkey_sdk.Consumer, confluent_kafka.Consumer)


def test_every_public_method_of_the_original_is_there() -> None:
    for original, own in (
        (confluent_kafka.Producer, hotkey_sdk.Producer),
        (confluent_kafka.Consumer, hotkey_sdk.Consumer),
    ):
        assert {name for name in dir(original) if not name.startswith("_")} <= set(dir(own))


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "topic alone": (("t",), {}),
    "positions": (("t", "v", "k", 3), {}),
    "all positions": (("t", b"v", b"k", -1, None, None, 0, None), {}),
    "keywords": ((), {"topic": "t", "value": "v", "key": "k", "partition": 0, "timestamp": 1}),
    "headers as a dict": (("t", "v"), {"headers": {"a": "b", "c": None, "d": b"e"}}),
    "headers as a list": (("t", "v"), {"headers": [("a", "b"), ("a", b"c")]}),
    "an empty key": (("t", "v", ""), {}),
    "a key that is not text": (("t", "v", b"\xff"), {}),
    "a long key with a colon": (("t", "v", "a:1" * 5_000), {}),
    "no topic": ((), {}),
    "a topic of bytes": ((b"t", "v"), {}),
    "a topic that is a list": ((["t"], "v"), {}),
    "an empty topic": (("", "v", "k"), {}),
    "a key that is a number": (("t", "v", 3), {}),
    "a key that is a list": (("t", "v", ["k"]), {}),
    "a key that is a bytearray": (("t", "v", bytearray(b"k")), {}),
    "a key with half a character": (("t", "v", "\ud800"), {}),
    "a partition that is none": (("t", "v", "k", None), {}),
    "a partition below all": (("t", "v", "k", -7), {}),
    "a timestamp that is a fraction": (("t", "v", "k"), {"timestamp": 1.5}),
    "headers that are a tuple": (("t", "v"), {"headers": (("a", "b"),)}),
    "a header that is a number": (("t", "v"), {"headers": [("a", 3)]}),
    "a header that is no pair": (("t", "v"), {"headers": [("a",)]}),
    "a value over the limit": (("t", "x" * 2_000_000, "k"), {}),
    "an unknown keyword": (("t",), {"colour": 1}),
}


def outcome(call: Any, *args: Any, **kwargs: Any) -> object:
    """What the call returned, or the type and code of what it raised."""
    try:
        return call(*args, **kwargs)
    except KafkaException as error:
        return KafkaException, error.args[0].code()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("again", [False, True], ids=["first record", "later record"])
@pytest.mark.parametrize(("args", "kwargs"), CALLS.values(), ids=CALLS.keys())
def test_a_call_ends_as_it_does_with_the_original(
    pair: Pair,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    again: bool,
) -> None:
    original, own = pair.original, pair.ours
    if again:
        outcome(own.produce, *args, **kwargs)
        outcome(original.produce, *args, **kwargs)

    assert outcome(own.produce, *args, **kwargs) == outcome(original.produce, *args, **kwargs)
    by_original, by_ours = pair.sent()
    assert by_ours == by_original


BATCHES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "nothing": (("t", []), {}),
    "messages": (("t", [{"value": "v", "key": "k"}, {"key": None}, {"value": b"w", "partition": 2}]), {}),
    "a partition for all": (("t", [{"value": "v"}], 4), {}),
    "no list": (("t", ({"value": "v"},)), {}),
    "no message": (("t", [{"value": "v"}, 7]), {}),
    "a wrong value": (("t", [{"value": 3}]), {}),
    "an unknown keyword": (("t", []), {"colour": 1}),
}


@pytest.mark.parametrize(("args", "kwargs"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_ends_as_it_does_with_the_original(
    pair: Pair, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    original, own = pair.original, pair.ours

    assert outcome(own.produce_batch, *args, **kwargs) == outcome(original.produce_batch, *args, **kwargs)
    by_original, by_ours = pair.sent()
    assert by_ours == by_original


def test_the_parameters_are_the_originals_and_dimensions() -> None:
    parameters = inspect.signature(hotkey_sdk.Producer.produce).parameters

    known = ["topic", "value", "key", "partition", "callback", "on_delivery", "timestamp", "headers"]
    assert list(parameters) == ["self", *known, "dimensions"]
    assert [each.default for each in parameters.values()][2:] == [None, None, -1, None, None, 0, None, None]
    assert "dimensions" in (hotkey_sdk.Producer.produce.__doc__ or "")


def test_dimensions_are_taken_even_where_hotkey_is_off() -> None:
    pair = Pair({})

    pair.ours.produce("t", "v", "k", dimensions={"user_id": "u"})

    assert pair.sent()[1] == [("t", b"k", b"v")]
    assert not pair.ours.hotkey.enabled


class AdoptingMeanwhile(dict[str, Any]):
    """A table arrives between the look whether a topic is known and what follows from it."""

    def __contains__(self, topic: object) -> bool:
        known = super().__contains__(topic)
        self["t"] = LANES
        return known


LANES: dict[str, Any] = {}


def test_a_table_that_arrives_while_its_topic_is_met_stays() -> None:
    producer = ours()
    producer._by_topic = AdoptingMeanwhile()

    producer.produce("t", "v", "k")
    producer.purge()

    assert producer._by_topic["t"] is LANES


CONFIGS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "no dict": (("x",), {}),
    "two": ((NOWHERE, NOWHERE), {}),
    "unknown": (({**NOWHERE, "no.such": 1},), {}),
    "keywords": ((), NOWHERE),
    "both": ((NOWHERE,), {"linger.ms": 3}),
    "a short truth": (({**NOWHERE, "enable.idempotence": "t"},), {}),
    "no truth": (({**NOWHERE, "enable.idempotence": "perhaps"},), {}),
    "no number": (({**NOWHERE, "linger.ms": "soon"},), {}),
    "a topic's settings as text": (({**NOWHERE, "default.topic.config": "x"},), {}),
}


@pytest.mark.parametrize(("args", "kwargs"), CONFIGS.values(), ids=CONFIGS.keys())
def test_it_is_made_or_refused_as_the_original(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def made(kind: type[confluent_kafka.Producer]) -> object:
        found = outcome(kind, *args, **kwargs)
        return isinstance(found, confluent_kafka.Producer) or found

    assert made(hotkey_sdk.Producer) == made(confluent_kafka.Producer)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hotkey.colour": "red"}, "unknown setting hotkey.colour"),
        ({"partitioner": "consistent_random"}, "murmur2_random"),
        ({"default.topic.config": {"partitioner": "random"}}, "murmur2_random"),
        ({"hotkey.allow.unsigned": False}, "hotkey.public.keys is missing"),
        ({"allow.auto.create.topics": True}, "allow.auto.create.topics is true"),
    ],
)
def test_a_wrong_setting_is_refused_with_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ours(**change)


@pytest.mark.parametrize("value", ["t", "T", "true", "1", "f", "F", "false", "0"])
def test_with_settings_a_truth_is_written_as_the_kafka_client_takes_it(value: str) -> None:
    assert confluent_kafka.Producer({**NOWHERE, "enable.idempotence": value})
    assert ours(**{"enable.idempotence": value})


def test_without_settings_any_partitioner_is_the_callers_choice() -> None:
    assert hotkey_sdk.Producer({**NOWHERE, "partitioner": "consistent_random"})


def test_weak_acks_are_the_callers_choice() -> None:
    assert ours(acks=1)


def threads() -> set[threading.Thread]:
    """Those that follow tables; the self-test's ends by itself."""
    return {thread for thread in threading.enumerate() if thread.name.endswith("-tables")}


def test_no_table_waits_for_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, turned = threading.Event(), threading.Event(), threading.Event()

    def places(keys: object) -> tuple[int, dict[bytes, int]]:
        begun.set()
        go_on.wait(60)
        return 1, {}

    def turn(source: TableSource, now: float) -> None:
        original(source, now)
        if begun.is_set():
            turned.set()

    original = TableSource.turn
    monkeypatch.setattr(TableSource, "turn", turn)
    monkeypatch.setattr(_selftest, "librdkafka_places", places)
    monkeypatch.setattr(_producer, "partitioner_agrees", _selftest._Once())
    with ours(**{"hotkey.topics": "t"}):
        try:
            assert begun.wait(20)
            assert turned.wait(20), "the thread of the tables stands while the self-test does"
        finally:
            go_on.set()


def test_no_thread_is_started_where_hotkey_is_off() -> None:
    before = threads()
    producer = hotkey_sdk.Producer(NOWHERE)
    producer.produce("t", "v", "k")

    assert threads() == before
    producer.purge()


def test_a_forgotten_producer_ends_its_thread() -> None:
    before = threads()
    producer = ours(**{"hotkey.cluster.id": "c", "hotkey.topics": "t"})
    (thread,) = threads() - before
    gone = weakref.ref(producer)

    del producer
    gc.collect()
    thread.join(20)

    assert gone() is None
    assert not thread.is_alive()


def test_closing_ends_the_thread_however_it_is_done() -> None:
    before = threads()
    producer = ours(**{"hotkey.cluster.id": "c", "hotkey.topics": "t"})
    producer.close()
    with ours(**{"hotkey.cluster.id": "c", "hotkey.topics": "t"}):
        pass

    assert threads() == before


LEAVE = """
import hotkey_sdk
client = hotkey_sdk.Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0,
    "hotkey.redis.url": "redis://127.0.0.1:1", "hotkey.allow.unsigned": True, "hotkey.topics": "t"})
client.produce("t", "v", "k")
other = hotkey_sdk.Consumer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "group.id": "g",
    "hotkey.redis.url": "redis://127.0.0.1:1", "hotkey.allow.unsigned": True})
other.subscribe(["t"])
other.poll(0.1)
"""


def test_a_program_that_closes_nothing_still_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVE], capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
