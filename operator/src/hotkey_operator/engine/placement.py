"""The planner: where several hot keys go together, in as few shards as reach the target.

Pure arithmetic over loads per partition, in one unit per second (records or bytes). It knows neither triggers
nor samples. The method is that of docs/planning.md: take the hot keys off, keep what was placed before where
it still fits, pour what is left into the coldest partitions, the biggest key last.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hotkey_operator.engine.shards import find_shards, landing, record_keys
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.slots import slot_hash
from hotkey_sdk.routing.table import RecordKey, Route, Shard, shard_key

TARGET = 1.03  # of the mean partition; leaves room for hash noise under the 1.05 that is promised
SLOT_LOAD = 0.02  # of the mean partition: no slot is heavier, so that rounding costs at most this
SLOTS_AT_LEAST = 16
SLOTS_AT_MOST = 16_384  # 32 KiB in the table
WORTH_A_MOVE = 0.05  # of the water's height: less is not worth leaving a partition for another
NOTHING = 1e-9  # of a load: what adding in another order may differ by
MOST = 1e18  # no partition takes more in a second
NOBODY = -1


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key to place. `load` per second; `home`: where its plain records are, if not where murmur2 says;
    `values`: values of its dimensions with their part of the key, for those so frequent that their slots are
    known to be heavier than others; `whole`: it is moved, not spread, so it takes one shard; `values_before`:
    such values of the previous route's dimensions, where those are others."""

    key: bytes
    load: float
    by: tuple[str, ...] = ()
    previous: Route | None = None
    home: int | None = None
    values: tuple[tuple[tuple[str, ...], float], ...] = ()
    whole: bool = False
    values_before: tuple[tuple[tuple[str, ...], float], ...] = ()


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
    def relief(self) -> float:
        """The load over the target that is taken off all partitions, in parts of the most loaded one.

        Of two partitions that are equally hot it says what relieving one of them is worth: no gain at all.
        """
        worst = max(self.before)
        return max(self.gain, (_excess(self.before) - _excess(self.loads)) / worst) if worst > 0 else 0.0

    @property
    def imbalance(self) -> float:
        total = sum(self.loads)
        return self.worst * len(self.loads) / total if total > 0 else 1.0


def plan(ground: Ground, keys: Sequence[HotKey]) -> Plan:
    """Place all `keys`; never worse than leaving each where it is (its previous route, or its home).

    Deterministic in its arguments, whatever the order of `keys`. Loads that are no numbers, negative or
    beyond all measure are taken as none and as the most.
    """
    ground = replace(ground, background=tuple(_sane(load) for load in ground.background))
    sane = (replace(hot, load=_sane(hot.load)) for hot in keys)
    ordered = sorted(sane, key=lambda hot: (hot.load, hot.key))
    before = loads_now(ground, ordered)
    loads, placed = list(ground.background), []
    level = _level(ground, ordered)
    taken = set(ground.taken) | {hot.key for hot in ordered}
    taken |= record_keys(hot.previous for hot in ordered if hot.previous)
    for hot in ordered:
        mine = record_keys([hot.previous]) - ground.taken if hot.previous else set()
        route = _Placing(ground, hot, loads, level, taken - mine if mine else taken).route()
        taken |= record_keys([route])
        placed.append(route)
    if _is_worse(loads, before):
        kept = [hot.previous for hot in ordered if hot.previous]
        return Plan(in_table_order(kept), tuple(before), tuple(before))
    return Plan(in_table_order(placed), tuple(loads), tuple(before))


def loads_now(ground: Ground, keys: Sequence[HotKey]) -> list[float]:
    """The load of each partition with every key on its previous route, or plain on its home partition."""
    loads = list(ground.background)
    for hot in keys:
        if hot.previous is None:
            home = partition_for(hot.key, len(loads)) if hot.home is None else hot.home
            loads[home] += hot.load
            continue
        shards, slots = hot.previous.shards, hot.previous.slots
        known = hot.values if hot.previous.by == hot.by else hot.values_before
        light, heavy = _weighed(replace(hot, values=known), len(slots), ground.seed)
        for index, count in Counter(slots).items():
            loads[shards[index].partition % len(loads)] += light * count
        for slot, load in heavy.items():
            loads[shards[slots[slot]].partition % len(loads)] += load - light
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
    light, heavy = _weighed(hot, count, seed)
    return [heavy.get(slot, light) for slot in range(count)]


def _weighed(hot: HotKey, count: int, seed: int) -> tuple[float, dict[int, float]]:
    """The load of a slot, and of each that a frequent value makes heavier."""
    light = hot.load * max(0.0, 1 - sum(part for _, part in hot.values)) / count
    heavy: dict[int, float] = {}
    for values, part in hot.values:
        slot = slot_hash(seed, values) & (count - 1)
        heavy[slot] = heavy.get(slot, light) + hot.load * part
    return light, heavy


def _sane(load: float) -> float:
    return min(load, MOST) if load > 0 else 0.0  # no number is not over 0


def _is_worse(loads: Sequence[float], before: Sequence[float]) -> bool:
    """Whether the most loaded partition is more loaded, or as much and the others are further over target."""
    worst = max(before)
    if max(loads) > worst:
        return True
    return max(loads) == worst and _excess(loads) > _excess(before) + worst * NOTHING


def _excess(loads: Sequence[float]) -> float:
    """What all partitions together carry over the target."""
    target = TARGET * sum(loads) / len(loads)
    return sum(load - target for load in loads if load > target)


def _level(ground: Ground, keys: Sequence[HotKey]) -> float:
    """The load up to which partitions are filled: the target, or what is in reach if that is more."""
    poured = sum(hot.load for hot in keys)
    mean = (sum(ground.background) + poured) / len(ground.background)
    return max(TARGET * mean, fill_level(sorted(ground.background), poured))


def fill_level(loads: Sequence[float], poured: float) -> float:
    """How high water stands that is poured over partitions of these ascending loads."""
    total = poured
    for count, load in enumerate(loads, start=1):
        total += load
        if count == len(loads) or total / count <= loads[count]:
            return total / count
    return 0.0


class _Placing:
    """One key being placed over `loads`, which it adds itself to. `level`: how high partitions are filled."""

    def __init__(
        self, ground: Ground, hot: HotKey, loads: list[float], level: float, taken: Collection[bytes]
    ) -> None:
        self._ground, self._hot, self._loads, self._level, self._taken = ground, hot, loads, level, taken
        previous = len(hot.previous.slots) if hot.previous else 0
        self._count = slot_count(hot.load, level / TARGET, previous)
        self._light, self._heavy = _weighed(hot, self._count, ground.seed)
        self._shards_at_most = 1 if hot.whole else max(1, ground.max_shards)
        self._owners: list[int] = [NOBODY] * self._count
        self._used: set[int] = set()
        self._barred: set[int] = set()  # no shard id was found for these

    def route(self) -> Route:
        """The key's route; its load is in `loads` then."""
        before = list(self._loads)
        while True:
            self._place()
            used = {owner for owner in self._owners if owner != NOBODY}
            shards = find_shards(self._hot.key, used, len(self._loads), self._taken, self._hot.previous)
            if len(shards) == len(used):
                return self._made(shards)
            self._barred |= used - set(shards)
            self._loads[:] = before
            self._owners, self._used = [NOBODY] * self._count, set()

    def _place(self) -> None:
        kept = self._previous_partitions()
        chosen, limit = self._chosen(kept)
        free = self._keep([p for p in kept if p in chosen], limit)
        order = [p for p in self._coldest(chosen) if p not in self._used]
        order += [p for p in self._coldest() if p not in self._used and p not in chosen]
        for slot in sorted((s for s in free if s in self._heavy), key=lambda s: (-self._heavy[s], s)):
            self._give_heavy(slot, order, limit)
        self._pour([slot for slot in free if slot not in self._heavy], order)

    def _previous_partitions(self) -> list[int]:
        """The partitions of the previous shards that still land there, the first ones of them."""
        previous, hot = self._hot.previous, self._hot
        if previous is None or previous.by != hot.by:
            return []
        partitions, taken = len(self._loads), self._ground.taken
        kept = [
            shard.partition
            for shard in previous.shards
            if shard.partition < partitions
            and landing(hot.key, shard.id, partitions) == shard.partition
            and shard_key(hot.key, shard.id) not in taken
        ]
        return kept[: self._shards_at_most]

    def _chosen(self, kept: Sequence[int]) -> tuple[set[int], float]:
        """The partitions that the key may stay on, and how high they are filled.

        Where the limit on shards binds, no set of so many partitions may have room under the level. Then the
        fewest are exchanged that bring the water down, and what stands under that water stays: planning the
        same again changes nothing.
        """
        chosen = set(kept)
        if self._shards_at_most >= len(self._loads):
            return chosen, self._level
        room = sum(max(0.0, self._level - self._loads[p]) for p in chosen)
        outside = iter([p for p in self._coldest() if p not in chosen])
        coldest = next(outside, None)
        while room < self._hot.load and coldest is not None and len(chosen) < self._shards_at_most:
            chosen.add(coldest)
            room += max(0.0, self._level - self._loads[coldest])
            coldest = next(outside, None)
        if room >= self._hot.load * (1 - NOTHING):
            return chosen, self._level
        height = self._height(chosen)
        while coldest is not None:
            hottest = max(chosen, key=lambda p: (self._loads[p], p))
            lower = self._height(chosen - {hottest} | {coldest})
            if max(lower, self._level) >= height * (1 - WORTH_A_MOVE):
                break
            chosen, height = chosen - {hottest} | {coldest}, lower
            coldest = next(outside, None)
        return chosen, max(self._level, height)

    def _height(self, chosen: Collection[int]) -> float:
        return fill_level(sorted(self._loads[p] for p in chosen), self._hot.load)

    def _keep(self, kept: Sequence[int], limit: float) -> list[int]:
        """Leave every slot where it was as far as it fits under `limit`; those that have to move."""
        previous = self._hot.previous
        if previous is None or not kept:
            return list(range(self._count))
        owners = [shard.partition for shard in previous.shards]
        before = [owners[index] for index in previous.slots] * (self._count // len(previous.slots))
        may = set(kept)
        coldest = min(self._loads[p] for p in kept)
        free = []
        for slot in sorted(self._heavy, key=lambda s: (-self._heavy[s], s)):
            load, owner = self._heavy[slot], before[slot]
            if owner in may and self._loads[owner] + load <= max(
                limit, (coldest + load) / (1 - WORTH_A_MOVE)
            ):
                self._give(slot, owner, load)
            else:
                free.append(slot)
        limit += self._light  # as a plan rounds up
        room = {p: self._fitting(p, limit) for p in kept}
        for slot, owner in enumerate(before):
            if slot in self._heavy:
                continue
            if room.get(owner, 0) > 0:
                room[owner] -= 1
                self._owners[slot] = owner
            else:
                free.append(slot)
        for p, left in room.items():
            held = self._fitting(p, limit) - left
            self._loads[p] += held * self._light
            if held:
                self._used.add(p)
        return free

    def _fitting(self, partition: int, limit: float) -> int:
        """How many light slots fit on a partition under `limit`."""
        room = limit - self._loads[partition]
        if self._light <= 0 or room >= self._light * self._count:
            return self._count
        return max(0, int(room / self._light + NOTHING))

    def _coldest(self, among: Collection[int] | None = None) -> list[int]:
        partitions = range(len(self._loads)) if among is None else sorted(among)
        allowed = [p for p in partitions if p not in self._barred] if self._barred else partitions
        return sorted(allowed, key=self._loads.__getitem__)

    def _give(self, slot: int, partition: int, load: float) -> None:
        self._owners[slot] = partition
        self._loads[partition] += load
        self._used.add(partition)

    def _give_heavy(self, slot: int, order: list[int], limit: float) -> None:
        """A slot that one value makes heavy: to a partition in use with room, else to the coldest."""
        load = self._heavy[slot]
        used = min(self._used, key=lambda p: (self._loads[p], p), default=None)
        other = order[0] if order and len(self._used) < self._shards_at_most else None
        fits = used is not None and self._loads[used] + load <= limit
        if used is None or (not fits and other is not None and self._loads[other] < self._loads[used]):
            used = order.pop(0)
        self._give(slot, used, load)

    def _pour(self, free: Sequence[int], order: Sequence[int]) -> None:
        """Give the light slots to the partitions that the key uses and the fewest coldest others, evenly."""
        if not free:
            return
        targets = self._targets(len(free) * self._light, order)
        lacking = [(-amount, partition) for partition, amount in targets.items()]
        given = dict.fromkeys(targets, 0)
        if self._light > NOTHING * self._level:
            for at, (amount, partition) in enumerate(lacking):
                given[partition] = int(-amount / self._light)
                lacking[at] = (amount + given[partition] * self._light, partition)
        left = len(free) - sum(given.values())
        heapq.heapify(lacking)
        for _ in range(left):
            amount, partition = lacking[0]
            given[partition] += 1
            heapq.heapreplace(lacking, (amount + self._light, partition))
        slots = iter(sorted(free))
        for partition, count in given.items():
            for slot in itertools.islice(slots, count):
                self._owners[slot] = partition
            self._loads[partition] += count * self._light

    def _targets(self, amount: float, order: Sequence[int]) -> dict[int, float]:
        """How much of `amount` goes where."""
        loads, level = self._loads, self._level
        chosen = sorted(self._used, key=lambda p: (loads[p], p))
        capacity = sum(max(0.0, level - loads[p]) for p in chosen)
        for partition in order[: max(0, self._shards_at_most - len(chosen))]:
            if amount <= 0 or capacity >= amount * (1 - NOTHING):
                break
            chosen.append(partition)
            capacity += max(0.0, level - loads[partition])
        if amount <= 0 or not chosen:
            return dict.fromkeys(chosen, 0.0) or dict.fromkeys(order[:1], 0.0)
        height = fill_level(sorted(loads[p] for p in chosen), amount)
        return {p: height - loads[p] for p in chosen if height >= loads[p]} or {chosen[0]: amount}

    def _made(self, shards: Mapping[int, Shard]) -> Route:
        used = sorted(set(self._owners), key=lambda p: (shards[p].id, p))
        index = {partition: position for position, partition in enumerate(used)}
        return Route(
            key=self._hot.key,
            topic=self._ground.topic,
            by=self._hot.by,
            record_key=self._ground.record_key,
            shards=tuple(shards[partition] for partition in used),
            slots=tuple([index[owner] for owner in self._owners]),
        )


def moved(old: Route | None, new: Route | None, home: int) -> float:
    """The part of a key's slots, 0..1, whose records go to another partition; a plain key is on `home`.

    Where the dimensions change, every slot holds other records: then it is what chance leaves in place.
    """
    if old is not None and new is not None and old.by == new.by:
        before, after = _owners(old), _owners(new)
        count = max(len(before), len(after))
        same = sum(before[i % len(before)] == after[i % len(after)] for i in range(count))
        return 1 - same / count
    first, second = parts(old, home), parts(new, home)
    return 1 - sum(part * second.get(partition, 0.0) for partition, part in first.items())


def parts(route: Route | None, home: int) -> dict[int, float]:
    """The part of a key's slots on each partition."""
    if route is None:
        return {home: 1.0}
    return {p: count / len(route.slots) for p, count in sorted(Counter(_owners(route)).items())}


def _owners(route: Route) -> list[int]:
    return [route.shards[index].partition for index in route.slots]


def in_table_order(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes as a table holds them, by key."""
    return tuple(sorted(routes, key=lambda route: route.key))
