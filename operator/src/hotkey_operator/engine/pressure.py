"""Which partitions are too hot, and whether one would stay cool: trigger and release as arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.model import Sizes
from hotkey_operator.engine.rates import Rates, imbalance
from hotkey_operator.engine.spec import PolicySpec, Trigger

WARM = 0.5  # of the trigger
BALANCED = 1.2  # max/mean below which nothing is gained by moving a key
HEAVY = 0.5  # of the mean partition: a key that carries surely as much is worth a route


@dataclass(frozen=True, slots=True)
class Load:
    """Rates of all partitions: records/s, and bytes/s as far as they are known; `sizes` says from what."""

    records: Rates
    bytes: Rates | None
    sizes: Sizes = Sizes.NONE

    @classmethod
    def of(
        cls,
        records: Rates,
        evidence: Mapping[int, Evidence],
        measured: Mapping[int, float] | None = None,
    ) -> Load:
        """Bytes as `measured` (bytes/s of partitions), else from records/s and the mean size last sampled.

        A partition that was not sampled has the mean size of those that were.
        """
        if not evidence and not measured:
            return cls(records, None)
        anywhere = sum(seen.mean_bytes for seen in evidence.values()) / len(evidence) if evidence else 0.0
        bytes_ = [rate * anywhere for rate in records]
        for partition, seen in evidence.items():
            if partition < len(bytes_):
                bytes_[partition] = records[partition] * seen.mean_bytes
        for partition, rate in (measured or {}).items():
            if partition < len(bytes_):
                bytes_[partition] = rate
        return cls(records, tuple(bytes_), Sizes.LOG_SIZE if measured else Sizes.SAMPLED)

    @property
    def mean_records(self) -> float:
        return sum(self.records) / len(self.records)

    def unit(self, by_bytes: bool) -> Rates:
        """The load in the planning unit: bytes/s where the trigger was exceeded in bytes only."""
        return self.bytes if by_bytes and self.bytes is not None else self.records


def over(trigger: Trigger, load: Load, lagging: Collection[int] = ()) -> tuple[int, ...]:
    """The partitions that exceed the trigger at this moment, the hottest first. `lagging`: hot by lag."""
    mean = load.mean_records
    beyond = {*_beyond_any(trigger, load, 1.0), *(p for p in lagging if p < len(load.records))}
    hot = [p for p in beyond if _is_skewed(trigger, load.records[p], mean)]
    return tuple(sorted(hot, key=lambda p: (-load.records[p], p)))


def warm(trigger: Trigger, load: Load) -> frozenset[int]:
    """The partitions above half of the trigger, which are watched closely; skew is not asked of them."""
    return frozenset(_beyond_any(trigger, load, WARM))


def only_in_bytes(trigger: Trigger, load: Load, hot: tuple[int, ...]) -> bool:
    """Whether it is bytes, not records, that are too many."""
    in_records = _beyond(load.records, trigger.records_per_second, 1.0)
    in_bytes = _beyond(load.bytes, trigger.bytes_per_second, 1.0)
    return bool(hot) and all(p in in_bytes and p not in in_records for p in hot)


def _beyond_any(trigger: Trigger, load: Load, part: float) -> list[int]:
    """The partitions with more than `part` of the records or bytes that the trigger allows."""
    return sorted(
        _beyond(load.records, trigger.records_per_second, part)
        | _beyond(load.bytes, trigger.bytes_per_second, part)
    )


def _beyond(rates: Rates | None, limit: float | None, part: float) -> set[int]:
    if rates is None or limit is None:
        return set()
    most = part * limit
    return {p for p, rate in enumerate(rates) if rate > most}


def _is_skewed(trigger: Trigger, rate: float, mean: float) -> bool:
    skew = trigger.skew
    return skew is None or (rate >= skew.floor_records_per_second and rate > skew.ratio * mean)


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
