"""Where a record goes: a table compiled for one dictionary look-up and one hash per record.

It reads no clock and draws no random numbers: the record's timestamp and, where no order is asked for, the
slot come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from hotkey_sdk.routing.slots import Value, slot_hash
from hotkey_sdk.routing.table import Dimension, RecordKey, Route, Shard, Table, shard_key

HeaderValue = str | bytes | None  # of headers with one name the last counts, as in Kafka
Headers = Mapping[str, HeaderValue] | Sequence[tuple[str, HeaderValue]]
Dimensions = Mapping[str, Value]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR, _DAY = 3600, 86400


class Destination(msgspec.Struct, frozen=True, gc=False):
    """Where one record goes. `key` None: the caller's own key stays on it."""

    topic: str
    partition: int
    key: bytes | None


class RoutePlan:
    """One route, compiled: the destination of every slot, and how a record's slot is found."""

    __slots__ = ("_mask", "_readers", "by", "destinations", "ordered", "route", "seed", "timed")

    def __init__(self, route: Route, dimensions: Mapping[str, Dimension], seed: int) -> None:
        self.route = route
        self.ordered = bool(route.by)
        self.by = tuple(dimensions[name] for name in route.by)
        self.timed = any(dimension.time_bucket_seconds is not None for dimension in self.by)
        by_shard = [_destination(route, shard) for shard in route.shards]
        self.destinations = tuple(by_shard[index] for index in route.slots)
        self._mask = len(route.slots) - 1
        self.seed = seed
        self._readers = tuple((dimension.name, _reader(dimension)) for dimension in self.by)

    def at(self, slot: int) -> Destination:
        """The destination of a slot; any integer will do, its low bits count."""
        return self.destinations[slot & self._mask]

    def values(
        self, dimensions: Dimensions | None, headers: Headers | None, timestamp_ms: int | None
    ) -> list[Value]:
        """The record's values in the order of `by`; None where it has none."""
        values: list[Value] = []
        for name, read in self._readers:
            value = dimensions.get(name) if dimensions is not None else None
            if value is None and read is not None:
                value = read(headers, timestamp_ms)
            values.append(value)
        return values

    def hashed(self, values: Iterable[Value]) -> Destination:
        """The destination of a record with these values."""
        return self.destinations[slot_hash(self.seed, values) & self._mask]


class Router:
    """The table's routes by record key.

    `plans` holds each key as bytes and, when it is UTF-8, as text too, so that a caller's key needs no
    conversion before it is looked up.
    """

    __slots__ = ("plans", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.plans: dict[bytes | str, RoutePlan] = {}
        declared = {dimension.name: dimension for dimension in table.dimensions}
        for route in table.routes:
            plan = RoutePlan(route, declared, table.seed)
            self.plans[route.key] = plan
            try:
                self.plans[route.key.decode()] = plan
            except UnicodeDecodeError:
                continue  # no text encodes to this key

    def route(
        self,
        key: bytes | str | None,
        dimensions: Dimensions | None = None,
        *,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
        slot: int = 0,
    ) -> Destination | None:
        """The destination of a record, or None when its key is a plain one.

        `timestamp_ms`: unix milliseconds, for time buckets. `slot`: taken as it is where the route names no
        dimensions; any integer. A dimension that the record lacks hashes as empty.
        """
        plan = self.plans.get(key) if key is not None else None
        if plan is None:
            return None
        if not plan.ordered:
            return plan.at(slot)
        return plan.hashed(plan.values(dimensions, headers, timestamp_ms))


def time_bucket(timestamp_ms: int, width_seconds: int) -> str:
    """The UTC start of the record's bucket: `20240516` for whole days, `2024051610` for hours, else minutes.

    Buckets are counted from 1970-01-01T00:00Z. Raises `OverflowError` outside the years 1..9999.
    """
    start = timestamp_ms // 1000 // width_seconds * width_seconds
    moment = _EPOCH + timedelta(seconds=start)
    if width_seconds % _DAY == 0:
        return f"{moment:%Y%m%d}"
    return f"{moment:%Y%m%d%H}" if width_seconds % _HOUR == 0 else f"{moment:%Y%m%d%H%M}"


def _destination(route: Route, shard: Shard) -> Destination:
    composite = route.record_key is RecordKey.COMPOSITE
    return Destination(
        topic=route.topic,
        partition=shard.partition,
        key=shard_key(route.key, shard.id) if composite else None,
    )


_Reader = Callable[[Headers | None, int | None], Value]


def _reader(dimension: Dimension) -> _Reader | None:
    if dimension.header is not None:
        return _header_reader(dimension.header)
    if dimension.time_bucket_seconds is not None:
        return _bucket_reader(dimension.time_bucket_seconds)
    return None


def _header_reader(name: str) -> _Reader:
    def read(headers: Headers | None, timestamp_ms: int | None) -> Value:  # noqa: ARG001
        if not headers:
            return None
        try:
            if not isinstance(headers, list):
                found: Value = dict(headers).get(name)
                return found
            header: str
            value: HeaderValue
            for header, value in reversed(headers):
                if header == name:
                    return value
            return None
        except (TypeError, ValueError):
            return None  # neither a dict nor pairs: the Kafka client says so better than we can

    return read


def _bucket_reader(width_seconds: int) -> _Reader:
    last: tuple[int, str] = (-1, "")  # neighbours mostly share a bucket, and formatting is slow

    def read(headers: Headers | None, timestamp_ms: int | None) -> Value:  # noqa: ARG001
        nonlocal last
        if timestamp_ms is None:
            return None
        bucket = timestamp_ms // 1000 // width_seconds
        known = last
        if known[0] != bucket:
            try:
                known = last = (bucket, time_bucket(timestamp_ms, width_seconds))
            except OverflowError:
                return None  # beyond the calendar: as good as no timestamp
        return known[1]

    return read
