"""A real API server takes every manifest of the repository: the chart's, those for kind, the examples'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from devstack import crds
from devstack.versions import Versions
from tests.chart.commands import Manifest, Program, manifests, only, stream
from tests.chart.conftest import ROOT, render

KIND = ROOT / "examples/kind"
POLICIES = sorted(p for p in (ROOT / "examples").rglob("*.yaml") if "kind: HotKeyPolicy" in p.read_text())


@pytest.fixture(scope="module")
def resources(kubectl: Program) -> Program:
    """kubectl on a cluster that knows the custom resources."""
    crds.install(kubectl, ROOT / "crds")
    return kubectl


def make_namespace(kubectl: Program, name: str, *, enforce: str = "privileged") -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": enforce for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl("apply", "-f", "-", stdin=json.dumps(namespace))


def pod_of(workload: Manifest) -> Manifest:
    """The pod that a Deployment's or StatefulSet's controller would make."""
    template = workload["spec"]["template"]
    metadata = {**template["metadata"], "name": "asked", "namespace": workload["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="the needed values alone"),
        pytest.param(["crds.keep=false", "signing.create=false"], id="resources that go with the release"),
        pytest.param(["watchNamespaces={rendered,shop}"], id="two namespaces"),
        pytest.param(
            [
                "redis.url=",
                "redis.existingSecret.name=redis",
                "kafka.extraConfig.secretName=kafka",
                "signing.allowUnsigned=true",
                "podLabels.team=ads",
                "podAnnotations.note=x",
                "nodeSelector.disk=ssd",
                "priorityClassName=high",
                "tolerations[0].operator=Exists",
                "extraEnv[0].name=X,extraEnv[0].value=y",
                "image.pullSecrets[0].name=pull",
                "serviceAccount.annotations.role=r",
                "dashboard.enabled=true,dashboard.annotations.folder=kafka",
            ],
            id="everything that can be set",
        ),
    ],
)
def test_the_api_server_takes_what_the_chart_renders(
    helm: Program, kubectl: Program, values: list[str]
) -> None:
    for namespace in ("rendered", "shop"):
        make_namespace(kubectl, namespace, enforce="restricted")
    arguments = [part for value in values for part in ("--set", value)]
    rendered = render(helm, *arguments, namespace="rendered")

    printed = kubectl.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=stream(rendered))

    assert printed.code == 0, printed.err
    assert len(printed.out.splitlines()) == len(rendered)
    assert "would violate PodSecurity" not in printed.err


def test_the_operators_pod_is_admitted_under_the_restricted_standard(helm: Program, kubectl: Program) -> None:
    make_namespace(kubectl, "rendered", enforce="restricted")
    rendered = render(helm, "--set", "kafka.extraConfig.secretName=k", namespace="rendered")
    kubectl("apply", "-f", "-", stdin=json.dumps(only(rendered, "ServiceAccount")))
    pod = pod_of(only(rendered, "Deployment"))

    admitted = json.loads(
        kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(pod))
    )

    mounts = {mount["mountPath"] for mount in admitted["spec"]["containers"][0]["volumeMounts"]}
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts


def test_a_pod_that_could_become_root_would_not_be_admitted(helm: Program, kubectl: Program) -> None:
    make_namespace(kubectl, "rendered", enforce="restricted")
    rendered = render(helm, namespace="rendered")
    kubectl("apply", "-f", "-", stdin=json.dumps(only(rendered, "ServiceAccount")))
    pod = pod_of(only(rendered, "Deployment"))
    del pod["spec"]["securityContext"]["runAsNonRoot"]

    printed = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))

    assert "runAsNonRoot" in printed.err


def test_the_image_runs_what_the_deployment_says(helm: Program) -> None:
    lines = [line.split(" ", 1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
    said = {word: rest for word, rest in lines if word in ("USER", "ENTRYPOINT", "CMD")}

    spec = only(render(helm), "Deployment")["spec"]["template"]["spec"]

    (container,) = spec["containers"]
    assert json.loads(said["ENTRYPOINT"]) == container["command"]
    assert json.loads(said["CMD"]) == container["args"]
    ids = spec["securityContext"]
    assert said["USER"] == f"{ids['runAsUser']}:{ids['runAsGroup']}"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_an_example_policy_is_valid(resources: Program, path: Path) -> None:
    (policy,) = manifests(path.read_text())

    make_namespace(resources, policy["metadata"].get("namespace", "default"))
    resources("create", "--dry-run=server", "--validate=strict", "-f", str(path))

    assert policy["kind"] == "HotKeyPolicy"


# kind -----------------------------------------------------------------------------------------------------


def kind_manifests() -> list[Manifest]:
    return [o for name in ("kafka", "redis") for o in manifests((KIND / f"{name}.yaml").read_text())]


def test_the_api_server_takes_the_manifests_for_kind_and_admits_their_pods(kubectl: Program) -> None:
    kubectl("apply", "-f", str(KIND / "namespace.yaml"))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    kubectl("apply", "-n", "hotkey", "-f", "-", stdin=json.dumps(account))
    objects = kind_manifests()
    pods = [pod_of(each) for each in objects if each["kind"] in ("Deployment", "StatefulSet")]

    printed = kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=stream(objects + pods)
    )

    assert len(printed.splitlines()) == len(objects + pods) == 7


def test_the_values_for_kind_render_and_point_at_its_services(helm: Program) -> None:
    rendered = render(helm, "--values", str(KIND / "values.yaml"))
    values = yaml.safe_load((KIND / "values.yaml").read_text())

    services = {each["metadata"]["name"]: each for each in kind_manifests() if each["kind"] == "Service"}
    assert only(rendered, "Deployment")
    assert (
        values["redis"]["url"]
        == f"redis://redis.hotkey.svc:{services['redis']['spec']['ports'][0]['port']}/0"
    )
    broker, port = values["kafka"]["bootstrapServers"].split(":")
    assert broker == "kafka-0.kafka.hotkey.svc"
    assert int(port) == services["kafka"]["spec"]["ports"][0]["port"]


def test_the_ports_of_the_kind_node_are_those_of_the_services() -> None:
    (node,) = yaml.safe_load((KIND / "kind.yaml").read_text())["nodes"]
    mapped = {each["containerPort"] for each in node["extraPortMappings"]}

    ports = (port for each in kind_manifests() if each["kind"] == "Service" for port in each["spec"]["ports"])
    assert mapped == {port["nodePort"] for port in ports if "nodePort" in port}


def test_every_service_for_kind_selects_pods_that_listen_on_its_port() -> None:
    objects = kind_manifests()
    workloads = [o for o in objects if o["kind"] in ("Deployment", "StatefulSet")]

    for service in (o for o in objects if o["kind"] == "Service"):
        (selected,) = (
            w for w in workloads if w["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
        )
        (container,) = selected["spec"]["template"]["spec"]["containers"]
        listening = {each["containerPort"] for each in container["ports"]}
        assert {each["port"] for each in service["spec"]["ports"]} <= listening


def test_kind_runs_the_kafka_that_the_dev_stack_runs() -> None:
    (container,) = only(kind_manifests(), "StatefulSet")["spec"]["template"]["spec"]["containers"]

    assert container["image"] == f"apache/kafka:{Versions.pinned().kafka.version}"
