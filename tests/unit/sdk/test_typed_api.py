"""The public API has the types that its users rely on: mypy checks this file in `make lint`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, assert_type

import confluent_kafka

import hotkey_sdk

if TYPE_CHECKING:

    def callback(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None: ...

    def use_the_producer(producer: hotkey_sdk.Producer, message: confluent_kafka.Message) -> None:
        original: confluent_kafka.Producer = producer
        original.produce("t", "v", "k")
        producer.produce("t", b"v", key=b"k", dimensions={"user_id": "u1", "country_id": 7, "hour": None})
        producer.produce("t", None, None, -1, callback, timestamp=0, headers=[("a", b"b")])
        assert_type(producer.produce_batch("t", [{"value": "v"}], dimensions={"user_id": "u"}), int)
        assert_type(producer.hotkey.stats(), hotkey_sdk.ProducerStats)
        assert_type(producer.hotkey.stats().routed, int)
        assert_type(producer.hotkey.stats().source.tables[0].epoch, int)
        assert_type(producer.hotkey.stats().source.tables[0].outcomes, Mapping[str, int])
        producer.produce(7)  # type: ignore[arg-type]
        producer.produce("t", key=7)  # type: ignore[arg-type]
        producer.produce("t", dimensions={"user_id": 1.5})  # type: ignore[dict-item]
        producer.hotkey.stats().routed = 1  # type: ignore[misc]

    def use_the_consumer(consumer: hotkey_sdk.Consumer) -> None:
        original: confluent_kafka.Consumer = consumer
        original.subscribe(["t"])
        assert_type(consumer.poll(), confluent_kafka.Message | None)
        assert_type(consumer.poll(1.0), confluent_kafka.Message | None)
        assert_type(consumer.consume(10, 1.0), list[confluent_kafka.Message])
        assert_type(consumer.hotkey.stats(), hotkey_sdk.ConsumerStats)


def test_what_is_public_is_there_and_said_to_be_public() -> None:
    assert all(hasattr(hotkey_sdk, name) for name in hotkey_sdk.__all__)
    assert set(hotkey_sdk.__all__) == {
        name for name in vars(hotkey_sdk) if not name.startswith("_") and name[0].isupper()
    }
