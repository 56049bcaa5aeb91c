"""Heavy keys from samples of partitions, with error bounds.

A sampled record key is attributed through the tables that made it, never by splitting it at a colon: `a:1`
may be somebody's name. It knows nothing of triggers or plans.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hotkey_operator.engine.adoption import stray, stray_by_excess
from hotkey_operator.engine.model import PartitionSample, SampledRecord
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, Route, Table, shard_key

KEYS_KEPT = 64  # of each sample
VALUES_KEPT = 64  # of each key and rung
RECORDS_OF_ONE_BATCH = 50  # neighbours of one compressed batch: a single run counts as n/50 observations
NEIGHBOURS = (2, 4)  # runs taken together
GROUPS_AT_LEAST = 5  # fewer say nothing of a spread
TWO_SIDED_95 = 2.0  # standard errors

Rung = tuple[str, ...]
Values = tuple[str, ...]
Groups = list[list[int]]  # numbers of runs


@dataclass(frozen=True, slots=True)
class Fraction:
    """A part of a whole in 0..1 and its standard error."""

    value: float
    error: float

    @property
    def bound(self) -> float:
        """Half the width of the 95 % interval."""
        return TWO_SIDED_95 * self.error


@dataclass(frozen=True, slots=True)
class RungEvidence:
    """How a key's records spread over one rung: `visible` of `records` carried every dimension of it.

    `top`: the most frequent values with their counts; a missing one is empty text, as the slot hash takes it.
    """

    records: int
    visible: int
    top: tuple[tuple[Values, int], ...]


@dataclass(frozen=True, slots=True)
class KeyEvidence:
    """One key in one partition's sample: its part of the records and of the bytes.

    `plain`: the part of the key's own records that stand under the key itself although it has shards.
    """

    records: Fraction
    bytes: Fraction
    rungs: Mapping[Rung, RungEvidence] = field(default_factory=dict)
    plain: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """One partition's sample, digested. `at`: when it was taken; `mean_bytes`: of a record.

    `batches`: the runs that its error bounds come from. `offsets`: those read through to find the records; 0:
    not known.
    """

    at: float
    records: int
    mean_bytes: float
    keys: Mapping[bytes, KeyEvidence]
    batches: int = 1
    offsets: int = 0


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose record a record key is: the shards of the tables in use, the newest table last."""

    owners: Mapping[bytes, bytes]

    @classmethod
    def of(cls, tables: Iterable[Table]) -> Attribution:
        return cls(
            {
                shard_key(route.key, shard.id): route.key
                for table in tables
                for route in table.routes
                if route.record_key is RecordKey.COMPOSITE
                for shard in route.shards
            }
        )

    def key_of(self, record_key: bytes) -> bytes:
        return self.owners.get(record_key, record_key)


def digest(sample: PartitionSample, at: float, whose: Attribution, rungs: Sequence[Rung]) -> Evidence | None:
    """What a sample says; None when it holds no records."""
    runs = [run for run in sample.runs if run]
    levels = _levels(_spans(sample))
    records = [record for run in runs for record in run]
    if not records:
        return None
    found = Counter([record.key for record in records if record.key is not None])
    owners = {record_key: whose.key_of(record_key) for record_key in found}
    counts: Counter[bytes] = Counter()
    for record_key, count in found.items():
        counts[owners[record_key]] += count
    kept = sorted(counts, key=lambda key: (-counts[key], key))[:KEYS_KEPT]
    tallies = [_tally(run, owners) for run in runs]
    dimensions = _dimensions(records, owners) if rungs else {}
    size = sum(t.total_bytes for t in tallies)
    sharded = set(whose.owners.values())
    return Evidence(
        at=at,
        records=len(records),
        mean_bytes=size / len(records),
        keys={
            key: KeyEvidence(
                records=_fraction(
                    [(t.records.get(key, 0), t.total_records) for t in tallies], len(records), levels
                ),
                bytes=_fraction(
                    [(t.bytes.get(key, 0), t.total_bytes) for t in tallies], len(records), levels
                ),
                rungs={rung: _rung(dimensions[key], rung) for rung in rungs},
                plain=found[key] / counts[key] if key in sharded else 0.0,
            )
            for key in kept
        },
        batches=len(levels[-1]) if levels else len(runs),
        offsets=sum(end - first for first, end in sample.spans),
    )


@dataclass(frozen=True, slots=True)
class _Tally:
    """One run, counted."""

    records: Mapping[bytes, int]
    bytes: Mapping[bytes, int]
    total_records: int
    total_bytes: int


def _tally(run: Sequence[SampledRecord], owners: Mapping[bytes, bytes]) -> _Tally:
    records: dict[bytes, int] = {}
    sizes: dict[bytes, int] = {}
    total = 0
    for record in run:
        size = record.size_bytes
        total += size
        if record.key is not None:
            key = owners[record.key]
            records[key] = records.get(key, 0) + 1
            sizes[key] = sizes.get(key, 0) + size
    return _Tally(records, sizes, len(run), total)


def _spans(sample: PartitionSample) -> list[tuple[int, int]]:
    """The spans of the runs that hold records."""
    if not sample.spans:
        return []
    return [span for run, span in zip(sample.runs, sample.spans, strict=True) if run]


def _levels(spans: Sequence[tuple[int, int]]) -> list[Groups]:
    """The runs by number, alone and then in twos and fours with their neighbours, as long as enough are left.

    Batches cannot be seen, so runs that are nearer than a batch is long may be of the same one. Where they
    are, groups of them differ more from each other than the runs let expect: the method of batch means (Law,
    Simulation Modeling and Analysis, chapter 9).
    """
    levels: list[Groups] = []
    for size in NEIGHBOURS:
        groups: list[list[int]] = []
        for number, (first, _) in enumerate(spans):
            near = number > 0 and first - spans[number - 1][1] < RECORDS_OF_ONE_BATCH
            if near and len(groups[-1]) < size:
                groups[-1].append(number)
            else:
                groups.append([number])
        if len(groups) < GROUPS_AT_LEAST:
            break
        levels.append(groups)
    return levels


def _fraction(runs: Sequence[tuple[int, int]], sampled: int, levels: Sequence[Groups] = ()) -> Fraction:
    """A part of the whole from (part, whole) of each run: the ratio estimator for clusters of unequal size.

    Records within a run are neighbours of one batch, so the variance comes from the spread over runs:
    m/(m-1) * sum((x_i - f*n_i)^2) / (sum n_i)^2 (Cochran, Sampling Techniques, chapter 9A), the largest of
    that of runs alone and of `levels`, the groups of neighbouring runs. It is never taken below that of
    independent records, with one record of each kind added, so that a sample which holds nothing else does
    not claim to be certain.
    """
    part, whole = sum([x for x, _ in runs]), sum([n for _, n in runs])
    if whole <= 0:
        return Fraction(0.0, 1.0)
    value = part / whole
    smoothed = (value * sampled + 1) / (sampled + 2)
    floor = smoothed * (1 - smoothed) / sampled
    if len(runs) == 1:
        return Fraction(value, math.sqrt(floor * min(sampled, RECORDS_OF_ONE_BATCH)))
    off = [x - value * n for x, n in runs]
    grouped = ([sum([off[number] for number in group]) for group in groups] for groups in levels)
    variance = max(_between(clusters) for clusters in (off, *grouped))
    return Fraction(value, math.sqrt(max(variance / whole**2, floor)))


def _between(off: Sequence[float]) -> float:
    """m/(m-1) * sum of squares."""
    return len(off) / (len(off) - 1) * sum([each * each for each in off])


def _dimensions(
    records: Sequence[SampledRecord], owners: Mapping[bytes, bytes]
) -> dict[bytes, list[Mapping[str, str]]]:
    """What the records of each key carry."""
    found: dict[bytes, list[Mapping[str, str]]] = {}
    for record in records:
        if record.key is not None:
            found.setdefault(owners[record.key], []).append(record.dimensions)
    return found


def _rung(dimensions: Sequence[Mapping[str, str]], rung: Rung) -> RungEvidence:
    values = Counter(tuple(found.get(name, "") for name in rung) for found in dimensions)
    visible = sum(all(name in found for name in rung) for found in dimensions)
    top = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:VALUES_KEPT]
    return RungEvidence(len(dimensions), visible, tuple(top))


@dataclass(frozen=True, slots=True)
class KeyLoad:
    """What one key puts on the topic, in the planning unit per second (records or bytes).

    `on`: what it puts on each partition that was sampled; `error`: the standard error of `total`. `stray`:
    what of `on` does not follow the key's route.
    """

    key: bytes
    total: float
    error: float
    on: Mapping[int, float]
    stray: Mapping[int, float] = field(default_factory=dict)

    @property
    def follows(self) -> float:
        """What a table can move: all but what strays."""
        return max(0.0, self.total - sum(self.stray.values()))

    @property
    def surely(self) -> float:
        """The lower end of the 95 % interval."""
        return max(0.0, self.total - TWO_SIDED_95 * self.error)

    @property
    def at_most(self) -> float:
        """The upper end of the 95 % interval."""
        return self.total + TWO_SIDED_95 * self.error


def key_loads(
    evidence: Mapping[int, Evidence], loads: Sequence[float], by_bytes: bool, routes: Mapping[bytes, Route]
) -> dict[bytes, KeyLoad]:
    """Each sampled key, summed over its partitions; `loads` of the partitions in the planning unit.

    A routed key is sampled on some of its partitions only: what those carry is scaled up by the part of its
    slots that they hold. One that no sample of its partitions shows is there with a load of about nothing.
    """
    sampled: dict[bytes, dict[int, Evidence]] = {}
    for partition, seen in evidence.items():
        for key in seen.keys:
            sampled.setdefault(key, {})[partition] = seen
    routed = {key for key, route in routes.items() if evidence.keys() & weights(route).keys()}
    return {
        key: key_load(key, evidence if key in routes else sampled[key], loads, by_bytes, routes.get(key))
        for key in sorted(sampled.keys() | routed)
    }


def key_load(
    key: bytes,
    evidence: Mapping[int, Evidence],
    loads: Sequence[float],
    by_bytes: bool,
    route: Route | None,
) -> KeyLoad:
    """One key of `key_loads`."""
    on: dict[int, float] = {}
    errors: dict[int, float] = {}
    parts = weights(route) if route is not None else {}
    for partition, seen in evidence.items():
        if partition < len(loads) and (key in seen.keys or partition in parts):
            found = _found(seen, key, by_bytes)
            on[partition] = found.value * loads[partition]
            errors[partition] = found.error * loads[partition]
    covered = sum(part for partition, part in parts.items() if partition in evidence)
    scale = 1 / covered if covered > 0 else 1.0
    strays = _stray(route, parts, evidence, on, errors, len(loads)) if route is not None else {}
    total = (sum(on.values()) - sum(strays.values())) * scale + sum(strays.values())
    error = math.hypot(*(each * (scale if p in parts else 1.0) for p, each in errors.items()))
    return KeyLoad(key, total, error, on, strays)


def _stray(
    route: Route,
    parts: Mapping[int, float],
    evidence: Mapping[int, Evidence],
    on: Mapping[int, float],
    errors: Mapping[int, float],
    partitions: int,
) -> dict[int, float]:
    if route.record_key is RecordKey.PRESERVE:
        return stray_by_excess(parts, on, errors, partition_for(route.key, partitions))
    plain = {p: seen.keys[route.key].plain for p, seen in evidence.items() if route.key in seen.keys}
    return stray(parts, on, plain)


def _found(seen: Evidence, key: bytes, by_bytes: bool) -> Fraction:
    if key not in seen.keys:
        return Fraction(0.0, 1 / (seen.records + 2))  # as `_fraction` of a sample without it
    return seen.keys[key].bytes if by_bytes else seen.keys[key].records


@functools.lru_cache(maxsize=256)
def weights(route: Route) -> Mapping[int, float]:
    """The part of a route's slots that each of its partitions holds; they add up to 1."""
    partitions: Counter[int] = Counter()
    for index, count in Counter(route.slots).items():
        partitions[route.shards[index].partition] += count
    return MappingProxyType({p: count / len(route.slots) for p, count in sorted(partitions.items())})


@dataclass(frozen=True, slots=True)
class ValuePart:
    """A value of a rung: its part of the key, and the sampled records that showed it."""

    values: Values
    part: Fraction
    records: int


def top_values(evidence: Mapping[int, Evidence], load: KeyLoad, rung: Rung) -> list[ValuePart]:
    """The biggest values of a key's rung, the biggest first."""
    parts: dict[Values, float] = {}
    counts: Counter[Values] = Counter()
    whole, records = sum(load.on.values()), 0
    for partition, on in load.on.items():
        seen = evidence[partition].keys.get(load.key)
        found = seen.rungs.get(rung) if seen else None
        if found is None or not found.records or whole <= 0:
            continue
        records += found.records
        for values, count in found.top:
            parts[values] = parts.get(values, 0.0) + count / found.records * on / whole
            counts[values] += count
    found_values = [
        ValuePart(values, Fraction(part, math.sqrt(max(0.0, part * (1 - part)) / records)), counts[values])
        for values, part in parts.items()
    ]
    return sorted(found_values, key=lambda value: (-value.part.value, value.values))


def visibility(evidence: Mapping[int, Evidence], key: bytes, rung: Rung) -> Fraction | None:
    """The part of a key's sampled records that carried all of `rung`; None: none was looked at."""
    mine = [seen.keys[key].rungs for seen in evidence.values() if key in seen.keys]
    found = [rungs[rung] for rungs in mine if rung in rungs]
    records = sum(rung_evidence.records for rung_evidence in found)
    if not records:
        return None
    value = sum(rung_evidence.visible for rung_evidence in found) / records
    return Fraction(value, math.sqrt(value * (1 - value) / records))
