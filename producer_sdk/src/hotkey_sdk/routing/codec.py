"""The routing table as a document: canonical JSON bytes, and the `spec` of a RoutingTable object.

It is strict on purpose: a table that could send a record to nowhere is refused as a whole, with words that
name the field. It must not know signatures (envelope) or which table is current (follower).
docs/protocol.md describes the document field by field.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Annotated, Any

import msgspec

from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
)

SCHEMA = 1
DEDICATED_TOPICS = "dedicatedTopics"  # required where a route names a topic beside the base topic
FEATURES: frozenset[str] = frozenset({DEDICATED_TOPICS})  # values of `required` that this reader knows
MAX_TABLE_BYTES = 512 * 1024
MAX_PARTITIONS = 100_000
MAX_SLOTS = 65_536
MAX_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exact
MAX_SHARD_ID = 2**31 - 1
_ONE_BYTE_SHARDS = 256  # with more shards than this a slot takes two bytes


class TableError(ValueError):
    """The document is no valid table; the text says which field and why."""


class UnknownFeatureError(TableError):
    """The table needs something that this version does not know: update the SDK."""


_Exact = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
_Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+\Z")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=249)]
_Names = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=16)]
_BucketSeconds = Annotated[int, msgspec.Meta(ge=60, le=366 * 86_400, multiple_of=60)]


class _Version(msgspec.Struct, frozen=True):
    schema: _Exact
    required: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()


class _Dimension(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    name: _Name
    header: _Name | None = None
    json_path: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    time_bucket_seconds: _BucketSeconds | None = None


class _Shard(msgspec.Struct, frozen=True):
    id: Annotated[int, msgspec.Meta(ge=0, le=MAX_SHARD_ID)]
    partition: Annotated[int, msgspec.Meta(ge=0, lt=MAX_PARTITIONS)]


class _Route(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    topic: _Topic
    record_key: RecordKey
    shards: Annotated[tuple[_Shard, ...], msgspec.Meta(min_length=1, max_length=MAX_SLOTS)]
    slots: str
    by: _Names
    key: str | msgspec.UnsetType = msgspec.UNSET
    key_base64: str | msgspec.UnsetType = msgspec.UNSET


class _Dedicated(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    name: _Topic
    partitions: Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTITIONS)]
    phase: Phase
    topic_id: Annotated[str, msgspec.Meta(max_length=64)] = ""
    key: str | msgspec.UnsetType = msgspec.UNSET
    key_base64: str | msgspec.UnsetType = msgspec.UNSET


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema: int
    required: tuple[str, ...]
    cluster_id: _Name
    topic: _Topic
    partitions: Annotated[int, msgspec.Meta(ge=1, le=MAX_PARTITIONS)]
    epoch: _Exact
    seed: _Exact
    read_set: Annotated[tuple[_Topic, ...], msgspec.Meta(min_length=1, max_length=1000)]
    dimensions: Annotated[tuple[_Dimension, ...], msgspec.Meta(max_length=64)] = ()
    routes: Annotated[tuple[_Route, ...], msgspec.Meta(max_length=4096)] = ()
    dedicated: Annotated[tuple[_Dedicated, ...], msgspec.Meta(max_length=999)] | msgspec.UnsetType = (
        msgspec.UNSET
    )


# Made here, not at the first table: msgspec ends the process when threads use a type first, all at once.
_version = msgspec.json.Decoder(_Version).decode
_document = msgspec.json.Decoder(_Document).decode


def to_document(table: Table) -> dict[str, Any]:
    """The table as plain JSON types. Raises `TableError` when a reader would refuse it."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(_write(table)))
    from_document(document)
    return document


def from_document(document: Mapping[str, Any]) -> Table:
    """The table of a parsed document. Raises `TableError`; unknown fields are ignored."""
    try:
        _check_version(msgspec.convert(document, _Version))
        return _read(msgspec.convert(document, _Document))
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise TableError(f"not a routing table: {error}") from None


def encode(table: Table) -> bytes:
    """Canonical JSON: sorted keys, no blanks, UTF-8. Raises `TableError` when it is invalid or too big."""
    data = msgspec.json.encode(to_document(table), order="sorted")
    if len(data) > MAX_TABLE_BYTES:
        raise TableError(
            f"the table of {table.stream} takes {len(data)} bytes, at most {MAX_TABLE_BYTES} are allowed: "
            "route fewer keys or use fewer shards"
        )
    return data


def decode(data: bytes) -> Table:
    """The table in `data`. Raises `TableError`."""
    if len(data) > MAX_TABLE_BYTES:
        raise TableError(f"not a routing table: {len(data)} bytes, at most {MAX_TABLE_BYTES} are allowed")
    try:
        _check_version(_version(data))
        return _read(_document(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TableError(f"not a routing table: {error}") from None


def _check_version(version: _Version) -> None:
    unknown = sorted(set(version.required) - FEATURES)
    if version.schema != SCHEMA or unknown:
        wants = f"features {', '.join(unknown)}" if unknown else f"schema {version.schema}"
        raise UnknownFeatureError(
            f"the table needs {wants}, this reader knows schema {SCHEMA}: update hotkey_sdk"
        )


def _write(table: Table) -> _Document:
    return _Document(
        schema=SCHEMA,
        required=_required(table),
        cluster_id=table.stream.cluster_id,
        topic=table.stream.topic,
        partitions=table.partitions,
        epoch=table.epoch,
        seed=table.seed,
        read_set=table.read_set,
        dimensions=tuple(
            _Dimension(d.name, d.header, d.json_path, d.time_bucket_seconds) for d in table.dimensions
        ),
        routes=tuple(_write_route(route) for route in table.routes),
        dedicated=tuple(_write_dedicated(topic) for topic in table.topics) or msgspec.UNSET,
    )


def _required(table: Table) -> tuple[str, ...]:
    """What a reader must know, lest it writes to where the table does not say."""
    leaves = any(route.topic != table.stream.topic for route in table.routes)
    return (DEDICATED_TOPICS,) if leaves else ()


def _write_key(key: bytes) -> dict[str, Any]:
    try:
        return {"key": key.decode()}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key).decode()}


def _write_dedicated(topic: DedicatedTopic) -> _Dedicated:
    key = {} if topic.key is None else _write_key(topic.key)
    return _Dedicated(topic.name, topic.partitions, topic.phase, topic.topic_id, **key)


def _write_route(route: Route) -> _Route:
    return _Route(
        topic=route.topic,
        record_key=route.record_key,
        shards=tuple(_Shard(shard.id, shard.partition) for shard in route.shards),
        slots=_pack(route),
        by=route.by,
        **_write_key(route.key),
    )


def _pack(route: Route) -> str:
    width = 1 if len(route.shards) <= _ONE_BYTE_SHARDS else 2
    try:
        packed = b"".join(slot.to_bytes(width, "little") for slot in route.slots)
    except OverflowError:
        raise TableError(
            f"route {_show(route.key)}: a slot names a shard outside 0..{len(route.shards) - 1}"
        ) from None
    return base64.b64encode(packed).decode()


def _read(document: _Document) -> Table:
    table = Table(
        stream=Stream(document.cluster_id, document.topic),
        partitions=document.partitions,
        epoch=document.epoch,
        seed=document.seed,
        read_set=document.read_set,
        dimensions=tuple(
            Dimension(d.name, d.header, d.json_path, d.time_bucket_seconds) for d in document.dimensions
        ),
        routes=tuple(_read_route(route) for route in document.routes),
        topics=tuple(_read_dedicated(topic) for topic in document.dedicated or ()),
    )
    _check(table)
    return table


def _read_dedicated(topic: _Dedicated) -> DedicatedTopic:
    has_key = isinstance(topic.key, str) or isinstance(topic.key_base64, str)
    key = _read_key(topic, f"dedicated topic {topic.name}") if has_key else None
    return DedicatedTopic(topic.name, topic.partitions, topic.phase, topic.topic_id, key)


def _read_route(route: _Route) -> Route:
    key = _read_key(route, "a route")
    return Route(
        key=key,
        topic=route.topic,
        by=route.by,
        record_key=route.record_key,
        shards=tuple(Shard(shard.id, shard.partition) for shard in route.shards),
        slots=_unpack(route, key),
    )


def _read_key(of: _Route | _Dedicated, name: str) -> bytes:
    try:
        if isinstance(of.key, str) and not isinstance(of.key_base64, str):
            return of.key.encode()
        if isinstance(of.key_base64, str) and not isinstance(of.key, str):
            return base64.b64decode(of.key_base64, validate=True)
    except ValueError as error:  # no base64, not ASCII, or half a character
        raise TableError(f"{name}: its key cannot be read: {error}") from None
    raise TableError(f"{name} has exactly one of `key` and `keyBase64`")


def _unpack(route: _Route, key: bytes) -> tuple[int, ...]:
    try:
        packed = base64.b64decode(route.slots, validate=True)
    except ValueError as error:
        raise TableError(f"route {_show(key)}: `slots` is not base64: {error}") from None
    if len(route.shards) <= _ONE_BYTE_SHARDS:
        return tuple(packed)
    if len(packed) % 2:
        raise TableError(f"route {_show(key)}: {len(packed)} bytes of `slots`, expected two for each slot")
    return tuple(int.from_bytes(packed[i : i + 2], "little") for i in range(0, len(packed), 2))


def _check(table: Table) -> None:
    _unique("readSet", table.read_set)
    _unique("dimensions", (dimension.name for dimension in table.dimensions))
    _unique("routes", (route.key for route in table.routes))
    if table.stream.topic not in table.read_set:
        raise TableError(f"readSet lacks the base topic {table.stream.topic}")
    _unique("dedicated", (topic.name for topic in table.topics))
    for topic in table.topics:
        if topic.name == table.stream.topic or topic.name not in table.read_set:
            raise TableError(f"dedicated topic {topic.name} is the base topic, or is not in readSet")
    names = {dimension.name for dimension in table.dimensions}
    for route in table.routes:
        try:
            _check_route(route, table, names)
        except TableError as error:
            raise TableError(f"route {_show(route.key)}: {error}") from None


def _check_route(route: Route, table: Table, names: set[str]) -> None:
    if route.topic not in table.read_set:
        raise TableError(f"its topic {route.topic} is not in readSet")
    _unique("by", route.by)
    if undeclared := sorted(set(route.by) - names):
        raise TableError(f"`by` names {', '.join(undeclared)}, which `dimensions` does not declare")
    _unique("shards", (shard.id for shard in route.shards))
    partitions = _writable(route, table)
    outside = [shard for shard in route.shards if shard.partition >= partitions]
    if outside:
        raise TableError(
            f"shard {outside[0].id} is on partition {outside[0].partition}, "
            f"but {route.topic} has {partitions}"
        )
    size = len(route.slots)
    if not 1 <= size <= MAX_SLOTS or size & (size - 1):
        raise TableError(f"{size} slots, expected a power of two of at most {MAX_SLOTS}")
    if max(route.slots) >= len(route.shards):
        raise TableError(
            f"a slot names shard index {max(route.slots)}, but it has {len(route.shards)} shards"
        )


def _writable(route: Route, table: Table) -> int:
    """Partitions of the topic that the route names; it is the base topic or an active dedicated one."""
    if route.topic == table.stream.topic:
        return table.partitions
    topic = table.dedicated(route.topic)
    if topic is None:
        raise TableError(f"its topic {route.topic} is neither the base topic nor in `dedicated`")
    if topic.phase is not Phase.ACTIVE:
        raise TableError(f"its topic {route.topic} is in phase {topic.phase}, only Active ones are written")
    return topic.partitions


def _unique(field: str, values: Iterable[Hashable]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        value = twice[0]
        raise TableError(
            f"{field} holds {_show(value) if isinstance(value, bytes) else value} more than once"
        )


def _show(key: bytes) -> str:
    text = repr(key)[1:]
    return text if len(text) <= 60 else f"{text[:56]}...' ({len(key)} bytes)"
