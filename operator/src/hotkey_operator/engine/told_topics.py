"""What people are told of dedicated topics: verdicts of the keys in them, a condition, and Events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hotkey_operator.engine import own_topic
from hotkey_operator.engine.consent import ALLOW_TOPIC
from hotkey_operator.engine.dedicated_values import Dedication, Note
from hotkey_operator.engine.dedication import NOTHING_SEEN
from hotkey_operator.engine.model import (
    Condition,
    Cost,
    Decision,
    DedicatedSeen,
    EmitEvent,
    KeyVerdict,
    Observation,
    Rejected,
)
from hotkey_operator.engine.own_topic import Want
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.topic_memory import unlisted
from hotkey_operator.engine.wording import count, name, order
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import DedicatedTopic, Phase, Route, Table

OPTION = "give it a topic of its own"
BIGGER = "move it to a bigger topic"
STRANGERS_TOLD = 3
TOPIC_CHANGES = frozenset({Reason.PREPARING, Reason.DEDICATED, Reason.RETURNED_TO_BASE, Reason.TOPIC_ALLOWED})


def dedicated_verdicts(
    s: Situation, table: Table, dedication: Dedication, verdicts: Sequence[KeyVerdict]
) -> tuple[KeyVerdict, ...]:
    """The verdicts with those of keys that have a topic of their own, the biggest first.

    A key whose topic is in preparation keeps the verdict of its present rung, and is told what it waits for.
    """
    own = {topic.key: topic for topic in table.topics if topic.phase is Phase.ACTIVE}
    waits = {note.key: note for note in dedication.blocked if note.key is not None}
    told = [
        _waiting(verdict, waits.get(verdict.key), OPTION) for verdict in verdicts if verdict.key not in own
    ]
    plans = {want.key: want for want in dedication.planned}
    told = [_planned(s, verdict, plans.get(verdict.key)) for verdict in told]
    for topic in own.values():
        route = table.route(topic.key) if topic.key is not None else None
        if route is not None:
            told.append(_waiting(_verdict(s, topic, route, dedication), waits.get(route.key), BIGGER))
    return tuple(sorted(told, key=lambda verdict: (-verdict.records_per_second, verdict.key)))


def _waiting(verdict: KeyVerdict, note: Note | None, option: str) -> KeyVerdict:
    if note is None:
        return verdict
    others = tuple(each for each in verdict.rejected if each.option != option)
    return replace(verdict, rejected=(*others, Rejected(option, note.reason, note.message)))


def _planned(s: Situation, verdict: KeyVerdict, want: Want | None) -> KeyVerdict:
    """What the mode does not let happen, and what it would cost."""
    if want is None:
        return verdict
    kept = "order per key is kept" if want.partitions == 1 else order((s.spec.spread.by or ((),))[0])
    others = tuple(each for each in verdict.rejected if each.option != OPTION)
    return replace(
        verdict,
        reason=Reason.OBSERVING,
        message=plan_message(s, want),
        cost=Cost(f"{kept}; a topic that stays", want.partitions, 1.0),
        rejected=others,
    )


def plan_message(s: Situation, want: Want) -> str:
    """What would be done for a key if the policy's mode allowed it."""
    size = count(want.partitions, "partition")
    return f"in mode {s.spec.mode} not done: {want.why}; a topic of its own with {size} would be prepared"


def _verdict(s: Situation, topic: DedicatedTopic, route: Route, dedication: Dedication) -> KeyVerdict:
    key = route.key
    rate = dedication.memory.rate(topic.name) or 0.0
    whole = rate + (sum(s.steadied.records) if s.steadied else 0.0)
    message = f"key {name(key)} has topic {topic.name} of its own: {count(len(route.shards), 'shard')}"
    since = dedication.memory.cool_since.get(key)
    reason = Reason.DEDICATED
    if since is not None:
        reason = Reason.COOLING
        message += f"; cool for {s.at - since:.0f} s of {s.release_seconds(key):g} s"
    kept = "order per key is kept" if len(route.shards) == 1 else order(route.by)
    moved = any(note.key == key and note.reason is Reason.DEDICATED for note in dedication.notes)
    partitions = len({shard.partition for shard in route.shards})
    cost = Cost(f"{kept}; a topic that stays", partitions, 1.0 if moved else 0.0)
    return KeyVerdict(
        key=key,
        reason=reason,
        message=message,
        records_per_second=rate,
        share=min(1.0, rate / whole) if whole > 0 else 0.0,
        share_error=0.0,
        shards=len(route.shards),
        by=route.by,
        cost=cost,
        rejected=_rejected(s, key, rate),
    )


def _rejected(s: Situation, key: bytes, rate: float) -> tuple[Rejected, ...]:
    """To go back, and with all the others to be spread over the base topic."""
    if s.now is None:
        return ()
    home = partition_for(key, s.topic.partitions)
    back = f"partition {home} would take {s.now.records[home] + rate:,.0f} records/s"
    mean = (sum(s.now.records) + rate) / s.topic.partitions
    even = f"with it a mean partition of the base topic would take {mean:,.0f} records/s"
    return (
        Rejected("go back to the base topic", Reason.HOLDING, back),
        Rejected("spread it over all partitions of the base topic", Reason.HOLDING, even),
    )


def no_topic_of_its_own(s: Situation, key: bytes) -> tuple[Rejected, ...]:
    """Why a key on the base topic has no topic of its own."""
    if not s.spec.dedicated.enabled:
        off = "dedicatedTopic.enabled is false"
        return (Rejected(OPTION, Reason.OBSERVING if not s.spec.acts else Reason.HOLDING, off),)
    if s.spec.acts and s.memory.topics.is_shunned(key, s.at):
        why = "its producers did not write to the last one: they may not, or have no SDK"
        return (Rejected(OPTION, Reason.PARTIAL_ADOPTION, f"{why}; it is tried again after a while"),)
    if s.spec.acts and s.memory.topics.wanted_since.get(key) is not None:
        return (Rejected(OPTION, Reason.PREPARING, "a topic for it is being prepared"),)
    if own_topic.overflows(s):
        return (Rejected(OPTION, Reason.HOLDING, "a bigger key goes first"),)
    return (Rejected(OPTION, Reason.HOLDING, "it fits on the base topic with the others"),)


def topics_ready(
    s: Situation, table: Table, dedication: Dedication, observation: Observation
) -> tuple[Condition, ...]:
    """Whether anything keeps a key from its own topic; told where the policy enables them or has some."""
    if not s.spec.dedicated.enabled and not table.topics:
        return ()
    kind = ConditionType.DEDICATED_TOPICS_READY
    found = strangers(table, dedication.memory.alike, observation.dedicated or NOTHING_SEEN)
    if (wrong := next(iter(dedication.blocked), found)) is not None:
        return (Condition(kind, False, wrong.reason, wrong.message),)
    phases = [f"{count(len(found_in), 'topic')} {phase}" for phase, found_in in _by_phase(table) if found_in]
    return (Condition(kind, True, Reason.GOVERNING, ", ".join(phases) or "no dedicated topic is needed"),)


def topics_wait(spec: PolicySpec, table: Table | None, decision: Decision) -> tuple[Condition, ...]:
    """The same of a policy that does not govern its stream now, so that nothing becomes of its topics."""
    if not spec.dedicated.enabled and not (table is not None and table.topics):
        return ()
    why = f"no dedicated topic is prepared, written or given back: {decision.message}"
    return (Condition(ConditionType.DEDICATED_TOPICS_READY, False, decision.reason, why),)


def strangers(table: Table, alike: Sequence[str], seen: DedicatedSeen) -> Note | None:
    """The topics that are named like ours and in no phase; they are read, and a person should look."""
    found = unlisted(table, alike)
    if not found:
        return None
    ids = {each: seen.topics.get(each) for each in found[:STRANGERS_TOLD]}
    shown = ", ".join(f"{each}/{topic.topic_id}" if topic else each for each, topic in ids.items())
    more = f" and {len(found) - STRANGERS_TOLD} more" if len(found) > STRANGERS_TOLD else ""
    return Note(
        Reason.UNLISTED_TOPIC,
        f"{shown}{more}: named like a dedicated topic of this stream and in no table, so it is read and "
        f"never written; delete it once it is empty, or allow it by annotation {ALLOW_TOPIC}: <name>/<id>",
    )


def _by_phase(table: Table) -> list[tuple[Phase, list[DedicatedTopic]]]:
    return [(phase, [topic for topic in table.topics if topic.phase is phase]) for phase in Phase]


def topic_events(decision: Decision, dedication: Dedication, observation: Observation) -> list[EmitEvent]:
    """Every change of a phase that people care for, and once in a while what keeps a key waiting.

    The one that is the decision's own is told with it, as every change of routes is.
    """
    changes = [
        EmitEvent(note.reason, note.message, warning=note.reason not in TOPIC_CHANGES)
        for note in dedication.notes
        if note.message != decision.message or note.reason not in TOPIC_CHANGES
    ]
    told = {note.reason: EmitEvent(note.reason, note.message, warning=True) for note in dedication.blocked}
    seen = observation.dedicated or NOTHING_SEEN
    if (found := strangers(dedication.table, dedication.memory.alike, seen)) is not None:
        told[found.reason] = EmitEvent(found.reason, found.message, warning=True)
    return [*changes, *told.values()]
