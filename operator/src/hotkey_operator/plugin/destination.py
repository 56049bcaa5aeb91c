"""Which shard a record takes, by the SDK's own router: the same code that producers run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hotkey_operator.plugin.policies import Found
from hotkey_operator.verdicts import key_text
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router, time_bucket
from hotkey_sdk.routing.table import Route, Shard, Table, shard_key


@dataclass(frozen=True, slots=True)
class Piece:
    """One shard of a route: its record key, where it lies, and its part of the slots, 0..1."""

    record_key: str
    partition: int
    part: float


def pieces(route: Route) -> list[Piece]:
    """The shards of a route, by partition."""
    slots = Counter(route.slots)
    found = [
        Piece(_text(route, shard), shard.partition, slots[index] / len(route.slots))
        for index, shard in enumerate(route.shards)
    ]
    return sorted(found, key=lambda piece: (piece.partition, piece.record_key))


def _text(route: Route, shard: Shard) -> str:
    return key_text(shard_key(route.key, shard.id))


class DimensionError(ValueError):
    """A dimension that does not choose this key's shard, or one that is missing; in words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record goes. `by`: the values that chose it; empty: it is a plain key."""

    topic: str
    partition: int
    record_key: str
    by: Mapping[str, str]

    def __str__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.by.items()) or "a plain key"
        return f"{self.record_key} on partition {self.partition} of {self.topic} ({chosen})"

    @property
    def document(self) -> dict[str, object]:
        place = {"topic": self.topic, "partition": self.partition, "recordKey": self.record_key}
        return {**place, "dimensions": dict(self.by)}


def placed(found: Found, key: bytes, dimensions: Mapping[str, str], timestamp_ms: int) -> Place:
    """Where a record of this key with these values goes. Raises `DimensionError`.

    A time bucket that is not given is that of `timestamp_ms` (unix milliseconds).
    """
    table, route = found.policy.table, found.route
    if table is None:
        raise DimensionError(
            f"policy {found.policy.namespace}/{found.policy.name} has no routing table to look at"
        )
    if route is None:
        return Place(table.stream.topic, partition_for(key, table.partitions), key_text(key), {})
    values = _values(table, route, dimensions, timestamp_ms)
    taken = Router(table).route(route.key, values)
    assert taken is not None, "the route is the table's"
    record_key = key_text(taken.key if taken.key is not None else route.key)
    return Place(taken.topic, taken.partition, record_key, values)


def _values(table: Table, route: Route, given: Mapping[str, str], timestamp_ms: int) -> dict[str, str]:
    """The value of each dimension of the route, in its order."""
    key, by = key_text(route.key), ", ".join(route.by)
    if not route.by:
        raise DimensionError(f"key {key} is spread by no dimension: a record may take any of its shards")
    if unknown := [name for name in given if name not in route.by]:
        raise DimensionError(f"key {key} is spread by {by}, not by {', '.join(unknown)}")
    widths = {each.name: each.time_bucket_seconds for each in table.dimensions}
    values = dict(given)
    for name in route.by:
        if name not in values and (width := widths.get(name)) is not None:
            values[name] = time_bucket(timestamp_ms, width)
    if missing := [name for name in route.by if name not in values]:
        needed = " ".join(f"--dimension {name}=VALUE" for name in missing)
        raise DimensionError(f"key {key} is spread by {by}: give {needed}")
    return {name: values[name] for name in route.by}
