"""What stands now, as Prometheus gauges that are made when they are asked for.

A policy's series exist as long as the policy is watched, and say what its last turn left: nothing has to be
taken back when a key cools, a partition is added or a policy goes. It counts nothing: metrics.py does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from hotkey_operator.engine import rates
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import ConsumerLag, Decision, KeyVerdict
from hotkey_operator.engine.reasons import UNMENDED, ConditionType, Reason
from hotkey_operator.engine.unspread import unspread
from hotkey_operator.loop import Outcome
from hotkey_operator.ports import PolicyRef
from hotkey_operator.status import conditions_of, governed_table
from hotkey_operator.verdicts import key_text
from hotkey_sdk.routing.table import Phase, Route, Table

POLICY = ("namespace", "policy")


@dataclass(frozen=True, slots=True)
class Exposure:
    """How much may stand in labels: series of one stream's partitions (0: none), and the keys themselves."""

    partitions: int = 1_000
    keys: bool = True


@dataclass(frozen=True, slots=True)
class Watched:
    """A policy as its last turn left it; `turned_at`: unix seconds, 0 before the first. None: unknown."""

    ref: PolicyRef
    turned_at: float = 0.0
    topic: str | None = None
    ready: bool | None = None
    decision: Decision | None = None
    table: Table | None = None
    published: bool | None = None
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def after(
        cls, ref: PolicyRef, outcome: Outcome, memory: Memory, topic: str | None, now: float
    ) -> Watched:
        """What is known after a turn that ended at `now`."""
        ready = [each.status for each in conditions_of(outcome) if each.type is ConditionType.READY]
        return cls(
            ref=ref,
            turned_at=now,
            topic=topic,
            ready=ready[0] if ready else None,
            decision=outcome.decision,
            table=governed_table(outcome),
            published=is_published(outcome),
            memory=memory,
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        return self.table.routes if self.table else ()

    @property
    def routed(self) -> list[KeyVerdict]:
        """The verdicts of the keys that are spread, the biggest first."""
        found = {route.key for route in self.routes}
        return [each for each in (self.decision.verdicts if self.decision else ()) if each.key in found]


def is_published(outcome: Outcome) -> bool | None:
    """Whether Redis holds the table that was last decided; None where there is none to publish."""
    table, applied = governed_table(outcome), outcome.applied
    if applied.stopped or applied.unpublished is not None:
        return False
    if outcome.decision is None or outcome.observation is None or table is None:
        return None
    held = outcome.observation.published
    return applied.published_epoch == table.epoch or (held.reachable and held.table == table)


def unmended(decision: Decision) -> tuple[Reason, ...]:
    """Why a stream over the trigger is left as it is, for one key or for all of it; most often empty."""
    uneven = {each.reason for each in decision.verdicts if each.reason is Reason.CANNOT_SPREAD}
    given = {decision.reason, *uneven, *(each.reason for each in decision.verdicts if not each.shards)}
    return tuple(sorted(given & UNMENDED))


Values = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True, slots=True)
class Gauge:
    """One gauge: its name without the prefix, its labels beside the policy's, and how it is read.

    A value of None is left out, and so is a second value under the same labels.
    """

    name: str
    text: str
    read: Callable[[Watched, Exposure], Values]
    labels: tuple[str, ...] = ()


def _one(read: Callable[[Watched], float | None]) -> Callable[[Watched, Exposure], Values]:
    return lambda watched, _: [((), read(watched))]


def _of_decision(read: Callable[[Decision], float | None]) -> Callable[[Watched, Exposure], Values]:
    return _one(lambda watched: read(watched.decision) if watched.decision else None)


def _by_key(read: Callable[[KeyVerdict], float]) -> Callable[[Watched, Exposure], Values]:
    return lambda watched, exposure: [
        ((key_text(each.key),), read(each)) for each in (watched.routed if exposure.keys else ())
    ]


def _keys(watched: Watched, _: Exposure) -> Values:
    """By reason alone, so that it is there where keys are left out."""
    reasons = Counter(each.reason for each in (watched.decision.verdicts if watched.decision else ()))
    return [((reason.value,), number) for reason, number in sorted(reasons.items())]


def _decided(watched: Watched, exposure: Exposure) -> Values:
    for each in watched.routed if exposure.keys else ():
        yield (key_text(each.key), each.reason.value), 1


def _rejected(watched: Watched, exposure: Exposure) -> Values:
    for each in watched.routed if exposure.keys else ():
        for option in each.rejected:
            yield (key_text(each.key), option.option, option.reason.value), 1


def _partitions(watched: Watched, exposure: Exposure) -> Values:
    """Over ten seconds: as fresh as a scrape can show, and as steady as a picture needs."""
    history = watched.memory.history
    if watched.table is None or len(history.columns) > exposure.partitions:
        return
    for partition, rate in enumerate(rates.over(history, rates.STEADY_SECONDS) or ()):
        yield (str(partition),), rate


def _imbalance_unspread(watched: Watched) -> float | None:
    slow = rates.over(watched.memory.history, rates.SLOW_SECONDS)
    if slow is None or watched.decision is None or watched.table is None:
        return None
    loads = {each.key: each.records_per_second for each in watched.routed}
    based = [route for route in watched.routes if route.topic == watched.table.stream.topic]
    return rates.imbalance(unspread(slow, based, loads))


def _dedicated(watched: Watched, _: Exposure) -> Values:
    """By phase, where the stream has any."""
    phases = Counter(topic.phase for topic in watched.table.topics) if watched.table else Counter()
    return [((phase.value,), phases[phase]) for phase in Phase] if phases else []


def _held_up(watched: Watched, _: Exposure) -> Values:
    told = watched.decision.conditions if watched.decision else ()
    held_up = (each for each in told if each.type is ConditionType.DEDICATED_TOPICS_READY and not each.status)
    return [((each.reason.value,), 1) for each in held_up]


def _topic(watched: Watched, _: Exposure) -> Values:
    return [((watched.topic,), 1)] if watched.topic else []


def _reasons(watched: Watched, _: Exposure) -> Values:
    return [((watched.decision.reason.value,), 1)] if watched.decision else []


def _unmended(watched: Watched, _: Exposure) -> Values:
    return [((reason.value,), 1) for reason in (unmended(watched.decision) if watched.decision else ())]


def _lags(read: Callable[[ConsumerLag], float | None]) -> Callable[[Watched, Exposure], Values]:
    return lambda watched, _: [
        ((each.group,), read(each))
        for each in (watched.decision.summary.consumer_lag if watched.decision else ())
    ]


def _clients(watched: Watched, _: Exposure) -> Values:
    if watched.decision is None or watched.table is None:
        return []
    figures = watched.decision.summary
    return [(("producer",), figures.producers), (("consumer",), figures.consumers)]


def _clients_applied(watched: Watched, _: Exposure) -> Values:
    if watched.decision is None or watched.table is None:
        return []
    figures = watched.decision.summary
    return [(("producer",), figures.producers_applied), (("consumer",), figures.consumers_applied)]


GAUGES: tuple[Gauge, ...] = (
    Gauge("policy_info", "1; says which topic the policy governs", _topic, ("topic",)),
    Gauge(
        "last_turn_timestamp_seconds",
        "Unix time of the last turn's end, 0 before the first",
        _one(lambda w: w.turned_at),
    ),
    Gauge("ready", "1 while the policy's condition Ready is True", _one(lambda w: w.ready)),
    Gauge("decision", "1 for the reason of the last turn's decision", _reasons, ("reason",)),
    Gauge("unmended", "1 while a hot partition is left as it is, by reason", _unmended, ("reason",)),
    Gauge("epoch", "Epoch of the stream's routing table", _of_decision(lambda d: d.summary.epoch)),
    Gauge("table_published", "1 while Redis holds the table last decided", _one(lambda w: w.published)),
    Gauge("hot_keys", "Keys that are spread", _one(lambda w: len(w.routes) if w.decision else None)),
    Gauge("keys", "Keys that something was decided on, by reason", _keys, ("reason",)),
    Gauge("dedicated_held_up", "1 while something keeps a key from its own topic", _held_up, ("reason",)),
    Gauge("dedicated_topics", "Topics of their own that keys have or had, by phase", _dedicated, ("phase",)),
    Gauge(
        "records_per_second", "Rate of the whole topic", _of_decision(lambda d: d.summary.records_per_second)
    ),
    Gauge("partition_records_per_second", "Rate of a partition over 10 s", _partitions, ("partition",)),
    Gauge(
        "imbalance",
        "Max over mean of the records per partition over 60 s",
        _of_decision(lambda d: d.summary.imbalance),
    ),
    Gauge(
        "imbalance_unspread", "What the imbalance would be with every key plain", _one(_imbalance_unspread)
    ),
    Gauge(
        "key_records_per_second",
        "Rate of a routed key, from samples",
        _by_key(lambda key: key.records_per_second),
        ("key",),
    ),
    Gauge(
        "key_share_ratio", "Part of the topic that a routed key is", _by_key(lambda key: key.share), ("key",)
    ),
    Gauge(
        "key_share_error_ratio",
        "Error bound of that part, 95 %",
        _by_key(lambda key: key.share_error),
        ("key",),
    ),
    Gauge("key_shards", "Shards of a routed key", _by_key(lambda key: key.shards), ("key",)),
    Gauge(
        "key_stray_ratio",
        "Part of a routed key that does not follow the table",
        _by_key(lambda key: key.stray),
        ("key",),
    ),
    Gauge("key_decision", "1 for the reason why a routed key stands as it does", _decided, ("key", "reason")),
    Gauge("key_rejected", "1 for each option that was rejected", _rejected, ("key", "option", "reason")),
    Gauge(
        "consumer_group_lag_seconds",
        "How far a group is behind on the partition where it is furthest behind",
        _lags(lambda lag: lag.seconds),
        ("group",),
    ),
    Gauge("consumer_group_lag_records", "The same in records", _lags(lambda lag: lag.records), ("group",)),
    Gauge("clients", "Clients that report", _clients, ("role",)),
    Gauge("clients_applied", "Clients that apply this epoch", _clients_applied, ("role",)),
)


def families(watched: Iterable[Watched], exposure: Exposure) -> Iterator[Metric]:
    """Every gauge, with the series of all these policies."""
    policies = tuple(watched)
    for gauge in GAUGES:
        family = GaugeMetricFamily(
            f"hotkey_operator_{gauge.name}", gauge.text, labels=(*POLICY, *gauge.labels)
        )
        for each in policies:
            values: dict[tuple[str, ...], float] = {}
            for labels, value in gauge.read(each, exposure):
                if value is not None:
                    values.setdefault(labels, value)
            for labels, value in values.items():
                family.add_metric((each.ref.namespace, each.ref.name, *labels), value)
        yield family
