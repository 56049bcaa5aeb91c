"""Turns as the metrics see them: outcomes made by hand, and what is exported after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from prometheus_client import Metric

from hotkey_operator.act.executor import Applied
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import (
    Condition,
    Decision,
    EndOffsets,
    KeyVerdict,
    Observation,
    Published,
    StoredTable,
    Summary,
    TopicFacts,
)
from hotkey_operator.engine.rates import History
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.loop import Outcome
from hotkey_operator.metrics import Metrics
from hotkey_operator.ports import PolicyRef
from hotkey_sdk.routing.table import RecordKey, Route, Shard, Stream, Table

AT = 1_700_000_000.0
CLICKS = PolicyRef("ads", "clicks")
VIEWS = PolicyRef("ads", "views")
STREAM = Stream("cluster", "clicks")
READY = Condition(ConditionType.READY, True, Reason.GOVERNING, "")


def table(*keys: bytes, partitions: int = 4, epoch: int = 7) -> Table:
    """A table in which each key is spread over all partitions."""
    shards = tuple(Shard(partition, partition) for partition in range(partitions))
    slots = tuple(range(partitions))
    routes = tuple(Route(key, STREAM.topic, (), RecordKey.COMPOSITE, shards, slots) for key in keys)
    empty = Table.empty(STREAM, partitions=partitions, epoch=epoch, seed=1)
    return Table(**{name: getattr(empty, name) for name in empty.__struct_fields__} | {"routes": routes})


def verdict(
    key: bytes, *, share: float = 0.8, rate: float = 800.0, reason: Reason = Reason.HOLDING
) -> KeyVerdict:
    shards = 4 if reason is Reason.HOLDING else 0
    return KeyVerdict(key, reason, "", rate, share, 0.01, shards)


def memory(rates: Sequence[float], seconds: int = 60) -> Memory:
    """What is remembered of partitions that took so many records/s for so long."""
    readings = (
        EndOffsets(AT - seconds + second, tuple(int(rate * second) for rate in rates))
        for second in range(seconds + 1)
    )
    return Memory(history=History.of(*readings))


def turn(
    stands: Table | None,
    *verdicts: KeyVerdict,
    reason: Reason = Reason.HOLDING,
    summary: Summary | None = None,
    ready: Condition = READY,
    published: bool = True,
    applied: Applied | None = None,
) -> Outcome:
    """A turn under the table `stands`, which Redis holds or not."""
    decision = Decision((), reason, "", verdicts, (ready,), summary or Summary())
    seen = Observation(
        at=AT,
        topic=TopicFacts(STREAM, 4, compacted=False),
        stored=StoredTable(stands, "1") if stands else None,
        published=Published(reachable=published, table=stands if published else None),
    )
    return Outcome(seen, decision, applied or Applied())


def watched(*outcomes: Outcome, remembered: Memory | None = None, metrics: Metrics | None = None) -> Metrics:
    """The metrics after these turns of the policy `clicks`."""
    made = metrics or Metrics()
    made.expect(CLICKS)
    for outcome in outcomes:
        made.observe(CLICKS, outcome, remembered or Memory(), topic="clicks", took_seconds=0.1, now=AT)
    return made


def exported(metrics: Metrics) -> Iterable[Metric]:
    return metrics.registry.collect()


def series(metrics: Metrics, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """The values of one series name with these labels, by the other labels but the policy's."""
    found = {}
    for family in exported(metrics):
        for sample in family.samples:
            if sample.name == f"hotkey_operator_{name}" and labels.items() <= sample.labels.items():
                rest = {k: v for k, v in sample.labels.items() if k not in ("namespace", "policy", *labels)}
                found[tuple(rest.values())] = sample.value
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The one value of a series; None where there is none."""
    found = series(metrics, name, **labels)
    assert len(found) <= 1, found
    return next(iter(found.values()), None)


def written(before: Table, after: Table, *verdicts: KeyVerdict, reason: Reason = Reason.SPREAD) -> Outcome:
    """A turn that wrote `after` over `before` and published it."""
    done = Applied(stored=StoredTable(after, "2"), published_epoch=after.epoch)
    return replace(turn(before, *verdicts, reason=reason), applied=done)
