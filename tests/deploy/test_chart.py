"""The chart as Helm's own library renders it, against Kubernetes' schemas and the restricted pod security standard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from predawn.proxy.settings_file import validate
from predawn.proxy.settings_yaml import parse

helm = pytest.importorskip("helm_python", reason="pip install --group deploy")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install --group deploy")
pytestmark = pytest.mark.deploy

CHART = Path(__file__).parents[2] / "deploy" / "helm"
KUBERNETES = ["1.27", "1.31", "1.35"]
SHARED = {"state": {"kind": "postgres"}, "existingSecret": "predawn"}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "shared": {**SHARED, "replicas": 3, "worker": {"replicas": 2}},
    "everything": {
        **SHARED,
        "image": {"repository": "r.example/p", "digest": "sha256:" + "0" * 64, "pullSecrets": [{"name": "registry"}]},
        "worker": {"replicas": 1, "concurrency": 4},
        "autoscaling": {"enabled": True},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "tlsSecret": "tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
        },
        "monitoring": {
            "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Predawn"}},
        },
        "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}], "egress": []},
        "env": {"A": "1: {}", "B": "\n"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "podAnnotations": {"a": "true"},
        "podLabels": {"team": "a"},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "x"}},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    },
    "bare": {
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "state": {"existingClaim": "mine"},
        "disruptionBudget": {"enabled": False},
        "config": {"server": {"drain_grace_s": 0, "drain_timeout_s": 0.5}},
        "terminationGracePeriodSeconds": 2,
    },
}


LONGEST_NAMES = {"ConfigMap": 253, "PrometheusRule": 253, "StatefulSet": 52}  # a revision's hash goes behind the last


def render(values: dict[str, Any], name: str = "demo") -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name=name, namespace="apps")
    return [
        document
        for path, text in files.items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def only(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    (found,) = [document for document in render(values) if document["kind"] == kind]
    return found


def pods(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for document in render(values):
        if document["kind"] in {"Deployment", "StatefulSet"}:
            yield document["spec"]["template"]["spec"]


def test_helm_finds_nothing_to_complain_of() -> None:
    report = helm.lint(CHART, VALUES["everything"], strict=True)

    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_kubernetes_schemas_take_what_is_rendered(values: dict[str, Any], version: str) -> None:
    for document in render(values):
        if not document["apiVersion"].startswith("monitoring.coreos.com/"):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_each_object_has_a_name_of_its_own_that_kubernetes_takes(values: dict[str, Any]) -> None:
    long = "a-release-with-a-name-as-long-as-helm-allows-it-to-be"
    for release in ("demo", "predawn", long):
        names = [(one["kind"], one["metadata"]["name"]) for one in render(values, release)]

        assert len(set(names)) == len(names)
        assert [name for kind, name in names if len(name) > LONGEST_NAMES.get(kind, 63)] == []


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_pods_keep_to_the_restricted_standard(values: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a little more."""
    for pod in pods(values):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} <= {
            "configMap",
            "emptyDir",
            "persistentVolumeClaim",
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert [port for port in container["ports"] if "hostPort" in port] == []
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


def test_the_configuration_that_is_mounted_is_what_the_values_say() -> None:
    (config,) = [
        one
        for one in render({"config": {"plugins": ["record", {"sleep": {"idle_s": 5}}]}})
        if one["kind"] == "ConfigMap"
    ]
    document = parse(config["data"]["predawn.yaml"].encode(), {})

    assert validate(document.data) == []
    assert document.data["plugins"] == ["record", {"sleep": {"idle_s": 5}}]


def test_a_server_may_take_as_long_to_stop_as_its_settings_say() -> None:
    def grace(**server: float) -> int:
        (pod,) = pods({"config": {"server": server}})
        return int(pod["terminationGracePeriodSeconds"])

    assert (grace(), grace(drain_timeout_s=0), grace(drain_grace_s=0.4, drain_timeout_s=20)) == (315, 15, 31)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"replicas": 2}, "state.kind"),
        ({"worker": {"replicas": 1}}, "state.kind"),
        ({"autoscaling": {"enabled": True}}, "state.kind"),
        ({"state": {"kind": "postgres"}}, "existingSecret"),
        ({"terminationGracePeriodSeconds": 305}, "cut streams"),
        ({**SHARED, "autoscaling": {"enabled": True, "minReplicas": 11}}, "larger than maxReplicas"),
        ({"config": {"server": {"workers": 2}}}, "workers"),
        ({"config": {"server": {"tls": {"cert_file": "c", "key_file": "k"}}}}, "let the ingress"),
        ({"config": {"state": "postgresql+asyncpg://u:p@h/d"}}, "state"),
        ({"replica": 2}, "replica"),
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused_with_the_reason(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm.HelmError, match=word):
        render(values)


def test_a_new_configuration_restarts_the_pods() -> None:
    before, after = (
        only("Deployment", values)["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"config": {"access": {"keys": "auto"}}})
    )

    assert before != after


def test_the_service_the_budget_and_the_monitor_select_the_pods_they_are_meant_for() -> None:
    documents = render({**VALUES["everything"], "replicas": 3})

    def selected(selector: dict[str, str]) -> set[str]:
        return {
            one["kind"]
            for one in documents
            if one["kind"] in {"Deployment", "StatefulSet"}
            and selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
        }

    by_kind = {one["kind"]: one["spec"] for one in documents if "spec" in one and one["kind"] != "Service"}
    services = {one["metadata"]["name"]: one["spec"] for one in documents if one["kind"] == "Service"}

    assert selected(services["demo-predawn"]["selector"]) == {"Deployment"}
    assert selected(services["demo-predawn-worker"]["selector"]) == {"StatefulSet"}
    assert by_kind["StatefulSet"]["serviceName"] == "demo-predawn-worker"
    assert selected(by_kind["PodDisruptionBudget"]["selector"]["matchLabels"]) == {"Deployment"}
    assert selected(by_kind["PodMonitor"]["selector"]["matchLabels"]) == {"Deployment", "StatefulSet"}
    assert selected(by_kind["NetworkPolicy"]["podSelector"]["matchLabels"]) == {"Deployment", "StatefulSet"}
    assert by_kind["HorizontalPodAutoscaler"]["scaleTargetRef"]["name"] == "demo-predawn"


def test_the_admin_port_is_closed_to_all_but_monitoring() -> None:
    api, admin = only("NetworkPolicy", {})["spec"]["ingress"]

    assert [port["port"] for port in api["ports"]] == [8080]
    assert [port["port"] for port in admin["ports"]] == [9080]
    assert admin["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_names_databases_and_upstreams_are_within_reach_until_the_values_close_all_but_names() -> None:
    names, open_to = only("NetworkPolicy", {})["spec"]["egress"]
    closed = only("NetworkPolicy", {"networkPolicy": {"egress": []}})["spec"]["egress"]

    assert names == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert open_to["to"][0] == {"namespaceSelector": {}}
    assert "ports" not in open_to
    assert closed == [names]


def test_metadata_addresses_of_clouds_are_out_of_reach() -> None:
    """A server that can be made to ask there would hand out the node's own credentials."""
    blocks = [
        peer["ipBlock"]
        for rule in only("NetworkPolicy", {})["spec"]["egress"][1:]
        for peer in rule["to"]
        if "ipBlock" in peer
    ]

    assert [(block["cidr"], block["except"][-1]) for block in blocks] == [
        ("0.0.0.0/0", "169.254.0.0/16"),
        ("::/0", "fd00:ec2::254/128"),
    ]


def test_the_rules_and_dashboards_arrive_as_they_were_committed() -> None:
    documents = render(VALUES["everything"])
    (rules,) = [one["spec"] for one in documents if one["kind"] == "PrometheusRule"]
    boards = {
        name: text
        for one in documents
        if one["kind"] == "ConfigMap"
        for name, text in one["data"].items()
        if name.endswith(".json")
    }
    (committed,) = (CHART / "rules").glob("*.yml")

    assert rules == yaml.safe_load(committed.read_text(encoding="utf-8"))
    assert boards == {path.name: path.read_text(encoding="utf-8") for path in (CHART / "dashboards").glob("*.json")}


def test_objects_of_the_prometheus_operator_use_only_fields_that_its_definitions_have() -> None:
    """Fields of `monitoring.coreos.com/v1`, as far as the chart uses them."""
    by_kind = {one["kind"]: one["spec"] for one in render(VALUES["everything"]) if "spec" in one}
    (endpoint,) = by_kind["PodMonitor"]["podMetricsEndpoints"]

    assert by_kind["PodMonitor"].keys() == {"jobLabel", "podTargetLabels", "selector", "podMetricsEndpoints"}
    assert endpoint.keys() == {"port", "path", "interval"}
    assert by_kind["PrometheusRule"].keys() == {"groups"}
    for group in by_kind["PrometheusRule"]["groups"]:
        assert group.keys() <= {"name", "interval", "rules", "labels", "limit", "query_offset"}
        for rule in group["rules"]:
            assert rule.keys() <= {"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
