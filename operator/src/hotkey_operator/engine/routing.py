"""What becomes of the stream's routes this turn: planned anew, spread, merged back, or left as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from hotkey_operator.engine import ladder, middling
from hotkey_operator.engine.background import believed
from hotkey_operator.engine.cooling import coarsened, merged_back
from hotkey_operator.engine.costs import accounted, is_whole
from hotkey_operator.engine.guards import Stop, first_stop, without_evidence
from hotkey_operator.engine.heavy import KeyLoad, weights
from hotkey_operator.engine.ladder import Step
from hotkey_operator.engine.model import Cost, Rejected
from hotkey_operator.engine.placement import (
    SLOT_LOAD,
    TARGET,
    Ground,
    HotKey,
    Plan,
    in_table_order,
    loads_now,
    plan,
)
from hotkey_operator.engine.pressure import HEAVY
from hotkey_operator.engine.rates import STEADY_SECONDS
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.shards import record_keys
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.wording import count, heat, name, names, part_of, percent, spread
from hotkey_sdk.routing.codec import TableError, encode
from hotkey_sdk.routing.table import Route

FOLLOWED = 0.7  # of the hottest partition's load must be what the table puts there
STRAYED = 0.1  # of a hot partition's load: so much does not follow the table, and is told
WORTH = 0.05  # of the hottest partition's load: a plan that gains less is not worth a change
UNRELIEVED = frozenset(  # a partition stays hot: perhaps the smaller keys on it can go
    {
        Reason.NO_DOMINANT_KEY,
        Reason.HOLDING,
        Reason.CANNOT_SPREAD,
        Reason.DIMENSIONS_NOT_VISIBLE,
        Reason.KEY_TOO_LONG,
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The routes that shall stand, and why. `refused`: heavy keys without one; `merged`: those taken back.

    Of each key that is routed, refused or taken back: `costs`, what standing as decided takes; `rejected`,
    what was not done instead and why; `noted`, more than that it is held, such as PartialAdoption.
    """

    reason: Reason
    message: str
    routes: tuple[Route, ...]
    refused: dict[bytes, Stop] = field(default_factory=dict)
    merged: tuple[Route, ...] = ()
    costs: dict[bytes, Cost] = field(default_factory=dict)
    rejected: dict[bytes, tuple[Rejected, ...]] = field(default_factory=dict)
    noted: dict[bytes, Stop] = field(default_factory=dict)


def route(s: Situation) -> Outcome:
    """The outcome for the stream's routes: first what must change, then heat, then what has cooled."""
    return accounted(s, _decided(s))


def _decided(s: Situation) -> Outcome:
    why = None if s.spec.suspend else s.must_replan()
    if why is not None:
        return _replanned(s, why)
    merged = merged_back(s)
    kept = tuple(route for route in s.table.routes if route not in merged)
    stop = first_stop(s)
    outcome = _spread(s, kept) if stop is None else Outcome(stop.reason, stop.message, kept)
    if outcome.reason in UNRELIEVED:
        moved = _moved(s, kept)
        outcome = replace(moved, refused=outcome.refused) if moved else outcome
    if outcome.routes == kept and not merged:
        outcome = _coarsened(s, kept) or outcome
    if not merged:
        return outcome
    if outcome.routes == kept:
        back = f"{names([route.key for route in merged])} cooled and went back to plain keys"
        outcome = replace(outcome, reason=Reason.MERGED_BACK, message=back)
    return replace(outcome, merged=merged)


def _moved(s: Situation, kept: tuple[Route, ...]) -> Outcome | None:
    """Where no key dominates or can be spread: move the biggest others, one shard each, if that is enough."""
    if s.is_rate_limited() or s.spec.spread.ordering is Ordering.PER_KEY:
        return None
    found = middling.chosen(s, s.spec.limits.max_hot_keys - len(kept))
    if not found:
        return None
    planned = _plan(s, [_whole(s, load) for load in found], kept)
    routes = in_table_order((*kept, *planned.routes))
    keys = {load.key for load in found}
    if not _relieves(s, planned, found) or _within_size(s, routes, keys)[0] != routes:
        return None
    biggest = names([load.key for load in found])
    what = f"its {count(len(found), 'biggest key is', 'biggest keys are')} moved as a whole: {biggest}"
    return Outcome(
        Reason.SPREAD, f"{heat(s, s.long_hot[0])} and no key that could be spread dominates; {what}", routes
    )


def _relieves(s: Situation, planned: Plan, moved: Sequence[KeyLoad]) -> bool:
    """Whether the partitions that keys are moved off reach the goal, and no other one leaves it."""
    goal, relieved = middling.goal(s), {partition for load in moved for partition in load.on}
    return all(
        after <= (goal if partition in relieved else max(goal, before))
        for partition, (before, after) in enumerate(zip(planned.before, planned.loads, strict=True))
    )


def _coarsened(s: Situation, kept: tuple[Route, ...]) -> Outcome | None:
    """Keys whose records need no rung as fine as theirs any more go back to a coarser one."""
    due = [] if s.is_rate_limited() or s.spec.suspend else coarsened(s)
    if not due:
        return None
    back = {route.key: step for route, step in due}
    hot = [HotKey(key, s.keys[key].follows, step.by, None, None, step.values) for key, step in back.items()]
    planned = _plan(s, hot, [route for route in kept if route.key not in back])
    routes = in_table_order((*(route for route in kept if route.key not in back), *planned.routes))
    if (
        planned.worst > max((TARGET + SLOT_LOAD) * s.mean, *s.loads)
        or _within_size(s, routes, set())[0] is None
    ):
        return None
    steps = [f"{name(key)} to {' and '.join(step.by)}" for key, step in sorted(back.items())]
    message = f"values are small enough again for a coarser rung: {', '.join(steps[:3])}"
    return Outcome(Reason.RESPREAD, message, routes)


def _spread(s: Situation, kept: tuple[Route, ...]) -> Outcome:
    """Plan the heavy keys together with the routed ones, and take the plan if it is worth a change."""
    waiting = {each.key for each in kept if s.is_settling(each.key) or s.is_being_adopted(each.key)}
    moving = [each for each in kept if each.key not in waiting and each.key in s.keys]
    still = [each for each in kept if each not in moving]
    new, refused = _admitted(s, [load for load in s.heavy() if not s.is_settling(load.key)], len(kept))
    sure = s if new else s.surely()
    if sure is None:
        return _nothing_gained(s, kept, new, refused)
    planned = _plan(sure, [*new, *(_routed(sure, each) for each in moving)], still)
    routes = in_table_order((*still, *planned.routes))
    if routes == kept or not _is_worth_it(sure, planned, new):
        return _nothing_gained(s, kept, new, refused)
    fitting, too_big = _within_size(s, routes, {each.key for each in new})
    refused |= too_big
    if fitting is None:
        full = f"{heat(s, s.long_hot[0])}; the routes stand: a table cannot hold others"
        return Outcome(Reason.HOLDING, full, kept, refused)
    spread_now = [each for each in new if any(route.key == each.key for route in fitting)]
    if not spread_now:
        return Outcome(Reason.RESPREAD, _respread_message(s, planned), fitting, refused)
    return Outcome(Reason.SPREAD, _spread_message(s, spread_now, fitting, planned), fitting, refused)


def _admitted(s: Situation, heavy: Sequence[KeyLoad], routed: int) -> tuple[list[HotKey], dict[bytes, Stop]]:
    """The heavy keys that get a rung and a place within the limit, the biggest first; the others and why."""
    admitted: list[HotKey] = []
    refused: dict[bytes, Stop] = {}
    limit = s.spec.limits.max_hot_keys
    for load in heavy:
        step = Step(()) if _stays_whole(s, load) else ladder.choose(s, load)
        if isinstance(step, Stop):
            refused[load.key] = step
        elif routed + len(admitted) >= limit:
            refused[load.key] = Stop(
                Reason.TOO_MANY_HOT_KEYS,
                f"key {name(load.key)} is left plain: limits.maxHotKeys is {limit} and bigger keys have them",
            )
        else:
            admitted.append(
                _whole(s, load)
                if _stays_whole(s, load)
                else HotKey(load.key, load.follows, step.by, None, _seen_on(load), step.values)
            )
    return admitted, refused


def _seen_on(load: KeyLoad) -> int | None:
    """The partition that carries most of a plain key."""
    return max(load.on, key=lambda p: (load.on[p], -p), default=None)


def _stays_whole(s: Situation, load: KeyLoad) -> bool:
    """Whether a key was moved as a whole and is not big enough to be spread."""
    route = s.table.route(load.key)
    return route is not None and is_whole(route) and load.surely < HEAVY * s.mean


def _whole(s: Situation, load: KeyLoad) -> HotKey:
    route = s.table.route(load.key)
    home = _seen_on(load) if route is None else None
    return HotKey(load.key, load.follows, (), route, home, whole=True)


def _routed(s: Situation, route: Route) -> HotKey:
    """A spread key to be placed again; a finer rung only where its own has become too coarse."""
    load = s.keys[route.key]
    if _stays_whole(s, load):
        return _whole(s, load)
    step = ladder.choose(s, load)
    if isinstance(step, Stop):
        return HotKey(route.key, load.follows, route.by, route)
    before = ladder.values_of(s, load, route.by) if step.by != route.by else ()
    return HotKey(route.key, load.follows, step.by, route, None, step.values, values_before=before)


def _plan(s: Situation, hot: Sequence[HotKey], still: Sequence[Route]) -> Plan:
    """Place the keys over what the partitions carry without them."""
    background, hot = _apart(s, hot)
    return plan(
        Ground(
            background=tuple(max(0.0, load) for load in background),
            topic=s.table.stream.topic,
            seed=s.table.seed,
            record_key=s.spec.spread.record_key,
            max_shards=s.spec.limits.max_shards_per_key,
            taken=s.memory.natural_keys
            | frozenset(record_keys(still))
            | frozenset(key for key in s.keys if b":" in key)
            | frozenset(each.key for each in still),
        ),
        hot,
    )


def _apart(s: Situation, hot: Sequence[HotKey]) -> tuple[list[float], list[HotKey]]:
    """What the partitions carry without the keys, and the keys with what their home then leaves for them."""
    background = list(s.loads)
    for key in hot:
        for partition, load in _carried(s, key).items():
            background[partition] -= load
    giants = [key for key in hot if key.home is not None and not key.whole]
    homes = {key.home for key in giants if key.home is not None}
    by_key = {key.key: key for key in hot}
    for home in sorted(homes):
        there = sorted((key for key in giants if key.home == home), key=lambda key: (key.load, key.key))
        error = math.hypot(*(s.keys[key.key].error for key in there))
        rest = believed(background, home, error, homes)
        biggest = there[-1]
        by_key[biggest.key] = replace(biggest, load=max(0.0, biggest.load + background[home] - rest))
        background[home] = rest
    return background, list(by_key.values())


def _carried(s: Situation, hot: HotKey) -> dict[int, float]:
    """What a key puts on each partition now: as sampled, and by its slots where nothing was sampled.

    By its slots everywhere where loads are borne out: then a sample of one partition says less.

    What strays is none of it: it stays where it is whatever the table says, so it is background.
    """
    load, route = s.keys[hot.key], s.table.route(hot.key)
    if s.borne_out and route is not None and not is_whole(route):
        nothing = Ground((0.0,) * s.topic.partitions, s.table.stream.topic, s.table.seed)
        return dict(enumerate(loads_now(nothing, [replace(hot, load=load.follows, previous=route)])))
    carried = {partition: on - load.stray.get(partition, 0.0) for partition, on in load.on.items()}
    sampled = s.memory.fresh_evidence(s.at)
    for partition, weight in (weights(route) if route else {}).items():
        if partition not in sampled and partition < s.topic.partitions:
            carried[partition] = load.follows * weight
    return carried


def _is_worth_it(s: Situation, planned: Plan, new: Sequence[HotKey]) -> bool:
    """A key may be spread for the sum of what it takes off; planning again must relieve the hottest one.

    It is not worth a change where the partitions are much hotter than the table makes them: then records do
    not follow the table, and another table would not be followed either.
    """
    if new:
        return planned.relief >= WORTH
    return planned.gain >= WORTH and max(s.loads) * FOLLOWED <= max(planned.before)


def _nothing_gained(
    s: Situation, kept: tuple[Route, ...], new: Sequence[HotKey], refused: dict[bytes, Stop]
) -> Outcome:
    uneven = {each.key: ladder.unsplit(s, s.keys[each.key], each.by) for each in new}
    refused |= {key: stop for key, stop in uneven.items() if stop is not None}
    if refused:
        first = next(iter(refused.values()))
        return Outcome(first.reason, f"{heat(s, s.long_hot[0])}; {first.message}", kept, refused)
    if new:
        gain = f"{heat(s, s.long_hot[0])}; spreading {names([each.key for each in new])} would gain nothing"
        return Outcome(Reason.BALANCED, gain, kept)
    if any(s.is_being_adopted(each.key) for each in kept):
        not_yet = f"{heat(s, s.long_hot[0])}; the last change is not yet followed by every producer"
        return Outcome(Reason.SETTLING, not_yet, kept)
    if (stray := _strayed(s, kept)) is not None:
        return Outcome(Reason.PARTIAL_ADOPTION, stray, kept)
    if any(each.key in s.keys and s.keys[each.key].total > 0 for each in kept):
        holding = f"{heat(s, s.long_hot[0])}; the routes stand: other ones would not surely be better"
        return Outcome(Reason.HOLDING, holding, kept)
    if (blind := without_evidence(s)) is not None:
        return Outcome(blind.reason, blind.message, kept)
    no_key = f"{heat(s, s.long_hot[0])}, but no key of it is big enough to be worth a route"
    return Outcome(Reason.NO_DOMINANT_KEY, no_key, kept)


def _strayed(s: Situation, kept: tuple[Route, ...]) -> str | None:
    """What to tell where the hottest partition is hot for what does not follow the table."""
    hottest = s.long_hot[0]
    loads = [s.keys[each.key] for each in kept if each.key in s.keys]
    load = max(loads, key=lambda load: (load.stray.get(hottest, 0.0), load.key), default=None)
    if load is None or load.stray.get(hottest, 0.0) < STRAYED * s.loads[hottest]:
        return None
    part = f"{percent(1 - load.follows / load.total)} of key {name(load.key)} does not follow the table"
    return f"{heat(s, hottest)}; {part}: it comes from producers without the SDK, or that do not reach Redis"


def _replanned(s: Situation, why: str) -> Outcome:
    """Plan every route anew in one epoch; a key that carries nothing any more is a plain key again."""
    unknown = [each for each in s.table.routes if each.key not in s.keys]
    began = s.memory.history.began
    waited = began is not None and s.at - began >= STEADY_SECONDS
    if s.now is None or (unknown and not waited):
        return Outcome(Reason.WAITING, f"{why}; the routed keys are being measured", s.table.routes)
    repartitioned = s.table.partitions != s.topic.partitions
    known = [s.keys[each.key] for each in s.table.routes if each.key in s.keys]
    biggest_first = sorted(
        (load for load in known if load.total > 0), key=lambda load: (-load.total, load.key)
    )
    admitted, refused = _admitted(s, biggest_first, 0)
    if any(stop.reason is Reason.SAMPLING for stop in refused.values()):
        return Outcome(Reason.WAITING, f"{why}; the routed keys are being sampled", s.table.routes)
    hot = [_again(s, each, repartitioned) for each in admitted]
    planned = _plan(s, hot, ()).routes
    fitting, too_big = _within_size(s, planned, {each.key for each in planned})
    routes = fitting or ()
    merged = tuple(each for each in s.table.routes if all(each.key != r.key for r in routes))
    reason = Reason.REPARTITIONED if repartitioned else Reason.RESPREAD
    message = f"{why}; {count(len(routes), 'route')} planned anew"
    return Outcome(reason, message, routes, {**refused, **too_big}, merged)


def _again(s: Situation, hot: HotKey, repartitioned: bool) -> HotKey:
    """The key with what can be kept of its previous route: nothing where it is not allowed any more."""
    previous = s.table.route(hot.key)
    if repartitioned or previous is None or previous.by != hot.by:
        return replace(hot, previous=None, home=None)
    if len(previous.shards) > s.spec.limits.max_shards_per_key:
        return replace(hot, previous=None, home=None)
    kept = msgspec.structs.replace(previous, record_key=s.spec.spread.record_key)
    return replace(hot, previous=kept, home=None)


def _within_size(
    s: Situation, routes: tuple[Route, ...], droppable: set[bytes]
) -> tuple[tuple[Route, ...] | None, dict[bytes, Stop]]:
    """The routes that a table can hold: new ones with the longest slot maps are left out until it fits.

    None: it cannot even hold those that may not be left out.
    """
    dropped: dict[bytes, Stop] = {}
    while True:
        try:
            whole = in_table_order((*routes, *s.elsewhere))
            encode(msgspec.structs.replace(s.table, routes=whole, partitions=s.topic.partitions))
            return routes, dropped
        except TableError as error:
            left = [each for each in routes if each.key in droppable]
            if not left:
                return None, dropped
            last = max(left, key=lambda each: (len(each.key) + len(each.slots), each.key))
            routes = tuple(each for each in routes if each != last)
            why = f"key {name(last.key)} is left plain: {error}"
            dropped[last.key] = Stop(Reason.TOO_MANY_HOT_KEYS, why)


def _spread_message(s: Situation, new: Sequence[HotKey], routes: tuple[Route, ...], planned: Plan) -> str:
    partition = s.long_hot[0]
    first = max(new, key=lambda each: (each.load, each.key))
    placed = next(each for each in routes if each.key == first.key)
    others = [each.key for each in new if each.key != first.key]
    also = f"; also {names(others)}" if others else ""
    how = spread(placed) + _left_uneven(s, placed, planned) + also
    return f"{heat(s, partition)}; {part_of(s, first.key, first.home or 0)}; {how}"


def _left_uneven(s: Situation, placed: Route, planned: Plan) -> str:
    """`; u0 alone is 6.6 % of it ..., which leaves an imbalance of 2.77`, where a value cannot be split."""
    stop = ladder.unsplit(s, s.keys[placed.key], placed.by)
    return f"; {stop.message}, which leaves an imbalance of {planned.imbalance:.2f}" if stop else ""


def _respread_message(s: Situation, planned: Plan) -> str:
    less = f"planned anew, which takes {percent(planned.gain)} off the hottest partition"
    return f"{heat(s, s.long_hot[0])}; {less}"
