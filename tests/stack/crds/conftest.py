"""The custom resources on the running API server, and a namespace for objects of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from devstack import Stack, crds, tools
from tests.chart.commands import Program

CRDS = Path(__file__).parents[3] / "crds"
NAMESPACE = "crds"
GROUP, VERSION = "hotkeys.dev", "v1alpha1"
KINDS = {"hotkeypolicies": "HotKeyPolicy", "routingtables": "RoutingTable"}

Document = Mapping[str, Any]
# (plural, spec, the spec that is there already) -> the spec as admitted, or why it was refused
Admit = Callable[..., dict[str, Any] | str]


@pytest.fixture(scope="session")
def kubectl(stack: Stack) -> Program:
    """kubectl on the running API server, which knows the resources and has the namespace."""
    program = Program(tools.kubectl(), (f"--kubeconfig={stack.kubernetes.kubeconfig}",))
    crds.install(program, CRDS)
    program(
        "apply",
        "-f",
        "-",
        stdin=f'{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{NAMESPACE}"}}}}',
    )
    return program


@pytest.fixture(scope="session")
def objects(stack: Stack, kubectl: Program) -> client.CustomObjectsApi:
    kubeconfig = str(stack.kubernetes.kubeconfig)
    return client.CustomObjectsApi(config.new_client_from_config(kubeconfig))  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def admit(objects: client.CustomObjectsApi) -> Admit:
    """Puts a spec to the API server without storing it."""

    def ask(plural: str, spec: Document, name: str = "asked") -> dict[str, Any] | str:
        body = document(plural, name, spec)
        try:
            admitted: Any = objects.create_namespaced_custom_object(
                GROUP, VERSION, NAMESPACE, plural, body, dry_run="All", field_validation="Strict"
            )
        except ApiException as error:
            if error.status not in (400, 422):
                raise
            return str(error.body)
        return dict(admitted["spec"])

    return ask


def document(plural: str, name: str, spec: Document) -> dict[str, Any]:
    """The whole object around a spec."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KINDS[plural],
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": dict(spec),
    }
