"""The pods of the chart."""

import re

import helm_python as helm
import pytest

import exporter
from tests.helm.charts import (
    CASES,
    CHART,
    FOLDER,
    NAME,
    Render,
    Values,
    container_of,
    find,
    kinds,
    pod_of,
    values_of,
    with_values,
)
from tests.support.paths import ROOT

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
        "--web.external-url=https://backups.internal",
        f"--web.config.file={FOLDER}/web/web-config.yaml",
        "--web.enable-lifecycle",
        "--shard=$(POD_INDEX)",
        "--total-shards=3",
        "--log.level=debug",
        "--log.format=json",
        "--web.listen-address=:10000",
    ]


def test_what_is_passed_through_arrives_as_it_is(render: Render) -> None:
    values = values_of("everything")
    manifests = render(values)
    pod, container = pod_of(manifests), container_of(manifests)

    for key in (
        "nodeSelector",
        "tolerations",
        "affinity",
        "priorityClassName",
        "imagePullSecrets",
        "terminationGracePeriodSeconds",
        "hostAliases",
        "dnsPolicy",
        "dnsConfig",
        "runtimeClassName",
        "schedulerName",
    ):
        assert pod["spec"][key] == values[key]
    assert container["lifecycle"] == values["lifecycle"]
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
def test_image_s_health_check_asks_where_the_kubelet_could_not_log_in(
    render: Render, web: Values
) -> None:
    container = container_of(render(with_values("minimal", {"web": web})))
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY docker/healthcheck.py (\S+)$", image, re.M)

    for kind in ("liveness", "readiness", "startup"):
        probe = container[f"{kind}Probe"]
        assert probe["exec"] == {"command": ["python3", *copied]}
        assert not {"httpGet", "tcpSocket"} & set(probe)
        # It gives each of two ways to ask two seconds.
        assert probe["timeoutSeconds"] == 5


def test_probes_can_be_switched_off(render: Render) -> None:
    assert not [key for key in container_of(render(values_of("everything_off"))) if "Probe" in key]
