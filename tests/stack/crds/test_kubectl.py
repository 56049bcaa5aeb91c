"""What a person sees of the resources through kubectl."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chart.commands import Program
from tests.stack.crds.conftest import NAMESPACE, document

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "clusterId": "cluster",
    "epoch": 1_790_000_001,
    "partitions": 12,
    "recordsPerSecond": 5000.5,
    "imbalance": "9.61",
    "hottestPartition": 3,
    "hotKeys": 1,
    "keys": [
        {
            "key": "nike",
            "reason": "Spread",
            "message": "over 11 shards",
            "recordsPerSecond": 4000.25,
            "share": 0.8,
            "shareError": 0.01,
            "shards": 11,
            "by": ["user_id"],
        }
    ],
    "producers": "2/3",
    "consumers": "1/1",
    "decision": {"reason": "Spread", "message": "nike"},
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "as it should be",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
        for kind, reason in (("Ready", "Governing"), ("Hot", "Spread"))
    ],
}


@pytest.fixture(scope="module")
def policy(kubectl: Program) -> str:
    """A policy with a status as the operator writes it; its name."""
    spec = {"topic": "clicks", "trigger": {"recordsPerSecond": 1000}}
    kubectl("apply", "-f", "-", stdin=json.dumps(document("hotkeypolicies", "shown", spec)))
    patch = json.dumps({"status": STATUS})
    kubectl("patch", "hkp", "shown", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", patch)
    return "shown"


def test_a_status_is_stored_word_for_word(kubectl: Program, policy: str) -> None:
    assert kubectl.json("get", "hkp", policy, "-n", NAMESPACE)["status"] == STATUS


def test_the_table_of_policies_shows_what_matters(kubectl: Program, policy: str) -> None:
    head, row = kubectl("get", "hkp", policy, "-n", NAMESPACE).splitlines()

    assert head.split("   ")[0] == "NAME"
    assert " ".join(head.split()) == "NAME TOPIC MODE HOT KEYS EPOCH IMBALANCE READY SUSPENDED AGE"
    assert row.split()[:-1] == ["shown", "clicks", "Automatic", "1", "1790000001", "9.61", "True", "false"]


def test_the_wide_table_adds_reason_and_clients(kubectl: Program, policy: str) -> None:
    _, row = kubectl("get", "hkp", policy, "-n", NAMESPACE, "-o", "wide").splitlines()

    assert row.split()[-4:-1] == ["Governing", "2/3", "1/1"]


def test_a_condition_can_be_waited_for(kubectl: Program, policy: str) -> None:
    kubectl("wait", "--for=condition=Ready", f"hkp/{policy}", "-n", NAMESPACE, "--timeout=20s")


def test_policies_can_be_selected_by_topic(kubectl: Program, policy: str) -> None:
    def names(topic: str) -> list[str]:
        found = kubectl.json("get", "hkp", "-n", NAMESPACE, f"--field-selector=spec.topic={topic}")
        return [each["metadata"]["name"] for each in found["items"]]

    assert policy in names("clicks")
    assert policy not in names("other")


def test_both_kinds_are_in_one_category(kubectl: Program, policy: str) -> None:
    assert "hotkeypolicy.hotkeys.dev/shown" in kubectl("get", "hotkeys", "-n", NAMESPACE, "-o", "name")


def test_a_status_is_not_written_with_the_spec(kubectl: Program) -> None:
    both = {**document("hotkeypolicies", "no-status", {"topic": "t"}), "status": {"epoch": 5}}

    kubectl("apply", "-f", "-", stdin=json.dumps(both))

    assert "status" not in kubectl.json("get", "hkp", "no-status", "-n", NAMESPACE)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("hkp.spec.trigger", "When neither rate is given both defaults hold"),
        ("hkp.spec.spread.ordering", "between route changes and not across one"),
        ("hkp.spec.dedicatedTopic", "kept and reused, never deleted"),
        ("hkp.status.imbalance", "Max over mean"),
        ("hkrt.spec.epoch", "it only grows"),
    ],
)
def test_explain_tells_what_a_field_means(kubectl: Program, field: str, sentence: str) -> None:
    assert sentence in " ".join(kubectl("explain", field).split())


def test_a_refusal_reaches_the_person_in_words(kubectl: Program) -> None:
    wrong = document("hotkeypolicies", "wrong", {"topic": "t", "release": {"ratio": 1.2}})

    printed = kubectl.run("apply", "-f", "-", stdin=json.dumps(wrong))

    assert printed.code == 1
    assert "spec.release.ratio: Invalid value" in printed.err
    assert "below 1" in printed.err
