"""What each key's standing takes, what was rejected for it and what else is to be told, as values.

It looks at an outcome that is decided and changes nothing of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hotkey_operator.engine import cooling, ladder
from hotkey_operator.engine.guards import Stop
from hotkey_operator.engine.model import Cost, Rejected
from hotkey_operator.engine.placement import moved
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.wording import count, heat, order, percent
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Route

if TYPE_CHECKING:
    from hotkey_operator.engine.routing import Outcome


def accounted(s: Situation, outcome: Outcome) -> Outcome:
    """The outcome with the costs, the rejected and the notes of its keys; those it has already stand."""
    keys = [route.key for route in (*outcome.routes, *outcome.merged)]
    now = {route.key: route for route in outcome.routes}
    costs = {key: cost(s, key, s.table.route(key), now.get(key)) for key in keys}
    rejected = {key: _rejected(s, key, now.get(key)) for key in keys}
    noted = {route.key: note for route in outcome.routes if (note := _noted(s, route)) is not None}
    return replace(
        outcome,
        costs={**costs, **outcome.costs},
        rejected={key: (*found, *outcome.rejected.get(key, ())) for key, found in rejected.items()}
        | {key: found for key, found in outcome.rejected.items() if key not in rejected},
        noted={**noted, **outcome.noted},
    )


def cost(s: Situation, key: bytes, old: Route | None, new: Route | None) -> Cost:
    """What it takes that a key goes from `old` to `new`, or stands."""
    home = partition_for(key, s.topic.partitions)
    part = 0.0 if old == new else moved(old, new, home)
    if new is None:
        return Cost("order per key is kept", 1, part)
    kept = "order per key is kept" if is_whole(new) else order(new.by)
    trusted = "; its dimensions are taken on trust, as metrics.sampling is off"
    said = kept + (trusted if new.by and not s.spec.metrics.sampling else "")
    return Cost(said, len({shard.partition for shard in new.shards}), part)


def is_whole(route: Route) -> bool:
    """Whether the route moves its key as it is, in one shard."""
    return len(route.shards) == 1 and not route.by


def _rejected(s: Situation, key: bytes, route: Route | None) -> tuple[Rejected, ...]:
    """The coarser rungs, an even spread, and to be a plain key, which is what costs least."""
    if route is None:
        return ()
    if s.table.route(key) is None and s.long_hot:
        why = f"{heat(s, s.long_hot[0])}"
        return (*_coarser(s, key, route), Rejected("leave it plain", Reason.HOLDING, why))
    if (home := cooling.at_home(s, route)) is None or key in s.memory.cool_since:
        return _coarser(s, key, route)
    back = f"partition {partition_for(key, s.topic.partitions)} would take {home:,.0f} records/s"
    return (*_coarser(s, key, route), Rejected("merge it back", Reason.HOLDING, back))


def _coarser(s: Situation, key: bytes, route: Route) -> tuple[Rejected, ...]:
    load = s.keys.get(key)
    if load is None or is_whole(route):
        return ()
    stop = ladder.unsplit(s, load, route.by)
    evenly = (Rejected("spread it evenly", stop.reason, stop.message),) if stop else ()
    return (*ladder.too_coarse(s, load, route.by), *evenly)


def _noted(s: Situation, route: Route) -> Stop | None:
    """What more there is to say of a routed key than that it is held."""
    load = s.keys.get(route.key)
    if load is not None and not s.is_settling(route.key) and s.is_partly_adopted(route.key):
        where = max(load.stray, key=lambda p: (load.stray[p], -p))
        part = percent(1 - load.follows / load.total)
        why = f"{part} of it does not follow the table, most of that on partition {where}: it comes from "
        return Stop(Reason.PARTIAL_ADOPTION, f"{why}producers without the SDK, or that do not reach Redis")
    times = s.flaps(route.key)
    if times and s.is_lately_changed(route.key):
        asked, needed = s.spec.release.for_seconds, s.release_seconds(route.key)
        why = f"it went back and forth {count(times, 'time')} lately: it goes back after {needed:g} s of cool"
        return Stop(Reason.FLAPPING, f"{why}, not after {asked:g} s")
    if load is not None and s.hot and not is_whole(route):
        return ladder.unsplit(s, load, route.by)
    return None
