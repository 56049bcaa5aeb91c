"""A HotKeyPolicy's `spec` as a value, with its defaults; what a person wrote wrong is named by its field.

The CRD's schema refuses most mistakes before they get here. This module refuses them again, because an object
may be older than the schema. It knows no Kubernetes: it takes the mapping and gives the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from hotkey_sdk.routing.table import Dimension, RecordKey

DEFAULT_RECORDS_PER_SECOND = 1_000.0  # of one partition
DEFAULT_BYTES_PER_SECOND = 1_000_000.0  # of one partition
DEFAULT_SKEW_FLOOR = 100.0  # records/s of one partition below which skew is no fire

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"([0-9]{1,12})(ms|s|m|h)")


class SpecError(ValueError):
    """The spec cannot be carried out; the message names the field, what was found and what was expected."""


class Mode(StrEnum):
    AUTOMATIC = "Automatic"
    PROPOSE = "Propose"
    OBSERVE = "Observe"


class Source(StrEnum):
    """Where the rates of partitions come from."""

    KAFKA = "Kafka"
    PROMETHEUS = "Prometheus"
    PRODUCERS = "Producers"


class Ordering(StrEnum):
    NONE = "None"
    PER_DIMENSION = "PerDimension"
    PER_KEY = "PerKey"


@dataclass(frozen=True, slots=True)
class Skew:
    """A relative threshold: a partition's rate over the mean of all, for partitions of at least the floor."""

    ratio: float
    floor_records_per_second: float = DEFAULT_SKEW_FLOOR


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a partition is too hot: (records or bytes exceeded) and, if set, skew; for `for_seconds`."""

    records_per_second: float | None = DEFAULT_RECORDS_PER_SECOND
    bytes_per_second: float | None = DEFAULT_BYTES_PER_SECOND
    skew: Skew | None = None
    for_seconds: float = 1.0
    lag_seconds: float | None = None  # of a registered group on one partition; None: lag is not looked at


@dataclass(frozen=True, slots=True)
class Release:
    """When a key has cooled: its home partition would be under `ratio` of the trigger for `for_seconds`."""

    ratio: float = 0.5
    for_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Spread:
    """How a hot key may be spread. `by`: the rungs, coarsest first; empty: any record may go anywhere."""

    by: tuple[tuple[str, ...], ...] = ()
    ordering: Ordering = Ordering.NONE
    record_key: RecordKey = RecordKey.COMPOSITE


@dataclass(frozen=True, slots=True)
class Limits:
    max_hot_keys: int = 32
    max_shards_per_key: int = 512
    changes_per_minute: int = 12
    max_dedicated_topics: int = 8
    max_dedicated_partitions: int = 96


@dataclass(frozen=True, slots=True)
class Dedicated:
    """Whether a key may get a topic of its own. `partitions` None: as many as the key's rate asks for.

    `warm`: topics to keep ready ahead of need.
    """

    enabled: bool = False
    warm: int = 0
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Where to ask, and what for: a plain selector of each partition's end offset (not of a rate).

    `partition_label` names the label with the partition's number. `size_query`: one of the size of each
    partition's log in bytes, such as kafka_log_size.
    """

    url: str
    query: str
    partition_label: str = "partition"
    size_query: str | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where rates come from. `sampling` False: no payload is read; keys come from producers' reports."""

    source: Source = Source.KAFKA
    sampling: bool = True
    prometheus: Prometheus | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a person asked for one topic, defaults filled in. Build it with `parse_spec`."""

    topic: str
    cluster_ref: str | None = None
    mode: Mode = Mode.AUTOMATIC
    suspend: bool = False
    dimensions: tuple[Dimension, ...] = ()
    trigger: Trigger = Trigger()
    release: Release = Release()
    spread: Spread = Spread()
    dedicated: Dedicated = Dedicated()
    limits: Limits = Limits()
    consumer_groups: tuple[str, ...] = ()
    ignored_groups: tuple[str, ...] = ()
    metrics: Metrics = Metrics()
    overridden_keys: tuple[str, ...] = ()
    allowed_topics: frozenset[tuple[str, str]] = frozenset()  # by name and id; told by an annotation

    @property
    def acts(self) -> bool:
        """False where the policy only watches: no table with routes is ever written."""
        return self.mode is Mode.AUTOMATIC


def parse_spec(spec: Mapping[str, Any]) -> PolicySpec:
    """The value of a policy's `spec`. Raises `SpecError` that names the first wrong field."""
    try:
        document = msgspec.convert(dict(spec), _Policy)
    except msgspec.ValidationError as error:
        raise SpecError(_with_field(str(error))) from None
    except (RecursionError, UnicodeError) as error:
        raise SpecError(f"spec: {error}, expected text in UTF-8 that is nested a few levels deep") from None
    dimensions = tuple(_dimension(dimension, index) for index, dimension in enumerate(document.dimensions))
    _refuse_repeats([dimension.name for dimension in dimensions], "spec.dimensions")
    return PolicySpec(
        topic=document.topic,
        cluster_ref=document.cluster_ref.name if document.cluster_ref else None,
        mode=document.mode,
        suspend=document.suspend,
        dimensions=dimensions,
        trigger=_trigger(document.trigger),
        release=Release(document.release.ratio, seconds(document.release.for_, "spec.release.for")),
        spread=_spread(document.spread, {dimension.name for dimension in dimensions}),
        dedicated=Dedicated(
            document.dedicated_topic.enabled,
            document.dedicated_topic.warm,
            document.dedicated_topic.partitions,
        ),
        limits=Limits(
            document.limits.max_hot_keys,
            document.limits.max_shards_per_key,
            document.limits.changes_per_minute,
            document.limits.max_dedicated_topics,
            document.limits.max_dedicated_partitions,
        ),
        consumer_groups=tuple(document.consumers.groups),
        ignored_groups=tuple(document.consumers.ignore),
        metrics=_metrics(document.metrics),
        overridden_keys=tuple(str(override.get("key", "")) for override in document.overrides),
    )


def unsupported_fields(spec: PolicySpec) -> tuple[str, ...]:
    """The fields that are accepted and not carried out yet, as a person wrote them."""
    asked = {
        "spec.clusterRef": spec.cluster_ref is not None,
        "spec.mode: Propose": spec.mode is Mode.PROPOSE,
        f"spec.trigger.lagSeconds with metrics.source {Source.PRODUCERS}": (
            spec.trigger.lag_seconds is not None and spec.metrics.source is Source.PRODUCERS
        ),
        "spec.overrides": bool(spec.overridden_keys),
    }
    return tuple(field for field, is_asked in asked.items() if is_asked)


def seconds(text: str, field: str) -> float:
    """The seconds of a duration such as `1m30s` or `250ms`. Raises `SpecError` naming `field`."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise SpecError(f"{field}: {text!r} is no duration; write for example 500ms, 1s, 1m30s or 2h")
    return float(sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=249)]
Header = Annotated[str, msgspec.Meta(min_length=1, max_length=249)]
JsonPath = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Group = Annotated[str, msgspec.Meta(min_length=1, max_length=249)]
Rung = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=8)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e15)]


class _Document(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The base of what follows: the document word for word, before its defaults depend on each other."""


class _ClusterRef(_Document, frozen=True):
    name: Name


class _From(_Document, frozen=True):
    json_path: JsonPath | None = None
    header: Header | None = None


class _TimeBucket(_Document, frozen=True):
    width: str


class _Dimension(_Document, frozen=True):
    name: Name
    from_: _From | None = msgspec.field(name="from", default=None)
    time_bucket: _TimeBucket | None = None


class _Skew(_Document, frozen=True):
    ratio: Annotated[float, msgspec.Meta(gt=1, le=1e9)]
    floor_records_per_second: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = DEFAULT_SKEW_FLOOR


class _Trigger(_Document, frozen=True):
    records_per_second: Rate | None = None
    bytes_per_second: Rate | None = None
    skew: _Skew | None = None
    for_: str = msgspec.field(name="for", default="1s")
    lag_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None


class _Release(_Document, frozen=True):
    ratio: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    for_: str = msgspec.field(name="for", default="60s")


class _Spread(_Document, frozen=True):
    by: Annotated[list[Rung], msgspec.Meta(max_length=8)] = []
    ordering: Ordering = Ordering.NONE
    record_key: RecordKey = RecordKey.COMPOSITE


class _DedicatedTopic(_Document, frozen=True):
    enabled: bool = False
    warm: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None


class _Limits(_Document, frozen=True):
    max_hot_keys: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    max_shards_per_key: Annotated[int, msgspec.Meta(ge=1, le=1_024)] = 512
    changes_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 12
    max_dedicated_topics: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    max_dedicated_partitions: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 96


class _Consumers(_Document, frozen=True):
    groups: Annotated[list[Group], msgspec.Meta(max_length=64)] = []
    ignore: Annotated[list[Group], msgspec.Meta(max_length=64)] = []


class _Prometheus(_Document, frozen=True):
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]
    partition_label: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = "partition"
    size_query: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)] | None = None


class _Metrics(_Document, frozen=True):
    source: Source = Source.KAFKA
    sampling: bool = True
    prometheus: _Prometheus | None = None


class _Policy(_Document, frozen=True):
    topic: Topic
    cluster_ref: _ClusterRef | None = None
    mode: Mode = Mode.AUTOMATIC
    suspend: bool = False
    dimensions: Annotated[list[_Dimension], msgspec.Meta(max_length=16)] = []
    trigger: _Trigger = _Trigger()
    release: _Release = _Release()
    spread: _Spread = _Spread()
    dedicated_topic: _DedicatedTopic = _DedicatedTopic()
    limits: _Limits = _Limits()
    consumers: _Consumers = _Consumers()
    metrics: _Metrics = _Metrics()
    overrides: list[dict[str, Any]] = []


def _with_field(message: str) -> str:
    """msgspec's `... - at `$.trigger.for`` turned around: the field first, as a person wrote it."""
    what, _, path = message.partition(" - at `$")
    field = "spec" + path.rstrip("`") if path else "spec"
    return f"{field}: {what[0].lower()}{what[1:]}"


def _trigger(document: _Trigger) -> Trigger:
    records, bytes_ = document.records_per_second, document.bytes_per_second
    if records is None and bytes_ is None:
        records, bytes_ = DEFAULT_RECORDS_PER_SECOND, DEFAULT_BYTES_PER_SECOND
    given = document.skew
    skew = Skew(given.ratio, given.floor_records_per_second) if given else None
    return Trigger(
        records, bytes_, skew, seconds(document.for_, "spec.trigger.for"), lag_seconds=document.lag_seconds
    )


def _metrics(document: _Metrics) -> Metrics:
    given = document.prometheus
    if document.source is Source.PROMETHEUS and given is None:
        raise SpecError("spec.metrics.prometheus: missing, but source Prometheus needs its url and query")
    prometheus = (
        Prometheus(given.url, given.query, given.partition_label, given.size_query) if given else None
    )
    return Metrics(document.source, document.sampling, prometheus)


def _spread(document: _Spread, known: set[str]) -> Spread:
    for index, rung in enumerate(document.by):
        field = f"spec.spread.by[{index}]"
        _refuse_repeats(rung, field)
        for name in rung:
            if name not in known:
                raise SpecError(
                    f"{field}: {name!r} is none of spec.dimensions ({', '.join(sorted(known)) or 'none'})"
                )
    if document.ordering is Ordering.PER_DIMENSION and not document.by:
        raise SpecError(
            "spec.spread.by: empty, but ordering PerDimension needs the dimensions to keep in order"
        )
    return Spread(tuple(tuple(rung) for rung in document.by), document.ordering, document.record_key)


def _dimension(document: _Dimension, index: int) -> Dimension:
    field = f"spec.dimensions[{index}]"
    source = document.from_ or _From()
    if document.from_ and (source.header is None) == (source.json_path is None):
        raise SpecError(f"{field}.from: expected exactly one of jsonPath and header")
    if document.time_bucket is None:
        return Dimension(document.name, header=source.header, json_path=source.json_path)
    if document.from_:
        raise SpecError(f"{field}: expected one of from and timeBucket, found both")
    return Dimension(document.name, time_bucket_seconds=_bucket(document.time_bucket.width, field))


def _bucket(width: str, field: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})(m|h|d)", width)
    size = int(match[1]) * {"m": _MINUTE, "h": _HOUR, "d": _DAY}[match[2]] if match else 0
    if not 0 < size <= 366 * _DAY:
        raise SpecError(
            f"{field}.timeBucket.width: {width!r}; expected whole minutes, hours or days, such as 15m, 1h, 1d"
        )
    return size


def _refuse_repeats(names: list[str], field: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SpecError(f"{field}: {repeated[0]!r} stands there more than once")
