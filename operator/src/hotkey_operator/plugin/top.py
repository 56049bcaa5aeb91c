"""All keys, the hottest first, and one line for each policy. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hotkey_operator.plugin.columns import NONE, percent, table
from hotkey_operator.plugin.explain import NO_FIGURES, own_topics, value
from hotkey_operator.plugin.policies import Found, Policy, hottest

_KEYS = ("NAMESPACE", "POLICY", "TOPIC", "KEY", "RECORDS/S", "SHARE", "SHARDS", "OWN TOPIC", "REASON")
_POLICIES = (
    "NAMESPACE", "POLICY", "TOPIC", "RECORDS/S", "IMBALANCE", "HOTTEST", "EPOCH", "PRODUCERS", "CONSUMERS",
    "READY", "DECISION",
)  # fmt: skip
_FIGURES = (
    "clusterId", "epoch", "partitions", "recordsPerSecond", "imbalance", "hottestPartition", "hotKeys",
    "producers", "consumers", "decision", "conditions",
)  # fmt: skip


def overview(found: Sequence[Policy]) -> list[str]:
    """Both tables; the first only where there are keys."""
    keys = key_table(hottest(found))
    return [*keys, "", *_policies(found)]


def key_table(found: Sequence[Found]) -> list[str]:
    if not found:
        return ["No key is heavy and none is spread."]
    return table(_KEYS, [_row(each) for each in found])


def _row(found: Found) -> tuple[str, ...]:
    policy, verdict, known = found.policy, found.verdict, bool(found.entry)
    shards = len(found.route.shards) if found.route is not None else verdict.shards
    return (
        policy.namespace,
        policy.name,
        policy.topic,
        found.text or "(empty)",
        _carried(policy, f"{verdict.records_per_second:.0f}") if known else "<unknown>",
        _carried(policy, percent(verdict.share)) if known else "<unknown>",
        str(shards),
        ", ".join(f"{topic.name} ({topic.phase})" for topic in own_topics(found)) or NONE,
        str(verdict.reason) if known else "<unknown>",
    )


def _carried(policy: Policy, figure: str) -> str:
    """What a key carries; an operator that has just started knows its keys before it has measured."""
    return figure if policy.is_measured else NO_FIGURES


def _policies(found: Sequence[Policy]) -> list[str]:
    return table(_POLICIES, [_policy_row(each) for each in found])


def _policy_row(policy: Policy) -> tuple[str, ...]:
    status = policy.status
    decision = status.get("decision") or {}
    return (
        policy.namespace,
        policy.name,
        policy.topic,
        _figure(status.get("recordsPerSecond", NO_FIGURES if status else None)),
        _figure(status.get("imbalance")),
        _figure(status.get("hottestPartition")),
        _figure(status.get("epoch")),
        _figure(status.get("producers")),
        _figure(status.get("consumers")),
        _figure(policy.condition("Ready").get("status")),
        _figure(decision.get("reason")),
    )


def _figure(found: Any) -> str:
    return "<none>" if found is None else str(found)


def values(found: Sequence[Policy]) -> dict[str, object]:
    """The same for programs: keys as `explain` gives them, policies with the figures of their status."""
    return {
        "items": [value(each) for each in hottest(found)],
        "policies": [
            {
                "namespace": policy.namespace,
                "policy": policy.name,
                "topic": policy.topic,
                **{name: policy.status[name] for name in _FIGURES if name in policy.status},
            }
            for policy in found
        ],
    }
