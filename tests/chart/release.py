"""A release of the chart on the stack's cluster, with its operator running.

The cluster has no controllers and no node: a Deployment is declared available by hand, and its container is a
local process (pod.py).
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devstack import Stack
from tests.chart.commands import Manifest, Program
from tests.chart.conftest import CHART
from tests.chart.pod import Pod, running

RELEASE, NAMESPACE, WATCHED = "hk", "hotkey-system", "ads"
SECONDS = 60.0

AVAILABLE = {
    "observedGeneration": 1,
    "replicas": 1,
    "updatedReplicas": 1,
    "readyReplicas": 1,
    "availableReplicas": 1,
    "conditions": [
        {"type": kind, "status": "True", "reason": reason, "message": ""}
        for kind, reason in (
            ("Available", "MinimumReplicasAvailable"),
            ("Progressing", "NewReplicaSetAvailable"),
        )
    ],
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A release whose operator runs."""

    kubectl: Program
    helm: Program
    pod: Pod

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{NAMESPACE}:{RELEASE}-hotkey-operator"

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether the operator's ServiceAccount may do it."""
        asked = ("auth", "can-i", verb, resource, "-n", namespace, f"--as={self.account}")
        return self.kubectl.run(*asked).out.strip() == "yes"

    def apply_policy(self, name: str, topic: str) -> None:
        policy = {
            "apiVersion": "hotkeys.dev/v1alpha1",
            "kind": "HotKeyPolicy",
            "metadata": {"name": name, "namespace": WATCHED},
            "spec": {"topic": topic},
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(policy))

    def wait_until_ready(self, name: str) -> None:
        waiting = ("wait", "--for=condition=Ready", f"hkp/{name}", "-n", WATCHED, f"--timeout={SECONDS:.0f}s")
        printed = self.kubectl.run(*waiting)
        told = self.kubectl.run("get", "hkp", name, "-n", WATCHED, "-o", "jsonpath={.status}")
        assert printed.code == 0, f"{printed.err}status: {told.out}\nlog:\n{self.pod.log.read_text()}"


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def eventually(condition: Callable[[], bool], what: str, seen: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {SECONDS:.0f} s; seen: {seen()}"
        time.sleep(0.1)


def make_topics(stack: Stack, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap})
    for future in admin.create_topics([NewTopic(name, 12, 1) for name in names]).values():
        future.result(30)


def forget_what_is_installed(kubectl: Program, stack: Stack) -> None:
    """So that each release starts on a cluster without hotkey, whatever test ran before."""
    _delete_resources(kubectl)
    stack.redis.wipe()
    for name in (NAMESPACE, WATCHED):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    kubectl("delete", "secret", "--ignore-not-found", "-n", NAMESPACE, "hotkey-signing-key")


def _delete_resources(kubectl: Program) -> None:
    """Delete both kinds with their objects; no operator is left to release the finalizers of policies."""
    found = kubectl.run("get", "hkp", "--all-namespaces", "-o", "json")
    for policy in json.loads(found.out)["items"] if found.code == 0 else ():
        at = (policy["metadata"]["name"], "-n", policy["metadata"]["namespace"])
        kubectl("patch", "hkp", *at, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    kubectl("delete", "crd", "--ignore-not-found", "hotkeypolicies.hotkeys.dev", "routingtables.hotkeys.dev")


def install(helm: Program, kubectl: Program, *arguments: str) -> Manifest:
    """helm install --wait; the Deployment, which is declared available as its controller would."""
    command = (
        "install",
        RELEASE,
        str(CHART),
        "-n",
        NAMESPACE,
        "--wait",
        f"--timeout={SECONDS:.0f}s",
        *arguments,
    )
    name = ("deployment", f"{RELEASE}-hotkey-operator", "-n", NAMESPACE)
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": AVAILABLE}))
    with ThreadPoolExecutor(1) as threads:
        installing = threads.submit(helm.run, *command)
        eventually(
            lambda: installing.done() or kubectl.run("patch", *name, *patch).code == 0,
            "no Deployment was made",
            lambda: kubectl("get", "all", "-n", NAMESPACE),
        )
        printed = installing.result()
    assert printed.code == 0, printed.err
    deployment = kubectl.json("get", *name)
    assert isinstance(deployment, dict)
    return deployment


@contextlib.contextmanager
def released(
    stack: Stack, kubectl: Program, helm: Program, folder: Path, values: dict[str, str]
) -> Iterator[Installed]:
    """The chart installed and its operator run; uninstalled in the end."""
    metrics, liveness = free_ports(2)
    needed = {
        "kafka.bootstrapServers": stack.kafka.bootstrap.replace(",", "\\,"),
        "redis.url": stack.redis.url,
        "metrics.port": str(metrics),
        "liveness.port": str(liveness),
    }
    arguments = [part for name, value in (needed | values).items() for part in ("--set", f"{name}={value}")]
    deployment = install(helm, kubectl, *arguments)
    try:
        with running(deployment, kubectl, Path(stack.kubernetes.kubeconfig), folder) as pod:
            yield Installed(kubectl, helm, pod)
    finally:
        helm("uninstall", RELEASE, "-n", NAMESPACE)
