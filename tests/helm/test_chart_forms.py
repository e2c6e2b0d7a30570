"""The chart in all its value sets: valid manifests whose parts meet."""

import re
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

import exporter
from tests.helm.charts import (
    CASES,
    CHART,
    NAME,
    WAYS_IN,
    Render,
    container_of,
    find,
    kinds,
    operator_types,
    own,
    pod_of,
    selects,
    values_of,
    with_values,
    workload_of,
)

# Kinds that Kubernetes itself does not know.
EXTENSIONS = ("monitoring.coreos.com", "gateway.networking.k8s.io", "autoscaling.k8s.io")
# Value sets whose Secrets are made by the user.
OF_THE_USER = ("own_secrets", "existing_config")

# Forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_chart_passes_the_strict_linter(case: str) -> None:
    report = helm.lint(str(CHART), values_of(case), strict=True)

    assert report["errors"] == []
    assert report["messages"] == []


@pytest.mark.parametrize("kubernetes", ["1.28", "1.34"])
@pytest.mark.parametrize("case", CASES)
def test_resources_fit_the_schemas_of_kubernetes(
    render: Render, case: str, kubernetes: str
) -> None:
    builtin = [
        item
        for item in render(values_of(case))
        if item["apiVersion"].partition("/")[0] not in EXTENSIONS
    ]

    assert builtin
    for manifest in builtin:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_operator_resources_fit_its_types_and_have_no_other_keys(render: Render, case: str) -> None:
    for manifest in render(values_of(case)):
        if "monitoring.coreos.com" in manifest["apiVersion"]:
            parsed = operator_types()[manifest["kind"]].model_validate(manifest)
            # The models drop what they do not know.
            assert parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


@pytest.mark.parametrize("case", CASES)
def test_no_key_is_written_twice(chart: helm.Chart, case: str) -> None:
    class StrictLoader(yaml.CSafeLoader):
        pass

    def mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path}: {keys}"
        return loader.construct_mapping(node, deep=True)

    StrictLoader.add_constructor("tag:yaml.org,2002:map", mapping)
    for path, text in chart.render(values_of(case), name="backups").items():
        if path.endswith(".yaml"):
            list(yaml.load_all(text, StrictLoader))


@pytest.mark.parametrize("case", CASES)
def test_names_fit_into_labels_and_differ(render: Render, case: str) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in render(values_of(case))]

    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


@pytest.mark.parametrize("case", CASES)
def test_every_resource_says_what_it_belongs_to(render: Render, case: str) -> None:
    values = values_of(case)
    for manifest in own(render(values)):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "backups"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"] == exporter.__version__
        assert labels.items() >= (
            {"app.kubernetes.io/part-of": "backups"}.items() if "commonLabels" in values else set()
        )


def test_common_labels_and_annotations_are_on_everything(render: Render) -> None:
    manifests = own(render(values_of("everything")))
    for metadata in (*(item["metadata"] for item in manifests), pod_of(manifests)["metadata"]):
        assert metadata["labels"]["team"] in ("sre", "dba")  # a kind's own label wins
        assert metadata["annotations"]["example.com/chart"] == "gaussdb-mysql-backup-exporter"


# What is there, and what is not -----------------------------------------------------------------


def test_smallest_configuration_makes_no_optional_resource(render: Render) -> None:
    manifests = render(values_of("minimal"))

    assert sorted(item["kind"] for item in manifests) == [
        "ConfigMap",
        "Deployment",
        "Pod",  # of `helm test`
        "Service",
        "ServiceAccount",
    ]


def test_everything_makes_every_resource(render: Render) -> None:
    manifests = render(values_of("everything"))

    assert sorted(item["kind"] for item in manifests) == [
        "ConfigMap",  # the configuration
        "ConfigMap",  # the dashboard
        "ConfigMap",  # of extraManifests
        "HTTPRoute",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Secret",  # credentials
        "Secret",  # web configuration
        "Secret",  # of extraManifests
        "Service",
        "Service",  # headless
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
        "VerticalPodAutoscaler",
    ]


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ("serviceMonitor", "ServiceMonitor"),
        ("podMonitor", "PodMonitor"),
        ("scrapeConfig", "ScrapeConfig"),
        ("verticalPodAutoscaler", "VerticalPodAutoscaler"),
        ("prometheusRule", "PrometheusRule"),
        ("networkPolicy", "NetworkPolicy"),
        ("podDisruptionBudget", "PodDisruptionBudget"),
        ("test", "Pod"),
    ],
)
def test_each_feature_has_a_switch_of_its_own(render: Render, switch: str, kind: str) -> None:
    on = kinds(render(with_values("minimal", {switch: {"enabled": True}})))
    off = kinds(render(with_values("minimal", {switch: {"enabled": False}})))

    assert kind in on
    assert kind not in off


def test_demo_needs_no_configuration(render: Render) -> None:
    manifests = render(values_of("demo"))

    assert "ConfigMap" not in kinds(manifests)
    assert "--demo" in container_of(manifests)["args"]
    assert "volumes" not in pod_of(manifests)["spec"]
    assert "checksum/config" not in pod_of(manifests)["metadata"]["annotations"]


# How the parts meet -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_services_and_policies_select_the_pods_and_only_them(render: Render, case: str) -> None:
    manifests = render(values_of(case))
    labels = pod_of(manifests)["metadata"]["labels"]
    selectors = [workload_of(manifests)["spec"]["selector"]["matchLabels"]]
    for manifest in manifests:
        if manifest["kind"] == "Service":
            selectors.append(manifest["spec"]["selector"])
        elif manifest["kind"] == "PodDisruptionBudget":
            selectors.append(manifest["spec"]["selector"]["matchLabels"])
        elif manifest["kind"] == "NetworkPolicy":
            selectors.append(manifest["spec"]["podSelector"]["matchLabels"])

    for selector in selectors:
        assert selects(selector, labels)
        for pod in (item for item in manifests if item["kind"] == "Pod"):
            assert not selects(selector, pod["metadata"]["labels"])


@pytest.mark.parametrize("case", ["everything", "own_secrets", "probe_targets", "tls_alone"])
def test_service_monitor_finds_each_pod_through_exactly_one_service(
    render: Render, case: str
) -> None:
    manifests = render(values_of(case))
    monitor = find(manifests, "ServiceMonitor")
    found = [
        item
        for item in manifests
        if item["kind"] == "Service"
        and selects(monitor["spec"]["selector"]["matchLabels"], item["metadata"]["labels"])
    ]

    assert [item["metadata"]["name"] for item in found] == [NAME]
    assert monitor["spec"]["namespaceSelector"]["matchNames"] == ["databases"]


@pytest.mark.parametrize("case", CASES)
def test_one_port_runs_through_all_parts(render: Render, case: str) -> None:
    values = values_of(case)
    port = values.get("containerPort", 10042)
    manifests = render(values)
    container = container_of(manifests)

    assert container["ports"] == [{"name": "http", "containerPort": port, "protocol": "TCP"}]
    assert f"--web.listen-address=:{port}" in container["args"]
    for manifest in manifests:
        if manifest["kind"] == "Service":
            service_port, *_ = manifest["spec"]["ports"]
            assert (service_port["name"], service_port["targetPort"]) == ("http", "http")
        elif manifest["kind"] in ("ServiceMonitor", "PodMonitor"):
            spec = manifest["spec"]
            endpoints = spec.get("endpoints") or spec["podMetricsEndpoints"]
            assert {endpoint["port"] for endpoint in endpoints} == {"http"}
        elif manifest["kind"] == "Ingress":
            (rule,) = manifest["spec"]["rules"]
            (path,) = rule["http"]["paths"]
            assert path["backend"]["service"] == {"name": NAME, "port": {"name": "http"}}
        elif manifest["kind"] == "NetworkPolicy":
            assert manifest["spec"]["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if "httpGet" in container.get(kind, {}):
            assert container[kind]["httpGet"]["port"] == "http"


@pytest.mark.parametrize("case", CASES)
def test_every_mount_has_its_volume_and_every_file_that_is_named_is_mounted(
    render: Render, case: str
) -> None:
    manifests = render(values_of(case))
    spec = pod_of(manifests)["spec"]
    mounts = container_of(manifests).get("volumeMounts", [])
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    made = {(item["kind"], item["metadata"]["name"]) for item in manifests}
    folders = [mount["mountPath"] for mount in mounts]

    assert {mount["name"] for mount in mounts} == set(volumes)
    assert all("subPath" not in mount for mount in mounts)
    for name, volume in volumes.items():
        is_own = case in OF_THE_USER or (case in WAYS_IN and name == "credentials")
        if name in ("config", "credentials", "web-config") and not is_own:
            source = volume.get("configMap", {}).get("name") or volume["secret"]["secretName"]
            assert ("ConfigMap" if name == "config" else "Secret", source) in made
    named = [arg.partition("=")[2] for arg in container_of(manifests)["args"] if ".file=" in arg]
    if case not in ("demo", "existing_config"):
        # Read by the parser, for `config_of` would look for another name in a case.
        (config,) = (i for i in manifests if "config.yaml" in i.get("data", {}))
        named += re.findall(r"_file: (/\S+)", config["data"]["config.yaml"])
    for path in named:
        assert any(path.startswith(f"{folder}/") for folder in folders), path


def test_secrets_are_files_that_the_group_of_the_pod_may_read(render: Render) -> None:
    spec = pod_of(render(values_of("everything")))["spec"]
    modes = {
        volume["name"]: volume["secret"]["defaultMode"]
        for volume in spec["volumes"]
        if "secret" in volume
    }

    assert modes == {"credentials": 0o440, "web-config": 0o440, "tls": 0o440}
    assert spec["securityContext"]["fsGroup"] == 65532
