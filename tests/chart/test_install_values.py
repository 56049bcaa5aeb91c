"""Another way to install: rights in one namespace, settings from Secrets; and what an uninstall leaves."""

from __future__ import annotations

import json
from pathlib import Path

from devstack import Stack
from tests.chart.commands import Program
from tests.chart.release import NAMESPACE, WATCHED, forget_what_is_installed, make_topics, released


def make_secret(kubectl: Program, name: str, **data: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
    kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(secret))


def test_rights_in_one_namespace_and_settings_from_secrets_are_enough(
    stack: Stack, kubectl: Program, helm_there: Program, tmp_path: Path
) -> None:
    forget_what_is_installed(kubectl, stack)
    make_topics(stack, "watched")
    make_secret(kubectl, "redis", address=stack.redis.url)
    make_secret(kubectl, "kafka", settings="# read by the client\nclient.id=hotkey-in-a-test\n")
    values = {
        "watchNamespaces[0]": WATCHED,
        "redis.url": "",
        "redis.existingSecret.name": "redis",
        "redis.existingSecret.key": "address",
        "kafka.extraConfig.secretName": "kafka",
        "kafka.extraConfig.key": "settings",
    }

    with released(stack, kubectl, helm_there, tmp_path / "pod", values) as installed:
        installed.apply_policy("watched", "watched")
        installed.wait_until_ready("watched")

        assert installed.may("create", "routingtables.hotkeys.dev", WATCHED)
        assert not installed.may("create", "routingtables.hotkeys.dev", "default")
        assert not installed.may("list", "hotkeypolicies.hotkeys.dev", "default")
        assert "forbidden" not in installed.pod.log.read_text().lower()


def test_the_resources_and_their_objects_outlive_the_release(
    stack: Stack, kubectl: Program, helm_there: Program, tmp_path: Path
) -> None:
    forget_what_is_installed(kubectl, stack)
    with released(stack, kubectl, helm_there, tmp_path / "pod", {}) as first:
        first.apply_policy("kept", "kept")

    found = kubectl.json("get", "hkp", "-n", WATCHED)["items"]

    assert [each["metadata"]["name"] for each in found] == ["kept"]
