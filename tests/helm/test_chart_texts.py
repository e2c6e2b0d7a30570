"""Texts of the values stay texts; templates in them are filled in where it is said."""

import kubernetes_validate
import pytest
import yaml

from tests.helm.charts import (
    NAME,
    Render,
    Values,
    container_of,
    find,
    operator_types,
    pod_of,
    values_of,
    with_values,
)

# Texts that look like something else --------------------------------------------------------------

# As the names of a release, a namespace, a Secret and so on; Kubernetes reads each as no text.
ODD = ("123", "true", "1e3", "null", "0x1f", "0o17", "on", "y", "1.5")


def odd_values(odd: str) -> Values:
    """Every text that takes such a name, everywhere."""
    texts = {"odd": odd}
    secret = {"name": odd, "key": odd}
    monitor = {"namespace": odd, "labels": texts, "annotations": texts, "jobLabel": odd}
    monitor["scrapeClass"] = odd
    tls = {
        "ca": {"secret": secret},
        "cert": {"secret": secret},
        "keySecret": secret,
    }
    namespaced = odd.replace(".", "-")
    monitor["namespace"] = namespaced
    return {
        "config": {
            "projects": [
                {
                    "id": "123",
                    "name": odd,
                    "region": "cn-north-4",
                    "auth": {"type": "aksk", "access_key": odd, "secret_key_file": "/123"},
                    "instances": ["123", {"id": "456", "name": odd}],
                    "discovery": {"tags": texts, "exclude": [odd]},
                }
            ]
        },
        "global": {"imageRegistry": odd, "imagePullSecrets": [odd, {"name": f"{odd}-2"}]},
        "imagePullSecrets": [{"name": odd}],
        "image": {"repository": odd, "tag": odd},
        "namespaceOverride": namespaced,
        "commonLabels": {"common": odd},
        "commonAnnotations": {"common": odd},
        "credentials": {"existingSecret": odd, "mountPath": f"/{odd}"},
        "identityToken": {"enabled": True, "audience": odd, "mountPath": f"/own/{odd}"},
        "web": {
            "telemetryPath": f"/{odd}",
            "externalUrl": f"http://{odd}",
            "tls": {
                "enabled": True,
                "secretName": odd,
                "certKey": odd,
                "keyKey": odd,
                "clientCAKey": odd,
            },
            "basicAuth": {
                "enabled": True,
                "users": {odd: values_of("everything")["web"]["basicAuth"]["users"]["prometheus"]},
                "clientSecret": {"name": odd, "usernameKey": odd, "passwordKey": odd},
            },
        },
        "service": {
            "labels": texts,
            "annotations": texts,
            "clusterIP": odd,
            "loadBalancerIP": odd,
            "loadBalancerClass": odd,
            "loadBalancerSourceRanges": [odd],
            "externalIPs": [odd],
        },
        "ingress": {
            "enabled": True,
            "className": odd,
            "labels": texts,
            "annotations": texts,
            "hosts": [odd],
            "tls": [{"secretName": odd, "hosts": [odd]}],
        },
        "httpRoute": {
            "enabled": True,
            "labels": texts,
            "annotations": texts,
            "parentRefs": [{"name": odd}],
            "hostnames": [odd],
        },
        "serviceAccount": {"name": odd, "labels": texts, "annotations": texts},
        "serviceMonitor": {"enabled": True, **monitor, "tlsConfig": tls, "targetLabels": [odd]},
        "scrapeConfig": {
            "enabled": True,
            "namespace": namespaced,
            "labels": texts,
            "annotations": texts,
            "tlsConfig": tls,
        },
        "prometheusRule": {
            "enabled": True,
            "namespace": namespaced,
            "labels": texts,
            "annotations": texts,
            "additionalRuleLabels": texts,
            "additionalRuleAnnotations": texts,
            "rules": {"GaussDBMySQLBackupStale": {"severity": odd}},
        },
        "dashboard": {
            "enabled": True,
            "namespace": namespaced,
            "labels": texts,
            "annotations": texts,
        },
        "networkPolicy": {
            "enabled": True,
            "ingressFrom": [{"podSelector": {"matchLabels": texts}}],
        },
        "verticalPodAutoscaler": {"enabled": True},
        "podDisruptionBudget": {"enabled": True},
        "priorityClassName": odd,
        "runtimeClassName": odd,
        "schedulerName": odd,
        "nodeSelector": texts,
        "podAnnotations": texts,
        "podLabels": texts,
        "hostAliases": [{"ip": odd, "hostnames": [odd]}],
        "extraArgs": [odd],
        "extraEnv": [{"name": "A", "value": odd}],
    }


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("odd", ODD)
def test_text_that_looks_like_something_else_stays_a_text(
    render: Render, odd: str, shards: int
) -> None:
    values = {**odd_values(odd), "shards": shards}
    manifests = render(values, name=odd, namespace=odd.replace(".", "-"))

    for manifest in manifests:
        if manifest["kind"] in operator_types():
            parsed = operator_types()[manifest["kind"]].model_validate(manifest, strict=False)
            assert parsed.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest
        elif manifest["kind"] not in ("HTTPRoute", "VerticalPodAutoscaler"):
            kubernetes_validate.validate(manifest, "1.34", strict=True)
        metadata = manifest["metadata"]
        for text in (metadata["name"], metadata["namespace"], *metadata["labels"].values()):
            assert type(text) is str
        assert all(type(text) is str for text in metadata["annotations"].values())
    pod = pod_of(manifests)["spec"]
    assert pod["priorityClassName"] == odd
    assert [item["name"] for item in pod["imagePullSecrets"]] == [odd, f"{odd}-2"]
    assert find(manifests, "HTTPRoute")["spec"]["parentRefs"] == [{"name": odd}]
    written = find(manifests, "ConfigMap", find(manifests, "ServiceMonitor")["metadata"]["name"])
    (project,) = yaml.safe_load(written["data"]["config.yaml"])["projects"]
    assert project == values["config"]["projects"][0]


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("backups", NAME),
        ("123", "release-123-gaussdb-mysql-backup-exporter"),
        ("1e3", "release-1e3-gaussdb-mysql-backup-exporter"),
        ("a.b", "a-b-gaussdb-mysql-backup-exporter"),
        ("gaussdb-mysql-backup-exporter", "gaussdb-mysql-backup-exporter"),
        ("eu-gaussdb-mysql-backup-exporter", "eu-gaussdb-mysql-backup-exporter"),
        ("1-gaussdb-mysql-backup-exporter", "release-1-gaussdb-mysql-backup-exporter"),
        ("b" * 53, "b" * 52),
    ],
)
def test_name_of_any_release_gives_that_of_a_service(
    render: Render, release: str, name: str
) -> None:
    assert find(render(values_of("minimal"), name=release), "Service")["metadata"]["name"] == name


def test_secret_whose_base64_looks_like_a_number_stays_a_text(render: Render) -> None:
    # The base64 of these three bytes is 1234.
    content = b"\xd7m\xf8".decode("latin-1")
    texts = {"a": content, "b": "", "c": "\xd7"}
    data = find(render(with_values("minimal", {"credentials": {"data": texts}})), "Secret")["data"]

    assert all(type(text) is str for text in data.values())
    assert data["b"] == ""


# Templates in values ------------------------------------------------------------------------------


def test_templates_are_filled_in_where_texts_are_the_user_s(render: Render) -> None:
    manifests = render(values_of("existing_config"))
    spec = pod_of(manifests)["spec"]

    assert spec["serviceAccountName"] == "backups-account"
    assert [volume["secret"]["secretName"] for volume in spec["volumes"]] == [
        "backups-config",
        "backups-credentials",
    ]
    everything = render(values_of("everything"))
    host = "backups.databases.internal"
    ingress = find(everything, "Ingress")["spec"]
    assert [rule["host"] for rule in ingress["rules"]] == [host]
    assert ingress["tls"] == [{"secretName": "ingress-tls", "hosts": [host]}]
    assert find(everything, "HTTPRoute")["spec"]["hostnames"] == [host]
    (wait,) = pod_of(everything)["spec"]["initContainers"]
    assert wait["image"] == "registry.internal/wait:1"


def test_what_a_template_gives_is_a_text_whatever_it_looks_like(render: Render) -> None:
    odd = "{{ 1 }}"
    more = {
        "podAnnotations": {"number": odd, "quote": '{{ `it\'s: a "quote"` }}', "{{ `key` }}": "b"},
        "commonLabels": {"truth": "t{{ `rue` }}"},
        "extraEnv": [{"name": "LINES", "value": '{{ "a\\nb: c" }}'}],
        "config": {"defaults": {}},
    }
    manifests = render(with_values("minimal", more))
    annotations = pod_of(manifests)["metadata"]["annotations"]

    assert annotations["number"] == "1"
    assert annotations["quote"] == 'it\'s: a "quote"'
    assert annotations["key"] == "b"
    assert pod_of(manifests)["metadata"]["labels"]["truth"] == "true"
    assert container_of(manifests)["env"] == [{"name": "LINES", "value": "a\nb: c"}]


def test_value_without_braces_is_no_template(render: Render) -> None:
    texts = ["$(A)", "${B}", "{c}", "}} d", "{ {", "%s"]
    more: Values = {
        "extraArgs": texts,
        "extraEnv": [{"name": f"E{i}", "value": text} for i, text in enumerate(texts)],
        "podAnnotations": {str(i): text for i, text in enumerate(texts)},
    }
    manifests = render(with_values("minimal", more))

    assert container_of(manifests)["args"][-len(texts) :] == texts
    assert container_of(manifests)["env"] == more["extraEnv"]
    assert pod_of(manifests)["metadata"]["annotations"].items() >= more["podAnnotations"].items()


def test_templates_of_alerts_are_prometheus_own(render: Render) -> None:
    (group,) = (
        group
        for group in find(render(values_of("everything")), "PrometheusRule")["spec"]["groups"]
        if group["name"] == f"{NAME}-additional"
    )

    assert group["rules"] == values_of("everything")["prometheusRule"]["additionalRules"]
    assert group["rules"][0]["annotations"]["summary"] == "{{ $labels.job }}"


def test_extra_manifests_are_rendered_as_yaml_and_as_text(render: Render) -> None:
    manifests = render(values_of("everything"))

    assert find(manifests, "ConfigMap", "backups-own") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "backups-own", "labels": {"own": "yes"}},
        "data": {"port": "8443"},
    }
    assert find(manifests, "Secret", "backups-text")["stringData"] == {"namespace": "databases"}
