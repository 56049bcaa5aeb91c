"""The command as a person meets it: help that names every setting, and mistakes in words."""

from __future__ import annotations

import os
import subprocess
import sys


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HOTKEY_")}
    return subprocess.run(
        [sys.executable, "-m", "hotkey_operator", *arguments],
        env={**own, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_settings_it_says_what_is_missing_and_where_to_look() -> None:
    done = command("run")
    assert done.returncode == 2
    assert "HOTKEY_KAFKA_BOOTSTRAP_SERVERS" in done.stderr
    assert "HOTKEY_REDIS_URL" in done.stderr
    assert "hotkey-operator run --help" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_cluster_to_talk_to_it_ends_in_words() -> None:
    done = command(
        "run",
        KUBECONFIG=os.devnull,
        HOTKEY_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        HOTKEY_REDIS_URL="redis://127.0.0.1:1/0",
        HOTKEY_METRICS_PORT="0",
    )
    assert done.returncode == 1
    assert "KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_setting_with_its_environment_variable() -> None:
    printed = command("run", "--help").stdout
    for variable in (
        "HOTKEY_KAFKA_BOOTSTRAP_SERVERS",
        "HOTKEY_KAFKA_CONFIG",
        "HOTKEY_REDIS_URL",
        "HOTKEY_SIGNING_SECRET",
        "HOTKEY_ALLOW_UNSIGNED",
        "HOTKEY_NAMESPACES",
        "HOTKEY_LIVENESS_PORT",
        "HOTKEY_METRICS_PORT",
        "HOTKEY_LOG_LEVEL",
    ):
        assert variable in printed
