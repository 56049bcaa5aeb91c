"""The ladder's last rung: which keys need a topic of their own, of what size, and which no longer do.

A key needs one when it does not fit on the base topic with the others even when all are spread over all of
its partitions, that is when the mean partition is over the trigger; or when the policy's order allows no
shards. It goes back when its home partition would stay cool with all of it, or when it is too small to
matter. A key that outgrows its topic needs a bigger one: it is prepared while the key still has the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hotkey_operator.engine.heavy import KeyLoad
from hotkey_operator.engine.placement import Ground, HotKey, plan
from hotkey_operator.engine.pressure import HEAVY, over, stays_cool
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST
from hotkey_operator.engine.situation import TURN_SECONDS, Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.topic_memory import TopicMemory
from hotkey_operator.engine.wording import count, name
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import DedicatedTopic, Phase, RecordKey, Route, Shard, Table

if TYPE_CHECKING:
    from hotkey_operator.engine.routing import Outcome

FILL = 0.7  # of the trigger that a partition of a new topic carries: room for the key to grow by a third
FOLLOWED_SECONDS = 30.0  # after a change every producer has followed, or will not
SURE_SECONDS = 3.0  # topics are kept for ever, so a moment's heat makes none


@dataclass(frozen=True, slots=True)
class Want:
    """A key that needs a topic of its own with so many partitions; `capped`: it would need more of them."""

    key: bytes
    records_per_second: float
    partitions: int
    why: str
    capped: bool = False


def wants(s: Situation, outcome: Outcome) -> list[Want]:
    """The plain and spread keys that need a topic now, the biggest first, whatever the policy's mode."""
    if not s.spec.dedicated.enabled or s.spec.suspend or s.topic.compacted:
        return []
    if s.now is None or not s.long_hot:
        return []
    if s.spec.spread.ordering is Ordering.PER_KEY:
        return [_want(s, load, _order_forbids(load)) for load in _isolable(s, outcome)]
    if not overflows(s):
        return []
    heavy = [
        load
        for load in s.keys.values()
        if load.surely >= HEAVY * s.mean and load.key not in s.aside and len(load.key) <= KEY_BYTES_AT_MOST
    ]
    heavy.sort(key=lambda load: (-load.total, load.key))
    return [_want(s, load, _does_not_fit(s, load)) for load in heavy[:1]]


def outgrown(s: Situation, topics: Sequence[DedicatedTopic], memory: TopicMemory) -> list[Want]:
    """The keys whose own topic is over the trigger on its mean partition, or smaller than the policy says."""
    if not s.spec.dedicated.enabled or s.spec.suspend:
        return []
    found = [
        _bigger(s, topic.key, topic, memory.rate(topic.name) or 0.0)
        for topic in topics
        if topic.phase is Phase.ACTIVE and topic.key is not None
    ]
    return sorted((each for each in found if each is not None), key=lambda each: -each.records_per_second)


def _bigger(s: Situation, key: bytes, topic: DedicatedTopic, rate: float) -> Want | None:
    most = s.spec.limits.max_dedicated_partitions
    needed = partitions_for(s, rate)
    if partitions_for(s, rate, fill=1.0) <= topic.partitions or min(needed, most) <= topic.partitions:
        return None
    why = f"key {name(key)} carries {rate:,.0f} records/s and needs {count(needed, 'partition')}"
    why += f", its topic {topic.name} has {topic.partitions}"
    return Want(key, rate, min(needed, most), why, capped=needed > most)


def overflows(s: Situation, part: float = 1.0) -> bool:
    """Whether the mean partition is over `part` of what the trigger allows: then no spread is enough."""
    if s.steadied is None:
        return False
    partitions, trigger = s.topic.partitions, s.spec.trigger
    records, sizes = sum(s.steadied.records) / partitions, s.steadied.bytes
    limit, bytes_limit = trigger.records_per_second, trigger.bytes_per_second
    if limit is not None and records > part * limit:
        return True
    return bytes_limit is not None and sizes is not None and sum(sizes) / partitions > part * bytes_limit


def _isolable(s: Situation, outcome: Outcome) -> list[KeyLoad]:
    """With `ordering: PerKey`: the heavy keys that nothing but a topic of their own relieves."""
    forbidden = {key for key, stop in outcome.refused.items() if stop.reason is Reason.ORDERING_FORBIDS}
    alone = s.topic.partitions == 1
    return [load for load in s.heavy() if load.key in forbidden or alone]


def _want(s: Situation, load: KeyLoad, why: str) -> Want:
    records = load.total / s.mean_size()
    needed = partitions_for(s, records)
    most = s.spec.limits.max_dedicated_partitions
    return Want(load.key, records, min(needed, most), why, capped=needed > most)


def partitions_for(s: Situation, records_per_second: float, fill: float = FILL) -> int:
    """How many partitions a key of this rate gets.

    One where order is kept per key, else those that the policy names, else as many as keep each at `fill` of
    the trigger.
    """
    if s.spec.spread.ordering is Ordering.PER_KEY:
        return 1
    if s.spec.dedicated.partitions is not None:
        return s.spec.dedicated.partitions
    trigger, needed = s.spec.trigger, 1.0
    if trigger.records_per_second is not None:
        needed = max(needed, records_per_second / (fill * trigger.records_per_second))
    if trigger.bytes_per_second is not None:
        needed = max(needed, records_per_second * s.record_bytes() / (fill * trigger.bytes_per_second))
    return math.ceil(min(needed, 1e6))


def _order_forbids(load: KeyLoad) -> str:
    return f"ordering PerKey allows no shards of key {name(load.key)}"


def _does_not_fit(s: Situation, load: KeyLoad) -> str:
    mean = sum(s.steadied.records) / s.topic.partitions if s.steadied else 0.0
    return (
        f"the base topic takes {mean:,.0f} records/s a partition even when all is spread evenly over "
        f"{count(s.topic.partitions, 'partition')}, which is over the trigger; key {name(load.key)} is the "
        "biggest part of it"
    )


def watched(s: Situation, table: Table, memory: TopicMemory) -> TopicMemory:
    """The memory with the keys that have a topic, or get one, and are cool this turn."""
    own = sorted(filter(_has_key, table.topics), key=lambda topic: topic.phase is Phase.ACTIVE)
    keys = {topic.key: topic for topic in own if topic.key is not None}  # where it is written, of two
    cool = [key for key, topic in keys.items() if _is_cool(s, key, topic, memory)]
    since = {key: min(memory.cool_since.get(key, s.at), s.at) for key in cool}
    for key, topic in keys.items():
        if topic.phase is Phase.ACTIVE and _is_shunned(s, key, memory.rate(topic.name)):
            memory = memory.shunning(key, s.at)
    return replace(memory, cool_since=since)


def _is_shunned(s: Situation, key: bytes, rate: float | None) -> bool:
    """Whether much of a key still comes to the base topic, long after it was given one of its own.

    There it is a plain key on one partition, and nobody else may plan for it. Where a group lags, samples
    are of what it has yet to read, so they tell of the past: then fewer of the key's records than these must
    come to its topic, at `rate` records/s.
    """
    changed, load = s.memory.changed_at.get(key, float("-inf")), s.keys.get(key)
    if load is None or within(s.at, changed, FOLLOWED_SECONDS):
        return False
    home = partition_for(key, s.topic.partitions)
    if s.now is None or home not in s.long_hot or home not in over(s.spec.trigger, s.now):
        return False
    if home in s.memory.lagging(s.at) and (rate is None or rate * s.mean_size() >= load.surely):
        return False
    return load.surely >= HEAVY * s.mean


def still_wanted(s: Situation, key: bytes | None, memory: TopicMemory) -> bool:
    """Whether a key keeps its topic: until it was cool for `release.for`, or the policy allows it none. One
    that is of no key yet is wanted for the stock."""
    if s.spec.suspend:
        return True
    if not s.spec.dedicated.enabled or not s.spec.acts:
        return False
    if key is not None and memory.is_shunned(key, s.at):
        return False
    since = memory.cool_since.get(key) if key is not None else None
    return (
        key is None
        or since is None
        or s.at - since < max(s.release_seconds(key) - TURN_SECONDS, TURN_SECONDS)
    )


def sure(found: list[Want], memory: TopicMemory, at: float) -> tuple[list[Want], TopicMemory]:
    """Those of the wants that have lasted, and the memory with all of them."""
    found = [want for want in found if not memory.is_shunned(want.key, at)]
    since = {want.key: min(memory.wanted_since.get(want.key, at), at) for want in found}
    lasting = [want for want in found if at - since[want.key] >= SURE_SECONDS - TURN_SECONDS]
    return lasting, replace(memory, wanted_since=since)


def _has_key(topic: DedicatedTopic) -> bool:
    return topic.phase in (Phase.PREPARE, Phase.ACTIVE)


def _is_cool(s: Situation, key: bytes, topic: DedicatedTopic, memory: TopicMemory) -> bool:
    """Whether the key's home partition stays cool with all of it; what is not measured is not cool."""
    if s.now is None or s.steadied is None:
        return False
    home = partition_for(key, s.topic.partitions)
    base, size, mean = s.now.records[home], s.record_bytes(), s.now.mean_records
    if topic.phase is Phase.PREPARE:
        load = s.keys.get(key)
        if load is None:
            return base <= 0 or stays_cool(s.spec, base, size, mean)
        elsewhere = max(0.0, load.at_most - load.on.get(home, 0.0)) / s.mean_size()
        return stays_cool(s.spec, base + elsewhere, size, mean)
    rate, load = memory.rate(topic.name), s.keys.get(key)
    if rate is None or (load is not None and load.surely >= HEAVY * s.mean):
        return False  # not measured; or it is written to the base topic all the same
    if rate <= s.spec.release.ratio * HEAVY * mean:
        return True  # too small to matter, however hot the base topic is without it
    return stays_cool(s.spec, base + rate, size, mean + rate / s.topic.partitions)


def own_route(s: Situation, topic: DedicatedTopic, before: Route | None) -> Route:
    """The route of a key over all of its own topic, by the same dimensions as before where that may be."""
    assert topic.key is not None
    if s.spec.spread.ordering is Ordering.PER_KEY:
        return Route(topic.key, topic.name, (), RecordKey.PRESERVE, (Shard(0, 0),), (0,))
    rungs = s.spec.spread.by or ((),)
    ground = Ground(
        background=(0.0,) * topic.partitions,
        topic=topic.name,
        seed=s.table.seed,
        record_key=s.spec.spread.record_key,
        max_shards=topic.partitions,
    )
    load = s.keys[topic.key].total if topic.key in s.keys else 0.0
    by = before.by if before is not None and before.by in rungs else rungs[0]
    (route,) = plan(ground, [HotKey(topic.key, max(load, 1.0), by)]).routes
    return route
