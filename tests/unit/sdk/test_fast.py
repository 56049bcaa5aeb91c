"""The compiled path does what the pure one does, gives back what it takes, and sees a new table at once."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import Any

import confluent_kafka
import pytest
import xxhash
from confluent_kafka import KafkaError, KafkaException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotkey_sdk
from hotkey_sdk import _compiled
from hotkey_sdk._lanes import Batch, HashedLane, Path, lanes_of
from hotkey_sdk._producer import PATHS, is_gone
from hotkey_sdk.routing.router import RoutePlan, Router
from hotkey_sdk.routing.table import Dimension, RecordKey, Route, Shard
from tests.sdk_paths import NAMES
from tests.unit.sdk.tables import route, table

VECTORS = File(__file__).parents[3] / "producer_sdk" / "vectors"
NOWHERE: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}

fast: Any = _compiled.load()
compiled_only = pytest.mark.skipif(fast is None, reason="hotkey_sdk._fast is not built: told at the end")


def sending(router: Router) -> hotkey_sdk.Producer:
    """A producer that has taken the table up, as its background thread would; nothing is ever delivered."""
    producer = hotkey_sdk.Producer({**NOWHERE, "linger.ms": 60_000})
    producer.hotkey._lanes.adopt("clicks", router)
    return producer


def sent(producer: hotkey_sdk.Producer, call: Callable[[Any], object]) -> list[Any]:
    """What the call queued: topic, partition, key and value of each record."""
    found: list[Any] = []

    def note(error: KafkaError | None, message: confluent_kafka.Message) -> None:
        found.append((message.topic(), message.partition(), message.key(), message.value()))

    call(note)
    producer.purge()
    producer.flush(10)
    return found


@compiled_only
@given(st.binary(max_size=400), st.integers(0, 2**64 - 1))
def test_the_hash_in_c_is_xxh64(data: bytes, seed: int) -> None:
    assert fast.xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed)


@compiled_only
def test_the_hash_in_c_is_xxh64_at_every_length_of_its_stripes() -> None:
    data = bytes(range(256)) * 2
    assert [fast.xxh64(data[:size]) for size in range(300)] == [
        xxhash.xxh64_intdigest(data[:size]) for size in range(300)
    ]


def test_both_paths_find_the_slots_of_the_golden_vectors(path: Path) -> None:
    text = json.loads((VECTORS / "slots.json").read_text())

    for case in text["cases"]:
        assert _slot(path, case["seed"], case["values"]) == int(case["hash"]) % 65_536, case


def _slot(path: Path, seed: int, values: list[Any]) -> int:
    by = tuple(f"d{number}" for number in range(len(values)))
    shards = tuple(Shard(number, number) for number in range(2**16))
    made = Route(b"nike", "clicks", by, RecordKey.PRESERVE, shards, tuple(range(2**16)))
    plan = RoutePlan(made, {name: _dimension(name) for name in by}, seed)
    lane = path.hashed(plan, path.counts())
    return lane.choose(None, dict(zip(by, values, strict=True)), None, 0).partition


def _dimension(name: str) -> Dimension:
    return Dimension(name)


class Text(str):
    """Text that no fast path knows."""


values: st.SearchStrategy[Any] = (
    st.text(max_size=300)
    | st.text(max_size=3).map(Text)
    | st.integers()
    | st.booleans()
    | st.binary(max_size=300)
    | st.none()
    | st.just("\ud800")
)
pairs = st.tuples(
    st.sampled_from(["x-country", "y"]), st.none() | st.text(max_size=5) | st.binary(max_size=5)
)
headers = (
    st.none()
    | st.lists(pairs, max_size=3)
    | st.lists(pairs, max_size=3).map(dict)
    | st.lists(pairs, max_size=3).map(tuple)
    | st.sampled_from([[("x-country",)], [3], 7, "x-country", [["x-country", "de"]], {}])
)
moments = st.integers(1, 4_000_000_000_000) | st.sampled_from([2**62, -(2**62), -5])


@compiled_only
@settings(max_examples=400)
@given(
    by=st.lists(st.sampled_from(["user_id", "country_id", "hour"]), min_size=1, unique=True),
    dimensions=st.none() | st.dictionaries(st.sampled_from(["user_id", "country_id", "hour"]), values),
    headers=headers,
    moment=moments,
)
def test_a_compiled_lane_chooses_and_counts_as_the_pure_one(
    by: list[str], dimensions: Mapping[str, Any] | None, headers: Any, moment: int
) -> None:
    router = Router(table(route(by=tuple(by), shards=12, slots=64)))
    found = []
    for each in PATHS:
        counts = each.counts()
        lane = lanes_of(router, Batch(), counts, each)["nike"]
        found += [(lane.choose(b"v", dimensions, headers, moment), counts.missing_dimension)]

    assert found[0] == found[1]
    assert not isinstance(lane, HashedLane), "the last path is the compiled one"


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "positions": (("clicks", b"v", "nike"), {}),
    "bytes": (("clicks", b"v", b"nike"), {}),
    "keywords": ((), {"topic": "clicks", "key": "nike", "value": "v"}),
    "a name that is not interned": ((), {"topic": "clicks", "".join(("k", "ey")): "nike"}),
    "no value": (("clicks",), {"key": "nike"}),
    "dimensions by position": (("clicks", b"v", "nike", -1, None, None, 0, None, {"user_id": 7}), {}),
    "dimensions by name": (("clicks", b"v", "nike"), {"dimensions": {"user_id": "u" * 600}}),
    "a dimension behind another": (("clicks", b"v", "nike"), {"dimensions": {"x": 1, "user_id": 7}}),
    "a dimension not interned": (("clicks", b"v", "nike"), {"dimensions": {"".join(("user", "_id")): "ü"}}),
    "dimensions of a mapping": (("clicks", b"v", "nike"), {"dimensions": os.environ}),
    "dimensions that are none": (("clicks", b"v", "nike"), {"dimensions": 7}),
    "any partition": (("clicks", b"v", "nike", -1), {}),
    "a chosen partition": (("clicks", b"v", "nike", 9), {}),
    "a partition of True": (("clicks", b"v", "nike", True), {}),
    "a timestamp": (("clicks", b"v", "nike"), {"timestamp": 1_700_000_000_000}),
    "headers": (("clicks", b"v", "nike"), {"headers": [("x-country", "de")]}),
    "another key": (("clicks", b"v", "adidas"), {"dimensions": {"user_id": 1}}),
    "a key of a subclass": (("clicks", b"v", Text("nike")), {"dimensions": {"user_id": 1}}),
    "a topic of a subclass": ((Text("clicks"), b"v", "nike"), {"dimensions": {"user_id": 1}}),
    "a value that is a number": (("clicks", 7, "nike"), {"dimensions": {"user_id": 1}}),
    "no topic": ((), {"key": "nike"}),
    "a topic twice": (("clicks",), {"topic": "clicks"}),
    "too many": (("clicks", b"v", "nike", -1, None, None, 0, None, None, None), {}),
    "an unknown keyword": (("clicks",), {"colour": 1}),
}


def ended(producer: hotkey_sdk.Producer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """What came of the call, in every detail that a caller sees."""

    def call(note: Any) -> None:
        own = {**kwargs} if len(args) > 4 else {**kwargs, "on_delivery": note}
        producer.produce(*args, **own)

    try:
        return sent(producer, call), producer.hotkey.stats().routed
    except Exception as error:
        return type(error), str(error)


@compiled_only
@pytest.mark.parametrize("record_key", list(RecordKey))
@pytest.mark.parametrize(("args", "kwargs"), CALLS.values(), ids=CALLS.keys())
def test_a_routed_call_ends_alike_on_both_paths(
    args: tuple[Any, ...], kwargs: dict[str, Any], record_key: RecordKey
) -> None:
    router = Router(table(route(by=("user_id", "country_id"), shards=12, slots=64, record_key=record_key)))
    before, found = PATHS.in_use, []
    for each in PATHS:
        PATHS.take(each)
        found.append(ended(sending(router), args, kwargs))
    PATHS.take(before)

    assert found[0] == found[1]


def test_a_method_that_was_taken_before_the_table_came_follows_it(path: Path) -> None:
    producer = sending(Router(table()))
    produce = producer.produce
    plain = [("clicks", None, b"nike", b"v")]

    assert sent(producer, lambda note: produce("clicks", "v", "nike", on_delivery=note)) == plain
    producer.hotkey._lanes.adopt("clicks", Router(table(route(by=(), shards=1, slots=1))))
    assert sent(producer, lambda note: produce("clicks", "v", "nike", on_delivery=note)) == [
        ("clicks", 0, b"nike:10", b"v")
    ]
    producer.hotkey._lanes.adopt("clicks", Router(table()))
    assert sent(producer, lambda note: produce("clicks", "v", "nike", on_delivery=note)) == plain


def test_every_record_goes_by_one_table_or_the_other_while_tables_change(path: Path) -> None:
    """Two tables differ in partition and key together: a record of a mixture would show."""
    tables = [
        Router(table(Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(n, n),), (0,)))) for n in (3, 4)
    ]
    producer, stop = sending(tables[0]), threading.Event()

    def change() -> None:
        while not stop.is_set():
            for each in tables:
                producer.hotkey._lanes.adopt("clicks", each)

    changing = threading.Thread(target=change)
    changing.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # all the records take no longer than two or three turns of 5 ms

    def send(note: Any) -> None:
        for _ in range(20_000):
            producer.produce("clicks", "v", "nike", on_delivery=note)

    try:
        found = sent(producer, send)
    finally:
        stop.set()
        changing.join()
        sys.setswitchinterval(interval)

    assert set(found) == {("clicks", 3, b"nike:3", b"v"), ("clicks", 4, b"nike:4", b"v")}
    assert len(found) == 20_000


some_keys = st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    routed=st.lists(some_keys, max_size=40, unique=True),
    others=st.lists(some_keys | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=5),
)
def test_exactly_the_keys_of_the_table_are_routed(
    path: Path, routed: list[bytes], others: list[bytes | str]
) -> None:
    producer = sending(Router(table(*(route(key, by=(), shards=1, slots=1) for key in routed))))
    asked = [*routed, *(key.decode() for key in routed if key.isascii()), *others]

    for key in asked:
        producer.produce("clicks", b"v", key)
    producer.purge()

    known = set(routed)
    assert producer.hotkey.stats().routed == sum(_bytes(key) in known for key in asked)


def test_a_record_without_room_in_the_queue_uses_nothing_of_its_batch_up(path: Path) -> None:
    producer = hotkey_sdk.Producer({**NOWHERE, "linger.ms": 60_000, "queue.buffering.max.messages": 10})
    lanes = producer.hotkey._lanes
    lanes._batch = Batch(seconds=3_600, records=20)
    lanes.adopt("clicks", Router(table(route(by=()))))

    def fill(note: Any) -> None:
        for _ in range(10):
            producer.produce("clicks", b"v", "nike", on_delivery=note)
        for _ in range(50):
            with pytest.raises(BufferError):
                producer.produce("clicks", b"v", "nike")

    taken = [*sent(producer, fill), *sent(producer, fill), *sent(producer, fill)]

    partitions = [each[1] for each in taken]
    assert len(taken) == 30
    assert len(set(partitions[:20])) == 1
    assert partitions[20] != partitions[0]


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key


class Overriding(hotkey_sdk.Producer):
    """What people derive."""

    def produce(self, topic: str, *args: Any, **kwargs: Any) -> None:
        super().produce(topic, *args, **kwargs)


def test_a_class_that_overrides_produce_is_routed(path: Path) -> None:
    producer = Overriding(NOWHERE)
    producer.hotkey._lanes.adopt("clicks", Router(table(route(by=(), shards=1, slots=1))))

    assert sent(producer, lambda note: producer.produce("clicks", "v", key="nike", on_delivery=note)) == [
        ("clicks", 0, b"nike:10", b"v")
    ]


def test_a_method_of_another_object_is_refused(path: Path) -> None:
    with pytest.raises((TypeError, AttributeError)):
        hotkey_sdk.Producer.produce("no producer", "clicks", "v", "nike")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", [(), ("user_id",), ("user_id", "country_id", "hour")])
def test_what_a_record_was_made_of_is_given_back(path: Path, by: tuple[str, ...]) -> None:
    producer = sending(Router(table(route(by=by), route(b"\xff"))))
    topic, value, key = "".join(("cli", "cks")), "v" * 50, "".join(("ni", "ke"))
    plain, user, headers = "".join(("adi", "das")), "u" * 70, [("x-country", "d" * 3)]
    dimensions = {"user_id": user}

    def note(error: object, message: object) -> None:
        pass

    held = (topic, value, key, plain, user, dimensions, headers, note, None, -1)

    def send(records: int) -> None:
        for _ in range(records):
            producer.produce(topic, value, key, dimensions=dimensions, headers=headers, on_delivery=note)
            producer.produce(topic, value, plain, -1, note)
            producer.produce(topic, value, b"\xff", dimensions=dimensions)
            with pytest.raises(TypeError):
                producer.produce(topic, 7, key, dimensions=dimensions)  # type: ignore[arg-type]
        producer.purge()
        producer.flush(10)
        gc.collect()

    send(10)
    before = [sys.getrefcount(each) for each in held]
    send(500)
    after = [sys.getrefcount(each) for each in held]

    # The topics written to last are remembered, and others in this process use None and -1 meanwhile.
    assert all(abs(now - then) < 100 for now, then in zip(after, before, strict=True)), (before, after)


def test_an_error_that_says_gone_is_told_from_others() -> None:
    codes = {
        KafkaError._UNKNOWN_PARTITION: True,
        KafkaError._UNKNOWN_TOPIC: True,
        KafkaError._QUEUE_FULL: False,
    }
    assert {code: is_gone(KafkaException(KafkaError(code))) for code in codes} == codes


@pytest.fixture
def check() -> Callable[..., str]:
    def run(**environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hotkey_sdk", "check"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_check_tells_which_path_is_taken_and_a_variable_leaves_the_compiled_one(
    check: Callable[..., str],
) -> None:
    assert f"path of a record: {NAMES[-1]}" in check()
    assert "path of a record: pure" in check(HOTKEY_SDK_PURE="1")


def test_the_counters_tell_which_path_is_taken(path: Path) -> None:
    assert hotkey_sdk.Producer(NOWHERE).hotkey.stats().path == path.name


AGAIN = """
import importlib, sys
import hotkey_sdk, hotkey_sdk._producer
first = hotkey_sdk.Producer({how_to_reach})
{again}
import hotkey_sdk
second = hotkey_sdk.Producer({how_to_reach})
for producer in (first, second):
    producer.produce("clicks", b"1", b"nike", dimensions={{"user": "u"}})
    producer.purge()
    producer.flush(10)
print(second.hotkey.stats().path)
"""


@pytest.mark.parametrize(
    "again",
    [
        "importlib.reload(hotkey_sdk._producer); importlib.reload(hotkey_sdk)",
        "[sys.modules.pop(name) for name in [*sys.modules] if name.startswith('hotkey_sdk')]",
    ],
    ids=["reloaded", "purged"],
)
def test_where_the_module_is_executed_again_its_producers_take_the_pure_path(again: str) -> None:
    code = AGAIN.format(again=again, how_to_reach=NOWHERE)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pure"]
