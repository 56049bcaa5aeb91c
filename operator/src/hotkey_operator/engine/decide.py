"""One turn's decision: pure, from what was seen and remembered to what to do and what to tell.

The parts: memory (what was learned), guards (may this policy act at all), truth (which table must stand),
routing (what becomes of the routes), told (verdicts, conditions, Events). Here they are put in order.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hotkey_operator.engine import cooling, own_topic, routing, told, topic_readers
from hotkey_operator.engine.dedicated_values import Dedication, Note, aside, base_view
from hotkey_operator.engine.dedication import dedicate
from hotkey_operator.engine.guards import gate
from hotkey_operator.engine.memory import Memory, learned
from hotkey_operator.engine.model import Action, Decision, Observation, PublishTable, TopicFacts, WriteTable
from hotkey_operator.engine.placement import in_table_order
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.truth import Standing, at_next_epoch, damage, declared, left_by, standing
from hotkey_sdk.routing.codec import TableError, encode
from hotkey_sdk.routing.table import Table


def decide(spec: PolicySpec, observation: Observation, memory: Memory) -> tuple[Decision, Memory]:
    """What to do now, and what the next turn must remember. Never raises, whatever was observed."""
    memory = learned(memory, spec, observation)
    stop = gate(spec, observation)
    if stop is not None or observation.topic is None:
        reason, message = (stop.reason, stop.message) if stop else (Reason.TOPIC_NOT_FOUND, "no topic")
        actions = () if reason is Reason.ANOTHER_POLICY else _republished(observation)
        decision = Decision(actions, reason, message, summary=told.summary(observation, memory))
        return told.idle(spec, decision, observation, memory)
    return _govern(spec, observation, observation.topic, memory)


def _govern(
    spec: PolicySpec, observation: Observation, topic: TopicFacts, memory: Memory
) -> tuple[Decision, Memory]:
    stands = standing(spec, observation, topic)
    s = Situation.of(spec, observation.at, topic, base_view(stands.table), memory)
    keys = aside(stands.table)
    elsewhere = tuple(route for route in stands.table.routes if route.key in keys)
    s = replace(s, memory=cooling.watched(s), aside=keys, elsewhere=elsewhere)
    outcome = routing.route(s)
    dedication = _dedicated(s, observation, stands, outcome)
    table = _table(s, observation, stands, dedication)
    if table != stands.table and (why := _unwritable(table)) is not None:
        outcome = _held(outcome, stands, why)
        dedication = _frozen(s, observation, stands, dedication, why)
        table = _table(s, observation, stands, dedication)
    s = replace(s, memory=replace(s.memory, topics=dedication.memory))
    written = table if table != (observation.stored.table if observation.stored else None) else None
    actions = _republished(observation) if written is None else _written(written, observation)
    actions = (*actions, *dedication.actions)
    decision = Decision(actions, outcome.reason, outcome.message, summary=told.summary(observation, s.memory))
    return told.governing(s, decision, observation, outcome, written, dedication)


def _unwritable(table: Table) -> str | None:
    """Why no reader would take the table, in words for people; most often None."""
    try:
        encode(table)
    except TableError as error:
        return str(error)
    return None


def _held(outcome: routing.Outcome, stands: Standing, why: str) -> routing.Outcome:
    """The outcome where its table cannot be written: nothing changes."""
    routes, message = base_view(stands.table).routes, f"the routes stand: {why}"
    return replace(outcome, reason=Reason.TOO_MANY_HOT_KEYS, message=message, routes=routes, merged=())


def _frozen(
    s: Situation, observation: Observation, stands: Standing, dedication: Dedication, why: str
) -> Dedication:
    """The standing table without what safety takes from it."""
    frozen = replace(s, spec=replace(s.spec, suspend=True))
    kept = dedicate(frozen, observation, stands.table, (), dedication.memory)
    return replace(kept, blocked=(Note(Reason.TOO_MANY_HOT_KEYS, why), *kept.blocked))


def _dedicated(
    s: Situation, observation: Observation, stands: Standing, outcome: routing.Outcome
) -> Dedication:
    """The standing table with the outcome's routes to the base topic, and its dedicated topics a step on."""
    topics = own_topic.watched(s, stands.table, s.memory.topics)
    read = topic_readers.seen(topics.readers, stands.table.topics, observation.dedicated, s.at)
    topics = replace(topics, readers=read)
    needed = [*own_topic.wants(s, outcome), *own_topic.outgrown(s, stands.table.topics, topics)]
    wanted, topics = own_topic.sure(needed, topics, s.at)
    if s.spec.suspend:
        return dedicate(s, observation, stands.table, (), topics)
    based = outcome.routes if s.spec.acts else ()
    is_new = based != base_view(stands.table).routes or outcome.reason is Reason.REPARTITIONED
    table = msgspec.structs.replace(
        stands.table,
        routes=in_table_order((*based, *s.elsewhere)),
        partitions=s.topic.partitions if is_new else stands.table.partitions,
    )
    return dedicate(s, observation, table, wanted, topics)


def _table(s: Situation, observation: Observation, stands: Standing, dedication: Dedication) -> Table:
    """The table that shall stand, under the next epoch where it is not the standing one."""
    table = dedication.table
    if not s.spec.suspend:
        table = msgspec.structs.replace(table, dimensions=declared(s.spec, stands.table, table.routes))
    return stands.table if table == stands.table else at_next_epoch(table, observation)


def _written(table: Table, observation: Observation) -> tuple[Action, ...]:
    write = WriteTable(table, observation.resource_version, anew=damage(observation) is not None)
    return write, PublishTable(table, over=observation.published.garbage)


def _republished(observation: Observation) -> tuple[Action, ...]:
    """Publish the object's table where something else, or nothing, stands in Redis."""
    stored, published = observation.stored, observation.published
    if stored is None or not published.reachable or published.table == stored.table:
        return ()
    if damage(observation) is not None:
        return ()
    return (PublishTable(stored.table, over=published.garbage),)


def retire(observation: Observation) -> Decision:
    """Return the stream of a deleted policy to plain keys: a higher epoch, no routes, the same read set."""
    held = observation.stored.table if observation.stored else observation.published.table
    if held is None or observation.rival is not None:
        return Decision((), Reason.RETURNED, "the stream has no table of this policy")
    table = at_next_epoch(left_by(msgspec.structs.replace(held, routes=())), observation)
    message = f"{held.stream.topic} is back to plain keys under epoch {table.epoch}"
    return Decision(_written(table, observation), Reason.RETURNED, message)
