"""A producer that counts what it sends (`hotkey.report.keys`): a class of its own, so that others do not pay.

Records are counted when the broker has taken them, in the delivery callback of those that are looked at:
by then their partition is known, whoever chose it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError

from hotkey_sdk import _settings
from hotkey_sdk._dedicated import DeliveryCallback, HeadersLike
from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._producer import Producer
from hotkey_sdk.routing.router import Dimensions

_ANY = -1


class CountingProducer(Producer):
    """What a `Producer` becomes when it is told to report its keys; see `begin`."""

    _key_counts: KeyCounts
    _default_callback: DeliveryCallback | None
    _weight: int  # of the next record that is looked at,
    _left: int  # and how many records on it is

    def produce(
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        partition: int = _ANY,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
        timestamp: int = 0,
        headers: HeadersLike | None = None,
        dimensions: Dimensions | None = None,
    ) -> None:
        """As `Producer.produce`."""
        left = self._left = self._left - 1
        if left <= 0:
            callback = self._counted(key, callback or on_delivery)
        # Named, as `super()` costs a look-up and an object for every record.
        Producer.produce(
            self, topic, value, key, partition, callback, on_delivery, timestamp, headers, dimensions
        )

    def produce_batch(
        self,
        topic: str,
        messages: list[dict[str, Any]],
        partition: int = _ANY,
        callback: DeliveryCallback | None = None,
        on_delivery: DeliveryCallback | None = None,
        dimensions: Dimensions | None = None,
    ) -> int:
        """As `Producer.produce_batch`."""
        then = callback or on_delivery
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return super().produce_batch(topic, messages, partition, then, None, dimensions)
        counted = [self._counted_message(message, then) for message in messages]
        try:
            return super().produce_batch(topic, counted, partition, then, None, dimensions)
        finally:
            for message, copy in zip(messages, counted, strict=True):
                if copy is not message and "_error" in copy:
                    message["_error"] = copy["_error"]

    def _counted_message(self, message: dict[str, Any], then: DeliveryCallback | None) -> dict[str, Any]:
        self._left -= 1
        if self._left > 0:
            return message
        copy = {**message, "callback": self._counted(message.get("key"), message.get("callback") or then)}
        copy.pop("_error", None)  # of an earlier call
        return copy

    def _counted(self, key: object, then: DeliveryCallback | None) -> DeliveryCallback:
        """The callback of a record that is looked at; sets the distance to the next one."""
        counts, weight = self._key_counts, self._weight
        self._weight = counts.weight
        self._left = counts.gap(self._weight)
        return _Counted(counts, key, weight, then or self._default_callback)


class _Counted:
    """A delivery callback that counts, and then does what the caller asked for."""

    __slots__ = ("_counts", "_key", "_then", "_weight")

    def __init__(self, counts: KeyCounts, key: object, weight: int, then: DeliveryCallback | None) -> None:
        self._counts = counts
        self._key = key
        self._weight = weight
        self._then = then

    def __call__(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        topic, partition = message.topic(), message.partition()
        if error is None and topic is not None and partition is not None:
            key = self._key.encode() if isinstance(self._key, str) else self._key
            own = key if isinstance(key, bytes) else None
            self._counts.add(topic, own, partition, len(own or b"") + len(message), self._weight)
        if self._then is not None:
            self._then(error, message)


def begin(producer: Producer, counts: KeyCounts, kafka: Mapping[str, Any]) -> None:
    """Let `producer` count from now on. Raises `SettingsError` where `kafka` makes that impossible.

    Its class changes to one that stands under that of the caller, so what the caller overrode stays.
    """
    _settings.check_key_reports(kafka)
    default = kafka.get("on_delivery")
    producer.__class__ = _counting(type(producer))  # type: ignore[arg-type] # a class is hashable
    assert isinstance(producer, CountingProducer)
    producer._key_counts = counts
    producer._default_callback = default if callable(default) else None
    producer._weight = counts.weight
    producer._left = counts.gap(counts.weight)


@functools.cache
def _counting(of: type[Producer]) -> type[CountingProducer]:
    if of is Producer:
        return CountingProducer
    return type(of.__name__, (of, CountingProducer), {"__module__": of.__module__})
