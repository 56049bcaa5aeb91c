"""The planner: where several hot keys go together, in as few shards as reach the target.

Pure arithmetic over loads per partition, in one unit per second (records or bytes). It knows neither triggers
nor samples. The method is that of docs/planning.md: take the hot keys off, keep what was placed before where
it still fits, pour what is left into the coldest partitions, the biggest key last.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hotkey_operator.engine.shards import find_shards, record_keys
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.slots import slot_hash
from hotkey_sdk.routing.table import RecordKey, Route, Shard

TARGET = 1.03  # of the mean partition; leaves room for hash noise under the 1.05 that is promised
SLOT_LOAD = 0.02  # of the mean partition: no slot is heavier, so that rounding costs at most this
SLOTS_AT_LEAST = 16
SLOTS_AT_MOST = 16_384  # 32 KiB in the table


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key to place. `load` per second; `home`: where its plain records are, if not where murmur2 says;
    `values`: values of its dimensions with their part of the key, for those so frequent that their slots are
    known to be heavier than others."""

    key: bytes
    load: float
    by: tuple[str, ...] = ()
    previous: Route | None = None
    home: int | None = None
    values: tuple[tuple[tuple[str, ...], float], ...] = ()


@dataclass(frozen=True, slots=True)
class Ground:
    """What keys are placed on. `background`: load of each partition without the hot keys. `taken`: record
    keys that no shard may have. `seed` is the table's."""

    background: tuple[float, ...]
    topic: str
    seed: int
    record_key: RecordKey = RecordKey.COMPOSITE
    max_shards: int = 512
    taken: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Routes, and the load of each partition that is expected with them and was expected without a change."""

    routes: tuple[Route, ...]
    loads: tuple[float, ...]
    before: tuple[float, ...]

    @property
    def worst(self) -> float:
        return max(self.loads)

    @property
    def gain(self) -> float:
        """By which part the most loaded partition becomes lighter, 0..1."""
        worst = max(self.before)
        return 1 - self.worst / worst if worst > 0 else 0.0

    @property
    def imbalance(self) -> float:
        total = sum(self.loads)
        return self.worst * len(self.loads) / total if total > 0 else 1.0


def plan(ground: Ground, keys: Sequence[HotKey]) -> Plan:
    """Place all `keys`; never worse than leaving each where it is (its previous route, or its home).

    Deterministic in its arguments, whatever the order of `keys`.
    """
    ordered = sorted(keys, key=lambda hot: (hot.load, hot.key))
    before = loads_now(ground, ordered)
    loads, placed = list(ground.background), []
    level = _level(ground, ordered)
    taken = set(ground.taken) | {hot.key for hot in ordered}
    taken |= record_keys(hot.previous for hot in ordered if hot.previous)
    for hot in ordered:
        mine = record_keys([hot.previous]) - ground.taken if hot.previous else set()
        route = _place(ground, hot, loads, level, taken - mine)
        taken |= record_keys([route])
        placed.append(route)
    if max(loads) > max(before):
        kept = [hot.previous for hot in ordered if hot.previous]
        return Plan(_sorted(kept), tuple(before), tuple(before))
    return Plan(_sorted(placed), tuple(loads), tuple(before))


def loads_now(ground: Ground, keys: Sequence[HotKey]) -> list[float]:
    """The load of each partition with every key on its previous route, or plain on its home partition."""
    loads = list(ground.background)
    for hot in keys:
        if hot.previous is None:
            home = partition_for(hot.key, len(loads)) if hot.home is None else hot.home
            loads[home] += hot.load
            continue
        each = slot_loads(hot, len(hot.previous.slots), ground.seed)
        for slot, index in enumerate(hot.previous.slots):
            loads[hot.previous.shards[index].partition % len(loads)] += each[slot]
    return loads


def slot_count(load: float, mean: float, previous: int = 0) -> int:
    """A power of two so large that no slot carries over SLOT_LOAD of the mean partition.

    Never fewer than before: a slot of twice as many is found by one more bit, so every owner is kept.
    """
    count = max(SLOTS_AT_LEAST, previous)
    while mean > 0 and count * SLOT_LOAD * mean < load and count < SLOTS_AT_MOST:
        count *= 2
    return count


def slot_loads(hot: HotKey, count: int, seed: int) -> list[float]:
    """The load of each slot: even, but for the values that are known to be frequent."""
    known = sum(part for _, part in hot.values)
    loads = [hot.load * max(0.0, 1 - known) / count] * count
    for values, part in hot.values:
        loads[slot_hash(seed, values) & (count - 1)] += hot.load * part
    return loads


def _level(ground: Ground, keys: Sequence[HotKey]) -> float:
    """The load up to which partitions are filled: the target, or what is in reach if that is more."""
    poured = sum(hot.load for hot in keys)
    mean = (sum(ground.background) + poured) / len(ground.background)
    return max(TARGET * mean, _fill_level(sorted(ground.background), poured))


def _fill_level(loads: Sequence[float], poured: float) -> float:
    """How high water stands that is poured over partitions of these ascending loads."""
    total = poured
    for count, load in enumerate(loads, start=1):
        total += load
        if count == len(loads) or total / count <= loads[count]:
            return total / count
    return 0.0


def _place(ground: Ground, hot: HotKey, loads: list[float], level: float, taken: set[bytes]) -> Route:
    """Place one key and add it to `loads`."""
    mean = (sum(loads) + hot.load) / len(loads)
    previous = hot.previous
    count = slot_count(hot.load, max(mean, level / TARGET), len(previous.slots) if previous else 0)
    each = slot_loads(hot, count, ground.seed)
    owners = _kept_owners(ground, hot, loads, each, level)
    free = [slot for slot, owner in enumerate(owners) if owner is None]
    if previous and not free:
        return previous
    used = {owner for owner in owners if owner is not None}
    room = max(1, ground.max_shards) - len(used)
    order = [p for p in _coldest(loads) if p not in used]
    targets = _targets(loads, used, order, room, sum(each[slot] for slot in free), level)
    shards = find_shards(hot.key, used | set(targets), len(loads), taken, previous)
    reachable = {p: amount for p, amount in targets.items() if p in shards} or dict.fromkeys(shards, 0.0)
    _pour(owners, free, each, reachable, loads)
    return _route(ground, hot, owners, shards)


def _kept_owners(
    ground: Ground, hot: HotKey, loads: list[float], each: Sequence[float], level: float
) -> list[int | None]:
    """Each slot's partition as before, as far as it fits under `level`; None for what has to move."""
    count, previous = len(each), hot.previous
    owners: list[int | None] = [None] * count
    if previous is None or previous.by != hot.by:
        return owners
    usable = _usable(hot, len(loads), ground)
    for slot in sorted(range(count), key=lambda slot: (-each[slot], slot)):
        shard = previous.shards[previous.slots[slot % len(previous.slots)]]
        if shard.partition in usable and loads[shard.partition] + each[slot] <= level:
            owners[slot] = shard.partition
            loads[shard.partition] += each[slot]
    return owners


def _usable(hot: HotKey, partitions: int, ground: Ground) -> set[int]:
    """The partitions of the previous shards that still land there, the first `max_shards` of them."""
    if hot.previous is None:
        return set()
    wanted = {shard.partition for shard in hot.previous.shards if shard.partition < partitions}
    found = find_shards(hot.key, wanted, partitions, ground.taken, hot.previous)
    kept = [shard.partition for shard in hot.previous.shards if found.get(shard.partition) == shard]
    return set(kept[: max(1, ground.max_shards)])


def _coldest(loads: Sequence[float]) -> list[int]:
    return sorted(range(len(loads)), key=lambda partition: (loads[partition], partition))


def _targets(
    loads: Sequence[float], used: set[int], order: Sequence[int], room: int, amount: float, level: float
) -> dict[int, float]:
    """How much of `amount` goes where: to partitions in use and the fewest coldest others, evened out."""
    chosen = sorted(used, key=lambda p: (loads[p], p))
    capacity = sum(max(0.0, level - loads[p]) for p in chosen)
    for partition in order[: max(0, room)]:
        if amount <= 0 or capacity >= amount * (1 - 1e-9):
            break
        chosen.append(partition)
        capacity += max(0.0, level - loads[partition])
    if amount <= 0 or not chosen:
        return dict.fromkeys(chosen, 0.0) or dict.fromkeys(order[:1], 0.0)
    height = _fill_level(sorted(loads[p] for p in chosen), amount)
    return {p: height - loads[p] for p in chosen if height >= loads[p]} or {chosen[0]: amount}


def _pour(
    owners: list[int | None],
    free: Sequence[int],
    each: Sequence[float],
    targets: dict[int, float],
    loads: list[float],
) -> None:
    """Give each free slot, the heaviest first, to the partition that lacks most of what it should get."""
    lacking = [(-amount, partition) for partition, amount in targets.items()]
    heapq.heapify(lacking)
    for slot in sorted(free, key=lambda slot: (-each[slot], slot)):
        amount, partition = lacking[0]
        owners[slot] = partition
        loads[partition] += each[slot]
        heapq.heapreplace(lacking, (amount + each[slot], partition))


def _route(ground: Ground, hot: HotKey, owners: Sequence[int | None], shards: Mapping[int, Shard]) -> Route:
    used = sorted({owner for owner in owners if owner is not None}, key=lambda p: (shards[p].id, p))
    index = {partition: position for position, partition in enumerate(used)}
    return Route(
        key=hot.key,
        topic=ground.topic,
        by=hot.by,
        record_key=ground.record_key,
        shards=tuple(shards[partition] for partition in used),
        slots=tuple(index[owner] for owner in owners if owner is not None),
    )


def _sorted(routes: Sequence[Route]) -> tuple[Route, ...]:
    return tuple(sorted(routes, key=lambda route: route.key))
