"""A Deployment's one container as a local process: what a kubelet would do with it, where there is no node.

The command, arguments and environment are taken from the object in the cluster, values and mounted files from
the Secrets that it names, and the only credential is a token of its ServiceAccount.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.chart.commands import Manifest, Program

STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Pod:
    """A container that runs."""

    container: Manifest
    log: Path

    def get(self, port_name: str, path: str) -> tuple[int, str]:
        """The answer of one of its ports."""
        (port,) = (p["containerPort"] for p in self.container["ports"] if p["name"] == port_name)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()


@contextlib.contextmanager
def running(deployment: Manifest, kubectl: Program, kubeconfig: Path, folder: Path) -> Iterator[Pod]:
    """The container, from its start to its end; ended by its process."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    folder.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "KUBECONFIG": str(_kubeconfig(deployment, kubectl, kubeconfig, folder)),
        **_environment(deployment, kubectl, folder),
    }
    log = folder / "log"
    command = [*container["command"], *container["args"]]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Pod(container, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(deployment: Manifest, kubectl: Program, folder: Path) -> dict[str, str]:
    namespace, spec = deployment["metadata"]["namespace"], deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    values = {}
    for each in container["env"]:
        if "value" in each:
            values[each["name"]] = each["value"]
        else:
            named = each["valueFrom"]["secretKeyRef"]
            values[each["name"]] = _secret(kubectl, namespace, named["name"])[named["key"]]
    values["HOTKEY_HOST"] = "127.0.0.1"  # a local process has no pod's network of its own
    for at, there in _mounted(spec, kubectl, namespace, folder).items():
        values = {name: value.replace(f"{at}/", f"{there}/") for name, value in values.items()}
    return values


def _mounted(spec: Manifest, kubectl: Program, namespace: str, folder: Path) -> dict[str, Path]:
    """Where each mounted Secret is to be found instead of at its mount path."""
    (container,) = spec["containers"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    found = {}
    for mount in container["volumeMounts"]:
        if mount["name"] in secrets:
            place = found[mount["mountPath"]] = folder / mount["name"]
            place.mkdir()
            for key, text in _secret(kubectl, namespace, secrets[mount["name"]]).items():
                (place / key).write_text(text)
    return found


def _secret(kubectl: Program, namespace: str, name: str) -> dict[str, str]:
    data = kubectl.json("get", "secret", name, "-n", namespace)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def _kubeconfig(deployment: Manifest, kubectl: Program, admin: Path, folder: Path) -> Path:
    """The administrator's kubeconfig with the token of the ServiceAccount in place of his certificate."""
    namespace = deployment["metadata"]["namespace"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    config = json.loads(admin.read_text())
    config["users"][0]["user"] = {"token": kubectl("create", "token", account, "-n", namespace).strip()}
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path
