"""Prometheus metrics: what happened is counted here, what stands now is in gauges.py.

Labels are bounded: a policy, a reason, a role, a partition up to a limit, and the keys that are routed, which
can be left out. What is exported of a policy goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hotkey_operator import __version__
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Observation
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.told import CHANGES
from hotkey_operator.gauges import POLICY, Exposure, Watched, families
from hotkey_operator.loop import Outcome
from hotkey_operator.ports import PolicyRef
from hotkey_operator.status import conditions_of, governed_table
from hotkey_sdk.routing.partitioner import partition_for

_TURN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PUBLISH_BUCKETS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 30.0, 60.0, 120.0)
_PART_BUCKETS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_FAILURES = (Reason.KUBERNETES_UNAVAILABLE, Reason.REDIS_UNAVAILABLE, Reason.TABLE_CONFLICT)

Labels = tuple[str, str]


class Metrics(Collector):
    """One registry for each, so that two in one process do not mix."""

    def __init__(self, exposure: Exposure | None = None) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._exposure = exposure or Exposure()
        self._watched: dict[PolicyRef, Watched] = {}
        self._undecodable: Callable[[], int] = lambda: 0
        self._cut: Callable[[], int] = lambda: 0
        self._left_out: Callable[[], int] = lambda: 0
        self._turn_seconds = self._histogram("turn_seconds", "Duration of one turn", _TURN_BUCKETS)
        self._trigger_to_publish = self._histogram(
            "trigger_to_publish_seconds",
            "From the turn that first saw a key's partition over the trigger until the table that spreads it "
            "was published",
            _PUBLISH_BUCKETS,
        )
        self._slots_moved = self._histogram(
            "slots_moved_ratio", "Part of a key's slots that a change of its route moved", _PART_BUCKETS
        )
        self._turns = self._counter("turns", "Turns by the decision's reason", "reason")
        self._turn_errors = self._counter("turn_errors", "Turns that ended in an unexpected error")
        self._events = self._counter("events", "Events told on the policy, by reason", "reason")
        self._publish_failures = self._counter(
            "publish_failures", "Turns that could not write or publish a table, by reason", "reason"
        )
        self._sampled_records = self._counter("sampled_records", "Records read as samples")
        self._sampled_bytes = self._counter(
            "sampled_bytes", "Bytes that the brokers sent for samples, at most"
        )
        self._of_a_policy = (
            self._turn_seconds, self._trigger_to_publish, self._slots_moved, self._turns, self._turn_errors,
            self._events, self._publish_failures, self._sampled_records, self._sampled_bytes,
        )  # fmt: skip
        self.registry.register(self)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"hotkey_operator_{name}", text, (*POLICY, *labels), registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"hotkey_operator_{name}", text, POLICY, buckets=buckets, registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """What stands now."""
        build = GaugeMetricFamily(
            "hotkey_operator_build_info", "1; says which version runs", labels=("version",)
        )
        build.add_metric((__version__,), 1)
        yield build
        yield CounterMetricFamily(
            "hotkey_operator_undecodable_records",
            "Sampled records whose JSON could not be read",
            value=self._undecodable(),
        )
        yield CounterMetricFamily(
            "hotkey_operator_samples_cut",
            "Samples that were made smaller or left out, as all streams may take only so many bytes",
            value=self._cut(),
        )
        yield CounterMetricFamily(
            "hotkey_operator_key_reports_left_out",
            "Key reports of producers that were not read, as one read takes only so many bytes",
            value=self._left_out(),
        )
        yield from families(list(self._watched.values()), self._exposure)

    def sampling(self, *, undecodable: Callable[[], int], cut: Callable[[], int]) -> None:
        """Where to find how many sampled records could not be read, and how many samples were cut."""
        self._undecodable, self._cut = undecodable, cut

    def reports(self, *, left_out: Callable[[], int]) -> None:
        """Where to find how many key reports were left out."""
        self._left_out = left_out

    def expect(self, ref: PolicyRef) -> None:
        """A policy is found: a first turn that never ends is seen too, and counters begin at 0."""
        labels = (ref.namespace, ref.name)
        self._watched.setdefault(ref, Watched(ref))
        self._turn_errors.labels(*labels)
        for reason in sorted(CHANGES):
            self._events.labels(*labels, reason.value)
        for reason in _FAILURES:
            self._publish_failures.labels(*labels, reason.value)

    def observe(
        self,
        ref: PolicyRef,
        outcome: Outcome,
        memory: Memory,
        *,
        topic: str | None = None,
        took_seconds: float,
        now: float,
    ) -> None:
        """Record one turn that ended at `now` (unix seconds); `memory`: what it left for the next."""
        labels = (ref.namespace, ref.name)
        self._watched[ref] = Watched.after(ref, outcome, memory, topic, now)
        self._turn_seconds.labels(*labels).observe(took_seconds)
        self._turns.labels(*labels, _reason(outcome).value).inc()
        for event in outcome.applied.events:
            self._events.labels(*labels, event.reason.value).inc()
        if (failure := _failure(outcome)) is not None:
            self._publish_failures.labels(*labels, failure.value).inc()
        if outcome.observation is not None:
            self._count_samples(labels, outcome.observation)
        self._measure_change(labels, outcome, memory, now)

    def failed(self, ref: PolicyRef) -> None:
        """A turn ended in an error that nothing expected."""
        self._turn_errors.labels(ref.namespace, ref.name).inc()

    def forget(self, ref: PolicyRef) -> None:
        """Drop what was recorded of a policy that is gone."""
        self._watched.pop(ref, None)
        for metric in self._of_a_policy:
            metric.remove_by_labels({"namespace": ref.namespace, "policy": ref.name})

    def _count_samples(self, labels: Labels, observation: Observation) -> None:
        samples = observation.samples
        self._sampled_records.labels(*labels).inc(sum(len(run) for sample in samples for run in sample.runs))
        self._sampled_bytes.labels(*labels).inc(sum(sample.bytes_read for sample in samples))

    def _measure_change(self, labels: Labels, outcome: Outcome, memory: Memory, now: float) -> None:
        """How long newly spread keys waited, and how much moved, of a turn that wrote a table."""
        written, decision = outcome.applied.stored, outcome.decision
        if written is None or decision is None or outcome.observation is None:
            return
        for verdict in decision.verdicts:
            if verdict.reason in CHANGES and verdict.cost is not None:
                self._slots_moved.labels(*labels).observe(verdict.cost.slots_moved)
        if outcome.applied.published_epoch is None:
            return
        before = outcome.observation.stored
        old = {route.key for route in before.table.routes} if before is not None else set()
        for route in written.table.routes:
            since = memory.over_since.get(partition_for(route.key, written.table.partitions))
            if route.key not in old and since is not None:
                self._trigger_to_publish.labels(*labels).observe(max(0.0, now - since))


def _reason(outcome: Outcome) -> Reason:
    """The decision's, or why there was none."""
    if outcome.decision is not None:
        return outcome.decision.reason
    told = (each.reason for each in conditions_of(outcome) if each.type is ConditionType.READY)
    return next(told, Reason.KUBERNETES_UNAVAILABLE)


def _failure(outcome: Outcome) -> Reason | None:
    """Why the table that was decided does not stand where it should, or None."""
    if outcome.applied.conflict is not None:
        return Reason.TABLE_CONFLICT
    if outcome.applied.unwritten is not None:
        return Reason.KUBERNETES_UNAVAILABLE
    if outcome.applied.unpublished is not None:
        return Reason.REDIS_UNAVAILABLE
    unreachable = outcome.observation is not None and not outcome.observation.published.reachable
    return Reason.REDIS_UNAVAILABLE if unreachable and governed_table(outcome) is not None else None
