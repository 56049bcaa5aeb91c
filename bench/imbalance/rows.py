"""What was measured of one method on one load, with the raw counts."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Workload(StrEnum):
    """The loads, as the results name them."""

    ONE_HOT = "one hot key"
    ZIPF = "Zipf users"
    TEXTBOOK = "textbook"


class Adoption(msgspec.Struct, frozen=True):
    """What the operator did. `waited_seconds`: of live load before the records; `settled`: whether it had
    been quiet by then; `tables_during`: tables with routes that it wrote while the records were sent;
    `shards`: of all routes; `slots`: of the largest; `decision`, `told`: its last reason before the records,
    and what it said of the hot key.
    """

    waited_seconds: float
    settled: bool
    tables_before: int
    tables_during: int
    routes: int
    shards: int
    slots: int
    decision: str
    told: str


class Row(msgspec.Struct, frozen=True):
    """One method on one load. `records`: by partition, the growth of its end offset. `pairs`: how many
    (key, partition) pairs there are. `by`: the dimension whose values stay together; empty: none does.
    `bound`: the imbalance that no plan can go below, where that is not 1.
    """

    workload: Workload
    partitions: int
    method: str
    by: str
    records: tuple[int, ...]
    pairs: int
    bound: float = 1.0
    adoption: Adoption | None = None

    @property
    def imbalance(self) -> float:
        """max/mean of the records per partition."""
        return max(self.records) * len(self.records) / sum(self.records)


class Imbalance(msgspec.Struct, frozen=True):
    """All rows, and what they were measured with. `live_rate`: records/s per partition before the records."""

    rows: tuple[Row, ...]
    share: float
    keys: int
    users: int
    zipf: float
    producers: int
    records_per_partition: int
    zipf_records_per_partition: int
    live_rate: float
    settled_seconds: float
