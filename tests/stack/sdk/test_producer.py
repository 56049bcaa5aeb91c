"""The producer on a real broker: the original's behaviour, and routes taken from a published table."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from typing import Any

import confluent_kafka
import msgspec
import pytest
from confluent_kafka import Message

import hotkey_sdk
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.stack.sdk.scene import PARTITIONS, Scene, until

pytestmark = pytest.mark.usefixtures("path")

KEYS: list[str | bytes] = ["nike", "", "a:1", b"\xff\x00", "é", "x" * 10_000, *(f"ad-{n}" for n in range(20))]


def followed(producer: hotkey_sdk.Producer) -> dict[str, int]:
    return {table.topic: table.epoch for table in producer.hotkey.stats().source.tables}


def wait_for_epoch(producer: hotkey_sdk.Producer, scene: Scene, epoch: int) -> None:
    until(lambda: followed(producer).get(scene.topic) == epoch, producer.hotkey.stats)


def as_bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def test_without_a_table_keys_go_where_javas_partitioner_puts_them(scene: Scene) -> None:
    producer = scene.producer()

    for key in KEYS:
        producer.produce(scene.topic, "v", key, dimensions={"user_id": "u"})
    for _ in range(10):
        producer.produce(scene.topic, "null")
    assert producer.flush(30) == 0

    found = scene.read()
    keyed = {message.key() or b"": message.partition() for message in found if message.value() == b"v"}
    assert keyed == {as_bytes(key): partition_for(as_bytes(key), PARTITIONS) for key in KEYS}
    assert [message.key() for message in found if message.value() == b"null"] == [None] * 10


def test_it_delivers_what_the_original_delivers(scene: Scene) -> None:
    """The same calls through both; the same records in Kafka and the same delivery reports."""
    plain = confluent_kafka.Producer(
        {"bootstrap.servers": scene.stack.kafka.bootstrap, "partitioner": "murmur2_random", "log_level": 0}
    )
    seen: dict[str, list[Hashable]] = defaultdict(list)

    def send(name: str, producer: confluent_kafka.Producer) -> None:
        def note(error: Hashable, message: Message) -> None:
            seen[name].append((error, message.topic(), message.partition(), message.key(), message.value()))

        producer.produce(scene.topic, "one", "k", 3, note)
        producer.produce(scene.topic, b"two", b"k", on_delivery=note, timestamp=1_700_000_000_000)
        producer.produce(scene.topic, None, "k", callback=note, headers={"a": "b", "n": None})
        producer.produce(scene.topic, value="four", key="k", headers=[("a", b"1"), ("a", "2")], callback=note)
        producer.produce_batch(scene.topic, [{"value": "five", "key": "k"}, {"value": "six"}], 2, note)
        assert producer.flush(30) == 0

    send("original", plain)
    send("ours", scene.producer())

    records = Counter(
        (m.partition(), m.key(), m.value(), tuple(m.headers() or ()), m.timestamp()[1] == 1_700_000_000_000)
        for m in scene.read()
    )
    assert Counter(seen["ours"]) == Counter(seen["original"])
    assert len(seen["ours"]) == 6
    assert set(records.values()) == {2}


def test_a_published_table_moves_the_key_and_nothing_else(scene: Scene) -> None:
    producer = scene.producer()
    producer.produce(scene.topic, "before", "nike", dimensions={"user_id": 0})
    wait_for_epoch(producer, scene, 0)
    table = scene.table(scene.route(), epoch=5)
    scene.publish(table)
    wait_for_epoch(producer, scene, 5)

    for user in range(200):
        producer.produce(scene.topic, f"{user}", "nike", dimensions={"user_id": user})
    producer.produce(scene.topic, "plain", "adidas", dimensions={"user_id": 1})
    producer.produce(scene.topic, "chosen", "nike", 0, dimensions={"user_id": 1})
    assert producer.flush(30) == 0

    found = {message.value() or b"": (message.partition(), message.key()) for message in scene.read()}
    router = Router(table)
    for user in range(200):
        to = router.route("nike", {"user_id": user})
        assert to is not None
        assert found[b"%d" % user] == (to.partition, to.key)
        assert to.partition == partition_for(to.key or b"", PARTITIONS), "the default partitioner agrees"
    assert found[b"before"] == (partition_for(b"nike", PARTITIONS), b"nike")
    assert found[b"plain"] == (partition_for(b"adidas", PARTITIONS), b"adidas")
    assert found[b"chosen"] == (0, b"nike")
    assert producer.hotkey.stats().routed == 200


def test_a_hint_moves_the_key_without_waiting_for_the_poll(scene: Scene) -> None:
    producer = scene.producer(**{"hotkey.poll.interval.ms": 3_600_000, "hotkey.topics": scene.topic})
    until(lambda: len(scene.reports()) == 1, producer.hotkey.stats)
    channel = f"hotkey:{{{scene.stream}}}:hint"
    until(lambda: scene.redis.pubsub_numsub(channel)[0][1] == 1, lambda: scene.redis.pubsub_numsub(channel))

    scene.publish(scene.table(scene.route(), epoch=5))

    wait_for_epoch(producer, scene, 5)


def test_the_key_comes_back_to_its_place_when_its_route_is_taken_away(scene: Scene) -> None:
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(scene.table(scene.route(), epoch=5))
    wait_for_epoch(producer, scene, 5)
    scene.publish(scene.table(epoch=6))
    wait_for_epoch(producer, scene, 6)

    producer.produce(scene.topic, "v", "nike", dimensions={"user_id": 1})
    assert producer.flush(30) == 0

    assert [(m.partition(), m.key()) for m in scene.read()] == [(partition_for(b"nike", PARTITIONS), b"nike")]


@pytest.mark.parametrize("key", ["nike", "", "a:1", b"\xff\x00", "x" * 10_000], ids=lambda key: repr(key[:4]))
@pytest.mark.parametrize("record_key", list(RecordKey))
def test_any_key_can_be_routed(scene: Scene, key: str | bytes, record_key: RecordKey) -> None:
    route = scene.route(as_bytes(key), record_key=record_key)
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(scene.table(route, epoch=5))
    wait_for_epoch(producer, scene, 5)

    for user in range(40):
        producer.produce(scene.topic, f"{user}", key, dimensions={"user_id": user})
    assert producer.flush(30) == 0

    shards = {shard.partition: b"%b:%d" % (as_bytes(key), shard.id) for shard in route.shards}
    found = {(message.partition(), message.key()) for message in scene.read()}
    expected = shards.items() if record_key is RecordKey.COMPOSITE else {(p, as_bytes(key)) for p in shards}
    assert found == set(expected)


def test_dimensions_come_from_header_and_time_and_a_missing_one_is_counted(scene: Scene) -> None:
    table = scene.table(scene.route(by=("country_id", "hour")), epoch=5)
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(table)
    wait_for_epoch(producer, scene, 5)
    moment = 1_715_855_351_000

    for country in ("de", "fr", "se", "us"):
        producer.produce(scene.topic, country, "nike", headers=[("x-country", country)], timestamp=moment)
    producer.produce(scene.topic, "none", "nike", timestamp=moment)
    assert producer.flush(30) == 0

    router = Router(table)
    for message in scene.read():
        value = (message.value() or b"").decode()
        country = "" if value == "none" else value
        to = router.route("nike", {"country_id": country, "hour": "2024051610"})
        assert to is not None
        assert message.partition() == to.partition, value
    assert producer.hotkey.stats().missing_dimension == 1


def test_records_with_the_same_values_stay_in_order(scene: Scene) -> None:
    producer = scene.producer(**{"hotkey.topics": [scene.topic], "linger.ms": 1})
    scene.publish(scene.table(scene.route(), epoch=5))
    wait_for_epoch(producer, scene, 5)

    for number in range(5_000):
        producer.produce(scene.topic, f"{number}", "nike", dimensions={"user_id": number % 50})
        producer.poll(0)
    assert producer.flush(30) == 0

    by_user = defaultdict(list)
    for message in sorted(scene.read(), key=lambda m: (m.partition() or 0, m.offset() or 0)):
        number = int(message.value() or b"-1")
        by_user[number % 50].append(number)
    assert len(by_user) == 50
    assert all(numbers == sorted(numbers) for numbers in by_user.values())


@pytest.mark.parametrize("record_key", list(RecordKey))
def test_a_batch_call_is_routed_message_by_message(scene: Scene, record_key: RecordKey) -> None:
    table = scene.table(scene.route(record_key=record_key), epoch=5)
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    scene.publish(table)
    wait_for_epoch(producer, scene, 5)
    messages: list[dict[str, Any]] = [
        {"value": "1", "key": "nike", "dimensions": {"user_id": 1}},
        {"value": "2", "key": b"nike"},
        {"value": "3", "key": "adidas"},
        {"value": "4"},
    ]
    as_given = [dict(message) for message in messages]
    noted: list[object] = []

    sent = producer.produce_batch(
        scene.topic, messages, on_delivery=lambda error, _: noted.append(error), dimensions={"user_id": 2}
    )
    assert producer.flush(30) == 0

    router = Router(table)
    found = {message.value(): (message.partition(), message.key()) for message in scene.read()}
    one, two = (router.route("nike", {"user_id": user}) for user in (1, 2))
    assert one is not None
    assert two is not None
    assert found[b"1"] == (one.partition, one.key or b"nike")
    assert found[b"2"] == (two.partition, two.key or b"nike")
    assert found[b"3"] == (partition_for(b"adidas", PARTITIONS), b"adidas")
    assert found[b"4"][1] is None
    assert (sent, noted, messages) == (4, [None] * 4, as_given)


def one_by_one(producer: hotkey_sdk.Producer, topic: str, values: list[str]) -> int:
    for user, value in enumerate(values):
        producer.produce(topic, value, "nike", dimensions={"user_id": user})
    return len(values)


def as_a_batch(producer: hotkey_sdk.Producer, topic: str, values: list[str]) -> int:
    """The messages are those of an earlier call that failed: the original leaves its errors on them."""
    messages: list[dict[str, Any]] = [
        {"value": value, "key": "nike", "dimensions": {"user_id": user}} for user, value in enumerate(values)
    ]
    assert confluent_kafka.Producer.produce_batch(producer, topic, messages, 900) == 0
    assert all("_error" in message for message in messages)
    as_given = [dict(message) for message in messages]
    sent = producer.produce_batch(topic, messages)
    assert messages == as_given
    return sent


@pytest.mark.parametrize("record_key", list(RecordKey))
@pytest.mark.parametrize("send", [one_by_one, as_a_batch])
def test_a_shard_on_a_partition_that_does_not_exist_falls_back_to_the_plain_key(
    scene: Scene, send: Callable[[hotkey_sdk.Producer, str, list[str]], int], record_key: RecordKey
) -> None:
    wide = scene.table(scene.route(), epoch=5)
    shards = tuple(
        type(shard)(shard.id, shard.partition + (500 if index % 2 else 0))
        for index, shard in enumerate(wide.routes[0].shards)
    )
    route = type(wide.routes[0])(b"nike", scene.topic, ("user_id",), record_key, shards, (0, 1, 2, 3))
    table = type(wide)(scene.stream, 1000, 5, 7, wide.read_set, wide.dimensions, (route,))
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})
    producer.produce(scene.topic, "first", "adidas")
    assert producer.flush(30) == 0, "the client knows the topic's partitions now"
    scene.publish(table)
    wait_for_epoch(producer, scene, 5)
    values = [f"v{user}" for user in range(20)]

    sent = send(producer, scene.topic, values)
    assert producer.flush(30) == 0

    found = [m for m in scene.read() if m.value() != b"first"]
    assert sorted(m.value() or b"" for m in found) == sorted(value.encode() for value in values), "each once"
    router, plain = Router(table), (partition_for(b"nike", PARTITIONS), b"nike")
    fell_back = 0
    for message in found:
        to = router.route("nike", {"user_id": int((message.value() or b"")[1:])})
        assert to is not None
        fell_back += to.partition >= PARTITIONS
        expected = plain if to.partition >= PARTITIONS else (to.partition, to.key or b"nike")
        assert (message.partition(), message.key()) == expected
    assert 0 < fell_back < 20
    assert (sent, producer.hotkey.stats().fell_back) == (20, fell_back)


def test_partitions_that_were_added_take_shards_as_soon_as_a_table_names_them(scene: Scene) -> None:
    producer = scene.producer(
        **{"hotkey.topics": [scene.topic], "topic.metadata.refresh.interval.ms": 3_600_000}
    )
    scene.publish(scene.table(scene.route(), epoch=5))
    wait_for_epoch(producer, scene, 5)
    producer.produce(scene.topic, "first", "nike", dimensions={"user_id": 1})
    assert producer.flush(30) == 0, "the client knows 12 partitions now, and asks again in an hour"
    scene.grow(2 * PARTITIONS)
    shards = tuple(Shard(number, PARTITIONS + number) for number in range(4))
    route = Route(b"nike", scene.topic, ("user_id",), RecordKey.COMPOSITE, shards, (0, 1, 2, 3))
    wide = msgspec.structs.replace(scene.table(route, epoch=6), partitions=2 * PARTITIONS)

    scene.publish(wide)
    wait_for_epoch(producer, scene, 6)
    for user in range(40):
        producer.produce(scene.topic, "v", "nike", dimensions={"user_id": user})
    assert producer.flush(30) == 0

    places = {(m.partition(), m.key()) for m in scene.read() if m.value() == b"v"}
    assert places == {(shard.partition, b"nike:%d" % shard.id) for shard in shards}
    assert producer.hotkey.stats().fell_back == 0


def test_without_an_order_batches_are_not_cut_into_pieces(scene: Scene) -> None:
    """Records per request, from librdkafka's own statistics, for the same calls at the same pace."""

    def batch_size(key: str) -> float:
        statistics: list[dict[str, Any]] = []
        producer = scene.producer(
            **{
                "hotkey.topics": [scene.topic],
                "linger.ms": 20,
                "statistics.interval.ms": 100,
                "stats_cb": lambda text: statistics.append(json.loads(text)),
            }
        )
        wait_for_epoch(producer, scene, 5)
        for number in range(4_000):
            producer.produce(scene.topic, f"{number}", key)
            if number % 20 == 0:
                producer.poll(0.01)
        assert producer.flush(30) == 0
        sizes = [each["topics"].get(scene.topic, {}).get("batchcnt", {}) for each in statistics]
        total = sum(size.get("sum", 0) for size in sizes)
        count = sum(size.get("cnt", 0) for size in sizes)
        assert count, statistics
        return float(total / count)

    scene.publish(scene.table(scene.route(by=()), epoch=5))

    plain, spread = batch_size("adidas"), batch_size("nike")

    used = Counter(m.partition() for m in scene.read() if (m.key() or b"").startswith(b"nike:"))
    assert set(used) == {1, 4, 7, 10}
    assert spread > plain / 2, f"{spread:.1f} records a batch, {plain:.1f} for a plain key"


def test_a_route_to_another_topic_needs_a_durable_producer(scene: Scene) -> None:
    other = f"{scene.topic}.hot.x.g1"
    scene.create(other, 2)
    route = scene.route(partitions=(0, 1))
    elsewhere = type(route)(
        route.key,
        other,
        route.by,
        RecordKey.PRESERVE,
        tuple(type(s)(s.id, s.partition) for s in route.shards),
        (0, 1),
    )
    weak, strong = scene.producer(acks=1), scene.producer()
    for producer in (weak, strong):
        producer.produce(scene.topic, "before", "adidas")
    scene.publish(scene.table(elsewhere, epoch=5, read_set=(other,)))

    for name, producer in (("weak", weak), ("strong", strong)):
        wait_for_epoch(producer, scene, 5)
        producer.produce(scene.topic, name, "nike", dimensions={"user_id": 1})
        assert producer.flush(30) == 0

    assert [message.value() for message in scene.read(other)] == [b"strong"]
    assert b"weak" in {message.value() for message in scene.read()}
    assert weak.hotkey.stats().not_durable == 1


def test_a_producer_reports_the_epoch_it_applies_until_it_is_closed(scene: Scene) -> None:
    first = scene.producer(**{"hotkey.topics": [scene.topic], "hotkey.client.id": "first"})
    scene.producer(**{"hotkey.topics": [scene.topic], "hotkey.client.id": "second"})
    scene.publish(scene.table(epoch=5))

    until(
        lambda: (
            {(r.client_id, r.role, r.epoch) for r in scene.reports()}
            == {("first", "producer", 5), ("second", "producer", 5)}
        ),
        scene.reports,
    )
    assert all(abs(report.at - time.time()) < 60 for report in scene.reports())
    first.close()
    assert [report.client_id for report in scene.reports()] == ["second"]


def test_the_self_test_agrees_with_librdkafka(scene: Scene) -> None:
    producer = scene.producer(**{"hotkey.topics": [scene.topic]})

    until(lambda: producer.hotkey.stats().partitioner_agrees is not None, producer.hotkey.stats)

    assert producer.hotkey.stats().partitioner_agrees is True
