"""What a turn remembers for the next. Nothing in it is needed for safety: a restart starts timers anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from hotkey_operator.engine import flapping, lag, sizes, tallies, topic_memory
from hotkey_operator.engine.heavy import Attribution, Evidence, digest
from hotkey_operator.engine.model import EndOffsets, KeyTally, Observation, Read, Sampling, Sizes
from hotkey_operator.engine.rates import History, extended
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST
from hotkey_operator.engine.spec import Metrics, PolicySpec, Source
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Phase, Table

TABLES_KEPT = 8  # to attribute what was sent under an earlier one
NATURAL_KEYS_KEPT = 4_096
CHANGES_SECONDS = 60.0
EVIDENCE_SECONDS = 15.0  # older samples say nothing of the keys of now
AMISS_SECONDS = 15.0  # what could not be read is told so long: it is not tried in every turn
SAMPLING_SECONDS = 60.0  # over which the bytes of samples are told
OFFSETS_SURE = 500  # a sample over so many says alone what part of them are records
MIXED_SECONDS = 2.0  # after a change a sample holds records of before and after
CHANGED_SECONDS = CHANGES_SECONDS + MIXED_SECONDS  # rates from before a change are not planned with
_LIKE_A_SHARD = re.compile(rb".{0,%d}:[0-9]{1,10}" % KEY_BYTES_AT_MOST, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Memory:
    """All times are unix seconds of the observation that saw it. `Memory()` is a fresh start.

    `metrics`: what counted. `history`: end offsets of one topic with one partition count; `topic_id`: which
    topic it was, as far as that is known. `readings`: the bytes that samples took, by time, of the last
    minute. `evidence`: the last sample of a partition, digested. `over_since`: partitions over the trigger.
    `cool_since`: routed keys that could be merged back. `table`: the last table seen in the object;
    `previous`: those before it, the newest last. `changed_at`: when a key's route was seen to change, lately.
    `changes`: of routes, and topics begun, in the last minute. `lags`: how far consumer groups are behind.
    `natural_keys`: sampled keys that could be mistaken for a shard's. `told`: when an Event was last given.
    """

    metrics: Metrics | None = None
    history: History = field(default_factory=History)
    topic_id: str = ""
    readings: tuple[tuple[float, int], ...] = ()
    evidence: Mapping[int, Evidence] = field(default_factory=dict)
    over_since: Mapping[int, float] = field(default_factory=dict)
    cool_since: Mapping[bytes, float] = field(default_factory=dict)
    coarse_since: Mapping[bytes, float] = field(default_factory=dict)  # a coarser rung would do since then
    flaps: Mapping[bytes, flapping.Flap] = field(default_factory=dict)
    table: Table | None = None
    previous: tuple[Table, ...] = ()
    changed_at: Mapping[bytes, float] = field(default_factory=dict)
    changes: tuple[float, ...] = ()
    natural_keys: frozenset[bytes] = frozenset()
    told: Mapping[Reason, float] = field(default_factory=dict)
    lags: lag.Lags = field(default_factory=lag.Lags)
    log_sizes: sizes.Sizes = ()  # of each partition's log, where they are asked for
    sized_at: float = float("-inf")  # when they last were told
    amiss: Mapping[Read, tuple[float, str]] = field(default_factory=dict)  # not read of late, and why
    topics: topic_memory.TopicMemory = field(default_factory=topic_memory.TopicMemory)
    # Worked out once in a turn, which asks for each key.
    _fresh: dict[float, Mapping[int, Evidence]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def last_change(self) -> float:
        """When a route was last seen to change, lately."""
        return max(self.changed_at.values(), default=float("-inf"))

    @property
    def sizes_from(self) -> Sizes:
        """What bytes per second are made of."""
        if sizes.growth(self.log_sizes, sizes.SLOW_SECONDS):
            return Sizes.LOG_SIZE
        return Sizes.SAMPLED if self.evidence else Sizes.NONE

    def lagging(self, at: float) -> Mapping[int, lag.Heat]:
        """The partitions that are hot because a consumer group falls behind on them."""
        return self.lags.hot_at(at, self.last_change)

    def fresh_evidence(self, at: float) -> Mapping[int, Evidence]:
        """The samples that still say something at `at`."""
        if at not in self._fresh:
            fresh = {p: seen for p, seen in self.evidence.items() if within(at, seen.at, EVIDENCE_SECONDS)}
            self._fresh[at] = MappingProxyType(fresh)
        return self._fresh[at]


def counted_by(memory: Memory, metrics: Metrics) -> Memory:
    """The memory for a turn under `metrics`, which is to be asked for before anything is counted.

    Another source or query counts from another beginning: the step from one to the other is no load.
    """
    metrics = replace(metrics, sampling=True)  # reading records or not changes no counter
    if metrics == memory.metrics:
        return memory
    known = replace(memory, metrics=metrics)
    return _anew(known, History()) if memory.metrics is not None else known


def learned(memory: Memory, spec: PolicySpec, observation: Observation) -> Memory:
    """The memory with what this turn saw: the table first, for samples are attributed through it."""
    memory = _topic_seen(_table_seen(_amiss_seen(memory, observation), observation), observation)
    if observation.ends is not None:
        memory = _groups_seen(_ends_seen(memory, observation.ends), spec, observation)
    memory = _sizes_seen(memory, observation)
    topics = topic_memory.seen(memory.topics, observation.dedicated, observation.at)
    memory = replace(memory, topics=topics)
    return _tallies_seen(_samples_seen(memory, spec, observation), observation)


def _amiss_seen(memory: Memory, observation: Observation) -> Memory:
    at = observation.at
    of_late = {what: told for what, told in memory.amiss.items() if within(at, told[0], AMISS_SECONDS)}
    return replace(memory, amiss={**of_late, **{what: (at, why) for what, why in observation.amiss.items()}})


def _sizes_seen(memory: Memory, observation: Observation) -> Memory:
    """Sizes that nobody tells any more grow no more: then those of sampled records are all there is."""
    at, told = observation.at, observation.log_sizes
    if told is not None:
        return replace(memory, log_sizes=sizes.extended(memory.log_sizes, told), sized_at=at)
    if not memory.log_sizes or within(at, memory.sized_at, sizes.SLOW_SECONDS):
        return memory
    return replace(memory, log_sizes=())


def _topic_seen(memory: Memory, observation: Observation) -> Memory:
    """A topic that was made anew starts anew, even where its offsets have passed the old ones already."""
    topic_id = observation.topic.topic_id if observation.topic else ""
    if not topic_id or topic_id == memory.topic_id:
        return memory
    known = replace(memory, topic_id=topic_id)
    return _anew(known, History()) if memory.topic_id else known


def _anew(memory: Memory, history: History) -> Memory:
    """The memory of a topic of which nothing is known any more."""
    return replace(
        memory, history=history, evidence={}, over_since={}, cool_since={}, lags=lag.Lags(), log_sizes=()
    )


def _table_seen(memory: Memory, observation: Observation) -> Memory:
    at = observation.at
    table = observation.stored.table if observation.stored else None
    changes = tuple(change for change in memory.changes if within(at, change, CHANGES_SECONDS))
    lately = {key: since for key, since in memory.changed_at.items() if within(at, since, CHANGED_SECONDS)}
    memory = replace(memory, changed_at=lately)
    if table is None or table == memory.table:
        return replace(memory, changes=changes)
    if memory.table is None:
        return replace(memory, table=table, changes=changes)
    changed = changed_keys(memory.table, table)
    return replace(
        memory,
        table=table,
        previous=(*memory.previous, memory.table)[-TABLES_KEPT:],
        changed_at={**memory.changed_at, **dict.fromkeys(changed, at)},
        changes=(*changes, at) if changed or begun(memory.table, table) else changes,
        cool_since={key: since for key, since in memory.cool_since.items() if key not in changed},
        coarse_since={key: since for key, since in memory.coarse_since.items() if key not in changed},
        flaps=flapping.seen(memory.flaps, memory.table, table, at),
    )


def begun(old: Table, new: Table) -> bool:
    """Whether the preparation of a dedicated topic began; that it is written or left, routes tell."""
    before = {topic.name for topic in old.topics if topic.phase is Phase.PREPARE}
    return any(topic.phase is Phase.PREPARE and topic.name not in before for topic in new.topics)


def changed_keys(old: Table, new: Table) -> list[bytes]:
    """The keys whose route is not the same in both tables."""
    keys = {route.key for route in (*old.routes, *new.routes)}
    return sorted(key for key in keys if old.route(key) != new.route(key))


def _ends_seen(memory: Memory, ends: EndOffsets) -> Memory:
    history = extended(memory.history, ends)
    is_new = bool(memory.history.columns) and history.began == ends.at != memory.history.began
    return _anew(memory, history) if is_new else replace(memory, history=history)


def _groups_seen(memory: Memory, spec: PolicySpec, observation: Observation) -> Memory:
    if observation.progress is None:
        return memory
    at, since = observation.at, memory.last_change
    lags = lag.seen(memory.lags, spec.trigger, observation.progress, memory.history, at, since)
    return replace(memory, lags=lags)


def _samples_seen(memory: Memory, spec: PolicySpec, observation: Observation) -> Memory:
    at = observation.at
    published = observation.published.table
    tables = [
        *memory.previous,
        *([published] if published else []),
        *([memory.table] if memory.table else []),
    ]
    whose = Attribution.of(tables)
    digests = {sample.partition: digest(sample, at, whose, spec.spread.by) for sample in observation.samples}
    evidence = {**memory.evidence, **{p: seen for p, seen in digests.items() if seen is not None}}
    mixed = _mixed_partitions(memory, at)
    sampled = {record.key for sample in observation.samples for run in sample.runs for record in run}
    return replace(
        memory,
        evidence={p: seen for p, seen in sorted(evidence.items()) if p not in mixed},
        history=_marked(memory.history, spec, digests),
        readings=_readings(memory, observation),
        natural_keys=_with_natural(memory.natural_keys, sampled, whose),
    )


def _tallies_seen(memory: Memory, observation: Observation) -> Memory:
    """What producers told of keys stands in for samples."""
    at = observation.at
    told = [tally for tally in observation.tallies if not _is_mixed(memory, tally, at)]
    found = {tally.partition: tallies.evidence(tally, at) for tally in told}
    keys = (key for tally in told for key in tally.keys)
    return replace(
        memory,
        evidence={**memory.evidence, **{p: seen for p, seen in found.items() if seen is not None}},
        natural_keys=_with_natural(memory.natural_keys, keys, Attribution({})),
    )


def _is_mixed(memory: Memory, tally: KeyTally, at: float) -> bool:
    """Whether the tally holds records of before and after a change of the partition's routes."""
    return tally.partition in _mixed_partitions(memory, at, MIXED_SECONDS + at - tally.since)


def _marked(history: History, spec: PolicySpec, digests: Mapping[int, Evidence | None]) -> History:
    """The history with what samples tell of markers among its offsets; producers count records alone."""
    if spec.metrics.source is Source.PRODUCERS:
        return history
    real = _real(history.real, digests)
    return history if real is history.real else replace(history, real=real)


def _real(known: Mapping[int, float], digests: Mapping[int, Evidence | None]) -> Mapping[int, float]:
    """The part of the offsets that are records, now that these samples were seen.

    The last sample of a partition says, a small one only as far as it is big.
    """
    real = dict(known)
    for partition, seen in digests.items():
        if seen is not None and seen.offsets >= seen.records:
            found, weight = seen.records / seen.offsets, min(1.0, seen.offsets / OFFSETS_SURE)
            old = real.get(partition, found)
            real[partition] = found if found == old else old + weight * (found - old)
    return real if real != known else known


def _readings(memory: Memory, observation: Observation) -> tuple[tuple[float, int], ...]:
    kept = tuple(each for each in memory.readings if within(observation.at, each[0], SAMPLING_SECONDS))
    taken = sum(sample.bytes_read for sample in observation.samples)
    return (*kept, (observation.at, taken)) if taken else kept


def sampling(memory: Memory, at: float) -> Sampling:
    """What samples took of late."""
    return Sampling(
        bytes_per_second=sum(taken for _, taken in memory.readings) / SAMPLING_SECONDS,
        partitions=sum(within(at, seen.at, SAMPLING_SECONDS) for seen in memory.evidence.values()),
        real=memory.history.real_anywhere,
    )


def _mixed_partitions(memory: Memory, at: float, seconds: float = MIXED_SECONDS) -> set[int]:
    """The partitions whose samples hold records of before and after a change of their routes."""
    tables = [table for table in (memory.table, *memory.previous[-1:]) if table is not None]
    mixed = set()
    for key, since in memory.changed_at.items():
        if within(at, since, seconds):
            for table in tables:
                mixed.add(partition_for(key, table.partitions))
                route = table.route(key)
                if route is not None and route.topic == table.stream.topic:
                    mixed.update(shard.partition for shard in route.shards)
    return mixed


def _with_natural(
    known: frozenset[bytes], sampled: Iterable[bytes | None], whose: Attribution
) -> frozenset[bytes]:
    new = {
        key for key in sampled if key is not None and key not in whose.owners and _LIKE_A_SHARD.fullmatch(key)
    }
    kept = known | new
    return kept if len(kept) <= NATURAL_KEYS_KEPT else frozenset(sorted(kept)[:NATURAL_KEYS_KEPT])
