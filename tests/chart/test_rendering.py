"""What the chart makes of its values, and which values it refuses; no cluster is needed for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.commands import Program, manifests, only
from tests.chart.conftest import CHART, NEEDED, render


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(objects)["env"]}


def test_lint_finds_nothing(helm: Program) -> None:
    helm("lint", "--strict", str(CHART), *NEEDED)


def test_the_needed_values_are_enough(helm: Program) -> None:
    objects = render(helm)

    assert environment(objects) == {
        "HOTKEY_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "HOTKEY_REDIS_URL": "redis://redis:6379/0",
        "HOTKEY_SIGNING_SECRET": "hotkey/hotkey-signing-key",
        "HOTKEY_HOST": "0.0.0.0",
        "HOTKEY_METRICS_PORT": "9090",
        "HOTKEY_METRICS_PARTITIONS": "1000",
        "HOTKEY_METRICS_KEYS": "true",
        "HOTKEY_SAMPLING_BYTES_PER_SECOND": "4000000",
        "HOTKEY_LIVENESS_PORT": "8080",
    }
    assert (container(objects)["command"], container(objects)["args"]) == (["hotkey-operator"], ["run"])


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        pytest.param(
            ["redis.url=", "redis.existingSecret.name=r", "redis.existingSecret.key=u"],
            "HOTKEY_REDIS_URL",
            {"secretKeyRef": {"name": "r", "key": "u"}},
            id="the Redis URL from a Secret",
        ),
        pytest.param(
            ["kafka.extraConfig.secretName=k"],
            "HOTKEY_KAFKA_CONFIG",
            "/etc/hotkey/kafka/client.properties",
            id="client settings from a Secret",
        ),
        pytest.param(["watchNamespaces={a,b}"], "HOTKEY_NAMESPACES", "a,b", id="two namespaces"),
        pytest.param(["signing.allowUnsigned=true"], "HOTKEY_ALLOW_UNSIGNED", "true", id="unsigned tables"),
        pytest.param(
            ["signing.secretName=s"], "HOTKEY_SIGNING_SECRET", "hotkey/s", id="another signing Secret"
        ),
        pytest.param(["metrics.port=9191"], "HOTKEY_METRICS_PORT", "9191", id="another port"),
        pytest.param(
            ["metrics.partitions=0"], "HOTKEY_METRICS_PARTITIONS", "0", id="no partitions in metrics"
        ),
        pytest.param(["metrics.keys=false"], "HOTKEY_METRICS_KEYS", "false", id="no keys in metrics"),
        pytest.param(
            ["sampling.bytesPerSecond=500000"],
            "HOTKEY_SAMPLING_BYTES_PER_SECOND",
            "500000",
            id="sampling",
        ),
    ],
)
def test_a_value_becomes_an_environment_variable(
    helm: Program, values: list[str], name: str, expected: object
) -> None:
    objects = render(helm, *(part for value in values for part in ("--set", value)))

    assert environment(objects)[name] == expected


def test_unsigned_tables_need_no_key_and_no_right_to_secrets(helm: Program) -> None:
    objects = render(helm, "--set", "signing.allowUnsigned=true")

    assert "HOTKEY_SIGNING_SECRET" not in environment(objects)
    assert "secrets" not in {resource for _, resource, _ in granted(objects)}


def test_client_settings_are_mounted_where_the_operator_looks(helm: Program) -> None:
    objects = render(helm, "--set", "kafka.extraConfig.secretName=k,kafka.extraConfig.key=x")

    mounted = {each["name"]: each["mountPath"] for each in container(objects)["volumeMounts"]}
    volumes = {
        each["name"]: each for each in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    }
    assert environment(objects)["HOTKEY_KAFKA_CONFIG"] == mounted["kafka-config"] + "/x"
    assert volumes["kafka-config"]["secret"]["secretName"] == "k"


def test_the_operator_runs_alone_and_with_as_few_rights_as_it_can(helm: Program) -> None:
    objects = render(helm)

    spec = only(objects, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= set(container(objects)["resources"])


def test_probes_and_ports_agree_with_the_environment(helm: Program) -> None:
    objects = render(helm, "--set", "metrics.port=9191,liveness.port=8181")

    ports = {each["name"]: each["containerPort"] for each in container(objects)["ports"]}
    assert ports == {"metrics": 9191, "liveness": 8181}
    assert container(objects)["livenessProbe"]["httpGet"]["port"] == "liveness"
    assert environment(objects)["HOTKEY_LIVENESS_PORT"] == "8181"


@pytest.mark.parametrize(
    ("values", "kept"), [("crds.keep=true", {"helm.sh/resource-policy": "keep"}), ("crds.keep=false", None)]
)
def test_the_resources_outlive_the_release_only_where_asked(
    helm: Program, values: str, kept: dict[str, str] | None
) -> None:
    found = [o for o in render(helm, "--set", values) if o["kind"] == "CustomResourceDefinition"]

    assert [o["metadata"].get("annotations") for o in found] == [kept, kept]


def test_the_resources_can_be_left_out(helm: Program) -> None:
    kinds = {o["kind"] for o in render(helm, "--set", "crds.enabled=false")}

    assert "CustomResourceDefinition" not in kinds


# Rights ---------------------------------------------------------------------------------------------------


def granted(objects: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """(kind of role, resource, verb) of every right."""
    return {
        (role["kind"], resource, verb)
        for role in objects
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


POLICIES = {
    *(("hotkeypolicies", verb) for verb in ("list", "watch", "patch")),
    ("hotkeypolicies/status", "patch"),
    *(("routingtables", verb) for verb in ("get", "list", "create", "update", "delete")),
    ("routingtables/status", "patch"),
    ("events", "create"),
}
VIEW = {(kind, verb) for kind in ("hotkeypolicies", "routingtables") for verb in ("get", "list", "watch")}
SECRETS = {("Role", "secrets", "get"), ("Role", "secrets", "create")}


def test_all_rights_are_the_listed_ones_and_secrets_are_granted_in_one_namespace(helm: Program) -> None:
    rights = granted(render(helm))

    assert rights == {("ClusterRole", *right) for right in POLICIES | VIEW} | SECRETS


def test_with_namespaces_nothing_is_granted_cluster_wide(helm: Program) -> None:
    objects = render(helm, "--set", "watchNamespaces={ads,shop}")

    assert {o["kind"] for o in objects} & {"ClusterRole", "ClusterRoleBinding"} == set()
    assert granted(objects) == {("Role", *right) for right in POLICIES} | SECRETS
    roles = {(o["metadata"]["namespace"], o["metadata"]["name"]) for o in objects if o["kind"] == "Role"}
    names = ("hk-hotkey-operator", "hk-hotkey-operator-signing")
    assert roles == {("ads", names[0]), ("shop", names[0]), ("hotkey", names[1])}


def test_who_may_view_may_read_policies_and_tables(helm: Program) -> None:
    view = only(render(helm), "ClusterRole", "hk-hotkey-operator-view")

    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert granted([view]) == {("ClusterRole", *right) for right in VIEW}


def test_no_rule_has_a_wildcard(helm: Program) -> None:
    for role in (o for o in render(helm) if o["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_only_the_signing_secret_can_be_read(helm: Program) -> None:
    role = only(render(helm, "--set", "signing.secretName=s"), "Role", "hk-hotkey-operator-signing")

    reading = [rule for rule in role["rules"] if "get" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in reading] == [["s"]]


def test_a_secret_that_is_there_takes_the_right_to_create_one_away(helm: Program) -> None:
    rights = granted(render(helm, "--set", "signing.create=false"))

    assert {right for right in rights if right[1] == "secrets"} == {("Role", "secrets", "get")}


def test_every_binding_binds_the_account_of_the_deployment_to_a_role_that_is_there(helm: Program) -> None:
    objects = render(helm, "--set", "serviceAccount.name=sa")

    account = only(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"]
    roles = {(o["kind"], o["metadata"]["name"]) for o in objects if o["kind"] in ("Role", "ClusterRole")}
    roles -= {("ClusterRole", "hk-hotkey-operator-view")}  # bound by the cluster's own view
    bindings = [o for o in objects if o["kind"].endswith("Binding")]
    assert (account, only(objects, "ServiceAccount")["metadata"]["name"]) == ("sa", "sa")
    assert {(b["roleRef"]["kind"], b["roleRef"]["name"]) for b in bindings} == roles
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "sa", "namespace": "hotkey"}]


# Refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("kafka.bootstrapServers=", "kafka.bootstrapServers is needed"),
        ("redis.url=", "redis.url is needed"),
        ("redis.existingSecret.name=r", "only one of redis.url and redis.existingSecret.name"),
        ("metrics.port=8080", "metrics.port and liveness.port must differ"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
        ("kafka.bootstrapServers=kafka", "/kafka/bootstrapServers"),
        ("kafka.bootstrapServer=kafka:9092", "bootstrapServer"),
        ("redis.url=http://redis", "/redis/url"),
        ("metrics.port=80", "/metrics/port"),
        ("metrics.port=many", "/metrics/port"),
        ("metrics.partitions=-1", "/metrics/partitions"),
        ("metrics.keys=some", "/metrics/keys"),
        ("sampling.bytesPerSecond=0", "/sampling/bytesPerSecond"),
        ("prometheusRule.runbookUrl=docs", "/prometheusRule/runbookUrl"),
        ("prometheusRule.runbookUrl=https://docs/{{ .Values }}", "/prometheusRule/runbookUrl"),
        ("nameOverride=Hot_Keys", "/nameOverride"),
        ("podMonitor.interval=often", "/podMonitor/interval"),
        ("dashboard.namespace=Grafana", "/dashboard/namespace"),
        ("crds.enabled=maybe", "/crds/enabled"),
        ("watchNamespaces={Ads}", "/watchNamespaces/0"),
        ("watchNamespaces=ads", "/watchNamespaces"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("signing.secretName=", "/signing/secretName"),
        ("replicas=2", "replicas"),
        (r"podLabels.app\.kubernetes\.io/name=mine", "/podLabels/app.kubernetes.io~1name"),
        (r"podLabels.helm\.sh/chart=mine", "/podLabels/helm.sh~1chart"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Program, values: str, message: str) -> None:
    printed = helm.run("template", "hk", str(CHART), *NEEDED, "--set", values)

    assert printed.code != 0, printed.out
    assert message in printed.err


def test_the_default_values_obey_the_schema(helm: Program) -> None:
    printed = helm.run("template", "hk", str(CHART))

    assert "is needed" in printed.err
    assert "schema" not in printed.err


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("watchNamespaces={ads}", "policies in ads"),
        ("signing.secretName=s", "kubectl get secret s -n hotkey"),
        ("signing.allowUnsigned=true", "hotkey.allow.unsigned"),
        ("crds.keep=false", "deletes every policy"),
    ],
)
def test_the_notes_say_what_to_do_next(helm: Program, values: str, expected: str) -> None:
    arguments = ("--namespace", "hotkey", *NEEDED, "--set", values, "--dry-run=client")

    assert expected in helm("install", "hk", str(CHART), *arguments)


def test_the_policy_in_the_notes_is_a_policy(helm: Program) -> None:
    notes = helm("install", "hk", str(CHART), "--namespace", "hotkey", *NEEDED, "--dry-run=client")

    text = notes.split("<<POLICY\n", 1)[1].split("  POLICY", 1)[0]
    (policy,) = manifests(text)
    assert (policy["kind"], policy["spec"]) == ("HotKeyPolicy", {"topic": "clicks"})
