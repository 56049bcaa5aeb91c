"""Why nothing is spread: an ordered tuple of guards, the first that stops gives the reason.

The order is the policy: what makes the question idle comes before what makes it wait. A guard looks at the
situation and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hotkey_operator.engine.model import Observation, Read
from hotkey_operator.engine.pressure import is_balanced
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.wording import behind, count, heat, name, unread


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing is spread, and why."""

    reason: Reason
    message: str


Gate = Callable[[PolicySpec, Observation], Stop | None]
Guard = Callable[[Situation], Stop | None]


def no_older_policy(spec: PolicySpec, observation: Observation) -> Stop | None:
    if observation.rival is None:
        return None
    return Stop(
        Reason.ANOTHER_POLICY, f"topic {spec.topic} is governed by the older policy {observation.rival}"
    )


def kafka_answers(spec: PolicySpec, observation: Observation) -> Stop | None:
    if observation.topic is None and observation.failure is None:
        return None
    if observation.topic is not None and observation.ends is not None:
        return None
    why = observation.failure or "the end offsets could not be read"
    return Stop(
        Reason.KAFKA_UNAVAILABLE, f"topic {spec.topic} cannot be watched: {why}; routes stay as they are"
    )


def topic_exists(spec: PolicySpec, observation: Observation) -> Stop | None:
    if observation.topic is not None:
        return None
    return Stop(Reason.TOPIC_NOT_FOUND, f"topic {spec.topic} does not exist; it is governed once it appears")


GATES: tuple[Gate, ...] = (no_older_policy, kafka_answers, topic_exists)


def gate(spec: PolicySpec, observation: Observation) -> Stop | None:
    """Why this policy does not govern its stream at all right now, or None."""
    return next((stop for each in GATES if (stop := each(spec, observation))), None)


def not_suspended(s: Situation) -> Stop | None:
    if not s.spec.suspend:
        return None
    return Stop(Reason.SUSPENDED, "the policy is suspended: routes stay as they are")


def measured(s: Situation) -> Stop | None:
    if s.now is not None:
        return None
    return Stop(Reason.WAITING, f"measuring the rates of {count(s.topic.partitions, 'partition')}")


def no_group_is_slow(s: Situation) -> Stop | None:
    slow = s.memory.lags.slow_at(s.at, s.memory.last_change)
    if s.hot or slow is None:
        return None
    return Stop(Reason.SLOW_CONSUMER, behind(s, slow))


def something_is_hot(s: Situation) -> Stop | None:
    if s.hot or s.now is None:
        return None
    hottest = max(range(s.topic.partitions), key=lambda p: (s.now.records[p] if s.now else 0.0, -p))
    return Stop(Reason.STEADY, f"no partition is over the trigger; {heat(s, hottest)}")


def more_than_one_partition(s: Situation) -> Stop | None:
    if s.topic.partitions > 1:
        return None
    return Stop(Reason.ONE_PARTITION, f"{heat(s, 0)}, and there is no other partition to spread a key to")


def not_compacted(s: Situation) -> Stop | None:
    if not s.topic.compacted:
        return None
    return Stop(
        Reason.TOPIC_COMPACTED,
        f"{heat(s, s.hot[0])}, but the topic is compacted: a record under another key would never replace "
        "the one that it updates",
    )


def not_balanced(s: Situation) -> Stop | None:
    if s.now is None or not is_balanced(s.now, s.by_bytes):
        return None
    return Stop(Reason.BALANCED, f"{heat(s, s.hot[0])}: the load is even, spreading a key would gain nothing")


def long_enough(s: Situation) -> Stop | None:
    if s.long_hot:
        return None
    return Stop(Reason.WAITING, f"{heat(s, s.hot[0])}, but not yet for {s.spec.trigger.for_seconds:g} s")


def somebody_is_heavy(s: Situation) -> Stop | None:
    if s.heavy() or any(not s.is_settling(route.key) for route in s.table.routes):
        return None
    partition = s.long_hot[0]
    perhaps = s.perhaps_heavy()
    if any(s.is_settling(route.key) for route in s.table.routes):
        return Stop(Reason.SETTLING, f"{heat(s, partition)}; the last change is not yet visible")
    if (blind := without_evidence(s)) is not None:
        return blind
    if perhaps:
        return Stop(Reason.SAMPLING, f"{heat(s, partition)}; not yet sure of key {name(perhaps[0].key)}")
    return Stop(
        Reason.NO_DOMINANT_KEY, f"{heat(s, partition)}, but no key of it is big enough to be worth a route"
    )


def without_evidence(s: Situation) -> Stop | None:
    """That nothing is known of the keys of the hottest partition, and why; None where something is."""
    partition = s.long_hot[0]
    if partition in s.memory.fresh_evidence(s.at):
        return None
    if s.spec.metrics.sampling:
        why = unread(s.memory, Read.SAMPLES)
        what = f"its records cannot be sampled: {why}" if why else "its records are being sampled"
        return Stop(Reason.SAMPLING, f"{heat(s, partition)}; {what}")
    if (why := unread(s.memory, Read.KEY_REPORTS)) is not None:
        what = f"metrics.sampling is off and the producers' key reports cannot be read: {why}"
        return Stop(Reason.NOT_SAMPLED, f"{heat(s, partition)}, but {what}")
    return Stop(
        Reason.NOT_SAMPLED,
        f"{heat(s, partition)}, but metrics.sampling is off and no producer tells its keys: set "
        "hotkey.report.keys on the producers",
    )


def settled(s: Situation) -> Stop | None:
    keys = [key.key for key in s.heavy()] + [route.key for route in s.table.routes]
    if any(not s.is_settling(key) for key in keys):
        return None
    return Stop(Reason.SETTLING, f"{heat(s, s.long_hot[0])}; the last change is not yet visible")


def within_rate(s: Situation) -> Stop | None:
    if not s.is_rate_limited():
        return None
    made = count(len(s.memory.changes), "change")
    return Stop(Reason.RATE_LIMITED, f"{heat(s, s.long_hot[0])}; {made} within the last minute are the limit")


GUARDS: tuple[Guard, ...] = (
    not_suspended,
    measured,
    no_group_is_slow,
    something_is_hot,
    more_than_one_partition,
    not_compacted,
    not_balanced,
    long_enough,
    somebody_is_heavy,
    settled,
    within_rate,
)


def first_stop(s: Situation) -> Stop | None:
    """Why nothing may be spread now, or None."""
    return next((stop for guard in GUARDS if (stop := guard(s))), None)
