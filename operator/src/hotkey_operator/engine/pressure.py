"""Which partitions are too hot, and whether one would stay cool: trigger and release as arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.rates import Rates, imbalance
from hotkey_operator.engine.spec import PolicySpec, Trigger

BALANCED = 1.2  # max/mean below which nothing is gained by moving a key
HEAVY = 0.5  # of the mean partition: a key that carries surely as much is worth a route


@dataclass(frozen=True, slots=True)
class Load:
    """Rates of all partitions: records/s, and bytes/s as far as record sizes are known."""

    records: Rates
    bytes: Rates | None

    @classmethod
    def of(cls, records: Rates, evidence: Mapping[int, Evidence]) -> Load:
        """Bytes from records/s and the mean record size last sampled, of the partition or of all."""
        if not evidence:
            return cls(records, None)
        anywhere = sum(seen.mean_bytes for seen in evidence.values()) / len(evidence)
        sizes = [
            evidence[partition].mean_bytes if partition in evidence else anywhere
            for partition in range(len(records))
        ]
        return cls(records, tuple(rate * size for rate, size in zip(records, sizes, strict=True)))

    @property
    def mean_records(self) -> float:
        return sum(self.records) / len(self.records)

    def unit(self, by_bytes: bool) -> Rates:
        """The load in the planning unit: bytes/s where the trigger was exceeded in bytes only."""
        return self.bytes if by_bytes and self.bytes is not None else self.records


def over(trigger: Trigger, load: Load) -> tuple[int, ...]:
    """The partitions that exceed the trigger at this moment, the hottest first."""
    hot = [p for p in range(len(load.records)) if _exceeded(trigger, load, p)]
    return tuple(sorted(hot, key=lambda p: (-load.records[p], p)))


def only_in_bytes(trigger: Trigger, load: Load, hot: tuple[int, ...]) -> bool:
    """Whether it is bytes, not records, that are too many."""
    limit = trigger.records_per_second
    return bool(hot) and all(limit is None or load.records[p] <= limit for p in hot)


def _exceeded(trigger: Trigger, load: Load, partition: int) -> bool:
    too_much = _beyond(load.records, partition, trigger.records_per_second) or _beyond(
        load.bytes, partition, trigger.bytes_per_second
    )
    if trigger.skew is None or not too_much:
        return too_much
    rate = load.records[partition]
    return rate >= trigger.skew.floor_records_per_second and rate > trigger.skew.ratio * load.mean_records


def _beyond(rates: Rates | None, partition: int, limit: float | None) -> bool:
    return rates is not None and limit is not None and rates[partition] > limit


def is_balanced(load: Load, by_bytes: bool) -> bool:
    worst = imbalance(load.unit(by_bytes))
    return worst is None or worst < BALANCED


def stays_cool(spec: PolicySpec, records: float, mean_bytes: float, mean_records: float) -> bool:
    """Whether a partition with `records`/s would be under `release.ratio` of the trigger.

    `mean_records` is the mean of all partitions. A skew threshold is released where the excess over the mean
    is under that ratio of what the trigger asks for.
    """
    ratio, trigger = spec.release.ratio, spec.trigger
    under_records = trigger.records_per_second is None or records < ratio * trigger.records_per_second
    under_bytes = trigger.bytes_per_second is None or records * mean_bytes < ratio * trigger.bytes_per_second
    if under_records and under_bytes:
        return True
    if trigger.skew is None:
        return False
    return records < (1 + ratio * (trigger.skew.ratio - 1)) * mean_records
