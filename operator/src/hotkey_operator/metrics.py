"""Prometheus metrics. Labels are a policy's namespace and name and a reason, never an unbounded key."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from hotkey_operator.engine.model import Summary
from hotkey_operator.engine.reasons import ConditionType
from hotkey_operator.loop import Outcome
from hotkey_operator.ports import PolicyRef
from hotkey_operator.status import conditions_of, governed_table

_POLICY = ("namespace", "policy")
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

turn_seconds = Histogram("hotkey_operator_turn_seconds", "Duration of one turn", _POLICY, buckets=_BUCKETS)
turns = Counter("hotkey_operator_turns", "Turns by the decision's reason", (*_POLICY, "reason"))
defects = Counter("hotkey_operator_turn_errors", "Turns that ended in an unexpected error", _POLICY)
events = Counter("hotkey_operator_events", "Events told on the policy, by reason", (*_POLICY, "reason"))
last_turn = Gauge("hotkey_operator_last_turn_timestamp_seconds", "Unix time of the last turn's end", _POLICY)
ready = Gauge("hotkey_operator_ready", "1 while the policy's condition Ready is True", _POLICY)
epoch = Gauge("hotkey_operator_epoch", "Epoch of the stream's routing table", _POLICY)
hot_keys = Gauge("hotkey_operator_hot_keys", "Keys that are spread", _POLICY)
imbalance = Gauge(
    "hotkey_operator_imbalance", "Max over mean of the records per partition over 60 s", _POLICY
)
records_per_second = Gauge("hotkey_operator_records_per_second", "Rate of the whole topic", _POLICY)
clients = Gauge("hotkey_operator_clients", "Clients that report", (*_POLICY, "role"))
clients_applied = Gauge(
    "hotkey_operator_clients_applied", "Clients that apply this epoch", (*_POLICY, "role")
)
undecodable = Gauge("hotkey_operator_undecodable_records", "Sampled records whose JSON could not be read")

_OF_A_POLICY = (
    turn_seconds, turns, defects, events, last_turn, ready, epoch, hot_keys, imbalance, records_per_second,
    clients, clients_applied,
)  # fmt: skip


def observe(ref: PolicyRef, outcome: Outcome, *, took_seconds: float, now: float) -> None:
    """Record one turn. `now`: unix seconds."""
    labels = (ref.namespace, ref.name)
    turn_seconds.labels(*labels).observe(took_seconds)
    last_turn.labels(*labels).set(now)
    _observe_ready(ref, outcome)
    for event in outcome.applied.events:
        events.labels(*labels, event.reason.value).inc()
    if outcome.decision is None or outcome.observation is None:
        return
    turns.labels(*labels, outcome.decision.reason.value).inc()
    table = governed_table(outcome)
    hot_keys.labels(*labels).set(len(table.routes) if table else 0)
    _observe_summary(ref, outcome.decision.summary)


def forget(ref: PolicyRef) -> None:
    """Drop what was recorded of a policy that is gone."""
    for metric in _OF_A_POLICY:
        metric.remove_by_labels({"namespace": ref.namespace, "policy": ref.name})


def _observe_ready(ref: PolicyRef, outcome: Outcome) -> None:
    for condition in conditions_of(outcome):
        if condition.type is ConditionType.READY:
            ready.labels(ref.namespace, ref.name).set(condition.status)


def _observe_summary(ref: PolicyRef, summary: Summary) -> None:
    labels = (ref.namespace, ref.name)
    epoch.labels(*labels).set(summary.epoch)
    records_per_second.labels(*labels).set(summary.records_per_second)
    if summary.imbalance is not None:
        imbalance.labels(*labels).set(summary.imbalance)
    clients.labels(*labels, "producer").set(summary.producers)
    clients.labels(*labels, "consumer").set(summary.consumers)
    clients_applied.labels(*labels, "producer").set(summary.producers_applied)
    clients_applied.labels(*labels, "consumer").set(summary.consumers_applied)
