"""The chart, rendered by the real Helm engine and checked by value.

`chart_values/` holds combinations of values: each feature is on in one of them, off in another.
"""

import base64
import copy
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

import exporter
from exporter.command.flags import parse_arguments
from exporter.config.auth import (
    AkskAuth,
    AssumeAgency,
    EcsAgencyAuth,
    EnvAuth,
    OidcAuth,
    PasswordAuth,
    PodIdentityAuth,
    ProfileAuth,
    StaticTokenAuth,
)
from exporter.config.durations import parse_duration
from exporter.config.schema import (
    ApiConfig,
    Config,
    Defaults,
    DiscoveryConfig,
    InstanceConfig,
    ProjectConfig,
    ScrapeConfig,
)
from exporter.web.web_config import parse_web_config
from tests.support.certificates import Authority
from tests.support.paths import ROOT
from tests.support.programs import free_port, running

CHART = ROOT / "helm" / "gaussdb-mysql-backup-exporter"
NAME = "backups-gaussdb-mysql-backup-exporter"
# The chart's own examples: a way in each.
WAYS_IN = {
    path.stem.removesuffix("-values"): path for path in sorted((CHART / "ci").glob("*.yaml"))
}
CASES = WAYS_IN | {
    path.stem: path for path in sorted((Path(__file__).parent / "chart_values").glob("*.yaml"))
}
FOLDER = "/etc/gaussdb-mysql-backup-exporter"

Values = dict[str, Any]
Manifest = dict[str, Any]
Render = Callable[[Values], list[Manifest]]


def values_of(case: str) -> Values:
    return yaml.safe_load(CASES[case].read_text(encoding="utf-8")) or {}


def with_values(case: str, changes: Values) -> Values:
    """The values of a case with some of them changed, at any depth."""

    def merge(into: Values, update: Values) -> Values:
        for key, value in update.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value
        return into

    return merge(values_of(case), copy.deepcopy(changes))


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[helm.Chart]:
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def render(chart: helm.Chart) -> Render:
    def manifests(values: Values) -> list[Manifest]:
        rendered = chart.render(values, name="backups", namespace="databases")
        documents = (
            document
            for path, text in rendered.items()
            if path.endswith(".yaml")
            for document in yaml.safe_load_all(text)
        )
        return [document for document in documents if document]

    return manifests


def refusal(chart: helm.Chart, values: Values) -> str:
    with pytest.raises(helm.HelmError) as refused:
        chart.render(values, name="backups", namespace="databases")
    return str(refused.value)


def find(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = (
        item
        for item in manifests
        if item["kind"] == kind and name in ("", item["metadata"]["name"])
    )
    return found


def workload_of(manifests: list[Manifest]) -> Manifest:
    (found,) = (item for item in manifests if item["kind"] in ("Deployment", "StatefulSet"))
    return found


def pod_of(manifests: list[Manifest]) -> Manifest:
    pod: Manifest = workload_of(manifests)["spec"]["template"]
    return pod


def container_of(manifests: list[Manifest]) -> Manifest:
    (container,) = pod_of(manifests)["spec"]["containers"]
    return container  # type: ignore[no-any-return]


def kinds(manifests: list[Manifest]) -> set[str]:
    return {item["kind"] for item in manifests}


def config_of(manifests: list[Manifest]) -> str:
    text: str = find(manifests, "ConfigMap", NAME)["data"]["config.yaml"]
    return text


def secret_file(manifests: list[Manifest], secret: str, file: str) -> str:
    return base64.b64decode(find(manifests, "Secret", secret)["data"][file]).decode()


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


# Forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_chart_passes_the_strict_linter(case: str) -> None:
    report = helm.lint(str(CHART), values_of(case), strict=True)

    assert report["errors"] == []
    # 1 is information: Helm recommends an icon.
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("kubernetes", ["1.28", "1.34"])
@pytest.mark.parametrize("case", CASES)
def test_resources_fit_the_schemas_of_kubernetes(
    render: Render, case: str, kubernetes: str
) -> None:
    own = [
        item
        for item in render(values_of(case))
        if "monitoring.coreos.com" not in item["apiVersion"]
    ]

    assert own
    for manifest in own:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_operator_resources_fit_its_types_and_have_no_other_keys(render: Render, case: str) -> None:
    models = {"ServiceMonitor": ServiceMonitor, "PrometheusRule": PrometheusRule}
    for manifest in render(values_of(case)):
        if "monitoring.coreos.com" in manifest["apiVersion"]:
            parsed = models[manifest["kind"]].model_validate(manifest)
            # The models drop what they do not know.
            assert parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


@pytest.mark.parametrize("case", CASES)
def test_no_key_is_written_twice(chart: helm.Chart, case: str) -> None:
    class StrictLoader(yaml.SafeLoader):
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
    for manifest in render(values):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "backups"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/version"] == exporter.__version__
        assert labels.items() >= (
            {"app.kubernetes.io/part-of": "backups"}.items() if "commonLabels" in values else set()
        )


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
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Secret",  # credentials
        "Secret",  # web configuration
        "Service",
        "Service",  # headless
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    ]


@pytest.mark.parametrize(
    ("switch", "kind"),
    [
        ("serviceMonitor", "ServiceMonitor"),
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


@pytest.mark.parametrize("case", ["everything", "own_secrets", "tls_alone"])
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
            (service_port,) = manifest["spec"]["ports"]
            assert (service_port["name"], service_port["targetPort"]) == ("http", "http")
        elif manifest["kind"] == "ServiceMonitor":
            assert [endpoint["port"] for endpoint in manifest["spec"]["endpoints"]] == ["http"]
        elif manifest["kind"] == "NetworkPolicy":
            assert manifest["spec"]["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := container.get(kind):
            assert (probe.get("httpGet") or probe["tcpSocket"])["port"] == "http"


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
        is_own = case == "own_secrets" or (case in WAYS_IN and name == "credentials")
        if name in ("config", "credentials", "web-config") and not is_own:
            source = volume.get("configMap", {}).get("name") or volume["secret"]["secretName"]
            assert ("ConfigMap" if name == "config" else "Secret", source) in made
    named = [arg.partition("=")[2] for arg in container_of(manifests)["args"] if ".file=" in arg]
    if case != "demo":
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


# The pods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_pods_fit_the_restricted_standard(render: Render, case: str) -> None:
    manifests = render(values_of(case))
    pods = [pod_of(manifests)["spec"], *(i["spec"] for i in manifests if i["kind"] == "Pod")]

    for spec in pods:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))


def test_user_of_the_pod_is_the_user_of_the_image(render: Render) -> None:
    context = pod_of(render(values_of("minimal")))["spec"]["securityContext"]
    users = re.findall(
        r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M
    )

    assert users == [(str(context["runAsUser"]), str(context["runAsGroup"]))]


def test_user_and_group_can_be_left_to_the_platform(render: Render) -> None:
    context = pod_of(render(values_of("everything_off")))["spec"]["securityContext"]

    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_one_shard_is_a_deployment_of_one(render: Render) -> None:
    manifests = render(values_of("minimal"))
    deployment = find(manifests, "Deployment")

    assert deployment["spec"]["replicas"] == 1
    assert not any("shard" in arg for arg in container_of(manifests)["args"])
    assert [item["metadata"]["name"] for item in manifests if item["kind"] == "Service"] == [NAME]


def test_each_shard_gets_its_number_from_the_index_of_its_pod(render: Render) -> None:
    manifests = render(with_values("minimal", {"shards": 4}))
    stateful_set = find(manifests, "StatefulSet")
    container = container_of(manifests)

    assert "Deployment" not in kinds(manifests)
    assert stateful_set["spec"]["replicas"] == 4
    # Kubernetes itself puts the variable in: no shell is needed.
    assert [arg for arg in container["args"] if "shard" in arg] == [
        "--shard=$(POD_INDEX)",
        "--total-shards=4",
    ]
    assert container["env"] == [
        {
            "name": "POD_INDEX",
            "valueFrom": {
                "fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
            },
        }
    ]


def test_stateful_set_has_the_headless_service_that_it_names(render: Render) -> None:
    manifests = render(values_of("everything"))
    headless = find(manifests, "Service", find(manifests, "StatefulSet")["spec"]["serviceName"])

    assert headless["spec"]["clusterIP"] == "None"


def test_shards_are_refused_where_kubernetes_does_not_number_pods(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The linter takes a version; it logs what would end an installation.
    helm.lint(str(CHART), with_values("minimal", {"shards": 2}), kube_version="v1.27.9")
    assert "shards > 1 needs Kubernetes 1.28" in capfd.readouterr().err

    helm.lint(str(CHART), with_values("minimal", {"shards": 2}), kube_version="v1.28.0")
    assert capfd.readouterr().err == ""


def test_flags_follow_the_values_and_extra_ones_come_last(render: Render) -> None:
    assert container_of(render(values_of("minimal")))["args"] == [
        f"--config.file={FOLDER}/config/config.yaml",
        "--web.listen-address=:10042",
        "--web.telemetry-path=/metrics",
        "--log.level=info",
        "--log.format=logfmt",
    ]
    assert container_of(render(values_of("everything")))["args"] == [
        f"--config.file={FOLDER}/config/config.yaml",
        "--web.listen-address=:9999",
        "--web.telemetry-path=/metrics/backups",
        f"--web.config.file={FOLDER}/web/web-config.yaml",
        "--web.enable-lifecycle",
        "--shard=$(POD_INDEX)",
        "--total-shards=3",
        "--log.level=debug",
        "--log.format=json",
        "--web.external-url=https://backups.internal",
    ]


def test_what_is_passed_through_arrives_as_it_is(render: Render) -> None:
    values = values_of("everything")
    manifests = render(values)
    pod, container = pod_of(manifests), container_of(manifests)

    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert pod["spec"][key] == values[key]
    assert container["env"][1:] == values["extraEnv"]
    assert container["envFrom"] == values["extraEnvFrom"]
    assert container["volumeMounts"][-1:] == values["extraVolumeMounts"]
    assert pod["spec"]["volumes"][-1:] == values["extraVolumes"]
    assert pod["metadata"]["annotations"].items() >= values["podAnnotations"].items()
    assert pod["metadata"]["labels"].items() >= values["podLabels"].items()
    assert pod["spec"]["serviceAccountName"] == "backups"
    assert find(manifests, "ServiceAccount")["metadata"]["name"] == "backups"


def test_spread_is_over_our_own_pods_unless_said_otherwise(render: Render) -> None:
    manifests = render(values_of("everything"))
    ours, theirs = pod_of(manifests)["spec"]["topologySpreadConstraints"]

    assert (
        ours["labelSelector"]["matchLabels"]
        == find(manifests, "StatefulSet")["spec"]["selector"]["matchLabels"]
    )
    assert ours["maxSkew"] == 1
    assert theirs["labelSelector"] == {"matchLabels": {"mine": "yes"}}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"gaussdb-mysql-backup-exporter:{exporter.__version__}"),
        ({"repository": "r.internal/e", "tag": "1.10"}, "r.internal/e:1.10"),
        (
            {"repository": "r.internal/e", "tag": "1.10", "digest": "sha256:" + "0" * 64},
            "r.internal/e@sha256:" + "0" * 64,
        ),
    ],
)
def test_image_is_that_of_the_chart_s_version_unless_named(
    render: Render, image: Values, expected: str
) -> None:
    assert container_of(render(with_values("minimal", {"image": image})))["image"] == expected


# Probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("case", "scheme"), [("minimal", "HTTP"), ("tls_alone", "HTTPS")])
def test_probes_ask_the_health_pages(render: Render, case: str, scheme: str) -> None:
    container = container_of(render(values_of(case)))

    pages = {
        kind: container[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness", "startup")
    }
    assert pages == {
        "liveness": {"path": "/-/healthy", "port": "http", "scheme": scheme},
        "readiness": {"path": "/-/ready", "port": "http", "scheme": scheme},
        "startup": {"path": "/-/healthy", "port": "http", "scheme": scheme},
    }


@pytest.mark.parametrize(
    "web",
    [
        {"basicAuth": {"enabled": True}, "existingConfigSecret": "mine"},
        {"tls": {"enabled": True, "secretName": "tls", "clientCAKey": "ca.crt"}},
    ],
)
def test_probes_only_knock_where_the_kubelet_could_not_log_in(render: Render, web: Values) -> None:
    container = container_of(render(with_values("minimal", {"web": web})))

    for kind in ("liveness", "readiness", "startup"):
        assert container[f"{kind}Probe"]["tcpSocket"] == {"port": "http"}
        assert "httpGet" not in container[f"{kind}Probe"]


def test_probes_can_be_switched_off(render: Render) -> None:
    assert not [key for key in container_of(render(values_of("everything_off"))) if "Probe" in key]


# Configuration and secrets ----------------------------------------------------------------------


def test_configuration_arrives_unchanged(render: Render) -> None:
    values = values_of("everything")

    assert yaml.safe_load(config_of(render(values))) == values["config"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("minimal", "config OK: 1 projects, 1 instances"),
        ("everything", "config OK: 5 projects, 2 instances"),
        ("everything_off", "config OK: 1 projects, 0 instances"),
        ("own_secrets", "config OK: 1 projects, 1 instances"),
        ("tls_alone", "config OK: 1 projects, 0 instances"),
        *(
            (case, f"config OK: {2 if case == 'assume-agency' else 1} projects, 0 instances")
            for case in WAYS_IN
        ),
    ],
)
def test_mounted_configuration_passes_the_exporter_s_check(
    render: Render, tmp_path: Path, case: str, said: str
) -> None:
    manifests = render(values_of(case))
    (config,) = (item for item in manifests if "config.yaml" in item.get("data", {}))
    # The one file that has to be there when the configuration is checked.
    authority = Authority(tmp_path)
    text = config["data"]["config.yaml"].replace("/etc/own-ca/ca.crt", str(authority.cert_file))
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    variables = {item["name"]: "made-up" for item in container_of(manifests).get("env", [])}

    ran = subprocess.run(
        [sys.executable, "-m", "exporter", "--config.check", "--config.file", file],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, said), ran.stderr


def test_flags_of_the_pod_are_flags_of_the_exporter(render: Render) -> None:
    arguments = container_of(render(values_of("everything")))["args"]
    numbered = [argument.replace("$(POD_INDEX)", "2") for argument in arguments]
    options = parse_arguments(numbered)

    assert (options.shard, options.total_shards) == (2, 3)
    assert options.listen_addresses == (":9999",)
    assert options.telemetry_path == "/metrics/backups"
    assert options.enable_lifecycle


def test_schema_knows_exactly_the_keys_of_the_configuration() -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))[
        "definitions"
    ]
    config = definitions["config"]["properties"]
    auth = {
        condition["if"]["properties"]["type"]["const"]: set(condition["then"]["properties"])
        for condition in definitions["auth"]["allOf"]
        if "properties" in condition["if"]
    }

    assert set(config) == set(Config.model_fields)
    assert set(config["defaults"]["properties"]) == set(Defaults.model_fields)
    assert set(config["api"]["properties"]) == set(ApiConfig.model_fields)
    assert set(config["scrape"]["properties"]) == set(ScrapeConfig.model_fields)
    assert set(definitions["project"]["properties"]) == set(ProjectConfig.model_fields)
    assert set(definitions["instance"]["else"]["properties"]) == set(InstanceConfig.model_fields)
    assert set(definitions["discovery"]["properties"]) == set(DiscoveryConfig.model_fields)
    assert set(definitions["auth"]["properties"]) == set().union(*auth.values())
    assert auth == {
        "password": set(PasswordAuth.model_fields),
        "aksk": set(AkskAuth.model_fields),
        "ecs-agency": set(EcsAgencyAuth.model_fields),
        "pod-identity": set(PodIdentityAuth.model_fields),
        "oidc": set(OidcAuth.model_fields),
        "profile": set(ProfileAuth.model_fields),
        "token": set(StaticTokenAuth.model_fields),
        "env": set(EnvAuth.model_fields),
    }
    assert set(definitions["assumeAgency"]["properties"]) == set(AssumeAgency.model_fields)


@pytest.mark.parametrize(
    ("duration", "legal"),
    [
        ("0", True),
        ("500ms", True),
        ("30s", True),
        ("1h30m", True),
        ("1y2w3d4h5m6s7ms", True),
        ("", False),
        ("30", False),
        ("1.5h", False),
        ("-5m", False),
        ("5m 1s", False),
        ("30m1h", False),
        ("1h1h", False),
        ("1H", False),
    ],
)
def test_schema_and_exporter_agree_on_durations(
    chart: helm.Chart, duration: str, legal: bool
) -> None:
    try:
        parse_duration(duration)
        accepted = True
    except ValueError:
        accepted = False
    values = with_values("minimal", {"config": {"scrape": {"min_interval": duration}}})
    try:
        chart.render(values, name="backups")
        rendered = True
    except helm.HelmError:
        rendered = False

    assert (accepted, rendered) == (legal, legal)


def test_numbers_of_the_configuration_stay_numbers(render: Render) -> None:
    # Helm reads every number as a float; 1e+06 would be a text to the exporter.
    api = {"max_connections": 10_000, "rate_limit": 100_000}
    text = config_of(render(with_values("minimal", {"config": {"api": api}})))

    assert yaml.safe_load(text)["api"] == api


def test_checksum_follows_the_configuration_and_nothing_else(render: Render) -> None:
    def checksum(changes: Values) -> str:
        pod = pod_of(render(with_values("minimal", changes)))
        text: str = pod["metadata"]["annotations"]["checksum/config"]
        return text

    assert re.fullmatch("[0-9a-f]{64}", checksum({}))
    assert checksum({"config": {"defaults": {"stale_after": "2h"}}}) != checksum({})
    assert checksum({"service": {"port": 1234}, "credentials": {"data": {"a": "b"}}}) == checksum(
        {}
    )


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_anywhere_but_in_secrets(render: Render, case: str) -> None:
    values = values_of(case)
    secrets = [*values.get("credentials", {}).get("data", {}).values()]
    secrets += values.get("web", {}).get("basicAuth", {}).get("users", {}).values()
    secrets += [base64.b64encode(secret.encode()).decode() for secret in secrets]

    for manifest in render(values):
        if manifest["kind"] != "Secret":
            text = json.dumps(manifest)
            assert [secret for secret in secrets if secret in text] == []


def test_notes_repeat_no_secret(chart: helm.Chart) -> None:
    rendered = chart.render(values_of("everything"), name="backups", namespace="databases")
    (notes,) = (text for path, text in rendered.items() if path.endswith("NOTES.txt"))

    assert "helm test backups --namespace databases" in notes
    assert "made-up" not in notes
    assert "$2b$" not in notes


def test_credentials_become_files_of_a_secret(render: Render) -> None:
    manifests = render(values_of("everything"))

    assert secret_file(manifests, f"{NAME}-credentials", "password") == "made-up-password"
    assert secret_file(manifests, f"{NAME}-credentials", "token") == "made-up-token"


def test_existing_secrets_are_used_and_none_is_made(render: Render) -> None:
    manifests = render(values_of("own_secrets"))
    volumes = pod_of(manifests)["spec"]["volumes"]

    assert "Secret" not in kinds(manifests)
    assert [v["secret"]["secretName"] for v in volumes if "secret" in v] == [
        "gaussdb",
        "exporter-web",
    ]
    assert container_of(manifests)["volumeMounts"][1]["mountPath"] == "/run/own"


@pytest.mark.parametrize("case", ["oidc", "identity-provider"])
def test_a_token_of_the_service_account_is_where_the_exporter_looks_for_it(
    render: Render, case: str
) -> None:
    manifests = render(values_of(case))
    spec, container = pod_of(manifests)["spec"], container_of(manifests)
    (volume,) = (item for item in spec["volumes"] if item["name"] == "identity-token")
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == "identity-token")
    variables = {item["name"]: item.get("value") for item in container["env"]}

    assert volume["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "path": "token",
                "audience": "my-client-id",
                "expirationSeconds": 3600,
            }
        }
    ]
    token_file = f"{mount['mountPath']}/token"
    assert variables["HUAWEICLOUD_OIDC_TOKEN_FILE"] == token_file
    assert variables.get("HUAWEICLOUD_SDK_ID_TOKEN_FILE", token_file) == token_file
    assert spec["automountServiceAccountToken"] is False


def test_the_service_account_may_have_annotations_and_a_name(render: Render) -> None:
    account = {"name": "reader", "annotations": {"example.com/agency": "backup-reader"}}
    manifests = render(with_values("pod-identity", {"serviceAccount": account}))

    made = find(manifests, "ServiceAccount")
    assert made["metadata"]["name"] == "reader"
    assert made["metadata"]["annotations"] == {"example.com/agency": "backup-reader"}
    assert pod_of(manifests)["spec"]["serviceAccountName"] == "reader"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("pod-identity", "service account backup-exporter of the namespace databases"),
        ("oidc", "system:serviceaccount:databases:backup-exporter and the audience my-client-id"),
        ("ecs-agency", "The nodes that the pods run on need an agency"),
    ],
)
def test_notes_say_that_no_secret_is_needed_and_what_is(
    chart: helm.Chart, case: str, said: str
) -> None:
    rendered = chart.render(values_of(case), name="backups", namespace="databases")
    (notes,) = (text for path, text in rendered.items() if path.endswith("NOTES.txt"))

    assert said in notes
    assert "No secret is needed" in notes


@pytest.mark.parametrize(
    "case", ["password", "aksk", "profile", "token", "env", "identity-provider"]
)
def test_notes_do_not_promise_it_where_a_secret_is_needed(chart: helm.Chart, case: str) -> None:
    rendered = chart.render(values_of(case), name="backups", namespace="databases")
    (notes,) = (text for path, text in rendered.items() if path.endswith("NOTES.txt"))

    assert "No secret is needed" not in notes


@pytest.mark.parametrize(
    ("case", "changes", "advice"),
    [
        ("oidc", {"identityToken": {"audience": ""}}, "needs identityToken.audience"),
        (
            "oidc",
            {"identityToken": {"enabled": False}},
            "config.projects[0].auth: type oidc has no token to show: set identityToken.enabled",
        ),
    ],
)
def test_an_identity_token_that_is_not_whole_is_refused(
    chart: helm.Chart, case: str, changes: Values, advice: str
) -> None:
    assert advice in refusal(chart, with_values(case, changes))


def test_the_network_policy_lets_a_pod_ask_for_its_keys(render: Render) -> None:
    def blocks(case: str) -> list[str]:
        policy = find(render(values_of(case)), "NetworkPolicy")
        return [
            to["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for to in rule.get("to", [])
        ]

    assert blocks("pod-identity") == ["169.254.0.0/16"]
    assert blocks("ecs-agency") == ["169.254.169.254/32"]


def auth_with(**auth: str) -> Values:
    project = {"id": "p", "region": "cn-north-4", "auth": auth, "discovery": {"enabled": True}}
    return {"config": {"projects": [project]}}


@pytest.mark.parametrize(
    ("auth", "path", "advice"),
    [
        (
            {"type": "password", "domain": "d", "username": "u", "password": "hunter2"},
            "config.projects[0].auth.password",
            f"password_file: {FOLDER}/secrets/KEY",
        ),
        (
            {"type": "aksk", "access_key": "AK", "secret_key": "hunter2"},
            "config.projects[0].auth.secret_key",
            f"secret_key_file: {FOLDER}/secrets/KEY",
        ),
        (
            {
                "type": "aksk",
                "access_key": "AK",
                "secret_key_file": "/k",
                "security_token": "hunter2",
            },
            "config.projects[0].auth.security_token",
            "extraEnv",
        ),
        ({"type": "token", "token": "hunter2"}, "config.projects[0].auth.token", "token_file"),
        # A variable with a text around it is a secret in part.
        (
            {"type": "token", "token": "hunter2${REST}"},
            "config.projects[0].auth.token",
            "token_file",
        ),
    ],
)
def test_secret_in_the_configuration_is_refused_with_advice(
    chart: helm.Chart, auth: dict[str, str], path: str, advice: str
) -> None:
    message = refusal(chart, auth_with(**auth))

    assert f"{path} holds a secret, and a ConfigMap is no place for one" in message
    assert advice in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("proxy_url", "refused"),
    [
        ("http://user:hunter2@proxy:3128", True),
        ("http://user:${A}hunter2@proxy:3128", True),
        ("http://user:hunt:er2@proxy:3128", True),
        ("http://user:${PROXY_PASSWORD}@proxy:3128", False),
        ("http://proxy:3128", False),
        ("${PROXY_URL}", False),
    ],
)
def test_password_of_a_proxy_is_refused_unless_from_the_environment(
    chart: helm.Chart, render: Render, proxy_url: str, refused: bool
) -> None:
    values = with_values("minimal", {"config": {"api": {"proxy_url": proxy_url}}})

    if refused:
        message = refusal(chart, values)
        assert "config.api.proxy_url holds a password" in message
        assert "hunt" not in message
    else:
        assert yaml.safe_load(config_of(render(values)))["api"]["proxy_url"] == proxy_url


def test_web_configuration_is_written_as_the_toolkit_has_it(render: Render) -> None:
    values = values_of("everything")
    written = yaml.safe_load(secret_file(render(values), f"{NAME}-web-config", "web-config.yaml"))

    assert written == {
        "tls_server_config": {
            "cert_file": f"{FOLDER}/tls/tls.crt",
            "key_file": f"{FOLDER}/tls/tls.key",
            "client_ca_file": f"{FOLDER}/tls/ca.crt",
            "client_auth_type": "RequireAndVerifyClientCert",
            "min_version": "TLS13",
        },
        "basic_auth_users": values["web"]["basicAuth"]["users"],
    }


def test_web_configuration_is_one_that_the_exporter_takes(render: Render) -> None:
    text = secret_file(render(values_of("everything")), f"{NAME}-web-config", "web-config.yaml")
    parsed = parse_web_config(text)

    assert parsed.users == values_of("everything")["web"]["basicAuth"]["users"]
    assert parsed.tls_server_config is not None
    assert parsed.tls_server_config.client_auth_type == "RequireAndVerifyClientCert"


def test_clear_password_in_place_of_a_hash_is_refused_and_not_repeated(chart: helm.Chart) -> None:
    web = {"basicAuth": {"enabled": True, "users": {"prometheus": "hunter2"}}}
    message = refusal(chart, with_values("minimal", {"web": web}))

    assert "web.basicAuth.users.prometheus is no bcrypt hash" in message
    assert "hunter2" not in message


# Prometheus and Grafana -------------------------------------------------------------------------


def endpoint_of(manifests: list[Manifest]) -> Manifest:
    (endpoint,) = find(manifests, "ServiceMonitor")["spec"]["endpoints"]
    return endpoint  # type: ignore[no-any-return]


def test_service_monitor_honours_our_labels(render: Render) -> None:
    manifests = render(with_values("minimal", {"serviceMonitor": {"enabled": True}}))

    assert endpoint_of(manifests) == {
        "port": "http",
        "path": "/metrics",
        "scheme": "http",
        "honorLabels": True,
    }


def test_service_monitor_follows_tls_basic_auth_and_relabelling(render: Render) -> None:
    values = values_of("everything")
    manifests = render(values)

    assert find(manifests, "ServiceMonitor")["metadata"]["namespace"] == "monitoring"
    assert (
        find(manifests, "ServiceMonitor")["metadata"]["labels"]["release"]
        == "kube-prometheus-stack"
    )
    assert find(manifests, "ServiceMonitor")["metadata"]["labels"]["team"] == "dba"
    assert endpoint_of(manifests) == {
        "port": "http",
        "path": "/metrics/backups",
        "scheme": "https",
        "honorLabels": True,
        "interval": "30s",
        "scrapeTimeout": "25s",
        "tlsConfig": {
            "ca": {"secret": {"name": "exporter-tls", "key": "ca.crt"}},
            "serverName": f"{NAME}.databases.svc",
        },
        "basicAuth": {
            "username": {"name": "exporter-client", "key": "username"},
            "password": {"name": "exporter-client", "key": "password"},
        },
        "relabelings": values["serviceMonitor"]["relabelings"],
        "metricRelabelings": values["serviceMonitor"]["metricRelabelings"],
    }


def test_own_tls_settings_replace_those_of_the_service_monitor(render: Render) -> None:
    assert endpoint_of(render(values_of("own_secrets")))["tlsConfig"] == {
        "insecureSkipVerify": True
    }


@pytest.mark.parametrize("name", ["", "backups", "gaussdb-mysql-backup-exporter-eu"])
def test_alerts_know_the_job_of_the_service_monitor(render: Render, name: str) -> None:
    values = {"fullnameOverride": name, "serviceMonitor": {"enabled": True}}
    manifests = render(with_values("minimal", values))
    # The operator names a job after the Service, before the relabelling.
    job = find(manifests, "Service")["metadata"]["name"]
    for relabelling in endpoint_of(manifests).get("relabelings", []):
        if relabelling["targetLabel"] == "job":
            job = relabelling["replacement"]

    patterns = set(re.findall(r'job=~"([^"]*)"', json.dumps(shipped_rules()).replace('\\"', '"')))
    assert patterns
    assert all(re.fullmatch(pattern, job) for pattern in patterns), job


def rules_of(manifests: list[Manifest]) -> list[Manifest]:
    groups = find(manifests, "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shipped_rules() -> list[Manifest]:
    text = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_rules_are_those_of_the_shipped_file(render: Render) -> None:
    manifests = render(with_values("minimal", {"prometheusRule": {"enabled": True}}))

    rules = rules_of(manifests)
    assert [rule.get("alert") for rule in rules] == [rule.get("alert") for rule in shipped_rules()]
    for rendered, shipped in zip(rules, shipped_rules(), strict=True):
        assert rendered == shipped


def test_rules_get_more_labels_and_full_runbook_links(render: Render) -> None:
    alerts = [rule for rule in rules_of(render(values_of("everything"))) if "alert" in rule]
    shipped = [rule for rule in shipped_rules() if "alert" in rule]

    for rendered, original in zip(alerts, shipped, strict=True):
        assert rendered["labels"] == {**original["labels"], "team": "dba"}
        page = original["annotations"]["runbook_url"].rpartition("/")[2]
        assert rendered["annotations"]["runbook_url"] == f"https://runbooks.internal/backups/{page}"


def test_alert_can_be_left_out_by_name(chart: helm.Chart, render: Render) -> None:
    names = [rule["alert"] for rule in shipped_rules() if "alert" in rule]
    switched_off = {"prometheusRule": {"enabled": True, "disabled": names[:1]}}

    left = [
        r["alert"] for r in rules_of(render(with_values("minimal", switched_off))) if "alert" in r
    ]
    assert left == names[1:]

    misspelt = {"prometheusRule": {"enabled": True, "disabled": ["NoSuchAlert"]}}
    assert "there is no alert NoSuchAlert" in refusal(chart, with_values("minimal", misspelt))


def test_dashboard_is_the_shipped_file_where_the_sidecar_looks(render: Render) -> None:
    manifests = render(values_of("everything"))
    dashboard = find(manifests, "ConfigMap", f"{NAME}-dashboard")
    shipped = (CHART / "files" / "dashboard.json").read_text(encoding="utf-8")

    assert dashboard["metadata"]["namespace"] == "monitoring"
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Backups"}
    assert list(dashboard["data"]) == [f"{NAME}.json"]
    assert json.loads(dashboard["data"][f"{NAME}.json"]) == json.loads(shipped)
    # Kubernetes takes a ConfigMap up to 1 MiB, and `kubectl apply` an annotation up to 256 KiB.
    assert len(shipped.encode()) < 256 * 1024


# Network ----------------------------------------------------------------------------------------


def test_network_policy_opens_what_is_needed(render: Render) -> None:
    spec = find(render(values_of("everything")), "NetworkPolicy")["spec"]

    assert spec["policyTypes"] == ["Ingress", "Egress"]
    namespaces, helm_test = spec["ingress"][0]["from"]
    assert namespaces == values_of("everything")["networkPolicy"]["ingressFrom"][0]
    assert helm_test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    opened = [(p["port"], p["protocol"]) for rule in spec["egress"] for p in rule["ports"]]
    assert opened == [(53, "UDP"), (53, "TCP"), (443, "TCP"), (80, "TCP"), (3128, "TCP")]
    assert spec["egress"][2]["to"] == [{"ipBlock": {"cidr": "169.254.169.254/32"}}]


def test_network_policy_lets_helm_test_in_by_its_labels(render: Render) -> None:
    manifests = render(values_of("everything"))
    peer = find(manifests, "NetworkPolicy")["spec"]["ingress"][0]["from"][-1]

    assert selects(peer["podSelector"]["matchLabels"], find(manifests, "Pod")["metadata"]["labels"])


def test_network_policy_keeps_the_metadata_service_closed_to_who_does_not_need_it(
    render: Render,
) -> None:
    spec = find(render(values_of("everything_off")), "NetworkPolicy")["spec"]

    assert "169.254.169.254" not in json.dumps(spec)
    assert "from" not in spec["ingress"][0]


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config": {"projects": []}}, "config.projects is empty: name at least one project"),
        ({"demo": True}, "demo=true would hide config.projects"),
        (
            {"credentials": {"existingSecret": "a", "data": {"b": "c"}}},
            "credentials.existingSecret and credentials.data exclude each other",
        ),
        ({"web": {"tls": {"enabled": True}}}, "web.tls.enabled needs web.tls.secretName"),
        ({"web": {"tls": {"clientCAKey": "ca.crt"}}}, "web.tls.clientCAKey needs web.tls.enabled"),
        ({"web": {"basicAuth": {"enabled": True}}}, "needs web.basicAuth.users"),
        ({"web": {"existingConfigSecret": "mine"}}, "say what it holds"),
        (
            {
                "web": {"existingConfigSecret": "mine", "basicAuth": {"enabled": True}},
                "serviceMonitor": {"enabled": True},
            },
            "needs web.basicAuth.clientSecret.name",
        ),
        (
            {
                "web": {"existingConfigSecret": "mine", "tls": {"enabled": True}},
                "serviceMonitor": {"enabled": True},
            },
            "needs serviceMonitor.tlsConfig",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused(
    chart: helm.Chart, values: Values, message: str
) -> None:
    assert message in refusal(chart, with_values("minimal", values))


def project_with(**changes: Any) -> Values:
    project = {"id": "p", "region": "cn-north-4", "instances": ["i"], **changes}
    return {"config": {"projects": [project]}}


@pytest.mark.parametrize(
    ("values", "path", "words"),
    [
        ({"shard": 2}, "''", "'shard' not allowed"),
        ({"shards": 0}, "'/shards'", "minimum"),
        ({"shards": "2"}, "'/shards'", "want integer"),
        ({"image": {"tga": "1"}}, "'/image'", "'tga' not allowed"),
        ({"image": {"tag": 1.1}}, "'/image/tag'", "want string"),
        ({"image": {"digest": "0123"}}, "'/image/digest'", "pattern"),
        (
            {"log": {"level": "verbose"}},
            "'/log/level'",
            "must be one of 'debug', 'info', 'warn', 'error'",
        ),
        ({"web": {"telemetryPath": "metrics"}}, "'/web/telemetryPath'", "pattern"),
        ({"service": {"type": "External"}}, "'/service/type'", "must be one of"),
        ({"serviceMonitor": {"interval": "30"}}, "'/serviceMonitor/interval'", "pattern"),
        (
            {"podLabels": {"app.kubernetes.io/name": "mine"}},
            "'/podLabels/app.kubernetes.io~1name'",
            "want null",
        ),
        ({"extraArgs": [1]}, "'/extraArgs/0'", "want string"),
        (
            {"config": {"defaults": {"stale_aftr": "1h"}}},
            "'/config/defaults'",
            "'stale_aftr' not allowed",
        ),
        ({"config": {"defaults": {"lookback": "1 day"}}}, "'/config/defaults/lookback'", "pattern"),
        ({"config": {"defaults": {"lookback": "5m1h"}}}, "'/config/defaults/lookback'", "pattern"),
        ({"config": {"defaults": {"lookback": 30}}}, "'/config/defaults/lookback'", "maximum"),
        ({"config": {"api": {"retries": 11}}}, "'/config/api/retries'", "maximum"),
        ({"config": {"api": {"retries": 1.5}}}, "'/config/api/retries'", "or integer"),
        (project_with(id="a/b"), "'/config/projects/0/id'", "pattern"),
        (project_with(id=12), "'/config/projects/0/id'", "want string"),
        (project_with(endpoint="gaussdb.internal"), "'/config/projects/0/endpoint'", "pattern"),
        (project_with(instances=["a b"]), "'/config/projects/0/instances/0'", "pattern"),
        (project_with(instances=[{"name": "x"}]), "'/config/projects/0/instances/0'", "'id'"),
        (project_with(auth={"type": "magic"}), "'/config/projects/0/auth/type'", "'ecs-agency'"),
        (
            project_with(auth={"type": "password", "domain": "d", "password_file": "f"}),
            "'/config/projects/0/auth'",
            "missing property 'username'",
        ),
        (
            project_with(auth={"type": "env", "domain": "d"}),
            "'/config/projects/0/auth'",
            "'domain'",
        ),
        (
            project_with(discovery={"tag": {}}),
            "'/config/projects/0/discovery'",
            "'tag' not allowed",
        ),
    ],
)
def test_schema_refuses_wrong_values_with_their_path(
    chart: helm.Chart, values: Values, path: str, words: str
) -> None:
    message = refusal(chart, with_values("minimal", values))

    assert f"at {path}" in message
    assert words in message


@pytest.mark.parametrize("missing", ["region", "instances"])
def test_project_that_cannot_be_asked_is_refused(chart: helm.Chart, missing: str) -> None:
    values = project_with()
    del values["config"]["projects"][0][missing]

    assert f"missing property '{missing}'" in refusal(chart, values)


def test_schema_is_strict_wherever_the_keys_are_ours() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def loose(node: Any, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            ours = "properties" in node and "if" not in path.split("/")
            if ours and node.get("additionalProperties", True) is True:
                yield path
            for key, item in node.items():
                yield from loose(item, f"{path}/{key}")
        elif isinstance(node, list):
            for i, item in enumerate(node):
                yield from loose(item, f"{path}/{i}")

    assert list(loose(schema, "")) == []


def test_schema_knows_exactly_the_values_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

    def compare(node: Any, known: Any, path: str) -> None:
        while "$ref" in known:
            known = schema["definitions"][known["$ref"].rpartition("/")[2]]
        if known.get("additionalProperties") is False and node:
            assert set(node) == set(known["properties"]) - {"global"}, path
            for key, value in node.items():
                compare(value, known["properties"][key], f"{path}/{key}")

    compare(values, schema, "")


# Documents --------------------------------------------------------------------------------------


def test_versions_agree() -> None:
    chart_yaml = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert chart_yaml["name"] == CHART.name
    assert chart_yaml["appVersion"] == exporter.__version__


def test_readme_tells_every_value_with_its_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (CHART / "README.md").read_text(encoding="utf-8")
    told = {
        path: json.loads(default)
        for path, default in re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", text, re.MULTILINE)
    }

    def flatten(node: Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            path = f"{prefix}{key}"
            if path in told or not isinstance(value, dict) or not value:
                yield path, value
            else:
                yield from flatten(value, f"{path}.")

    assert told == dict(flatten(values))


def test_example_of_the_readme_installs(render: Render) -> None:
    text = (CHART / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    manifests = render(yaml.safe_load(example))
    assert {"Deployment", "ServiceMonitor", "PrometheusRule"} <= kinds(manifests)


# `helm test` ------------------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[dict[str, tuple[int, str]]], str]]:
    """Starts an HTTP server that answers paths with a status and a text; gives its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(pages: dict[str, tuple[int, str]]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = pages.get(self.path, (404, ""))
                if status == 401 and self.headers.get("Authorization") == "Basic cHJvbTptYWRlLXVw":
                    status = 200
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run_helm_test(
    manifests: list[Manifest], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the program of the rendered test pod, with variables of its own and these."""
    (container,) = find(manifests, "Pod")["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    assert command[0] == "python3"
    plain = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    return subprocess.run(
        [sys.executable, *command[1:]],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


GOOD_PAGES = {
    "/-/ready": (200, "ready"),
    "/metrics": (200, "gaussdb_mysql_exporter_build_info 1\n"),
}


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({}, 0, "/metrics: ok"),
        ({"/-/ready": (503, "")}, 1, "/-/ready: status 503"),
        ({"/metrics": (200, "nothing\n")}, 1, "no gaussdb_mysql_exporter_build_info in the answer"),
        ({"/metrics": (401, "")}, 0, "/metrics: ok"),
    ],
)
def test_helm_test_tells_whether_the_exporter_answers(
    render: Render,
    serve: Callable[[dict[str, tuple[int, str]]], str],
    changed: dict[str, tuple[int, str]],
    code: int,
    words: str,
) -> None:
    target = serve({**GOOD_PAGES, **changed})
    ran = run_helm_test(render(values_of("minimal")), TARGET=target, TIMEOUT_SECONDS="0")

    assert ran.returncode == code, ran.stderr
    assert words in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_helm_test_logs_in_with_the_password_of_the_client(
    render: Render, serve: Callable[[dict[str, tuple[int, str]]], str]
) -> None:
    manifests = render(with_values("own_secrets", {"test": {"timeoutSeconds": 1}}))
    locked = {path: (401, text) for path, (_, text) in GOOD_PAGES.items()}
    target = serve(locked)

    good = run_helm_test(
        manifests, TARGET=target, TIMEOUT_SECONDS="0", USERNAME="prom", PASSWORD="made-up"
    )
    bad = run_helm_test(
        manifests, TARGET=target, TIMEOUT_SECONDS="0", USERNAME="prom", PASSWORD="wrong"
    )

    assert (good.returncode, bad.returncode) == (0, 1)
    assert "status 401" in bad.stderr
    (container,) = find(manifests, "Pod")["spec"]["containers"]
    references = [
        item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item
    ]
    assert references == [
        {"name": "exporter-client", "key": "user"},
        {"name": "exporter-client", "key": "pass"},
    ]


def test_helm_test_only_knocks_where_it_would_need_a_certificate(
    render: Render, serve: Callable[[dict[str, tuple[int, str]]], str]
) -> None:
    manifests = render(values_of("everything"))

    there = run_helm_test(manifests, TARGET=serve({}), TIMEOUT_SECONDS="0")
    nobody = run_helm_test(manifests, TARGET="https://127.0.0.1:1", TIMEOUT_SECONDS="0")

    assert (there.returncode, nobody.returncode) == (0, 1)
    assert "refused" in nobody.stderr


def lay_out(folder: Path, files: dict[str, str]) -> None:
    """Files as the kubelet lays out a ConfigMap or a Secret: links through `..data`."""
    (folder / "..2024").mkdir(parents=True)
    (folder / "..data").symlink_to("..2024")
    for name, text in files.items():
        (folder / "..2024" / name).write_text(text, encoding="utf-8")
        (folder / name).symlink_to(Path("..data") / name)


def test_rendered_pod_runs_behind_tls_and_basic_auth_and_passes_helm_test(
    render: Render, tmp_path: Path
) -> None:
    port = free_port()
    project = {
        "id": "p",
        # Nobody listens there: the metrics are published all the same.
        "endpoint": "http://127.0.0.1:1",
        "auth": {"type": "token", "token_file": f"{FOLDER}/secrets/token"},
        "instances": ["i"],
    }
    values = {
        "config": {"api": {"retries": 0}, "projects": [project]},
        "credentials": {"data": {"token": "made-up-token"}},
        "containerPort": port,
        "web": {
            "tls": {"enabled": True, "secretName": "tls"},
            "basicAuth": {
                "enabled": True,
                "users": values_of("everything")["web"]["basicAuth"]["users"],
                "clientSecret": {"name": "exporter-client"},
            },
        },
    }
    manifests = render(values)
    issued = Authority(tmp_path).issue("exporter.internal")
    etc = tmp_path / "etc"

    def here(text: str) -> str:
        return text.replace(FOLDER, str(etc))

    lay_out(etc / "config", {"config.yaml": here(config_of(manifests))})
    lay_out(etc / "secrets", {"token": secret_file(manifests, f"{NAME}-credentials", "token")})
    web_config = secret_file(manifests, f"{NAME}-web-config", "web-config.yaml")
    lay_out(etc / "web", {"web-config.yaml": here(web_config)})
    lay_out(
        etc / "tls",
        {"tls.crt": issued.cert_file.read_text(), "tls.key": issued.key_file.read_text()},
    )
    arguments = [here(argument) for argument in container_of(manifests)["args"]]
    log = tmp_path / "exporter.log"
    target = f"https://127.0.0.1:{port}"
    login = {"USERNAME": "prometheus", "PASSWORD": "made-up"}

    with running(sys.executable, "-m", "exporter", *arguments, log=log) as process:
        ran = run_helm_test(manifests, TARGET=target, TIMEOUT_SECONDS="30", **login)
        wrong = run_helm_test(
            manifests, TARGET=target, TIMEOUT_SECONDS="0", **{**login, "PASSWORD": "wrong"}
        )

    assert ran.returncode == 0, ran.stderr + log.read_text(encoding="utf-8")
    assert ran.stdout == f"{target}/-/ready: ok\n{target}/metrics: ok\n"
    assert wrong.returncode == 1
    assert "status 401" in wrong.stderr
    assert process.returncode == 0
    assert "made-up" not in log.read_text(encoding="utf-8")


def test_helm_test_is_a_hook_that_asks_the_service(render: Render) -> None:
    pod = find(render(values_of("everything")), "Pod")
    (container,) = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["image"] == "registry.internal/monitoring/gaussdb-mysql-backup-exporter:1.10"
    assert environment["TARGET"] == f"https://{NAME}.databases.svc:8443"
    assert environment["METRICS_PATH"] == "/metrics/backups"
    assert environment["CLIENT_CERTIFICATE_REQUIRED"] == "true"
    # Kubernetes would put a variable in the place of $(...).
    assert "$(" not in "".join(container["args"])
