"""The Kubernetes API as the demo uses it: kubectl to write, as a person would, and a client to look often."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from devstack.tools import kubectl
from examples.demo.errors import DemoError

GROUP, VERSION = "hotkeys.dev", "v1alpha1"
LOOK_SECONDS = 0.1
CALL_SECONDS = 5.0
KUBECTL_SECONDS = 60.0

Object = Mapping[str, Any]


class Kube:
    """One namespace of the cluster that a kubeconfig names."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        client = kubernetes.config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._custom = kubernetes.client.CustomObjectsApi(client)
        self._core = kubernetes.client.CoreV1Api(client)
        self._kubectl = [str(kubectl()), f"--kubeconfig={kubeconfig}"]

    def kubectl(self, *arguments: str, manifest: Object | None = None) -> str:
        """Run kubectl, with `manifest` as its input. Raises `DemoError` with what it said."""
        done = subprocess.run(
            [*self._kubectl, *arguments],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            timeout=KUBECTL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def create_namespace(self, name: str) -> None:
        """Create a namespace unless it is there."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.kubectl("apply", "-f", "-", manifest=manifest)

    def policy(self, name: str) -> Object | None:
        """The HotKeyPolicy, or None when it does not exist."""
        return self._get("hotkeypolicies", name)

    def table(self, name: str) -> Object | None:
        """The RoutingTable object, or None when it does not exist."""
        return self._get("routingtables", name)

    def table_changes(self, name: str, seconds: int) -> Iterator[Object]:
        """The RoutingTable object as it is and at each change, as they are told, for so many seconds."""
        stream = kubernetes.watch.Watch().stream(  # type: ignore[no-untyped-call]
            self._custom.list_namespaced_custom_object,
            GROUP,
            VERSION,
            self.namespace,
            "routingtables",
            field_selector=f"metadata.name={name}",
            timeout_seconds=seconds,
        )
        for event in stream:
            yield event["object"]

    def events(self, policy: str) -> list[Object]:
        """The policy's Events, oldest first."""
        selector = f"involvedObject.name={policy}"
        found = self._read(self._core.list_namespaced_event, self.namespace, field_selector=selector)
        items: list[Object] = (found or {}).get("items", [])
        return sorted(items, key=lambda event: str(event["metadata"]["creationTimestamp"]))

    def wait_for_public_keys(self, namespace: str, secret: str, wait_seconds: float) -> str:
        """The public keys in the signing Secret, as soon as it is there."""
        deadline = time.monotonic() + wait_seconds
        while time.monotonic() < deadline:
            found = self._read(self._core.read_namespaced_secret, secret, namespace)
            if found is not None:
                return base64.b64decode(found["data"]["public.keys"]).decode()
            time.sleep(LOOK_SECONDS)
        raise DemoError(f"there is no Secret {namespace}/{secret} after {wait_seconds:.0f} s")

    def _get(self, plural: str, name: str) -> Object | None:
        get = self._custom.get_namespaced_custom_object
        return self._read(get, GROUP, VERSION, self.namespace, plural, name)

    def _read(self, call: Callable[..., Any], *arguments: str, **options: str) -> Object | None:
        """The answer as it stands in JSON; None for "there is none such"."""
        try:
            answer = call(*arguments, **options, _preload_content=False, _request_timeout=CALL_SECONDS)
        except ApiException as error:
            if error.status == 404:
                return None
            raise DemoError(f"the Kubernetes API: {error.status} {error.reason}") from None
        except HTTPError as error:
            raise DemoError(f"the Kubernetes API: {error}") from None
        found: Object = json.loads(answer.data)
        return found
