"""What people are told of a decision: a verdict for each key, the conditions, the figures and the Events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hotkey_operator.engine import cooling, lag, rates
from hotkey_operator.engine.dedicated_values import Dedication
from hotkey_operator.engine.heavy import KeyLoad
from hotkey_operator.engine.memory import Memory, sampling
from hotkey_operator.engine.model import (
    Action,
    Basis,
    Condition,
    Cost,
    Decision,
    EmitEvent,
    KeyVerdict,
    Observation,
    PublishTable,
    Rejected,
    Summary,
)
from hotkey_operator.engine.reasons import UNMENDED, ConditionType, Reason
from hotkey_operator.engine.recency import REPORT_SECONDS, within
from hotkey_operator.engine.routing import Outcome
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import PolicySpec, unsupported_fields
from hotkey_operator.engine.told_topics import (
    TOPIC_CHANGES,
    dedicated_verdicts,
    no_topic_of_its_own,
    plan_message,
    topic_events,
    topics_ready,
    topics_wait,
)
from hotkey_operator.engine.truth import damage
from hotkey_operator.engine.wording import amiss, count, grounds, name, names, spread
from hotkey_sdk.routing.report import ClientReport, Role
from hotkey_sdk.routing.table import Route, Table

TELL_AGAIN_SECONDS = 300.0  # an Event that says the same once more
CHANGES = (
    frozenset({Reason.SPREAD, Reason.RESPREAD, Reason.REPARTITIONED, Reason.MERGED_BACK}) | TOPIC_CHANGES
)
REFUSALS = UNMENDED | {
    Reason.SLOW_CONSUMER,
    Reason.ANOTHER_POLICY,
    Reason.TOPIC_NOT_FOUND,
    Reason.KAFKA_UNAVAILABLE,
}


def idle(
    spec: PolicySpec, decision: Decision, observation: Observation, memory: Memory
) -> tuple[Decision, Memory]:
    """The decision of a policy that does not govern its stream, with what is told of it."""
    ready = Condition(ConditionType.READY, False, decision.reason, decision.message)
    table = _own_table(observation)
    routes = table.routes if table else ()
    hot = Condition(
        ConditionType.HOT, bool(routes), Reason.HOLDING if routes else Reason.NONE_SPREAD, _hot(routes)
    )
    told = (ready, hot, _not_yet_supported(spec), *topics_wait(spec, table, decision))
    decision = replace(decision, conditions=told)
    events = [EmitEvent(decision.reason, decision.message, warning=True)]
    return _with_events(decision, events, observation.at, memory)


def governing(
    s: Situation,
    decision: Decision,
    observation: Observation,
    outcome: Outcome,
    written: Table | None,
    dedication: Dedication,
) -> tuple[Decision, Memory]:
    """The decision of a policy that governs its stream, with what is told of it."""
    table = written or dedication.table
    if _only_observes(s, outcome):
        message = f"mode {s.spec.mode}, so this is not done: {outcome.message}"
        decision = replace(decision, reason=Reason.OBSERVING, message=message)
    if dedication.planned:
        message = plan_message(s, dedication.planned[0])
        decision = replace(decision, reason=Reason.OBSERVING, message=message)
    if changed := [note for note in dedication.notes if note.change]:
        decision = replace(decision, reason=changed[0].reason, message=changed[0].message)
    epoch = written.epoch if written else decision.summary.epoch
    decision = replace(
        decision,
        verdicts=dedicated_verdicts(s, table, dedication, _verdicts(s, outcome)),
        conditions=(
            _ready(s, observation, decision, table),
            _is_hot(table, decision),
            _not_yet_supported(s.spec),
            *topics_ready(s, table, dedication, observation),
        ),
        summary=replace(decision.summary, epoch=epoch),
    )
    events = _events(s, decision, observation, outcome, written)
    events += topic_events(decision, dedication, observation)
    return _with_events(decision, events, s.at, s.memory)


def summary(observation: Observation, memory: Memory) -> Summary:
    """The figures of status. Applied: the client's report names the object's epoch, or a higher one."""
    table = _own_table(observation)
    epoch = table.epoch if table else 0
    quick, slow = rates.fast(memory.history), rates.over(memory.history, rates.SLOW_SECONDS)
    producers = _clients(observation, Role.PRODUCER)
    consumers = _clients(observation, Role.CONSUMER)
    return Summary(
        epoch=epoch,
        partitions=observation.topic.partitions if observation.topic else 0,
        records_per_second=sum(quick) if quick else None,
        imbalance=rates.imbalance(slow) if slow else None,
        hottest_partition=max(range(len(slow)), key=lambda p: (slow[p], -p)) if slow and any(slow) else None,
        producers=len(producers),
        producers_applied=sum(report.epoch >= epoch for report in producers),
        consumers=len(consumers),
        consumers_applied=sum(report.epoch >= epoch for report in consumers),
        consumer_lag=lag.told(memory.lags, observation.at),
        sizes=memory.sizes_from,
        sampling=sampling(memory, observation.at),
    )


def _own_table(observation: Observation) -> Table | None:
    """The object's table, unless another policy governs the stream: then it is a leftover."""
    if observation.stored is None or observation.rival is not None:
        return None
    return observation.stored.table


def _clients(observation: Observation, role: Role) -> list[ClientReport]:
    return [
        report
        for report in observation.reports
        if report.role is role and abs(observation.at - report.at) <= REPORT_SECONDS
    ]


def _verdicts(s: Situation, outcome: Outcome) -> tuple[KeyVerdict, ...]:
    """Routed keys, keys taken back and heavy keys that got no route, the biggest first."""
    verdicts = [_routed(s, route, outcome) for route in outcome.routes]
    verdicts += [_taken_back(s, route) for route in outcome.merged if route.key not in outcome.refused]
    verdicts += [
        _left_plain(s, key, stop.reason, stop.message) for key, stop in sorted(outcome.refused.items())
    ]
    named = {verdict.key for verdict in verdicts}
    verdicts += [
        _left_plain(s, load.key, outcome.reason, outcome.message)
        for load in s.heavy()
        if load.key not in named
    ]
    reasoned = [_reasoned(s, verdict, outcome) for verdict in verdicts]
    return tuple(sorted(reasoned, key=lambda verdict: (-verdict.records_per_second, verdict.key)))


def _reasoned(s: Situation, verdict: KeyVerdict, outcome: Outcome) -> KeyVerdict:
    """The verdict with what the planner says that it takes and what it rejected."""
    cost = outcome.costs.get(verdict.key, verdict.cost)
    rejected = outcome.rejected.get(verdict.key, verdict.rejected)
    if verdict.reason is not Reason.MERGED_BACK:
        rejected = (*rejected, *no_topic_of_its_own(s, verdict.key))
    return replace(verdict, cost=cost, rejected=rejected)


def _routed(s: Situation, route: Route, outcome: Outcome) -> KeyVerdict:
    old = s.table.route(route.key)
    text = f"key {name(route.key)} is {spread(route)}"
    if not s.spec.acts and not s.spec.suspend:
        would = f"in mode {s.spec.mode} not done: key {name(route.key)} would be {spread(route)}"
        return _verdict(s, route.key, Reason.OBSERVING, would, route)
    if old is None:
        return _verdict(s, route.key, Reason.SPREAD, text, route)
    if old != route:
        reason = outcome.reason if outcome.reason in CHANGES else Reason.RESPREAD
        return _verdict(s, route.key, reason, text, route)
    if s.spec.suspend:
        return _verdict(s, route.key, Reason.SUSPENDED, f"{text}; frozen, the policy is suspended", route)
    if s.is_settling(route.key):
        return _verdict(s, route.key, Reason.SETTLING, f"{text}; the change is not yet visible", route)
    if route.key in s.memory.cool_since:
        waited = s.at - s.memory.cool_since[route.key]
        cool = f"{text}; cool for {waited:.0f} s of {s.release_seconds(route.key):g} s"
        return _verdict(s, route.key, Reason.COOLING, cool, route)
    if (noted := outcome.noted.get(route.key)) is not None:
        return _verdict(s, route.key, noted.reason, f"{text}; {noted.message}", route)
    held = cooling.kept_by_lag(s, route) or "still hot"
    return _verdict(s, route.key, Reason.HOLDING, f"{text}; {held}", route)


def _taken_back(s: Situation, route: Route) -> KeyVerdict:
    message = f"key {name(route.key)} cooled and is a plain key again"
    return _verdict(s, route.key, Reason.MERGED_BACK, message, None)


def _left_plain(s: Situation, key: bytes, reason: Reason, message: str) -> KeyVerdict:
    """A heavy key that got no route: what speaks against a spread is why that was rejected."""
    rejected = Rejected("spread it", reason, message)
    cost = Cost("order per key is kept", 1, 0.0)
    return replace(_verdict(s, key, reason, message, None), cost=cost, rejected=(rejected,))


def _verdict(s: Situation, key: bytes, reason: Reason, message: str, route: Route | None) -> KeyVerdict:
    """Rates in records/s even where bytes were planned: the share is the same part of the loads."""
    load = s.keys.get(key) or KeyLoad(key, 0.0, 0.0, {})
    whole = sum(s.loads)
    share, error = (load.total / whole, 2 * load.error / whole) if whole > 0 else (0.0, 0.0)
    records = sum(s.steadied.records) if s.steadied else 0.0
    return KeyVerdict(
        key=key,
        reason=reason,
        message=message,
        records_per_second=share * records,
        share=min(1.0, share),
        share_error=min(1.0, error),
        shards=len(route.shards) if route else 0,
        by=route.by if route else (),
        basis=_basis(s, load),
        stray=1 - load.follows / load.total if load.total > 0 else 0.0,
    )


def _basis(s: Situation, load: KeyLoad) -> Basis | None:
    """The sample of the partition on which the key was seen to be the most; None while none shows it."""
    sampled = s.memory.fresh_evidence(s.at)
    on = {p: part for p, part in load.on.items() if p in sampled and load.key in sampled[p].keys}
    if not on or s.now is None:
        return None
    hottest = max(on, key=lambda p: (on[p], -p))
    seen = sampled[hottest]
    found = seen.keys[load.key].bytes if s.by_bytes else seen.keys[load.key].records
    return Basis(
        partition=hottest,
        partition_records_per_second=s.now.records[hottest],
        partition_share=found.value,
        partition_share_error=min(1.0, found.bound),
        records=seen.records,
        batches=seen.batches,
        age_seconds=s.at - seen.at,
    )


def _only_observes(s: Situation, outcome: Outcome) -> bool:
    return not s.spec.acts and not s.spec.suspend and outcome.routes != s.table.routes


def _ready(s: Situation, observation: Observation, decision: Decision, table: Table) -> Condition:
    if (wrong := damage(observation)) is not None:
        return Condition(ConditionType.READY, False, Reason.TABLE_REWRITTEN, _rewritten(wrong, table))
    if not observation.published.reachable:
        why = f"epoch {table.epoch} cannot be published: Redis does not answer; clients keep their last table"
        return Condition(ConditionType.READY, False, Reason.REDIS_UNAVAILABLE, why)
    figures = decision.summary
    applied = f"applied by {figures.producers_applied}/{count(figures.producers, 'producer')}"
    topic = f"topic {table.stream.topic} with {count(s.topic.partitions, 'partition')}"
    why = f"{topic}, epoch {table.epoch}, {applied}{amiss(s.memory)}"
    return Condition(ConditionType.READY, True, Reason.GOVERNING, why)


def _is_hot(table: Table, decision: Decision) -> Condition:
    if table.routes:
        reason = Reason.SPREAD if decision.reason is Reason.SPREAD else Reason.HOLDING
        return Condition(ConditionType.HOT, True, reason, _hot(table.routes))
    if decision.reason in REFUSALS or decision.reason is Reason.OBSERVING:
        return Condition(ConditionType.HOT, False, decision.reason, decision.message)
    return Condition(ConditionType.HOT, False, Reason.NONE_SPREAD, _hot(()))


def _hot(routes: Sequence[Route]) -> str:
    if not routes:
        return "no key is spread"
    return f"{count(len(routes), 'key')} spread: {names([route.key for route in routes])}"


def _not_yet_supported(spec: PolicySpec) -> Condition:
    fields = unsupported_fields(spec)
    if not fields:
        everything = "every field of the spec is carried out"
        return Condition(ConditionType.NOT_YET_SUPPORTED, False, Reason.GOVERNING, everything)
    why = f"accepted, but not carried out yet: {', '.join(fields)}"
    return Condition(ConditionType.NOT_YET_SUPPORTED, True, Reason.FIELDS_NOT_CARRIED_OUT, why)


def _events(
    s: Situation, decision: Decision, observation: Observation, outcome: Outcome, written: Table | None
) -> list[EmitEvent]:
    events = []
    if written is not None and (wrong := damage(observation)) is not None:
        events.append(EmitEvent(Reason.TABLE_REWRITTEN, _rewritten(wrong, written), warning=True))
    if written is not None and decision.reason in CHANGES:
        events.append(EmitEvent(decision.reason, _with_grounds(decision)))
    if outcome.merged and decision.reason is not Reason.MERGED_BACK:
        keys = names([route.key for route in outcome.merged])
        events.append(EmitEvent(Reason.MERGED_BACK, f"{keys} went back to plain keys"))
    if decision.reason in REFUSALS or decision.reason is Reason.OBSERVING:
        events.append(EmitEvent(decision.reason, decision.message, warning=decision.reason in REFUSALS))
    refused = {
        stop.reason: stop.message for stop in outcome.refused.values() if stop.reason != decision.reason
    }
    events += [EmitEvent(reason, message, warning=True) for reason, message in refused.items()]
    events += [
        EmitEvent(note.reason, f"key {name(key)}: {note.message}", warning=True)
        for key, note in sorted(outcome.noted.items())
        if s.spec.acts
    ][:1]
    published = any(isinstance(action, PublishTable) for action in decision.actions)
    if written is None and published and s.memory.table is not None:
        events.append(EmitEvent(Reason.REPUBLISHED, _republished(observation, s.memory.table)))
    return events


def _with_grounds(decision: Decision) -> str:
    """The decision's message, with what the verdict on the biggest key that it changed rests on."""
    changed = [verdict for verdict in decision.verdicts if verdict.reason is decision.reason]
    because = grounds(changed[0]) if changed else ""
    return f"{decision.message}; {because}" if because else decision.message


def _rewritten(wrong: str, table: Table) -> str:
    return f"the RoutingTable object held no believable table ({wrong}): made anew under epoch {table.epoch}"


def _republished(observation: Observation, table: Table) -> str:
    published = observation.published
    held = (
        f"epoch {published.table.epoch}"
        if published.table
        else "no valid table"
        if published.garbage
        else "nothing"
    )
    return f"Redis held {held}; epoch {table.epoch} was published again"


def _with_events(
    decision: Decision, events: Sequence[EmitEvent], at: float, memory: Memory
) -> tuple[Decision, Memory]:
    """The decision with its Events: every change is told, the same refusal only once in a while."""
    due = [
        event
        for event in events
        if event.reason in CHANGES
        or not within(at, memory.told.get(event.reason, float("-inf")), TELL_AGAIN_SECONDS)
    ]
    actions: tuple[Action, ...] = (*decision.actions, *due)
    return replace(decision, actions=actions), replace(
        memory, told={**memory.told, **{event.reason: at for event in due}}
    )
