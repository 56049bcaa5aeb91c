"""A turn's outcome as the status of the policy and of its RoutingTable, and when that is worth writing.

Pure: the caller writes it. What changed in kind is told at once, figures that only drift at a slower pace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from hotkey_operator import verdicts
from hotkey_operator.engine.model import Condition, ConsumerLag, KeyVerdict, Observation, Sampling, Summary
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.loop import Outcome
from hotkey_sdk.routing.table import Table

FIGURES_SECONDS = 5.0
_MAX_KEYS = 50
_OPTIONAL = ConditionType.DEDICATED_TOPICS_READY


@dataclass(slots=True)
class Pace:
    """Which of the documents that come along are worth writing: call `sent` after each that was written."""

    _document: Mapping[str, Any] | None = None
    _at: float = field(default=float("-inf"))

    def is_due(
        self, document: Mapping[str, Any], now: float, figures_seconds: float = FIGURES_SECONDS
    ) -> bool:
        """Whether `document` tells something new at `now` (seconds); figures alone do at their own pace."""
        if self._document is None or _essence(document) != _essence(self._document):
            return True
        return document != self._document and now - self._at >= figures_seconds

    def sent(self, document: Mapping[str, Any], now: float) -> None:
        self._document, self._at = document, now


def conditions_of(outcome: Outcome) -> tuple[Condition, ...]:
    """The decision's conditions, Ready corrected by what could not be done. Empty: nothing new is known."""
    decided = outcome.decision.conditions if outcome.decision is not None else ()
    ready = _unready(outcome)
    if ready is None:
        return decided
    return (ready, *(each for each in decided if each.type is not ConditionType.READY))


def policy_status(
    outcome: Outcome, *, generation: int, now: float, previous: Mapping[str, Any], observing: bool
) -> dict[str, Any]:
    """The status to merge into the policy's. `previous`: the status that it holds; `now`: unix seconds."""
    told = conditions_of(outcome)
    held = list(previous.get("conditions") or ())
    if outcome.decision is not None and not any(each.type is _OPTIONAL for each in told):
        held = [
            each for each in held if each.get("type") != _OPTIONAL
        ]  # the policy has no such topics any more
    status: dict[str, Any] = {"observedGeneration": generation}
    status["conditions"] = conditions(told, generation=generation, now=now, previous=held)
    if outcome.decision is None:
        return status
    decision, observation = outcome.decision, outcome.observation
    table = governed_table(outcome)
    told_of = decision.verdicts[:_MAX_KEYS]
    planned = [verdicts.document(each) for each in told_of]
    keys = [verdicts.document(_as_it_stands(each, table)) for each in told_of] if observing else planned
    keys = _with_times(keys, list(previous.get("keys") or ()), now)
    status |= {"clusterId": _cluster(observation), "hotKeys": len(table.routes) if table else 0, "keys": keys}
    status |= _figures(decision.summary)
    status["decision"] = {"reason": decision.reason.value, "message": decision.message}
    if outcome.mistake is not None:
        status["decision"] = {"reason": Reason.INVALID_SPEC.value, "message": outcome.mistake}
    status["plan"] = {"message": decision.message, "keys": planned} if observing and planned else None
    return status


def _as_it_stands(verdict: KeyVerdict, table: Table | None) -> KeyVerdict:
    """The verdict with the shards that the key has, where the plan, which would cost, is not carried out."""
    route = table.route(verdict.key) if table else None
    shards, by = (len(route.shards), route.by) if route else (0, ())
    return replace(verdict, shards=shards, by=by, cost=None)


def _with_times(
    keys: Iterable[Mapping[str, Any]], held: Iterable[Mapping[str, Any]], now: float
) -> list[dict[str, Any]]:
    """The entries with `since`: when the key came to stand as it does, by the status that was held before."""
    before = {each.get("key"): each for each in held}
    found = []
    for key in keys:
        known = before.get(key["key"], {})
        stands = (known.get("shards"), known.get("by")) == (key["shards"], key["by"])
        found.append({**key, "since": (known.get("since") if stands else None) or _moment(now)})
    return found


def table_status(outcome: Outcome) -> dict[str, Any] | None:
    """The status to merge into the RoutingTable's, or None where there is none or Redis told nothing."""
    if outcome.observation is None or outcome.decision is None or governed_table(outcome) is None:
        return None
    held = outcome.observation.published.table
    epoch = outcome.applied.published_epoch or (held.epoch if held is not None else None)
    if epoch is None:
        return None
    summary = outcome.decision.summary
    return {"publishedEpoch": epoch, "producers": _producers(summary), "consumers": _consumers(summary)}


def conditions(
    told: Iterable[Condition], *, generation: int, now: float, previous: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Conditions as Kubernetes writes them; `lastTransitionTime` moves only when `status` does.

    One of which nothing new is told stays as it was, under the generation that it was about.
    """
    before = {str(each.get("type")): each for each in previous}
    moment, found = _moment(now), []
    for each in told:
        status, known = "True" if each.status else "False", before.get(each.type.value, {})
        since = known.get("lastTransitionTime") if known.get("status") == status else None
        found.append(
            {
                "type": each.type.value,
                "status": status,
                "reason": each.reason.value,
                "message": each.message,
                "observedGeneration": generation,
                "lastTransitionTime": since or moment,
            }
        )
    new = {each["type"] for each in found}
    return [*found, *(dict(each) for kind, each in before.items() if kind not in new)]


def _moment(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unready(outcome: Outcome) -> Condition | None:
    applied = outcome.applied
    not_ready = Condition(ConditionType.READY, False, Reason.KUBERNETES_UNAVAILABLE, "")
    if outcome.mistake is not None:
        message = f"{outcome.mistake}; what is routed stays as it is until the spec is corrected"
        return replace(not_ready, reason=Reason.INVALID_SPEC, message=message)
    if outcome.standing_by is not None:
        message = (
            f"{outcome.standing_by}. Is a second operator running? This one stands by, then reads it anew"
        )
        return replace(not_ready, reason=Reason.TABLE_CONFLICT, message=message)
    if outcome.former is not None:
        return replace(not_ready, reason=Reason.FORMER_POLICY, message=outcome.former)
    if outcome.decision is None or applied.unwritten is not None:
        return replace(not_ready, message=applied.unwritten or outcome.failure or "the turn did not end")
    if applied.unpublished is not None:
        return replace(not_ready, reason=Reason.REDIS_UNAVAILABLE, message=applied.unpublished)
    return None


def governed_table(outcome: Outcome) -> Table | None:
    """The table that the policy governs with after the turn; None while another policy governs the stream."""
    if outcome.observation is not None and outcome.observation.rival is not None:
        return None
    stored = outcome.applied.stored or (outcome.observation.stored if outcome.observation else None)
    return stored.table if stored is not None else None


def _cluster(observation: Observation | None) -> str | None:
    if observation is None or observation.topic is None:
        return None
    return observation.topic.stream.cluster_id


def _figures(summary: Summary) -> dict[str, Any]:
    imbalance, rate = summary.imbalance, summary.records_per_second
    return {
        "epoch": summary.epoch,
        "partitions": summary.partitions,
        "recordsPerSecond": None if rate is None else round(rate),
        "imbalance": None if imbalance is None else f"{imbalance:.2f}",
        "hottestPartition": summary.hottest_partition,
        "producers": _producers(summary),
        "consumers": _consumers(summary),
        "sizes": summary.sizes.value,
        "sampling": _sampling(summary.sampling),
        "consumerLag": [_lag(each) for each in summary.consumer_lag] or None,
    }


def _sampling(sampling: Sampling) -> dict[str, Any]:
    told = {"bytesPerSecond": round(sampling.bytes_per_second), "partitions": sampling.partitions}
    return told | {"recordsPerOffset": None if sampling.real == 1.0 else f"{sampling.real:.2f}"}


def _lag(lag: ConsumerLag) -> dict[str, Any]:
    told = {
        "group": lag.group,
        "seconds": lag.seconds,
        "partition": lag.partition,
        "records": lag.records,
        "message": lag.failure,
    }
    found = {name: value for name, value in told.items() if value is not None}
    return found if lag.seconds is None else {**found, "seconds": round(lag.seconds, 1)}


def _producers(summary: Summary) -> str:
    return f"{summary.producers_applied}/{summary.producers}"


def _consumers(summary: Summary) -> str:
    return f"{summary.consumers_applied}/{summary.consumers}"


def _essence(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """What is told at once: conditions, reasons, epoch, keys and their shards; no figures, no messages."""
    return (
        document.get("observedGeneration"),
        document.get("epoch"),
        document.get("publishedEpoch"),
        document.get("partitions"),
        (document.get("decision") or {}).get("reason"),
        tuple((each["type"], each["status"], each["reason"]) for each in document.get("conditions", ())),
        tuple(
            (each["key"], each["reason"], each["shards"], *each["by"]) for each in document.get("keys", ())
        ),
    )
