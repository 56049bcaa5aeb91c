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
    Move,
    like,
    move,
    readers,
    registered,
    weaker,
    why_back,
)
from hotkey_operator.engine.dedicated_values import Dedication, Note
from hotkey_operator.engine.model import (
    Action,
    CreateTopic,
    DedicatedSeen,
    Observation,
    TopicConfig,
    TopicSeen,
)
from hotkey_operator.engine.own_topic import Want, own_route
from hotkey_operator.engine.placement import in_table_order
from hotkey_operator.engine.read_set import READ_AT_MOST, gone, is_alike, read_set
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.topic_memory import SETTLING_SECONDS, STRANGE_SECONDS, TopicMemory
from hotkey_operator.engine.topic_readers import unread
from hotkey_operator.engine.truth import left_by, next_epoch
from hotkey_operator.engine.wording import count, name
from hotkey_sdk.routing.codec import TableError, encode
from hotkey_sdk.routing.names import dedicated_name
from hotkey_sdk.routing.table import DedicatedTopic, Phase, Route, Table

NOTHING_SEEN = DedicatedSeen()
LOST_AT_MOST = 16  # topics in no table, and no more are made
NAME_AT_MOST = 249  # characters, for Kafka
LEFT_SECONDS = 60.0  # after a topic was left, and who writes to it then is told
_IN_USE = frozenset({Phase.PREPARE, Phase.ACTIVE, Phase.RETURN})


def dedicate(
    s: Situation, observation: Observation, table: Table, wanted: Sequence[Want], memory: TopicMemory
) -> Dedication:
    """One step of every topic of `table`, which holds the base topic's routes as they shall stand.

    Where the policy is suspended or only watches nothing is made, taken or activated. What safety demands is
    done all the same: writes go back to base, and what may hold records is read.
    """
    acts = s.spec.acts and not s.spec.suspend
    step = _Step(s, observation, table, wanted if acts else (), memory)
    step.advance()
    if acts:
        step.admit()
        step.assign()
        step.stock()
    done = step.done()
    return done if acts or s.spec.suspend else replace(done, planned=tuple(wanted))


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
            if (
                moves.to is None
                and seen in (Event.STRANGE, Event.GONE)
                and self._may_be_mistaken(topic, seen)
            ):
                seen, moves = Event.UNSEEN, Move(topic.phase)
            if seen is Event.READY and not self._activate(topic):
                moves = Move(topic.phase)
            if moves.effect is Effect.CREATE:
                self._make(topic)
            self._tell(topic, seen, moves.to, known)
            if topic.phase is Phase.ACTIVE:
                (self._replan if moves.to is Phase.ACTIVE else self._give_back)(topic)
            if moves.to is None:
                continue
            topic_id = known.made if moves.effect is Effect.RECORD else topic.topic_id
            key = self.claims[topic.name].key if seen is Event.CLAIMED else topic.key
            self.topics.append(msgspec.structs.replace(topic, phase=moves.to, topic_id=topic_id, key=key))

    def admit(self) -> None:
        """Topics that are in no phase and that a person allows by name and id: they are idle ones of ours."""
        listed = {topic.name for topic in self.table.topics}
        for each, topic_id in sorted(self.s.spec.allowed_topics):
            found = self.seen.topics.get(each)
            if found is None or found.topic_id != topic_id or each in listed:
                continue
            if not is_alike(self.table.stream.topic, each):
                continue
            self.topics.append(DedicatedTopic(each, found.partitions, Phase.IDLE, topic_id))
            self._note(
                Reason.TOPIC_ALLOWED, f"topic {each} is allowed by an annotation: it is idle now", None
            )

    def assign(self) -> None:
        """A new name for the first key that needs a topic and has none, where no idle one fits it.

        Not while another one of it is on its way back, also where that is gone: it is forgotten soon.
        """
        returning = {topic.key for topic in self.table.topics if topic.phase is Phase.RETURN}
        may = (want for want in self.wanted if want.key not in returning and self._may_begin(want))
        want = next(may, None)
        if want is None or self.claims or self._is_limited(want.why, want.key) or not self._has_room(want):
            return
        fresh = self._named(want.partitions, want.key)
        less = "; limits.maxDedicatedPartitions allows no more" if want.capped else ""
        size = f"{fresh.name} with {count(want.partitions, 'partition')}{less}"
        self._note(Reason.PREPARING, f"{want.why}; topic {size} is prepared", want.key)

    def _next(self) -> Want | None:
        """The first key that needs a topic, is not on its way into or out of one and has none as big."""
        return next((want for want in self.wanted if self._may_begin(want)), None)

    def _may_begin(self, want: Want) -> bool:
        own = [topic for topic in self.table.topics if topic.key == want.key and topic.phase in _IN_USE]
        return all(
            topic.phase is Phase.RETURN
            if topic.partitions >= want.partitions
            else topic.phase is Phase.ACTIVE
            for topic in own
        )

    def _claimed(self) -> dict[str, Want]:
        want = None if self.s.is_rate_limited() else self._next()
        idle = self._idle_for(want) if want is not None else None
        return {idle.name: want} if want is not None and idle is not None else {}

    def stock(self) -> None:
        """A warm topic where fewer are ready than the policy asks for."""
        spec = self.s.spec
        ready = sum(topic.phase is Phase.IDLE or topic.key is None for topic in self.topics)
        if not spec.dedicated.enabled or ready >= spec.dedicated.warm or self.named:
            return
        if self.s.topic.compacted or self.s.is_rate_limited() or self._is_full() is not None:
            return
        one = spec.spread.ordering is Ordering.PER_KEY
        size = 1 if one else spec.dedicated.partitions or self.s.topic.partitions
        self._named(min(size, spec.limits.max_dedicated_partitions), None)

    def done(self) -> Dedication:
        memory = replace(self.memory, strange_since=self.strange)
        if self.topics and self.seen.failure is not None:
            self._block(Reason.KAFKA_UNAVAILABLE, f"topics stay as they are: {self.seen.failure}", None)
        table = msgspec.structs.replace(
            self.table,
            topics=tuple(self.topics),
            routes=in_table_order(self.routes.values()),
            read_set=self._read_set(),
        )
        return Dedication(left_by(table), memory, tuple(self.actions), tuple(self.notes), tuple(self.blocked))

    def _known(self, topic: DedicatedTopic) -> Known:
        at, seen = self.observation.at, self.seen
        answered = topic.name in seen.topics
        found = seen.topics.get(topic.name)
        if found is None and topic.phase is Phase.PREPARE and self.memory.is_settling(topic.name, at):
            answered = False
        keeps = own_topic.still_wanted(self.s, topic.key, self.memory)
        listed = self.s.spec.consumer_groups if topic.phase is Phase.ACTIVE else ()
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
            unread=unread(self.memory.readers, topic, listed, at),
        )

    def _blocked(self, topic: DedicatedTopic) -> Blocked | None:
        groups = registered(self.s.spec, self.observation.reports, self.observation.at)
        return readers(topic, self.seen, groups, self.s.spec.ignored_groups)

    def _warning(self, topic: DedicatedTopic) -> Blocked | None:
        """What would keep a topic that is written from being so, as it was last learned."""
        known = self.memory.readers
        if topic.name not in known.groups:
            return None
        groups = registered(self.s.spec, self.observation.reports, self.observation.at)
        last = DedicatedSeen(groups=known.groups, on_base=known.on_base, ends={topic.name: 0})
        found = readers(topic, last, groups, self.s.spec.ignored_groups)
        return None if found is not None and found.reason is Reason.GROUPS_NOT_KNOWN else found

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

    def _may_be_mistaken(self, topic: DedicatedTopic, seen: Event) -> bool:
        """Whether another operator may be about to record it, or the broker that was asked be behind."""
        if seen is Event.STRANGE and topic.topic_id:
            return False
        since = self.memory.strange_since.get(topic.name, self.observation.at)
        self.strange[topic.name] = since
        patience = STRANGE_SECONDS if seen is Event.STRANGE else SETTLING_SECONDS
        return within(self.observation.at, since, patience)

    def _stragglers(self, topic: DedicatedTopic) -> float:
        """Records/s that come to a topic long after it was left."""
        changed = self.s.memory.changed_at.get(topic.key or b"", float("-inf"))
        told = not within(self.observation.at, changed, LEFT_SECONDS)
        return (self.memory.rate(topic.name) or 0.0) if told and self._is_published(topic) else 0.0

    def _activate(self, topic: DedicatedTopic) -> bool:
        """Point the key's route at the topic; False where that must wait, or a table cannot hold it."""
        assert topic.key is not None
        if self.s.spec.suspend or self._is_limited(f"topic {topic.name} is ready", topic.key):
            return False
        return self._point(topic, own_route(self.s, topic, self.table.route(topic.key)))

    def _replan(self, topic: DedicatedTopic) -> None:
        """Spread the key anew over its own topic where the policy's `spread` is not what it was."""
        route = self.routes.get(topic.key) if topic.key is not None else None
        if route is None or self.s.spec.suspend or self.s.allows(route):
            return
        fresh = own_route(self.s, topic, route)
        if fresh != route and self._point(topic, fresh):
            what = (
                f"the policy's spread changed; key {name(route.key)} is spread anew over topic {topic.name}"
            )
            self._note(Reason.RESPREAD, what, route.key)

    def _point(self, topic: DedicatedTopic, route: Route) -> bool:
        """Let the key's records go by `route` to its own topic; False where a table cannot hold it."""
        active = msgspec.structs.replace(topic, phase=Phase.ACTIVE)
        topics = tuple(active if each.name == topic.name else each for each in self.table.topics)
        routes = in_table_order({**self.routes, route.key: route}.values())
        try:
            encode(msgspec.structs.replace(self.table, topics=topics, routes=routes))
        except TableError as error:
            self._block(Reason.TOO_MANY_HOT_KEYS, f"key {name(route.key)} stays as it is: {error}", route.key)
            return False
        self.routes[route.key] = route
        return True

    def _is_limited(self, what: str, key: bytes) -> bool:
        if self.s.is_rate_limited():
            most = f"limits.changesPerMinute is {self.s.spec.limits.changes_per_minute}"
            self._block(Reason.RATE_LIMITED, f"{what}, but {most}: it waits", key)
        return self.s.is_rate_limited()

    def _give_back(self, topic: DedicatedTopic) -> None:
        self.routes = {key: route for key, route in self.routes.items() if route.topic != topic.name}

    def _make(self, topic: DedicatedTopic) -> None:
        """Make the topic, once the object lists it, after a pause where that failed."""
        stored, config = self.observation.stored, self._needed(topic.partitions)
        listed = stored is not None and stored.table.dedicated(topic.name) == topic
        may = listed and not self.s.spec.suspend and self.memory.may_try(self.observation.at)
        if may and config is not None:
            self.actions.append(CreateTopic(topic.name, topic.partitions, config))

    def _idle_for(self, want: Want) -> DedicatedTopic | None:
        """The one that the key leaves, or the smallest that is free, where it is big enough."""
        fits = [topic for topic in self._fitting(want) if not self._is_weak(topic)]
        return min(
            fits,
            key=lambda topic: (topic.phase is not Phase.RETURN, topic.partitions, topic.name),
            default=None,
        )

    def _fitting(self, want: Want) -> list[DedicatedTopic]:
        """Topics that are big enough, and exactly as big where the order asks for it."""
        exactly = self.s.spec.spread.ordering is Ordering.PER_KEY
        return [
            topic
            for topic in self.table.topics
            if (topic.phase is Phase.IDLE or (topic.phase is Phase.RETURN and topic.key == want.key))
            and (topic.partitions == want.partitions if exactly else topic.partitions >= want.partitions)
            and self.seen.topics.get(topic.name) is not None
        ]

    def _is_weak(self, topic: DedicatedTopic) -> bool:
        return bool(self._weaker(self.seen.topics.get(topic.name), topic.partitions))

    def _has_room(self, want: Want) -> bool:
        if self._fitting(want):  # all of them are weak, and so would be the next one
            return False
        if (full := self._is_full()) is not None:
            self._block(full.reason, f"{want.why}; {full.message}", want.key)
        return full is None and not self.named

    def _is_full(self) -> Blocked | None:
        """Why no further topic may be named; those that are in no phase count to no limit of the policy."""
        many = Reason.TOO_MANY_DEDICATED_TOPICS
        limit, base = self.s.spec.limits.max_dedicated_topics, self.table.stream.topic
        if len(self.topics) >= limit:
            used = f"none of the {len(self.topics)} is free and big enough"
            return Blocked(many, f"limits.maxDedicatedTopics is {limit}, and {used}")
        listed = {topic.name for topic in self.topics}
        lost = [each for each in self.memory.alike if each not in listed]
        if len(lost) >= LOST_AT_MOST or len(self._read_set()) >= READ_AT_MOST:
            return Blocked(many, f"{len(lost)} topics like it are in no table: delete the empty ones first")
        fresh = dedicated_name(base, self.observation.policy_uid, next_epoch(self.observation))
        if len(fresh) > NAME_AT_MOST:
            return Blocked(Reason.TOPIC_NOT_MADE, f"{base} is too long a name for {fresh} to be one")
        return None

    def _named(self, partitions: int, key: bytes | None) -> DedicatedTopic:
        self.named = True
        fresh = dedicated_name(
            self.table.stream.topic, self.observation.policy_uid, next_epoch(self.observation)
        )
        topic = DedicatedTopic(fresh, partitions, Phase.PREPARE, key=key)
        self.topics.append(topic)
        return topic

    def _read_set(self) -> tuple[str, ...]:
        stored, alike = self.observation.stored, self.seen.alike
        left = gone(stored.table, alike) if stored is not None and alike is not None else set()
        published = self.observation.published.table
        told = published.read_set if published is not None and published.stream == self.table.stream else ()
        alike_ = (*self.memory.alike, *(each for each in told if each not in left))
        return read_set(self.table, self.topics, alike_, left)

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
            reason, why = self._why_back(topic, seen, known)
            self._note(reason, f"key {name(key or b'')} goes back to the base topic: {why}", key)
        elif seen is Event.OURS and topic.phase in (Phase.PREPARE, Phase.ACTIVE):
            blocked = self._blocked(topic) if topic.phase is Phase.PREPARE else self._warning(topic)
            if blocked is not None:
                self._block(blocked.reason, blocked.message, key)
        elif seen is Event.OURS and topic.phase is Phase.RETURN and (rate := self._stragglers(topic)):
            who = "producers that do not follow the table: without Redis, or of an older SDK"
            self._block(
                Reason.PARTIAL_ADOPTION, f"{where} is left and still gets {rate:,.1f}/s from {who}", key
            )
        elif seen is Event.ABSENT and (failure := self.memory.failure) is not None:
            tries = count(failure.times, "attempt")
            self._block(failure.reason, f"{where} cannot be made ({tries}): {failure.problem}", key)
        elif seen is Event.WEAKER:
            self._block(Reason.WEAKER_THAN_BASE, f"{where} is not written: {'; '.join(known.weaker)}", key)
        elif to is None and seen in (Event.STRANGE, Event.GONE):
            what = "does not exist any more" if seen is Event.GONE else "was made by somebody else"
            self._note(Reason.TOPIC_REPLACED, f"{where} {what}: it is not written again", key)

    def _why_back(self, topic: DedicatedTopic, seen: Event, known: Known) -> tuple[Reason, str]:
        where = f"topic {topic.name}"
        if topic.key is not None and self.memory.is_shunned(topic.key, self.observation.at):
            rights = f"its producers may not write to {where}, or have no SDK"
            return Reason.PARTIAL_ADOPTION, f"much of it still comes to the base topic: {rights}"
        return why_back(seen, known, where)
