"""A stream in virtual time for the engine's tests: keys with rates, routed as the table says.

It stands in for gather and apply: what the engine decides to write is what it sees stored on the next turn.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from hotkey_operator.engine.attention import windows_to_sample
from hotkey_operator.engine.decide import decide
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import (
    Decision,
    EndOffsets,
    Observation,
    PartitionSample,
    Progress,
    Published,
    PublishTable,
    SampledRecord,
    StoredTable,
    TopicFacts,
    WriteTable,
)
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.slots import slot_hash
from hotkey_sdk.routing.table import RecordKey, Route, Stream, Table, shard_key

STREAM = Stream("cluster", "clicks")
BUCKETS = 50
START = 1_790_000_000.0


def spec(**fields: object) -> PolicySpec:
    """A policy for `clicks`, its other fields as a person writes them."""
    return parse_spec({"topic": "clicks", **fields})


def table(*, epoch: int = 5, partitions: int = 12, **fields: object) -> Table:
    return Table(STREAM, partitions, epoch, seed=7, read_set=("clicks",), **fields)  # type: ignore[arg-type]


def popularity(users: int, zipf: float) -> list[float]:
    return [1.0 / (user + 1) ** zipf for user in range(users)]


def country_of(user: int, country: str) -> str:
    return f"c{user % 500}" if country == "*" else "no"


@functools.lru_cache(maxsize=64)
def shares(
    by: tuple[str, ...],
    owners: tuple[int, ...],
    shards: int,
    seed: int,
    users: int,
    zipf: float,
    country: str,
) -> tuple[float, ...]:
    """The part of a key's records that each of its shards gets."""
    slots = [0.0] * shards
    if by:
        for user, value in enumerate(popularity(users, zipf)):
            for bucket in range(BUCKETS if "time_bucket" in by else 1):
                seen = {
                    "country_id": country_of(user, country),
                    "user_id": f"u{user}",
                    "time_bucket": f"{bucket}",
                }
                slot = slot_hash(seed, tuple(seen.get(name, f"u{user}") for name in by))
                slots[owners[slot & (len(owners) - 1)]] += value
    else:
        for index in owners:
            slots[index] += 1
    total = sum(slots)
    return tuple(slot / total for slot in slots)


@functools.lru_cache(maxsize=4_096)
def home(key: bytes, partitions: int) -> int:
    """Where a key lies that is not routed."""
    return partition_for(key, partitions)


@dataclass
class ModelStream:
    """`rates`: records/s of each key. `users`: how many user_ids a key has (absent: records carry none)."""

    spec: PolicySpec
    rates: Mapping[bytes, float]
    partitions: int = 12
    users: Mapping[bytes, int] = field(default_factory=dict)
    zipf: float = 0.0  # exponent: user n has 1/(n+1)^zipf of what user 0 has
    bucketed: bool = False  # records carry a time_bucket, of which there are very many
    country: str | None = None  # of every record that has a user; `*`: each user has one of 500
    deaf: frozenset[bytes] = frozenset()  # keys whose producers know no tables
    plain: Mapping[bytes, float] = field(default_factory=dict)  # the part of a key from such producers
    compacted: bool = False
    silent: bool = False  # no sample is answered in time
    lumpy: float = 0.0  # how much a partition's records of a second vary: standard deviation over mean
    size_bytes: int = 100
    sizes: Mapping[bytes, int] = field(default_factory=dict)  # of the records of keys that differ
    sampled: int = 400  # records of a sample, in runs of 20
    seed: int = 0
    at: float = START
    stored: StoredTable | None = None
    published: Table | None = None
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        self.ends = [0.0] * self.partitions
        self.random = random.Random(self.seed)
        self.recent: dict[int, list[SampledRecord]] = {}
        self.decisions: list[Decision] = []
        self.crowds: dict[tuple[bytes, int, Route | None], list[float]] = {}  # cumulated, per partition

    def turn(self, seconds: float = 1.0) -> Decision:
        """Let `seconds` pass, then one turn of the operator; its table is in force from then on."""
        self._flow(seconds)
        self.at += seconds
        ends = EndOffsets(self.at, tuple(int(end) for end in self.ends))
        windows = windows_to_sample(self.spec, self.memory, self.stored, ends)
        assert all(0 <= first < end <= ends.offsets[p] for p, (first, end) in windows.items()), windows
        observation = Observation(
            at=self.at,
            topic=TopicFacts(STREAM, self.partitions, self.compacted),
            ends=ends,
            samples=tuple(
                sample for p in windows if not self.silent and (sample := self._sample(p)) is not None
            ),
            stored=self.stored,
            published=Published(True, self.published),
            progress=self.progress(),
        )
        decision, self.memory = decide(self.spec, observation, self.memory)
        self._apply(decision)
        self.decisions.append(decision)
        return decision

    def progress(self) -> Progress | None:
        """What consumer groups committed; a stream with consumers overrides it."""
        return None

    def turns(self, count: int) -> Decision:
        for _ in range(count):
            self.turn()
        return self.decisions[-1]

    @property
    def table(self) -> Table:
        assert self.stored is not None, "no table was written yet"
        return self.stored.table

    def load(self) -> list[float]:
        """Records/s of each partition, with the table in force."""
        loads = [0.0] * self.partitions
        for key, rate in self.rates.items():
            for partition, _, part in self._places(key):
                loads[partition] += rate * part
        return loads

    def imbalance(self) -> float:
        loads = self.load()
        return max(loads) * len(loads) / sum(loads)

    def _apply(self, decision: Decision) -> None:
        for action in decision.actions:
            match action:
                case WriteTable(table, version):
                    assert version == (self.stored.resource_version if self.stored else None)
                    assert self.stored is None or table.epoch > self.stored.table.epoch
                    self.stored = StoredTable(table, str(table.epoch))
                case PublishTable(table):
                    self.published = table

    def _places(self, key: bytes) -> list[tuple[int, bytes, float]]:
        """Where a key's records go: partition, record key, part."""
        route = self.stored.table.route(key) if self.stored else None
        if route is None or key in self.deaf:
            return [(home(key, self.partitions), key, 1.0)]
        slots = self._shares(key, route)
        plain, left = route.record_key is RecordKey.PRESERVE, self.plain.get(key, 0.0)
        strays = [(home(key, self.partitions), key, left)] if left else []
        return strays + [
            (shard.partition, key if plain else shard_key(key, shard.id), (1 - left) * part)
            for shard, part in zip(route.shards, slots, strict=True)
            if part
        ]

    def _shares(self, key: bytes, route: Route) -> tuple[float, ...]:
        """The part of each shard, which changes with the route and with what its records carry alone."""
        users = self.users[key] if route.by else 0
        country = "" if self.country is None else self.country
        return shares(route.by, route.slots, len(route.shards), self.table.seed, users, self.zipf, country)

    def _who(self, key: bytes, partition: int) -> int:
        """The user of a record of `key`: one of those whose records the route puts on this partition."""
        users = self.users[key]
        route = self.stored.table.route(key) if self.stored else None
        if not self.zipf:
            return self.random.randrange(users)
        if (key, partition, route) not in self.crowds:
            weights = popularity(users, self.zipf)
            if route is not None and route.by == ("user_id",) and self.stored is not None:
                slots, seed = route.slots, self.stored.table.seed
                owners = [slots[slot_hash(seed, (f"u{user}",)) & (len(slots) - 1)] for user in range(users)]
                weights = [
                    weight if route.shards[owner].partition == partition else 0.0
                    for weight, owner in zip(weights, owners, strict=True)
                ]
            self.crowds[key, partition, route] = list(itertools.accumulate(weights))
        return self.random.choices(range(users), cum_weights=self.crowds[key, partition, route])[0]

    def _flow(self, seconds: float) -> None:
        self.mix: dict[int, list[tuple[bytes, bytes, float]]] = {p: [] for p in range(self.partitions)}
        for key, rate in self.rates.items():
            for partition, record_key, part in self._places(key):
                if partition < self.partitions:  # else the topic lost it, and the send fails
                    self.mix[partition].append((key, record_key, rate * part))
        for partition, flows in self.mix.items():
            mean = sum(rate for _, _, rate in flows) * seconds
            if self.lumpy:
                mean *= self.random.gammavariate(self.lumpy**-2, self.lumpy**2)
            self.ends[partition] += max(0, round(self.random.gauss(mean, mean**0.5)))

    def _sample(self, partition: int) -> PartitionSample | None:
        flows = self.mix[partition]
        total = sum(rate for _, _, rate in flows)
        if total <= 0:
            return None
        drawn = self.random.choices(flows, [rate for _, _, rate in flows], k=self.sampled)
        records = tuple(self._record(key, record_key, partition) for key, record_key, _ in drawn)
        return PartitionSample(partition, tuple(records[i : i + 20] for i in range(0, self.sampled, 20)))

    def _record(self, key: bytes, record_key: bytes, partition: int) -> SampledRecord:
        if key not in self.users:
            return SampledRecord(record_key, self.sizes.get(key, self.size_bytes))
        user = self._who(key, partition)
        seen = {"user_id": f"u{user}"}
        seen |= {"time_bucket": f"{self.random.randrange(BUCKETS)}"} if self.bucketed else {}
        seen |= {"country_id": country_of(user, self.country or "")} if self.country is not None else {}
        read = {
            each.name: seen.get(each.json_path.removeprefix("$.") if each.json_path else each.name)
            for each in self.spec.dimensions
        }
        visible = {k: v for k, v in read.items() if v is not None}
        return SampledRecord(record_key, self.sizes.get(key, self.size_bytes), visible)
