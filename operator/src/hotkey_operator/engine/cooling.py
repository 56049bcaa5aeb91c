"""Which spread keys have cooled, and which of them may be merged back together now."""

from __future__ import annotations

from dataclasses import replace

from hotkey_operator.engine import ladder, lag, rates
from hotkey_operator.engine.heavy import KeyLoad, key_load
from hotkey_operator.engine.ladder import Step
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.middling import MATTERS
from hotkey_operator.engine.pressure import BALANCED, HEAVY, Load, stays_cool
from hotkey_operator.engine.rates import Rates
from hotkey_operator.engine.situation import TURN_SECONDS, Situation
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Route


def watched(s: Situation) -> Memory:
    """The memory with the cool keys of this turn: one that is warm again begins anew.

    A turn in which no sample tells of a key neither begins its time nor ends it: samples fail where brokers
    are busy, and a key would never come home there.
    """
    steady = _steady(s)
    if steady is None:
        return s.memory
    cool = [
        route.key
        for route in s.table.routes
        if not s.is_settling(route.key)
        and (
            _is_cool(s, route, steady, steady)
            or (route.key in s.memory.cool_since and not _is_sampled(s, route))
        )
    ]
    return replace(
        s.memory,
        cool_since={key: s.memory.cool_since.get(key, s.at) for key in cool},
        coarse_since={key: s.memory.coarse_since.get(key, s.at) for key in _too_fine(s)},
    )


def coarsened(s: Situation) -> list[tuple[Route, Step]]:
    """The routes that have long needed no rung as fine as theirs, each with the one to go back to."""
    since = s.memory.coarse_since
    due = [route for route in s.table.routes if _is_due(s, route.key, since.get(route.key))]
    steps = [(route, ladder.coarser(s, s.keys[route.key])) for route in due if route.key in s.keys]
    return [(route, step) for route, step in steps if step is not None]


def _too_fine(s: Situation) -> list[bytes]:
    """The routed keys of which a coarser rung would do; what no sample tells of stays as it was."""
    return [
        route.key
        for route in s.table.routes
        if not s.is_settling(route.key)
        and (
            (route.key in s.keys and ladder.coarser(s, s.keys[route.key]) is not None)
            or (route.key in s.memory.coarse_since and not _is_sampled(s, route))
        )
    ]


def _is_due(s: Situation, key: bytes, since: float | None) -> bool:
    """Whether a key has been cool for as long as it has to be."""
    needed = max(s.release_seconds(key) - TURN_SECONDS, TURN_SECONDS)
    return since is not None and s.at - since >= needed


def merged_back(s: Situation) -> tuple[Route, ...]:
    """The routes to take back now: cool for `release.for`, and still so when they come home together."""
    steady = _steady(s)
    if steady is None or s.spec.suspend or s.is_rate_limited():
        return ()
    since = s.memory.cool_since
    due = [route for route in s.table.routes if _is_due(s, route.key, since.get(route.key))]
    loads, taken = steady, []
    for route in sorted(due, key=lambda route: (_load(s, route, steady).at_most, route.key)):
        if _is_cool(s, route, steady, loads):
            loads = _come_home(s, route, steady, loads)
            taken.append(route)
    return tuple(taken)


def _is_cool(s: Situation, route: Route, steady: Load, loads: Load) -> bool:
    """Whether the home partition would stay under the release threshold, or the key is too small to matter.

    `loads`: `steady`, and on it the keys that come home together with this one. What is few records may be
    many bytes, and must be little in both where both are asked for.
    """
    trigger = s.spec.trigger.bytes_per_second
    if _is_small(s, route, steady, loads):
        few = trigger is None or steady.bytes is None or _is_small(s, route, steady, loads, by_bytes=True)
        if few or _after(s, route, steady, loads, by_bytes=True) < s.spec.release.ratio * (trigger or 0.0):
            return True
    after = _after(s, route, steady, loads)
    if _in_the_way(s, route, after) is not None:
        return False
    return stays_cool(s.spec, after, _home_size(s, route, steady, loads), steady.mean_records)


def _is_small(s: Situation, route: Route, steady: Load, loads: Load, by_bytes: bool = False) -> bool:
    """Whether a key is under `release.ratio` of what makes one heavy, where it leaves its home in balance, or
    of what makes it matter at all. On a stream whose every partition is over the trigger, however evenly, no
    key would ever come home otherwise.
    """
    unit, ratio = steady.unit(by_bytes), s.spec.release.ratio
    mean = sum(unit) / len(unit)
    at_most = _load(s, route, steady, by_bytes).at_most
    balanced = (1 + ratio * (BALANCED - 1)) * mean
    if at_most <= ratio * HEAVY * mean and _after(s, route, steady, loads, by_bytes) <= balanced:
        return True
    return at_most <= ratio * MATTERS * mean


def kept_by_lag(s: Situation, route: Route) -> str | None:
    """Which consumer group alone keeps a key from coming home, in words; None where none does."""
    steady = _steady(s)
    if steady is None:
        return None
    after, size = _after(s, route, steady, steady), _home_size(s, route, steady, steady)
    would = stays_cool(s.spec, after, size, steady.mean_records)
    return _in_the_way(s, route, after) if would else None


def _in_the_way(s: Situation, route: Route, after: float) -> str | None:
    release, home = s.spec.release, _home(s, route)
    return lag.in_the_way(s.memory.lags, s.spec.trigger, release, s.at, home, after)


def at_home(s: Situation, route: Route) -> float | None:
    """Records/s of the key's home partition if it came back now; None while nothing is measured."""
    steady = _steady(s)
    return None if steady is None else _after(s, route, steady, steady)


def _after(s: Situation, route: Route, steady: Load, loads: Load, by_bytes: bool = False) -> float:
    """Records/s (or bytes/s) of the key's home partition once the key is back."""
    home, load = _home(s, route), _load(s, route, steady, by_bytes)
    return max(0.0, loads.unit(by_bytes)[home] - load.on.get(home, 0.0)) + load.at_most


def _home_size(s: Situation, route: Route, steady: Load, loads: Load) -> float:
    """The mean size of a record on the home partition once the key, whose own may be bigger, is back."""
    records = _after(s, route, steady, loads)
    if steady.bytes is None or records <= 0:
        return 0.0
    return _after(s, route, steady, loads, by_bytes=True) / records


def _come_home(s: Situation, route: Route, steady: Load, loads: Load) -> Load:
    """The loads with one more key back."""
    records, sizes, home = list(loads.records), list(loads.bytes or ()), _home(s, route)
    records[home] = _after(s, route, steady, loads)
    if sizes:
        sizes[home] = _after(s, route, steady, loads, by_bytes=True)
    return Load(tuple(records), tuple(sizes) or None)


def _load(s: Situation, route: Route, steady: Load, by_bytes: bool = False) -> KeyLoad:
    """What the key carries; while no sample says, at most all that its partitions carry."""
    evidence, unit = s.memory.fresh_evidence(s.at), steady.unit(by_bytes)
    if _is_sampled(s, route):
        return key_load(route.key, evidence, unit, by_bytes, route)
    on = {partition: unit[partition] for partition in sorted(_partitions(s, route))}
    return KeyLoad(route.key, sum(on.values()), 0.0, on)


def _partitions(s: Situation, route: Route) -> set[int]:
    return {shard.partition for shard in route.shards if shard.partition < s.topic.partitions}


def _is_sampled(s: Situation, route: Route) -> bool:
    return not _partitions(s, route).isdisjoint(s.memory.fresh_evidence(s.at))


def _home(s: Situation, route: Route) -> int:
    return partition_for(route.key, s.topic.partitions)


def _steady(s: Situation) -> Load | None:
    """What each partition carries over the steady horizon."""
    records = rates.over(s.memory.history, rates.STEADY_SECONDS)
    if records is None or len(records) != s.topic.partitions:
        return None
    return Load(records, _in_bytes(s, records))


def _in_bytes(s: Situation, records: Rates) -> Rates | None:
    """Bytes/s by the mean size of each partition's own records."""
    known = s.steadied
    if known is None or known.bytes is None:
        return None
    anywhere = s.record_bytes()
    each = zip(records, known.records, known.bytes, strict=True)
    return tuple(rate * (size / count if count > 0 else anywhere) for rate, count, size in each)
