"""Carries keys through their dedicated topics: one turn's observation to the table that must stand next.

It applies the transitions of `dedicated.py` to every topic of the table, gives keys that need a topic (as
`own_topic.py` says) an idle one or a new name, and keeps the read set above all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from hotkey_operator.engine import own_topic
from hotkey_operator.engine.dedicated import (
    Blocked,
    Effect,
    Event,
    Known,
    like,
    move,
    readers,
    registered,
    weaker,
)
from hotkey_operator.engine.model import (
    Action,
    CreateTopic,
    DedicatedSeen,
    Observation,
    TopicConfig,
    TopicSeen,
)
from hotkey_operator.engine.own_topic import Want
from hotkey_operator.engine.placement import Ground, HotKey, in_table_order, plan
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.topic_memory import STRANGE_SECONDS, TopicMemory
from hotkey_operator.engine.truth import next_epoch
from hotkey_operator.engine.wording import count, name
from hotkey_sdk.routing.codec import TableError, encode
from hotkey_sdk.routing.names import dedicated_name, dedicated_prefix
from hotkey_sdk.routing.table import DedicatedTopic, Phase, RecordKey, Route, Shard, Table

NOTHING_SEEN = DedicatedSeen()
STRANGERS_TOLD = 3
_IN_USE = frozenset({Phase.PREPARE, Phase.ACTIVE, Phase.RETURN})


@dataclass(frozen=True, slots=True)
class Note:
    """What is told of dedicated topics; `key` None: of no key. `change`: a phase changed."""

    reason: Reason
    message: str
    key: bytes | None = None
    change: bool = False


@dataclass(frozen=True, slots=True)
class Dedication:
    """The table with its dedicated topics one step on, what is to be made, and what is to be told.

    `blocked`: what keeps keys from topics of their own, for the condition.
    """

    table: Table
    memory: TopicMemory
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()
    blocked: tuple[Note, ...] = ()


def base_view(table: Table) -> Table:
    """The table as the planner of the base topic sees it: without the routes to other topics."""
    routes = tuple(route for route in table.routes if route.topic == table.stream.topic)
    return table if routes == table.routes else msgspec.structs.replace(table, routes=routes)


def aside(table: Table) -> frozenset[bytes]:
    """The keys that the planner of the base topic leaves alone: their records go elsewhere."""
    return frozenset(route.key for route in table.routes if route.topic != table.stream.topic)


def dedicate(
    s: Situation, observation: Observation, table: Table, wanted: Sequence[Want], memory: TopicMemory
) -> Dedication:
    """One step of every topic of `table`, which holds the base topic's routes as they shall stand."""
    if s.spec.suspend:
        return Dedication(table, memory)
    step = _Step(s, observation, table, wanted, memory)
    step.advance()
    step.assign()
    step.stock()
    return step.done()


@dataclass(slots=True)
class _Step:
    """One turn's step of all topics; `topics` and `routes` are what stands after it."""

    s: Situation
    observation: Observation
    table: Table
    wanted: Sequence[Want]
    memory: TopicMemory
    topics: list[DedicatedTopic] = field(default_factory=list)
    routes: dict[bytes, Route] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    blocked: list[Note] = field(default_factory=list)
    named: bool = False  # a name was given this turn: there is one for each epoch
    claims: dict[str, Want] = field(default_factory=dict)  # idle topics that a key takes, by name
    strange: dict[str, float] = field(default_factory=dict)

    @property
    def seen(self) -> DedicatedSeen:
        return self.observation.dedicated or NOTHING_SEEN

    def advance(self) -> None:
        """Every topic by its transition."""
        self.routes = {route.key: route for route in self.table.routes}
        self.claims = self._claimed()
        for topic in self.table.topics:
            known = self._known(topic)
            seen, moves = move(topic, known)
            if seen is Event.STRANGE and not topic.topic_id and self._may_be_anothers(topic):
                seen, moves = Event.UNSEEN, replace(moves, to=topic.phase)
            if seen is Event.READY and not self._activate(topic):
                moves = replace(moves, to=topic.phase)
            if moves.effect is Effect.CREATE:
                self._make(topic)
            self._tell(topic, seen, moves.to, known)
            if topic.phase is Phase.ACTIVE and moves.to is not Phase.ACTIVE:
                self._give_back(topic)
            if moves.to is None:
                continue
            topic_id = known.made if moves.effect is Effect.RECORD else topic.topic_id
            key = self.claims[topic.name].key if seen is Event.CLAIMED else topic.key
            self.topics.append(msgspec.structs.replace(topic, phase=moves.to, topic_id=topic_id, key=key))

    def assign(self) -> None:
        """A new name for the first key that needs a topic and has none, where no idle one fits it."""
        want = self._next()
        if want is None or self.claims or not self._has_room(want):
            return
        fresh = self._named(want.partitions, want.key)
        less = "; limits.maxDedicatedPartitions allows no more" if want.capped else ""
        size = f"{fresh.name} with {count(want.partitions, 'partition')}{less}"
        self._note(Reason.PREPARING, f"{want.why}; topic {size} is prepared", want.key)

    def _next(self) -> Want | None:
        """The biggest key that needs a topic and is not on its way into or out of one."""
        busy = {topic.key for topic in self.table.topics if topic.phase in _IN_USE}
        return next((want for want in self.wanted if want.key not in busy), None)

    def _claimed(self) -> dict[str, Want]:
        want = self._next()
        idle = self._idle_for(want) if want is not None else None
        return {idle.name: want} if want is not None and idle is not None else {}

    def stock(self) -> None:
        """A warm topic where fewer are ready than the policy asks for."""
        spec = self.s.spec
        ready = sum(topic.phase is Phase.IDLE or topic.key is None for topic in self.topics)
        if not spec.dedicated.enabled or not spec.acts or ready >= spec.dedicated.warm or self.named:
            return
        if self.s.topic.compacted or self._count() >= spec.limits.max_dedicated_topics:
            return
        one = spec.spread.ordering is Ordering.PER_KEY
        size = 1 if one else spec.dedicated.partitions or self.s.topic.partitions
        self._named(min(size, spec.limits.max_dedicated_partitions), None)

    def done(self) -> Dedication:
        memory = replace(self.memory, strange_since=self.strange)
        table = msgspec.structs.replace(
            self.table,
            topics=tuple(self.topics),
            routes=in_table_order(self.routes.values()),
            read_set=self._read_set(),
        )
        return Dedication(table, memory, tuple(self.actions), tuple(self.notes), tuple(self.blocked))

    def _known(self, topic: DedicatedTopic) -> Known:
        at, seen = self.observation.at, self.seen
        answered = topic.name in seen.topics
        found = seen.topics.get(topic.name)
        if found is None and topic.phase is Phase.PREPARE and self.memory.is_settling(topic.name, at):
            answered = False
        keeps = own_topic.still_wanted(self.s, topic.key, self.memory)
        blocked = self._blocked(topic) if keeps and topic.phase is Phase.PREPARE and found else None
        return Known(
            answered=answered,
            seen=found,
            made=self.memory.made_id(topic.name),
            weaker=self._weaker(found, topic.partitions),
            wanted=keeps,
            claimed=topic.name in self.claims,
            read=blocked is None and keeps and self._is_published(topic),
            quiet=self.memory.is_quiet(topic.name) and self._is_published(topic),
        )

    def _blocked(self, topic: DedicatedTopic) -> Blocked | None:
        groups = registered(self.s.spec, self.observation.reports, self.observation.at)
        return readers(topic, self.seen, groups, self.s.spec.ignored_groups)

    def _is_published(self, topic: DedicatedTopic) -> bool:
        """Whether clients find the table that stands, and it has the topic in this very phase."""
        stored, published = self.observation.stored, self.observation.published.table
        return (
            stored is not None and stored.table == published and stored.table.dedicated(topic.name) == topic
        )

    def _weaker(self, found: TopicSeen | None, partitions: int) -> tuple[str, ...]:
        needed = self._needed(partitions)
        return weaker(found.config, needed) if found is not None and needed is not None else ()

    def _needed(self, partitions: int) -> TopicConfig | None:
        base = self.seen.base
        return like(base, self.s.topic.partitions, partitions) if base is not None else None

    def _may_be_anothers(self, topic: DedicatedTopic) -> bool:
        """Whether another operator may have made the topic just now, and be about to record it."""
        since = self.memory.strange_since.get(topic.name, self.observation.at)
        self.strange[topic.name] = since
        return within(self.observation.at, since, STRANGE_SECONDS)

    def _activate(self, topic: DedicatedTopic) -> bool:
        """Point the key's route at the topic; False where a table cannot hold it."""
        assert topic.key is not None
        route = own_route(self.s, topic, self.table.route(topic.key))
        active = msgspec.structs.replace(topic, phase=Phase.ACTIVE)
        topics = tuple(active if each.name == topic.name else each for each in self.table.topics)
        routes = in_table_order({**self.routes, topic.key: route}.values())
        try:
            encode(msgspec.structs.replace(self.table, topics=topics, routes=routes))
        except TableError as error:
            self._block(Reason.TOO_MANY_HOT_KEYS, f"key {name(topic.key)} stays as it is: {error}", topic.key)
            return False
        self.routes[topic.key] = route
        return True

    def _give_back(self, topic: DedicatedTopic) -> None:
        self.routes = {key: route for key, route in self.routes.items() if route.topic != topic.name}

    def _make(self, topic: DedicatedTopic) -> None:
        """Make the topic, once the object lists it, after a pause where that failed."""
        stored, config = self.observation.stored, self._needed(topic.partitions)
        listed = stored is not None and stored.table.dedicated(topic.name) == topic
        if listed and config is not None and self.memory.may_try(topic.name, self.observation.at):
            self.actions.append(CreateTopic(topic.name, topic.partitions, config))

    def _idle_for(self, want: Want) -> DedicatedTopic | None:
        """The smallest idle topic that is big enough, and exactly as big where the order asks for it."""
        exactly = self.s.spec.spread.ordering is Ordering.PER_KEY
        fits = [
            topic
            for topic in self.table.topics
            if topic.phase is Phase.IDLE
            and (topic.partitions == want.partitions if exactly else topic.partitions >= want.partitions)
            and (found := self.seen.topics.get(topic.name)) is not None
            and not self._weaker(found, topic.partitions)
        ]
        return min(fits, key=lambda topic: (topic.partitions, topic.name), default=None)

    def _has_room(self, want: Want) -> bool:
        limit, used = self.s.spec.limits.max_dedicated_topics, self._count()
        if used >= limit:
            many = f"limits.maxDedicatedTopics is {limit}, and none of the {used} is free and big enough"
            self._block(Reason.TOO_MANY_DEDICATED_TOPICS, f"{want.why}; {many}", want.key)
        return used < limit and not self.named

    def _count(self) -> int:
        """Topics that are listed, and those that are only named like them: all of them are there."""
        listed = {topic.name for topic in self.topics}
        return len(listed | set(self.memory.alike))

    def _named(self, partitions: int, key: bytes | None) -> DedicatedTopic:
        self.named = True
        fresh = dedicated_name(
            self.table.stream.topic, self.observation.policy_uid, next_epoch(self.observation)
        )
        topic = DedicatedTopic(fresh, partitions, Phase.PREPARE, key=key)
        self.topics.append(topic)
        return topic

    def _read_set(self) -> tuple[str, ...]:
        """All that was read before and may exist, all that is listed, and what is only named like it."""
        base = self.table.stream.topic
        listed = [topic.name for topic in self.topics]
        alike = [each for each in self.memory.alike if each.startswith(dedicated_prefix(base))]
        names = dict.fromkeys((base, *self.table.read_set, *listed, *alike))
        gone = self._gone() - set(listed)
        return tuple(each for each in names if each not in gone)

    def _gone(self) -> set[str]:
        """Names that are in no phase and, as just listed, of no topic: nobody can ever write to them."""
        seen = self.seen
        if seen.alike is None or self.observation.stored is None:
            return set()
        prefix = dedicated_prefix(self.table.stream.topic)
        before = {each for each in self.observation.stored.table.read_set if each.startswith(prefix)}
        used = {topic.name for topic in self.observation.stored.table.topics}
        return before - used - set(seen.alike)

    def _note(self, reason: Reason, message: str, key: bytes | None) -> None:
        self.notes.append(Note(reason, message, key, change=True))

    def _block(self, reason: Reason, message: str, key: bytes | None) -> None:
        self.blocked.append(Note(reason, message, key))

    def _tell(self, topic: DedicatedTopic, seen: Event, to: Phase | None, known: Known) -> None:
        key, where = topic.key, f"topic {topic.name}"
        if seen is Event.CLAIMED:
            want = self.claims[topic.name]
            self._note(Reason.PREPARING, f"{want.why}; it takes the idle {where}", want.key)
        if seen is Event.READY and to is Phase.ACTIVE and key is not None:
            shards = len(self.routes[key].shards)
            got = f"key {name(key)} has {where} of its own: {count(shards, 'shard')}, read by every group"
            self._note(Reason.DEDICATED, got, key)
        elif topic.phase is Phase.ACTIVE and to is not Phase.ACTIVE:
            reason, why = _why_back(seen, known, where)
            self._note(reason, f"key {name(key or b'')} goes back to the base topic: {why}", key)
        elif seen is Event.OURS and topic.phase is Phase.PREPARE:
            blocked = self._blocked(topic)
            if blocked is not None:
                self._block(blocked.reason, blocked.message, key)
        elif seen is Event.ABSENT and (failure := self.memory.failures.get(topic.name)) is not None:
            tries = count(failure.times, "attempt")
            self._block(failure.reason, f"{where} cannot be made ({tries}): {failure.problem}", key)
        elif seen is Event.WEAKER:
            self._block(Reason.WEAKER_THAN_BASE, f"{where} is not written: {'; '.join(known.weaker)}", key)
        elif to is None and seen in (Event.STRANGE, Event.GONE):
            what = "does not exist any more" if seen is Event.GONE else "was made by somebody else"
            self._note(Reason.TOPIC_REPLACED, f"{where} {what}: it is not written again", key)


def strangers(table: Table, alike: Sequence[str]) -> Note | None:
    """The topics that are named like ours and in no phase; they are read, and a person should look."""
    listed = {topic.name for topic in table.topics}
    found = sorted(each for each in alike if each not in listed)
    if not found:
        return None
    shown = ", ".join(found[:STRANGERS_TOLD])
    more = f" and {len(found) - STRANGERS_TOLD} more" if len(found) > STRANGERS_TOLD else ""
    return Note(
        Reason.UNLISTED_TOPIC,
        f"{shown}{more}: named like a dedicated topic of this stream and in no table, so it is read and "
        "never written; delete it once it is empty",
    )


def _why_back(seen: Event, known: Known, where: str) -> tuple[Reason, str]:
    match seen:
        case Event.GONE:
            return Reason.TOPIC_REPLACED, f"{where} does not exist any more"
        case Event.STRANGE:
            return Reason.TOPIC_REPLACED, f"{where} was made anew by somebody else"
        case Event.WEAKER:
            return Reason.WEAKER_THAN_BASE, f"{where}: {'; '.join(known.weaker)}"
    return Reason.RETURNED_TO_BASE, "it needs no topic of its own any more"


def own_route(s: Situation, topic: DedicatedTopic, before: Route | None) -> Route:
    """The route of a key over all of its own topic, by the dimensions that it was spread by before."""
    assert topic.key is not None
    if s.spec.spread.ordering is Ordering.PER_KEY:
        return Route(topic.key, topic.name, (), RecordKey.PRESERVE, (Shard(0, 0),), (0,))
    by = before.by if before is not None else (s.spec.spread.by or ((),))[0]
    ground = Ground(
        background=(0.0,) * topic.partitions,
        topic=topic.name,
        seed=s.table.seed,
        record_key=s.spec.spread.record_key,
        max_shards=topic.partitions,
    )
    load = s.keys[topic.key].total if topic.key in s.keys else 0.0
    (route,) = plan(ground, [HotKey(topic.key, max(load, 1.0), by)]).routes
    return route
