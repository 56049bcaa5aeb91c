"""`Tables`, status and the signing Secret on the Kubernetes API. Its client blocks, so calls run in threads.

It must not decide anything: an object's version is compared by the API server, never here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from hotkey_operator.engine.model import StoredTable, Unreadable
from hotkey_operator.ports import Conflict, NamespaceTerminating, PolicyRef, Unavailable
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.table import Table

GROUP, VERSION = "hotkeys.dev", "v1alpha1"
POLICIES, TABLES = "hotkeypolicies", "routingtables"
TOMBSTONE_LABEL = "hotkeys.dev/tombstone"
_MANAGED_BY = {"app.kubernetes.io/managed-by": "hotkey-operator"}

Connection = client.ApiClient

_T = TypeVar("_T")


def connect() -> Connection:
    """A client by the pod's ServiceAccount, else by the kubeconfig. Raises `ValueError` without either."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ValueError(
                f"no access to a Kubernetes API: not in a pod, and no usable kubeconfig ({error}); "
                "set KUBECONFIG, or run in a pod with a ServiceAccount"
            ) from None
    settings = client.Configuration.get_default_copy()
    settings.retries = urllib3.Retry(connect=1, read=0, status=0, redirect=0)
    settings.connection_pool_maxsize = 16
    return client.ApiClient(settings)


class _Api:
    """Calls with a time-out, in a thread, with the errors that the ports speak of."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = (timeout_seconds, timeout_seconds)

    async def _call(self, what: str, call: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        try:
            return await asyncio.to_thread(call, *arguments, _request_timeout=self._timeout, **options)
        except ApiException as error:
            if _is_terminating(error):
                raise NamespaceTerminating(f"Kubernetes: cannot {what}: {_words(error)}") from error
            if error.status in (404, 409):
                raise
            raise Unavailable(f"Kubernetes: cannot {what}: {_words(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"Kubernetes: cannot {what}: {error}") from error


class KubernetesTables(_Api):
    """RoutingTable objects: the policy's namespace and name, the table's document as `spec`."""

    def __init__(self, api: Connection, *, timeout_seconds: float = 3.0) -> None:
        super().__init__(timeout_seconds)
        self._objects = client.CustomObjectsApi(api)

    async def read(self, ref: PolicyRef) -> StoredTable | Unreadable | None:
        try:
            found: Any = await self._call(
                f"read RoutingTable {ref}", self._objects.get_namespaced_custom_object, *_path(ref)
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise Unavailable(f"Kubernetes: cannot read RoutingTable {ref}: {_words(error)}") from error
        return stored(ref, found)

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        body = _document(ref, table, resource_version, tombstone=tombstone)
        what = f"write RoutingTable {ref}"
        try:
            if resource_version is None:
                path = (GROUP, VERSION, ref.namespace, TABLES)
                found: Any = await self._call(
                    what, self._objects.create_namespaced_custom_object, *path, body
                )
            else:
                found = await self._call(
                    what, self._objects.replace_namespaced_custom_object, *_path(ref), body
                )
        except ApiException as error:
            if error.status == 404 and resource_version is None:
                raise Unavailable(f"Kubernetes: cannot {what}: {_words(error)}") from error
            raise Conflict(f"RoutingTable {ref} was written by someone else: {_words(error)}") from error
        return StoredTable(table, found["metadata"]["resourceVersion"], tombstone)

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        only = client.V1DeleteOptions(preconditions=client.V1Preconditions(resource_version=resource_version))
        call = self._objects.delete_namespaced_custom_object
        try:
            await self._call(f"delete RoutingTable {ref}", call, *_path(ref), body=only)
        except ApiException as error:
            if error.status == 409:
                raise Conflict(f"RoutingTable {ref} was written by someone else: {_words(error)}") from error

    async def tombstones(self, namespace: str | None) -> list[tuple[PolicyRef, StoredTable | Unreadable]]:
        """The tombstones of one namespace, or of all."""
        options = {"label_selector": f"{TOMBSTONE_LABEL}=true"}
        what = "list tombstones"
        try:
            if namespace is None:
                path: tuple[str, ...] = (GROUP, VERSION, TABLES)
                found: Any = await self._call(
                    what, self._objects.list_cluster_custom_object, *path, **options
                )
            else:
                path = (GROUP, VERSION, namespace, TABLES)
                found = await self._call(what, self._objects.list_namespaced_custom_object, *path, **options)
        except ApiException as error:
            raise Unavailable(f"Kubernetes: cannot {what}: {_words(error)}") from error
        return [(_ref(item), stored(_ref(item), item)) for item in found["items"]]

    async def report(self, ref: PolicyRef, status: Mapping[str, Any]) -> None:
        """Merge `status` into the RoutingTable's status; no error when the object is gone."""
        await self._patch_status(TABLES, ref, status)

    async def report_policy(self, ref: PolicyRef, status: Mapping[str, Any]) -> None:
        """Merge `status` into the HotKeyPolicy's status; no error when the object is gone."""
        await self._patch_status(POLICIES, ref, status)

    async def _patch_status(self, plural: str, ref: PolicyRef, status: Mapping[str, Any]) -> None:
        path = (GROUP, VERSION, ref.namespace, plural, ref.name)
        call = self._objects.patch_namespaced_custom_object_status
        try:
            await self._call(f"write the status of {plural}/{ref}", call, *path, {"status": dict(status)})
        except ApiException as error:
            if error.status != 404:
                raise Unavailable(f"Kubernetes: status of {plural}/{ref}: {_words(error)}") from error


class KubernetesSecrets(_Api):
    """The one Secret that holds the signing key."""

    def __init__(self, api: Connection, *, timeout_seconds: float = 5.0) -> None:
        super().__init__(timeout_seconds)
        self._core = client.CoreV1Api(api)

    async def read_or_create(
        self, namespace: str, name: str, make: Callable[[], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """The Secret's decoded data; made from `make()` when there is none. Raises `Unavailable`."""
        found = await self._read(namespace, name)
        if found is not None:
            return found
        data = make()
        secret = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, namespace=namespace, labels=_MANAGED_BY),
            string_data=dict(data),
            type="Opaque",
        )
        what = f"create Secret {namespace}/{name}"
        try:
            await self._call(what, self._core.create_namespaced_secret, namespace, secret)
        except ApiException as error:
            found = await self._read(namespace, name) if error.status == 409 else None
            if found is None:
                raise Unavailable(f"Kubernetes: cannot {what}: {_words(error)}") from error
            return found
        return data

    async def _read(self, namespace: str, name: str) -> Mapping[str, str] | None:
        try:
            secret: Any = await self._call(
                f"read Secret {namespace}/{name}", self._core.read_namespaced_secret, name, namespace
            )
        except ApiException:
            return None
        return {key: base64.b64decode(value).decode() for key, value in (secret.data or {}).items()}


def _path(ref: PolicyRef) -> tuple[str, str, str, str, str]:
    return (GROUP, VERSION, ref.namespace, TABLES, ref.name)


def _document(
    ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": ref.name, "namespace": ref.namespace, "labels": dict(_MANAGED_BY)}
    if resource_version is not None:
        metadata["resourceVersion"] = resource_version
    if tombstone:
        metadata["labels"][TOMBSTONE_LABEL] = "true"
    elif ref.uid:
        owner = {"kind": "HotKeyPolicy", "name": ref.name, "uid": ref.uid, "controller": True}
        metadata["ownerReferences"] = [{"apiVersion": f"{GROUP}/{VERSION}", **owner}]
    document = codec.to_document(table)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RoutingTable",
        "metadata": metadata,
        "spec": document,
    }


def stored(ref: PolicyRef, found: Mapping[str, Any]) -> StoredTable | Unreadable:
    """The object's table, or what is wrong with it: people can write anything that the schema lets pass."""
    metadata = found["metadata"]
    version = str(metadata["resourceVersion"])
    is_tombstone = (metadata.get("labels") or {}).get(TOMBSTONE_LABEL) == "true"
    try:
        return StoredTable(codec.from_document(found.get("spec") or {}), version, is_tombstone)
    except ValueError as error:
        return Unreadable(f"RoutingTable {ref}: {error}", version, is_tombstone)


def _ref(item: Mapping[str, Any]) -> PolicyRef:
    return PolicyRef(item["metadata"]["namespace"], item["metadata"]["name"])


def _is_terminating(error: ApiException) -> bool:
    """Whether the namespace is being deleted (403 with that cause) or gone (404 that names it)."""
    try:
        details = json.loads(error.body or "")["details"]
        causes = [cause.get("reason") for cause in details.get("causes") or ()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if error.status == 403:
        return "NamespaceTerminating" in causes
    return error.status == 404 and bool(details.get("kind") == "namespaces")


def _words(error: ApiException) -> str:
    """The API server's own message, which says for example what RBAC lacks."""
    text = error.body if isinstance(error.body, str) else ""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:500] or f"{error.status} {error.reason}"
