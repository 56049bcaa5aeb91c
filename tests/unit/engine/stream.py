"""A stream in virtual time for the engine's tests: keys with rates, routed as the table says.

It stands in for gather and apply: what the engine decides to write is what it sees stored on the next turn.
"""

from __future__ import annotations

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
from hotkey_sdk.routing.table import RecordKey, Stream, Table, shard_key

STREAM = Stream("cluster", "clicks")
START = 1_790_000_000.0


def spec(**fields: object) -> PolicySpec:
    """A policy for `clicks`, its other fields as a person writes them."""
    return parse_spec({"topic": "clicks", **fields})


def table(*, epoch: int = 5, partitions: int = 12, **fields: object) -> Table:
    return Table(STREAM, partitions, epoch, seed=7, read_set=("clicks",), **fields)  # type: ignore[arg-type]


@dataclass
class ModelStream:
    """`rates`: records/s of each key. `users`: how many user_ids a key has (absent: records carry none)."""

    spec: PolicySpec
    rates: Mapping[bytes, float]
    partitions: int = 12
    users: Mapping[bytes, int] = field(default_factory=dict)
    country: str | None = None  # of every record that has a user; `*`: each user has one of 500
    deaf: frozenset[bytes] = frozenset()  # keys whose producers know no tables
    plain: Mapping[bytes, float] = field(default_factory=dict)  # the part of a key from such producers
    compacted: bool = False
    silent: bool = False  # no sample is answered in time
    size_bytes: int = 100
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
            return [(partition_for(key, self.partitions), key, 1.0)]
        slots = [0] * len(route.shards)
        if route.by:
            assert self.stored is not None
            for user in range(self.users[key]):
                values = tuple(
                    self._country(user) if name == "country_id" else f"u{user}" for name in route.by
                )
                slots[route.slots[slot_hash(self.stored.table.seed, values) & (len(route.slots) - 1)]] += 1
        else:
            for index in route.slots:
                slots[index] += 1
        plain, left = route.record_key is RecordKey.PRESERVE, self.plain.get(key, 0.0)
        strays = [(partition_for(key, self.partitions), key, left)] if left else []
        return strays + [
            (shard.partition, key if plain else shard_key(key, shard.id), (1 - left) * count / sum(slots))
            for shard, count in zip(route.shards, slots, strict=True)
            if count
        ]

    def _flow(self, seconds: float) -> None:
        self.mix: dict[int, list[tuple[bytes, bytes, float]]] = {p: [] for p in range(self.partitions)}
        for key, rate in self.rates.items():
            for partition, record_key, part in self._places(key):
                if partition < self.partitions:  # else the topic lost it, and the send fails
                    self.mix[partition].append((key, record_key, rate * part))
        for partition, flows in self.mix.items():
            mean = sum(rate for _, _, rate in flows) * seconds
            self.ends[partition] += max(0, round(self.random.gauss(mean, mean**0.5)))

    def _sample(self, partition: int) -> PartitionSample | None:
        flows = self.mix[partition]
        total = sum(rate for _, _, rate in flows)
        if total <= 0:
            return None
        drawn = self.random.choices(flows, [rate for _, _, rate in flows], k=self.sampled)
        records = tuple(self._record(key, record_key) for key, record_key, _ in drawn)
        return PartitionSample(partition, tuple(records[i : i + 20] for i in range(0, self.sampled, 20)))

    def _record(self, key: bytes, record_key: bytes) -> SampledRecord:
        if key not in self.users:
            return SampledRecord(record_key, self.size_bytes)
        user = self.random.randrange(self.users[key])
        seen = {"user_id": f"u{user}"}
        seen |= {"country_id": self._country(user)} if self.country is not None else {}
        read = {
            each.name: seen.get(each.json_path.removeprefix("$.") if each.json_path else each.name)
            for each in self.spec.dimensions
        }
        return SampledRecord(record_key, self.size_bytes, {k: v for k, v in read.items() if v is not None})

    def _country(self, user: int) -> str:
        return f"c{user % 500}" if self.country == "*" else "no"
