"""The objects as the user's kubeconfig lets them be read. The only part that talks, to Kubernetes alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

GROUP, VERSION = "hotkeys.dev", "v1alpha1"
POLICIES, TABLES = "hotkeypolicies", "routingtables"
_TIMEOUT_SECONDS = 10.0
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_RIGHTS = (
    "reading needs get and list on hotkeypolicies and routingtables of hotkeys.dev; the chart adds them to "
    "the ClusterRole view"
)

# A kubeconfig of any other form fails somewhere in the client, which checks little of it.
_UNUSABLE = (
    config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError
)  # fmt: skip

Object = Mapping[str, Any]


class ClusterError(Exception):
    """Nothing could be read; the message says why and what to do."""


class Forbidden(ClusterError):
    """The user may not read this."""


class Cluster:
    """One API server, as one user."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._api = api
        self._objects, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)

    def policies(self, namespace: str | None) -> list[Object]:
        """The HotKeyPolicies of a namespace, or of all. Raises `ClusterError`."""
        return self._list(POLICIES, namespace)

    def tables(self, namespace: str | None) -> list[Object]:
        """The RoutingTables of a namespace, or of all. Raises `ClusterError`."""
        return self._list(TABLES, namespace)

    def events(self, namespace: str | None, policy: str | None = None) -> list[Object]:
        """The Events on a policy, on those of a namespace, or on all. Raises `ClusterError`."""
        wanted = "involvedObject.kind=HotKeyPolicy" + (f",involvedObject.name={policy}" if policy else "")
        if namespace is None:
            found = self._call("list events", self._core.list_event_for_all_namespaces, field_selector=wanted)
        else:
            list_them = self._core.list_namespaced_event
            found = self._call("list events", list_them, namespace, field_selector=wanted)
        return list(self._api.sanitize_for_serialization(found)["items"])  # type: ignore[no-untyped-call]

    def _list(self, plural: str, namespace: str | None) -> list[Object]:
        what = f"list {plural}.{GROUP}"
        if namespace is None:
            found = self._call(what, self._objects.list_cluster_custom_object, GROUP, VERSION, plural)
        else:
            list_them = self._objects.list_namespaced_custom_object
            found = self._call(what, list_them, GROUP, VERSION, namespace, plural)
        return list(found.get("items") or ())

    def _call(self, what: str, call: Callable[..., Any], *arguments: str, **options: str) -> Any:
        host = self._api.configuration.host
        try:
            return call(*arguments, _request_timeout=_TIMEOUT_SECONDS, **options)
        except ApiException as error:
            raise _refused(what, host, error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterError(f"the Kubernetes API at {host} does not answer: {_cause(error)}") from None


def connect(kubeconfig: str | None, context: str | None) -> Cluster:
    """The cluster of a kubeconfig's context, else of the pod that this runs in. Raises `ClusterError`."""
    try:
        if kubeconfig is None and context is None and _is_in_pod():
            settings = client.Configuration()
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            namespace = _ACCOUNT_NAMESPACE.read_text().strip()
        else:
            settings = client.Configuration()
            config.load_kube_config(kubeconfig, context, client_configuration=settings)  # type: ignore[no-untyped-call]
            namespace = _namespace_of(kubeconfig, context)
    except _UNUSABLE as error:
        why = " ".join(str(error).split())
        remedy = "set KUBECONFIG or give --kubeconfig and --context"
        raise ClusterError(f"no usable kubeconfig: {why}; {remedy}") from None
    if not settings.host.startswith(("https://", "http://")):
        raise ClusterError(
            f"no usable kubeconfig: it names the server {settings.host!r}, expected https://..."
        )
    settings.retries = False  # a person waits: the first answer counts
    return Cluster(client.ApiClient(settings), namespace)


def _is_in_pod() -> bool:
    files = [*os.environ.get("KUBECONFIG", "").split(os.pathsep), str(Path.home() / ".kube/config")]
    return _ACCOUNT_NAMESPACE.exists() and not any(name and Path(name).exists() for name in files)


def _namespace_of(kubeconfig: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
    chosen = next((each for each in contexts if each["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _refused(what: str, host: str, error: ApiException) -> ClusterError:
    if error.status == 404:
        return ClusterError(
            f"{host} does not know the custom resources of {GROUP}: install them with the chart, or by "
            "`kubectl apply -f crds`"
        )
    if error.status == 403:
        return Forbidden(f"{_words(error)}; {_RIGHTS}")
    if error.status == 401:
        return ClusterError(f"{host} does not accept these credentials: log in anew, or choose a --context")
    return ClusterError(f"cannot {what} at {host}: {_words(error)}")


def _words(error: ApiException) -> str:
    """The API server's own message."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _cause(error: BaseException) -> str:
    """What the network said, without the wrapping of the HTTP library."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _cause(reason)
    cause = error.__cause__ or error.__context__
    if isinstance(error, urllib3.exceptions.HTTPError) and isinstance(cause, OSError):
        return _cause(cause)
    return getattr(error, "strerror", None) or _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
