"""The Kubernetes API: etcd and kube-apiserver, and on request the controller manager.

Without the controller manager there is no garbage collection, no default ServiceAccount, and a
deleted namespace never goes. No node, no scheduler and no pod exists either way.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import ssl
import subprocess
from pathlib import Path
from typing import NoReturn

from devstack.certificates import Certificates
from devstack.control_plane import ControlPlane
from devstack.errors import StackError
from devstack.part import Group, Part, Place
from devstack.process import Command
from devstack.tools import kubectl

_PROBE_SECONDS = 5.0


class Etcd(Part):
    def __init__(self, place: Place, port: int, peer_port: int, binaries: ControlPlane) -> None:
        super().__init__("etcd", place, port)
        self._peer_port = peer_port
        self._binaries = binaries

    def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)

    def command(self) -> Command:
        client, peer = f"http://{self.address}", f"http://127.0.0.1:{self._peer_port}"
        return Command(
            [
                str(self._binaries.path("etcd")),
                "--name=devstack",
                f"--data-dir={self.data}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=devstack={peer}",
                # A power failure may cost the last writes; a killed process does not.
                "--unsafe-no-fsync=true",
                "--log-level=warn",
            ]
        )

    def probe(self) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PROBE_SECONDS)
        return _answer(connection, "/readyz")


class ApiServer(Part):
    def __init__(self, place: Place, port: int, etcd: Etcd, binaries: ControlPlane) -> None:
        super().__init__("apiserver", place, port)
        self._etcd = etcd
        self._binaries = binaries
        self.certificates = Certificates(place.data("certificates"))

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def command(self) -> Command:
        files = self.certificates
        return Command(
            [
                str(self._binaries.path("kube-apiserver")),
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self.port}",
                "--endpoint-reconciler-type=none",
                f"--etcd-servers=http://{self._etcd.address}",
                f"--cert-dir={self.data}",
                f"--tls-cert-file={files.certificate('server')}",
                f"--tls-private-key-file={files.key('server')}",
                f"--client-ca-file={files.ca}",
                "--authorization-mode=Node,RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={files.key('service-account')}",
                f"--service-account-signing-key-file={files.key('service-account')}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--allow-privileged=true",
            ]
        )

    def probe(self) -> str | None:
        return _answer(self._connection(), "/readyz") or self._missing("/api/v1/namespaces/default")

    def _missing(self, path: str) -> str | None:
        return _answer(self._connection(), path)

    def _connection(self) -> http.client.HTTPSConnection:
        files = self.certificates
        context = ssl.create_default_context(cafile=str(files.ca))
        context.load_cert_chain(files.certificate("admin"), files.key("admin"))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=_PROBE_SECONDS, context=context)


class ControllerManager(Part):
    def __init__(
        self, place: Place, port: int, apiserver: ApiServer, kubeconfig: Path, binaries: ControlPlane
    ) -> None:
        super().__init__("controller-manager", place, port)
        self._apiserver = apiserver
        self._kubeconfig = kubeconfig
        self._binaries = binaries

    def command(self) -> Command:
        files = self._apiserver.certificates
        return Command(
            [
                str(self._binaries.path("kube-controller-manager")),
                f"--kubeconfig={self._kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self.port}",
                f"--cert-dir={self.data}",
                "--leader-elect=false",
                f"--root-ca-file={files.ca}",
                f"--service-account-private-key-file={files.key('service-account')}",
            ]
        )

    def probe(self) -> str | None:
        return self._apiserver._missing("/api/v1/namespaces/default/serviceaccounts/default")


class Kubernetes(Group):
    """etcd first, then the API server, then the controller manager; ended the other way round."""

    def __init__(
        self, etcd: Etcd, apiserver: ApiServer, controller_manager: ControllerManager | None, kubeconfig: Path
    ) -> None:
        parts: list[Part] = [etcd, apiserver]
        super().__init__(parts if controller_manager is None else [*parts, controller_manager])
        self.etcd = etcd
        self.apiserver = apiserver
        self.controller_manager = controller_manager
        self.kubeconfig = kubeconfig

    def start(self) -> None:
        certificates = self.apiserver.certificates
        if not certificates.exist:
            certificates.make(datetime.datetime.now(datetime.UTC))
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(kubeconfig_text(self.apiserver.url, certificates))
        for part in self.parts:
            part.start()

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.stop()


class ExternalKubernetes:
    """A cluster that somebody else runs (--use-cluster): used, never started or stopped."""

    name = "kubernetes"

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    @property
    def is_running(self) -> bool:
        return self._problem() is None

    def start(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise StackError(f"the cluster of {self.kubeconfig} (--use-cluster) does not answer: {problem}")

    def stop(self) -> None:
        """Leaves it alone."""

    @property
    def etcd(self) -> NoReturn:
        raise self._not_ours()

    apiserver = controller_manager = etcd

    def kill(self) -> None:
        raise self._not_ours()

    pause = resume = restart = kill

    def _not_ours(self) -> StackError:
        return StackError(f"the cluster of {self.kubeconfig} (--use-cluster) is not ours to stop")

    def _problem(self) -> str | None:
        asked = [str(kubectl()), f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz"]
        shown = subprocess.run([*asked, "--request-timeout=5s"], capture_output=True, text=True, check=False)
        return None if shown.returncode == 0 else (shown.stdout + shown.stderr).strip()


def kubeconfig_text(server: str, certificates: Certificates) -> str:
    """A kubeconfig of the administrator that needs no other file (JSON is YAML)."""

    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": inline(certificates.ca)}
    user = {
        "client-certificate-data": inline(certificates.certificate("admin")),
        "client-key-data": inline(certificates.key("admin")),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "devstack", "cluster": cluster}],
        "users": [{"name": "devstack", "user": user}],
        "contexts": [{"name": "devstack", "context": {"cluster": "devstack", "user": "devstack"}}],
        "current-context": "devstack",
    }
    return json.dumps(config, indent=2) + "\n"


def _answer(connection: http.client.HTTPConnection, path: str) -> str | None:
    """None for 200, else what was answered."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(300).decode(errors="replace")
    except http.client.HTTPException as error:
        return f"{path}: {error!r}"
    finally:
        connection.close()
    return None if response.status == 200 else f"{path} answers {response.status}: {body}"
