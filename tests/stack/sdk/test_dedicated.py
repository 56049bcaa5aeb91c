"""What goes to a dedicated topic that is deleted, denied or refuses: to base, in order, told once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

import hotkey_sdk
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.table import RecordKey, Route, Shard
from tests.stack.sdk.scene import PARTITIONS, Scene, until

pytestmark = pytest.mark.usefixtures("path")

USERS = 40
SECONDS = 60.0


class Dedicated:
    """A stream whose key `nike` has a topic of its own, and what became of every record that was sent."""

    def __init__(self, scene: Scene, *, exists: bool = True) -> None:
        self.scene = scene
        self.topic = f"{dedicated_prefix(scene.topic)}x.g1"
        self.sent: list[bytes] = []
        self.ends: dict[bytes, list[tuple[KafkaError | None, str | None]]] = defaultdict(list)
        if exists:
            scene.create(self.topic, PARTITIONS)

    def route(self, by: tuple[str, ...] = ("user_id",)) -> Route:
        shards = tuple(Shard(number, number) for number in range(4))
        return Route(b"nike", self.topic, by, RecordKey.COMPOSITE, shards, (0, 1, 2, 3))

    def producer(self, **more: Any) -> hotkey_sdk.Producer:
        """A producer that has the route."""
        scene = self.scene
        made = scene.producer(**{"hotkey.topics": [scene.topic], **more})
        scene.publish(scene.table(self.route(), epoch=5, read_set=(self.topic,)))
        until(lambda: [table.epoch for table in made.hotkey.stats().source.tables] == [5], made.hotkey.stats)
        return made

    def send(self, producer: hotkey_sdk.Producer, count: int) -> None:
        """Send that many records with ids of their own, number n by user n % USERS."""
        for _ in range(count):
            number = len(self.sent)
            value = b"id-%d" % number
            self.sent.append(value)
            headers = [("n", b"%d" % number)]
            while True:
                try:
                    producer.produce(
                        self.scene.topic,
                        value,
                        "nike",
                        headers=headers,
                        dimensions={"user_id": number % USERS},
                        on_delivery=self.note,
                    )
                    break
                except BufferError:
                    producer.poll(0.01)
            producer.poll(0)

    def note(self, error: KafkaError | None, message: Message) -> None:
        self.ends[message.value() or b""].append((error, message.topic()))

    def tried(self) -> Counter[str | None]:
        return Counter(topic for ends in self.ends.values() for _, topic in ends)

    def prove(self, producer: hotkey_sdk.Producer) -> None:
        """Every record ended once and well; base holds exactly what ended there, each user's in order."""
        assert producer.flush(SECONDS) == 0
        assert len(producer) == 0
        assert {value: len(ends) for value, ends in self.ends.items()} == dict.fromkeys(self.sent, 1)
        failed = [str(ends[0]) for ends in self.ends.values() if ends[0][0] is not None]
        assert failed == []
        found = self.scene.read()
        on_base = [value for value, ends in self.ends.items() if ends[0][1] == self.scene.topic]
        assert Counter(message.value() for message in found) == Counter(on_base)
        by_user: dict[int, list[int]] = defaultdict(list)
        for message in sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0)):
            number = int((message.value() or b"")[3:])
            assert (message.key(), message.headers()) == (b"nike", [("n", b"%d" % number)])
            by_user[number % USERS].append(number)
        assert all(numbers == sorted(numbers) for numbers in by_user.values()), "in the order of sending"


@pytest.fixture
def dedicated(scene: Scene) -> Dedicated:
    return Dedicated(scene)


def delete(scene: Scene, topic: str) -> None:
    """Delete the topic and wait until the broker knows it no more."""
    scene.admin.delete_topics([topic])[topic].result()
    until(lambda: scene.admin.list_topics(topic, timeout=10).topics[topic].error is not None, lambda: topic)


def test_a_topic_deleted_under_load_loses_nothing_that_it_had_not_taken(dedicated: Dedicated) -> None:
    scene = dedicated.scene
    producer = dedicated.producer()
    dedicated.send(producer, 2_000)
    until(lambda: producer.poll(0.1) >= 0 and dedicated.tried()[dedicated.topic] > 0, dedicated.tried)

    delete(scene, dedicated.topic)
    until(lambda: _sent_again(dedicated, producer), lambda: (dedicated.tried(), producer.hotkey.stats()))
    dedicated.send(producer, 2_000)

    dedicated.prove(producer)
    stats = producer.hotkey.stats()
    assert dedicated.tried().keys() == {scene.topic, dedicated.topic}
    assert stats.refused_topics.keys() == {dedicated.topic}
    assert (stats.sent_again > 0, stats.fell_back > 0, stats.waiting) == (True, True, 0)


def _sent_again(dedicated: Dedicated, producer: hotkey_sdk.Producer) -> bool:
    """Go on sending; whether the producer has noticed."""
    dedicated.send(producer, 50)
    producer.poll(0.01)
    return producer.hotkey.stats().sent_again > 0


def test_a_queue_that_was_filled_for_a_deleted_topic_goes_to_base_in_order(dedicated: Dedicated) -> None:
    """The queue is full when the refusals come: they wait here, and what comes later waits behind them."""
    scene = dedicated.scene
    producer = dedicated.producer(**{"queue.buffering.max.messages": 500, "linger.ms": 50})
    dedicated.send(producer, 100)
    assert producer.flush(SECONDS) == 0
    delete(scene, dedicated.topic)

    dedicated.send(producer, 3_000)

    dedicated.prove(producer)
    assert dedicated.tried()[scene.topic] > 2_000


def test_a_table_that_names_a_topic_that_is_not_there_costs_nothing(scene: Scene) -> None:
    dedicated = Dedicated(scene, exists=False)
    producer = dedicated.producer()

    dedicated.send(producer, 200)

    dedicated.prove(producer)
    assert dedicated.tried() == {scene.topic: 200}


def deny(scene: Scene, denied: AclOperation = AclOperation.WRITE) -> Callable[[], None]:
    """Nobody may write to the stream's dedicated topics any more (or read them); what allows it again."""

    def binding(operation: AclOperation, permission: AclPermissionType) -> AclBinding:
        name, pattern = dedicated_prefix(scene.topic), ResourcePatternType.PREFIXED
        return AclBinding(ResourceType.TOPIC, name, pattern, "User:*", "*", operation, permission)

    made = [
        binding(AclOperation.ALL, AclPermissionType.ALLOW),
        binding(denied, AclPermissionType.DENY),
    ]
    for future in scene.admin.create_acls(made).values():
        future.result()

    def allow() -> None:
        name = dedicated_prefix(scene.topic)
        every = AclBindingFilter(
            ResourceType.TOPIC,
            name,
            ResourcePatternType.PREFIXED,
            None,  # type: ignore[arg-type] # whoever
            None,  # type: ignore[arg-type] # from wherever
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for future in scene.admin.delete_acls([every]).values():
            future.result()

    return allow


def test_a_producer_that_is_denied_falls_back_and_remembers(dedicated: Dedicated) -> None:
    allow = deny(dedicated.scene)
    try:
        producer = dedicated.producer()
        until(lambda: _sent_again(dedicated, producer), producer.hotkey.stats)
        assert producer.flush(SECONDS) == 0
        stats, tried = producer.hotkey.stats(), dedicated.tried()

        dedicated.send(producer, 500)

        dedicated.prove(producer)
        assert stats.refused_topics == {dedicated.topic: "TOPIC_AUTHORIZATION_FAILED"}
        assert dedicated.tried()[dedicated.scene.topic] == tried[dedicated.scene.topic] + 500
        assert producer.hotkey.stats().sent_again == stats.sent_again, "it does not try with each record"
    finally:
        allow()


def take_no_more_than(scene: Scene, topic: str, size_bytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    scene.admin.incremental_alter_configs([resource])[resource].result()


def test_a_topic_that_refuses_every_record_ends_up_closed(dedicated: Dedicated) -> None:
    """As behind a fence: `max.message.bytes` of 78."""
    scene = dedicated.scene
    producer = dedicated.producer()
    take_no_more_than(scene, dedicated.topic, 78)

    until(
        lambda: _sent_again(dedicated, producer) and bool(producer.hotkey.stats().refused_topics),
        producer.hotkey.stats,
    )

    dedicated.prove(producer)
    assert producer.hotkey.stats().refused_topics == {dedicated.topic: "MSG_SIZE_TOO_LARGE"}


def test_one_refused_record_goes_to_base_and_the_topic_stays_in_use(dedicated: Dedicated) -> None:
    """The dedicated topic takes no big records; the base topic does."""
    scene = dedicated.scene
    producer = dedicated.producer(**{"compression.type": "none"})
    take_no_more_than(scene, dedicated.topic, 2_000)
    ends: list[tuple[KafkaError | None, str | None]] = []
    note = _noting(ends)
    until(lambda: _refused(scene, producer, note), lambda: ends)

    producer.produce(scene.topic, "small", "nike", dimensions={"user_id": 1}, on_delivery=note)
    assert producer.flush(SECONDS) == 0

    assert ends[-2:] == [(None, scene.topic), (None, dedicated.topic)]
    assert {error for error, _ in ends} == {None}
    assert producer.hotkey.stats().refused_topics == {}


def _noting(
    ends: list[tuple[KafkaError | None, str | None]],
) -> Callable[[KafkaError | None, Message], None]:
    return lambda error, message: ends.append((error, message.topic()))


def _refused(
    scene: Scene, producer: hotkey_sdk.Producer, note: Callable[[KafkaError | None, Message], None]
) -> bool:
    producer.produce(scene.topic, "x" * 5_000, "nike", dimensions={"user_id": 1}, on_delivery=note)
    assert producer.flush(SECONDS) == 0
    return producer.hotkey.stats().sent_again > 0


def test_a_batch_call_is_sent_again_too(dedicated: Dedicated) -> None:
    scene = dedicated.scene
    producer = dedicated.producer()
    delete(scene, dedicated.topic)
    messages: list[dict[str, Any]] = [
        {"value": f"{number}", "key": "nike", "dimensions": {"user_id": number}} for number in range(50)
    ]
    ends: list[tuple[KafkaError | None, str | None]] = []

    sent = producer.produce_batch(scene.topic, messages, on_delivery=_noting(ends))
    assert producer.flush(SECONDS) == 0

    assert (sent, ends) == (50, [(None, scene.topic)] * 50)
    assert sorted(int(message.value() or b"-1") for message in scene.read()) == list(range(50))


@pytest.mark.parametrize("ways_out", ["close", "with"])
def test_what_is_on_its_way_is_sent_again_before_the_producer_is_closed(
    dedicated: Dedicated, ways_out: str
) -> None:
    scene = dedicated.scene
    producer = dedicated.producer(**{"linger.ms": 200})
    delete(scene, dedicated.topic)
    ends: list[tuple[KafkaError | None, str | None]] = []
    for user in range(100):
        producer.produce(
            scene.topic, f"{user}", "nike", dimensions={"user_id": user}, on_delivery=_noting(ends)
        )

    if ways_out == "close":
        producer.close()
    else:
        with producer:
            pass

    assert ends == [(None, scene.topic)] * 100
    assert len(scene.read()) == 100


def test_a_purge_ends_what_waits_as_it_ends_what_is_queued(dedicated: Dedicated) -> None:
    producer = dedicated.producer(**{"linger.ms": 60_000})
    dedicated.send(producer, 100)

    producer.purge()
    assert producer.flush(SECONDS) == 0

    assert dedicated.scene.read() == []
    codes = Counter(error.code() if error else None for ends in dedicated.ends.values() for error, _ in ends)
    assert codes == {KafkaError._PURGE_QUEUE: 100}


def test_the_default_callback_is_called_for_what_has_none(dedicated: Dedicated) -> None:
    scene = dedicated.scene
    ends: list[tuple[KafkaError | None, str | None]] = []
    producer = dedicated.producer(on_delivery=_noting(ends))
    producer.produce(scene.topic, "a", "nike", dimensions={"user_id": 1})
    assert producer.flush(SECONDS) == 0
    delete(scene, dedicated.topic)

    producer.produce(scene.topic, "b", "nike", dimensions={"user_id": 1})
    assert producer.flush(SECONDS) == 0

    assert ends[0] == (None, dedicated.topic)
    assert len(ends) == 2, "it may still have been taken by a topic that was about to go"
    assert ends[1][0] is None


def test_a_transaction_is_to_be_aborted_with_words_and_works_when_it_is_repeated(
    dedicated: Dedicated,
) -> None:
    scene = dedicated.scene
    producer = dedicated.producer(**{"transactional.id": scene.topic})
    producer.init_transactions(SECONDS)
    allow = deny(scene)
    try:
        error = _broken_transaction(dedicated, producer)
        producer.abort_transaction(SECONDS)

        producer.begin_transaction()
        _in_a_transaction(scene, producer)
    finally:
        allow()

    assert (error.retriable(), error.txn_requires_abort(), error.fatal()) == (True, True, False)
    assert dedicated.topic in error.str()
    assert "abort it and repeat it" in error.str()
    assert committed(scene, 20) == sorted(b"t-%d" % user for user in range(20))


def _broken_transaction(dedicated: Dedicated, producer: hotkey_sdk.Producer) -> KafkaError:
    """Make transactions until one is refused, which begins when the broker has learned of the ACL."""
    found: list[KafkaError] = []

    def refused() -> bool:
        producer.begin_transaction()
        try:
            producer.produce(dedicated.scene.topic, "a plain one", "adidas")
            assert producer.flush(SECONDS) == 0
            for _ in range(2):
                producer.produce(dedicated.scene.topic, "x", "nike", dimensions={"user_id": 1})
            producer.commit_transaction(SECONDS)
        except KafkaException as error:
            found.append(error.args[0])
        return bool(found)

    until(refused, producer.hotkey.stats)
    return found[0]


def _in_a_transaction(
    scene: Scene, producer: hotkey_sdk.Producer, name: str = "t", records: int = 20
) -> None:
    for user in range(records):
        producer.produce(scene.topic, f"{name}-{user}", "nike", dimensions={"user_id": user})
    producer.commit_transaction(SECONDS)


def committed(scene: Scene, count: int) -> list[bytes]:
    """What committed transactions wrote to base, but for plain keys: that many records."""
    consumer = Consumer(
        {
            "bootstrap.servers": scene.stack.kafka.bootstrap,
            "group.id": scene.topic,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(scene.topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    found: list[bytes] = []

    def read() -> bool:
        messages = [message for message in consumer.consume(1_000, 0.2) if message.error() is None]
        values = [message.value() or b"" for message in messages if message.key() == b"nike"]
        found.extend(value for value in values if not value.startswith(b"id-"))  # those are no transaction's
        return len(found) >= count

    until(read, lambda: found)
    consumer.close()
    return sorted(found)


def test_a_transaction_tries_a_dedicated_topic_only_when_it_could_be_aborted(dedicated: Dedicated) -> None:
    """librdkafka cannot abort a transaction of which the broker has taken nothing, and ends its producer."""
    scene = dedicated.scene
    producer = dedicated.producer(**{"transactional.id": scene.topic})
    producer.init_transactions(SECONDS)

    went = []
    for records in (1, 3, 2):
        producer.begin_transaction()
        for _ in range(records):
            producer.produce(
                scene.topic,
                "x",
                "nike",
                dimensions={"user_id": 1},
                on_delivery=lambda _, m: went.append(m.topic()),
            )
        producer.commit_transaction(SECONDS)

    base, own = scene.topic, dedicated.topic
    assert went == [base, base, own, own, own, own], "once it took something it is written as by any producer"


def test_a_denied_topic_ends_no_producer_that_never_wrote_to_it(
    dedicated: Dedicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = dedicated.scene
    allow = deny(scene)
    try:
        plain = dedicated.producer()
        until(lambda: _is_refused(dedicated, plain), plain.hotkey.stats)
        for _ in range(2):  # as a process that is started again after an error, and remembers nothing
            monkeypatch.setattr("hotkey_sdk._dedicated._broke_transactions", {})
            producer = dedicated.producer(**{"transactional.id": scene.topic})
            producer.init_transactions(SECONDS)
            until(lambda: _is_committed(scene, producer), producer.hotkey.stats)  # noqa: B023
            assert list(producer.hotkey.stats().refused_topics) == [dedicated.topic]
    finally:
        allow()

    assert committed(scene, 20) == sorted(2 * [b"t-%d" % user for user in range(10)])


def _is_refused(dedicated: Dedicated, producer: hotkey_sdk.Producer) -> bool:
    dedicated.send(producer, 1)
    assert producer.flush(SECONDS) == 0
    return bool(producer.hotkey.stats().refused_topics)


def _is_committed(scene: Scene, producer: hotkey_sdk.Producer) -> bool:
    """Try once; what goes wrong has to be worth another try."""
    producer.begin_transaction()
    try:
        _in_a_transaction(scene, producer, records=10)
    except KafkaException as error:
        if not error.args[0].retriable():
            raise
        producer.abort_transaction(SECONDS)
        return False
    return True


def test_a_transaction_that_cannot_be_aborted_says_so_and_is_repeated_by_a_new_producer(
    dedicated: Dedicated,
) -> None:
    """The dedicated topic was written before, so that a whole transaction is given to it when it is lost."""
    scene = dedicated.scene
    first = dedicated.producer(**{"transactional.id": scene.topic})
    first.init_transactions(SECONDS)
    first.begin_transaction()
    _in_a_transaction(scene, first, "before", 2)
    allow = deny(scene)
    try:
        scene.clients.remove(first)  # what has ended for good cannot be closed in good order
        errors: list[KafkaError] = []
        until(lambda: _refused_altogether(scene, first, errors), first.hotkey.stats)

        second = dedicated.producer(**{"transactional.id": scene.topic})
        second.init_transactions(SECONDS)
        second.begin_transaction()
        _in_a_transaction(scene, second)
    finally:
        allow()

    assert committed(scene, 21) == sorted([b"before-0", *(b"t-%d" % user for user in range(20))])
    assert (errors[0].retriable(), errors[0].txn_requires_abort(), errors[0].fatal()) == (True, True, False)
    for error in errors[1:]:
        assert error.fatal()
        assert "Make a new one with the same transactional.id and repeat the transaction" in error.str()


def _refused_altogether(scene: Scene, producer: hotkey_sdk.Producer, errors: list[KafkaError]) -> bool:
    producer.begin_transaction()
    try:
        producer.produce(scene.topic, "x", "nike", dimensions={"user_id": 1})
        producer.commit_transaction(SECONDS)
    except KafkaException as error:
        errors.append(error.args[0])
    if not errors:
        return False
    try:
        producer.abort_transaction(SECONDS)
        producer.begin_transaction()
    except KafkaException as error:
        errors.append(error.args[0])
    return True
