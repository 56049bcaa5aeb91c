"""helm install on a real API server; the operator runs as its Deployment says, by its ServiceAccount's token.

Kafka and Redis are real. What the chart's RBAC lacks would keep a policy from becoming Ready.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack import Stack
from tests.chart.commands import Program
from tests.chart.release import (
    NAMESPACE,
    SECONDS,
    WATCHED,
    Installed,
    eventually,
    forget_what_is_installed,
    make_topics,
    released,
)


@pytest.fixture(scope="module")
def everywhere(
    stack: Stack, kubectl: Program, helm_there: Program, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The shortest installation: all namespaces, the signing key made by the operator."""
    forget_what_is_installed(kubectl, stack)
    make_topics(stack, "clicks", "retired")
    folder = tmp_path_factory.mktemp("everywhere") / "pod"
    with released(stack, kubectl, helm_there, folder, {}) as installed:
        yield installed


def test_a_policy_becomes_ready(everywhere: Installed) -> None:
    everywhere.apply_policy("clicks", "clicks")

    everywhere.wait_until_ready("clicks")

    table = everywhere.kubectl.json("get", "hkrt", "clicks", "-n", WATCHED)
    assert (table["spec"]["topic"], table["spec"]["partitions"], table["spec"]["routes"]) == (
        "clicks",
        12,
        [],
    )


def test_the_operator_makes_the_signing_key_that_the_notes_speak_of(everywhere: Installed) -> None:
    everywhere.apply_policy("clicks", "clicks")
    everywhere.wait_until_ready("clicks")

    secret = everywhere.kubectl.json("get", "secret", "hotkey-signing-key", "-n", NAMESPACE)

    assert set(secret["data"]) == {"private.key", "public.keys"}


def test_the_probe_and_the_metrics_answer_on_the_ports_of_the_deployment(everywhere: Installed) -> None:
    everywhere.apply_policy("clicks", "clicks")
    everywhere.wait_until_ready("clicks")
    probe = everywhere.pod.container["livenessProbe"]["httpGet"]

    status, _ = everywhere.pod.get(probe["port"], probe["path"])
    _, metrics = everywhere.pod.get("metrics", "/metrics")

    assert status == 200
    assert "hotkey_operator_ready" in metrics


def test_a_policy_without_a_topic_gets_an_event_and_heals(everywhere: Installed, stack: Stack) -> None:
    everywhere.apply_policy("later", "later")
    about = "--field-selector=involvedObject.name=later,reason=TopicNotFound"
    events = ("get", "events", "-n", WATCHED, about)
    eventually(
        lambda: bool(everywhere.kubectl.json(*events)["items"]),
        "no Event told that the topic is missing",
        lambda: everywhere.kubectl("get", "events", "-n", WATCHED) + everywhere.pod.log.read_text(),
    )

    make_topics(stack, "later")

    everywhere.wait_until_ready("later")


def test_a_deleted_policy_is_let_go(everywhere: Installed) -> None:
    everywhere.apply_policy("retired", "retired")
    everywhere.wait_until_ready("retired")

    everywhere.kubectl("delete", "hkp", "retired", "-n", WATCHED, f"--timeout={SECONDS:.0f}s")

    tables = ("get", "hkrt", "-n", WATCHED, "-o", "name")
    eventually(
        lambda: "retired" not in everywhere.kubectl(*tables),
        "the table of the deleted policy was not removed",
        lambda: everywhere.kubectl(*tables) + everywhere.pod.log.read_text(),
    )


def test_the_operator_was_refused_nothing(everywhere: Installed) -> None:
    everywhere.apply_policy("clicks", "clicks")
    everywhere.wait_until_ready("clicks")

    assert "forbidden" not in everywhere.pod.log.read_text().lower()


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("get", "secret/other", NAMESPACE),
        ("list", "secrets", NAMESPACE),
        ("update", "secret/hotkey-signing-key", NAMESPACE),
        ("get", "secret/hotkey-signing-key", WATCHED),
        ("create", "secrets", WATCHED),
        ("create", "hotkeypolicies.hotkeys.dev", WATCHED),
        ("delete", "hotkeypolicies.hotkeys.dev", WATCHED),
        ("list", "pods", WATCHED),
        ("list", "namespaces", WATCHED),
        ("list", "customresourcedefinitions.apiextensions.k8s.io", WATCHED),
        ("create", "rolebindings.rbac.authorization.k8s.io", NAMESPACE),
    ],
)
def test_the_operator_may_not(everywhere: Installed, verb: str, resource: str, namespace: str) -> None:
    assert not everywhere.may(verb, resource, namespace)


def test_what_the_operator_may_do_is_seen_by_the_same_question(everywhere: Installed) -> None:
    assert everywhere.may("get", "secret/hotkey-signing-key", NAMESPACE)
    assert everywhere.may("create", "routingtables.hotkeys.dev", WATCHED)
