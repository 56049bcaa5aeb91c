"""One turn of a policy's loop: gather, decide, apply. The simulation drives the same class.

It must not know Kopf, Kafka's, Redis' or Kubernetes' clients; time and seeds are handed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from hotkey_operator.act.executor import NOTHING_DONE, Applied, apply
from hotkey_operator.engine.attention import is_quiet
from hotkey_operator.engine.decide import decide, retire
from hotkey_operator.engine.memory import Memory, counted_by
from hotkey_operator.engine.model import Decision, Observation, PublishTable, StoredTable, WriteTable
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.recency import within
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.topic_memory import attempted
from hotkey_operator.engine.truth import believable
from hotkey_operator.ports import Conflict, PolicyRef, Ports, Unavailable
from hotkey_operator.sense.gather import Held, gather, read_published
from hotkey_operator.stages import Clock, Stage, Stages
from hotkey_sdk.routing.table import Phase, Stream, Table

FORGET_SECONDS = 3_600.0  # a client that was silent for so long will not come back under its id
CONFLICT_PAUSE_SECONDS = 5.0  # long enough for the other operator's next turns, short enough to take over


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one turn saw, decided and did. No decision: the truth was not read, or `standing_by` says why.

    `former`: whom the object still belongs to; the turn waited for it to go.
    `mistake`: what is wrong with the policy's spec; the turn then froze what is routed.
    `moments`: when the steps of the turn were done, in unix milliseconds by name.
    """

    observation: Observation | None = None
    decision: Decision | None = None
    applied: Applied = NOTHING_DONE
    failure: str | None = None
    standing_by: str | None = None
    former: str | None = None
    mistake: str | None = None
    moments: Mapping[str, int] = field(default_factory=dict)


Decided = tuple[Decision, Memory]
Thinking = Callable[[Callable[[], Decided]], Awaitable[Decided]]


async def at_once(decision: Callable[[], Decided]) -> Decided:
    """Decide in the event loop itself, which waits: the same run every time, for the simulation."""
    return decision()


class Turn:
    """The loop of one policy. `spec` may be replaced between steps.

    `thinking` runs the pure part: the product gives a thread, as a plan for a big topic takes seconds.
    `clock`: for noting when the steps of a turn were done; nothing is decided by it.
    """

    def __init__(
        self,
        ports: Ports,
        ref: PolicyRef,
        spec: PolicySpec,
        *,
        thinking: Thinking = at_once,
        clock: Clock | None = None,
    ) -> None:
        self.spec = spec
        self._thinking = thinking
        self._clock = clock
        self.memory = Memory()
        self._ports = ports
        self._ref = ref
        self._conflict: str | None = None
        self._paused_at = float("-inf")
        self._rests_on: Held | None = None
        self.hurries = False  # a topic was made: until its id is recorded, it would be lost with this process

    @property
    def rests(self) -> bool:
        """Whether the last turn saw nothing that needs one every second: a `look` or `glance` will do."""
        return self._rests_on is not None

    async def glance(self, now: float) -> bool:
        """Whether clients still find the table that the last turn left them; if not, a turn is due."""
        stored = self._rests_on.stored if self._rests_on else None
        if stored is None:
            return False
        return (await read_published(self._ports, stored.table.stream, now)).table == stored.table

    async def look(
        self, now: float, seed: int, *, rival: str | None = None, pace_seconds: float = 1.0
    ) -> Outcome:
        """A turn that takes the object and the topic to be as the last one saw them, and writes nothing.

        Where it does not find all calm, a whole turn follows at once.
        """
        if self._rests_on is not None:
            try:
                observation = await gather(
                    self._ports, self._ref, self.spec, self.memory, now, seed,
                    rival=rival, pace_seconds=pace_seconds, held=self._rests_on,
                )  # fmt: skip
                spec, memory = self.spec, self.memory
                decision, memory = await self._thinking(lambda: decide(spec, observation, memory))
                if spec == self.spec and _is_calm(spec, observation, decision, memory):
                    self.memory = memory
                    return Outcome(observation, decision)
            except Unavailable:
                pass  # the turn will fail in the same way, and tell
        return await self.step(now, seed, rival=rival, pace_seconds=pace_seconds)

    async def step(
        self, now: float, seed: int, *, rival: str | None = None, pace_seconds: float = 1.0
    ) -> Outcome:
        """One turn at `now` (unix seconds). Never raises `Unavailable` or `Conflict`: the outcome tells.

        After a lost compare-and-set it stands by for a while and then begins anew from what it reads.
        `pace_seconds`: how often a quiet partition is read.
        """
        self._rests_on, self.hurries = None, False
        if within(now, self._paused_at, CONFLICT_PAUSE_SECONDS):
            return Outcome(standing_by=self._conflict)
        stages = Stages(self._clock)
        ports = stages.around(self._ports)
        self.memory = counted_by(self.memory, self.spec.metrics)
        try:
            observation = await gather(
                ports, self._ref, self.spec, self.memory, now, seed, rival=rival, pace_seconds=pace_seconds
            )
        except Unavailable as error:
            return Outcome(failure=str(error))
        former = _former_policy(observation, self.spec)
        if former is not None:
            return Outcome(observation, failure=former, former=former)
        spec, memory = self.spec, self.memory
        decision, memory = await self._thinking(lambda: decide(spec, observation, memory))
        stages.mark(Stage.PLANNED)
        stages.sensed(memory.over_since.values())
        applied = await apply(ports, self._ref, decision)
        self._learn(memory, applied, now)
        await self._forget(observation)
        failure = applied.unwritten or applied.unpublished
        if failure is None and spec == self.spec and _is_calm(spec, observation, decision, memory):
            self._rests_on = Held(observation.stored, observation.topic)
        return Outcome(
            observation, decision, applied, failure, applied.conflict, moments=stages.milliseconds()
        )

    def _learn(self, memory: Memory, applied: Applied, now: float) -> None:
        """What was not written did not happen, so it is not remembered either."""
        if applied.conflict is not None:
            self.memory = Memory()
            self._conflict = applied.conflict
            self._paused_at = now
        elif applied.unwritten is None:
            self.hurries = any(attempt.topic_id for attempt in applied.topics)
            self.memory = replace(memory, topics=attempted(memory.topics, applied.topics, now))

    async def _forget(self, observation: Observation) -> None:
        gone = [
            each.client_id for each in observation.reports if abs(observation.at - each.at) > FORGET_SECONDS
        ]
        if gone and observation.topic is not None:
            try:
                await self._ports.distribution.forget(observation.topic.stream, gone)
            except Unavailable:
                return  # a later turn sees them again

    async def retire(
        self, now: float, seed: int, *, rival: str | None = None, cluster_id: str | None = None
    ) -> Outcome:
        """Return the stream of a deleted policy to plain keys and leave a tombstone until Redis has it.

        With a `rival` the stream is governed by another policy: then only the object goes. `cluster_id`: the
        Kafka cluster as the policy last knew it. Raises `Unavailable` or `Conflict` while the object cannot
        be written: the policy must not go before. The outcome's `failure`: what is left undone for good.
        """
        known = Stream(cluster_id, self.spec.topic) if cluster_id else None
        observation = await gather(
            self._ports, self._ref, self.spec, Memory(), now, seed, rival=rival, known=known
        )
        decision = retire(observation) if rival is None else None
        if decision is None or not any(isinstance(action, WriteTable) for action in decision.actions):
            if observation.resource_version is not None:
                await self._ports.tables.delete(self._ref, observation.resource_version)
            return Outcome(observation, decision, failure=_left_behind(observation, known))
        applied = await apply(self._ports, self._ref, decision, tombstone=True)
        if applied.terminating:
            applied = await self._publish_alone(decision)
        if applied.conflict is not None:
            raise Conflict(applied.conflict)
        if applied.unwritten is not None:
            raise Unavailable(applied.unwritten)
        return Outcome(observation, decision, applied, applied.unpublished)

    async def _publish_alone(self, decision: Decision) -> Applied:
        """Publish what no object can hold any more. Raises `Unavailable` until Redis has it.

        A Redis that is gone holds nobody up: the next try finds no table in it, and has nothing to return.
        """
        only = tuple(action for action in decision.actions if isinstance(action, PublishTable))
        applied = await apply(self._ports, self._ref, Decision(only, decision.reason, decision.message))
        if applied.published_epoch is None:
            raise Unavailable(applied.unpublished or "Redis did not take the table")
        return applied


def _is_calm(spec: PolicySpec, observation: Observation, decision: Decision, memory: Memory) -> bool:
    """Whether all is as it should be, nothing was done, and nothing is near to becoming hot."""
    stored = observation.stored.table if observation.stored else None
    return (
        not decision.actions
        and decision.reason in (Reason.STEADY, Reason.SUSPENDED)
        and observation.failure is None
        and not observation.amiss
        and stored is not None
        and observation.published.table == stored
        and _topics_rest(spec, stored)
        and is_quiet(spec, memory, stored)
    )


def _topics_rest(spec: PolicySpec, table: Table) -> bool:
    """Whether no dedicated topic is on its way anywhere, in use, or still to be made for the stock."""
    idle = sum(topic.phase is Phase.IDLE for topic in table.topics)
    return idle == len(table.topics) and idle >= (spec.dedicated.warm if spec.dedicated.enabled else 0)


def _former_policy(observation: Observation, spec: PolicySpec) -> str | None:
    """Why the object is not ours yet: a deleted policy of the same name left it for another topic."""
    stored = observation.stored
    if stored is None or not stored.tombstone or stored.table.stream.topic == spec.topic:
        return None
    return (
        f"the RoutingTable still returns topic {stored.table.stream.topic} to plain keys for a deleted "
        "policy of the same name; it goes once Redis has it"
    )


def _left_behind(observation: Observation, known: Stream | None) -> str | None:
    """What a retirement without an object could not take back: a table in a Redis that does not answer."""
    if observation.rival is not None or observation.published.reachable:
        return None
    if observation.topic is None and known is None:
        return None  # the policy never governed a stream
    return "no RoutingTable object and no Redis: routes that Redis may still hold are not taken back"


async def bury(ports: Ports, ref: PolicyRef, stored: StoredTable, now: float) -> bool:
    """Publish a tombstone until Redis holds it or something newer, then delete it. True when it is gone.

    As long as a dedicated topic holds records it stays, so that consumers are told to read them.

    Raises `Unavailable`; `Conflict` when the object was written since: then it is no tombstone any more.
    """
    table = stored.table
    published = await read_published(ports, table.stream, now)
    held = published.table
    done = held is not None and held.epoch >= table.epoch
    if not believable(table.epoch, now):  # a person wrote it, and no table could ever follow it
        done = held is not None and not held.routes
        table = msgspec.structs.replace(table, epoch=max(int(now), held.epoch if held else 0) + 1)
    if done and not await _are_empty(ports, table):
        return False
    if done:
        await ports.tables.delete(ref, stored.resource_version)
        return True
    again = PublishTable(table, over=published.garbage)
    await apply(ports, ref, Decision((again,), Reason.REPUBLISHED, f"the tombstone of {table.stream}"))
    return False


async def _are_empty(ports: Ports, table: Table) -> bool:
    """Whether no dedicated topic of the table holds a record. Raises `Unavailable`."""
    names = [name for name in table.read_set if name != table.stream.topic]
    if not names or ports.topics is None or ports.groups is None:
        return True
    for name, seen in (await ports.topics.describe(names)).items():
        if seen is None:
            continue
        ends = await ports.brokers.end_offsets(name, seen.partitions)
        starts = await ports.groups.starts(name, range(seen.partitions))
        if any(end > starts.get(partition, 0) for partition, end in enumerate(ends.offsets)):
            return False
    return True
