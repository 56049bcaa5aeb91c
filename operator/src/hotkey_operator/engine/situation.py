"""One turn's view of the stream: what was seen, with all that guards and planner ask of it worked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hotkey_operator.engine import estimates, rates, sizes
from hotkey_operator.engine.flapping import release_seconds
from hotkey_operator.engine.heavy import KeyLoad, key_loads
from hotkey_operator.engine.memory import CHANGED_SECONDS, MIXED_SECONDS, Memory
from hotkey_operator.engine.model import Sizes, TopicFacts
from hotkey_operator.engine.pressure import HEAVY, Load, only_in_bytes, over
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.spec import Ordering, PolicySpec
from hotkey_sdk.routing.table import Route, Table

SETTLE_SECONDS = 4.0  # clients poll once a second; two more turns show the effect in the rates
ADOPTED_SECONDS = 12.0  # clients poll, samples reach ten seconds back: then who has not followed will not
STRAY_AT_LEAST = 0.05  # of a routed key's load that does not follow: less is not worth a word
TURN_SECONDS = 0.25  # by how much a turn may come early and still count as a second later


@dataclass(frozen=True, slots=True)
class Situation:
    """`now`: fast rates, for the trigger. `steadied`: the best guess of the rates, to plan with; both None
    while nothing is measured. `hot`: partitions over the trigger, the hottest first. `keys`: what each
    sampled key carries, in the planning unit, which is bytes where only bytes are too many.
    `borne_out`: `steadied` has only such differences as seconds of counting bear out."""

    spec: PolicySpec
    at: float
    topic: TopicFacts
    table: Table
    memory: Memory
    now: Load | None
    steadied: Load | None
    hot: tuple[int, ...]
    by_bytes: bool
    keys: Mapping[bytes, KeyLoad]
    borne_out: bool = False
    aside: frozenset[bytes] = frozenset()  # keys with a topic of their own: nothing is planned for them here
    elsewhere: tuple[Route, ...] = ()  # their routes, for which a table must have room too

    @classmethod
    def of(cls, spec: PolicySpec, at: float, topic: TopicFacts, table: Table, memory: Memory) -> Situation:
        quick = rates.fast(memory.history)
        if quick is None or len(quick) != topic.partitions:
            return cls(spec, at, topic, table, memory, None, None, (), False, {})
        now = Load.of(quick, memory.evidence, sizes.growth(memory.log_sizes, sizes.FAST_SECONDS))
        slow = estimates.steady(memory.history, _steady_since(memory, at)) or quick
        steadied = Load.of(slow, memory.evidence, sizes.growth(memory.log_sizes, sizes.SLOW_SECONDS))
        hot = over(spec.trigger, now, memory.lagging(at))
        by_bytes = only_in_bytes(spec.trigger, now, hot)
        routes = {route.key: route for route in table.routes}
        keys = key_loads(memory.fresh_evidence(at), steadied.unit(by_bytes), by_bytes, routes)
        since = {partition: memory.over_since.get(partition, at) for partition in hot}
        memory = replace(memory, over_since=since)
        return cls(spec, at, topic, table, memory, now, steadied, hot, by_bytes, keys)

    def surely(self) -> Situation | None:
        """The same with only those differences between partitions that the last seconds bear out.

        None while they are too few since the last change of routes.
        """
        since = max(_steady_since(self.memory, self.at), self.at - rates.STEADY_SECONDS)
        found = estimates.parts(self.memory.history, since)
        if found is None or self.steadied is None:
            return None
        total = sum(self.steadied.records)
        records = tuple(part * total for part in found.believed())
        steadied = Load.of(
            records, self.memory.evidence, sizes.growth(self.memory.log_sizes, sizes.SLOW_SECONDS)
        )
        routes = {route.key: route for route in self.table.routes}
        loads = steadied.unit(self.by_bytes)
        keys = key_loads(self.memory.fresh_evidence(self.at), loads, self.by_bytes, routes)
        return replace(self, steadied=steadied, keys=keys, borne_out=True)

    @property
    def loads(self) -> tuple[float, ...]:
        """The load of each partition to plan with, in the planning unit."""
        return self.steadied.unit(self.by_bytes) if self.steadied else (0.0,) * self.topic.partitions

    @property
    def mean(self) -> float:
        """The load of a mean partition, in the planning unit."""
        return sum(self.loads) / len(self.loads)

    def mean_size(self) -> float:
        """The planning unit's worth of one record: 1, or bytes where bytes are planned."""
        records = sum(self.steadied.records) if self.steadied else 0.0
        return sum(self.loads) / records if records > 0 else 1.0

    def record_bytes(self) -> float:
        """The mean size of a record: of those in the logs where known, else of those sampled."""
        load = self.steadied
        if load is not None and load.sizes is Sizes.LOG_SIZE and load.bytes and any(load.records):
            return sum(load.bytes) / sum(load.records)
        found = [seen.mean_bytes for seen in self.memory.evidence.values()]
        return sum(found) / len(found) if found else 0.0

    @property
    def long_hot(self) -> tuple[int, ...]:
        """The partitions that have been over the trigger for `trigger.for`."""
        needed = self.spec.trigger.for_seconds - TURN_SECONDS
        return tuple(p for p in self.hot if self.at - self.memory.over_since[p] >= needed)

    def is_settling(self, key: bytes) -> bool:
        """Whether the effect of the key's last change cannot be visible yet.

        Where rates come from scrapes, the last one may well be from before the change.
        """
        changed = self.memory.changed_at.get(key, float("-inf"))
        if within(self.at, changed, SETTLE_SECONDS):
            return True
        return (
            within(self.at, changed, CHANGED_SECONDS)
            and _measured_since(self.memory) < changed + MIXED_SECONDS
        )

    def is_lately_changed(self, key: bytes) -> bool:
        return within(self.at, self.memory.changed_at.get(key, float("-inf")), CHANGED_SECONDS)

    def is_partly_adopted(self, key: bytes) -> bool:
        """Whether some of a routed key surely does not follow its route."""
        load = self.keys.get(key)
        return load is not None and sum(load.stray.values()) >= STRAY_AT_LEAST * load.total > 0

    def is_being_adopted(self, key: bytes) -> bool:
        """Whether what does not follow the key's route may still be on its way to it."""
        changed = self.memory.changed_at.get(key, float("-inf"))
        return within(self.at, changed, ADOPTED_SECONDS) and self.is_partly_adopted(key)

    def flaps(self, key: bytes) -> int:
        """How often the key went back and forth lately."""
        flap = self.memory.flaps.get(key)
        return flap.still(self.at) if flap else 0

    def release_seconds(self, key: bytes) -> float:
        """How long the key must be cool before it goes back."""
        return release_seconds(self.spec.release.for_seconds, self.memory.flaps.get(key), self.at)

    def heavy(self) -> list[KeyLoad]:
        """Plain keys on hot partitions that surely carry enough to be worth a route, the biggest first."""
        enough = HEAVY * self.mean
        return [key for key in self._plain_on_hot() if key.surely >= enough]

    def perhaps_heavy(self) -> list[KeyLoad]:
        """Those of which the sample does not say yet."""
        enough = HEAVY * self.mean
        return [key for key in self._plain_on_hot() if key.surely < enough <= key.at_most]

    def _plain_on_hot(self) -> list[KeyLoad]:
        hot = set(self.long_hot)
        plain = [
            key
            for key in self.keys.values()
            if key.key not in self.aside and self.table.route(key.key) is None
        ]
        on_hot = [key for key in plain if any(load > 0 and p in hot for p, load in key.on.items())]
        return sorted(on_hot, key=lambda key: (-key.total, key.key))

    def must_replan(self) -> str | None:
        """Why the routes cannot stay as they are, whatever the load; None when they can."""
        routes, limits = self.table.routes, self.spec.limits
        if routes and self.table.partitions != self.topic.partitions:
            return f"the topic has {self.topic.partitions} partitions now, {self.table.partitions} before"
        if any(not self.allows(route) for route in routes):
            return "the policy's spread changed"
        if len(routes) > limits.max_hot_keys or any(
            len(r.shards) > limits.max_shards_per_key for r in routes
        ):
            return "the policy's limits changed"
        return None

    def allows(self, route: Route) -> bool:
        """Whether the policy's `spread` still asks for such a route."""
        spread = self.spec.spread
        if spread.ordering is Ordering.PER_KEY or route.record_key is not spread.record_key:
            return False
        if not route.by and len(route.shards) == 1:
            return True  # it was moved, not spread: its order is kept
        return route.by in (spread.by or ((),))

    def is_rate_limited(self) -> bool:
        return len(self.memory.changes) >= self.spec.limits.changes_per_minute


def _measured_since(memory: Memory) -> float:
    """The begin of the newest time that a fast rate was measured over."""
    columns = {id(column.times): column for column in memory.history.columns}.values()
    starts = [(column.times, column.start(rates.FAST_SECONDS)) for column in columns]
    return max((times[start] for times, start in starts if start is not None), default=float("-inf"))


def _steady_since(memory: Memory, at: float) -> float:
    """Readings from before the last change of routes say nothing of the loads of now."""
    recent = [since for since in memory.changed_at.values() if within(at, since, CHANGED_SECONDS)]
    return max(recent) + MIXED_SECONDS if recent else float("-inf")
