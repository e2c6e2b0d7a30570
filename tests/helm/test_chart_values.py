"""The values of the chart: what is refused, and where they are told."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest
import yaml

import exporter
from tests.helm.charts import CHART, Render, Values, kinds, refusal, with_values

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
        *(
            (
                {
                    "web": {"tls": {"enabled": True, "secretName": "t", "clientCAKey": "ca"}},
                    kind: {"enabled": True, "tlsConfig": tls},
                },
                f"web.tls.clientCAKey needs {kind}.tlsConfig.cert and .keySecret",
            )
            for kind in ("serviceMonitor", "podMonitor", "scrapeConfig")
            for tls in ({}, {"insecureSkipVerify": True}, {"cert": {"secret": {"name": "c"}}})
        ),
        (
            {"existingConfig": {"configMap": "a", "secret": "b"}},
            "existingConfig.secret and existingConfig.configMap exclude each other",
        ),
        ({"existingConfig": {"configMap": "a"}}, "existingConfig would hide config"),
        (
            {"config": {"projects": []}, "existingConfig": {"secret": "a"}, "demo": True},
            "demo=true would hide existingConfig",
        ),
        (
            {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
            "would scrape the same pods twice",
        ),
        ({"ingress": {"enabled": True}}, "needs ingress.hosts"),
        ({"httpRoute": {"enabled": True}}, "needs httpRoute.parentRefs"),
        (
            {"prometheusRule": {"enabled": True, "rules": {"NoSuchAlert": {"for": "1m"}}}},
            "there is no alert NoSuchAlert",
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
        ({"fullnameOverride": "Backups"}, "'/fullnameOverride'", "pattern"),
        ({"fullnameOverride": "1e3"}, "'/fullnameOverride'", "pattern"),
        ({"fullnameOverride": "a.b"}, "'/fullnameOverride'", "pattern"),
        ({"nameOverride": "back_ups"}, "'/nameOverride'", "pattern"),
        ({"nameOverride": "backups-"}, "'/nameOverride'", "pattern"),
        ({"nameOverride": 123}, "'/nameOverride'", "want string"),
        ({"namespaceOverride": "data.bases"}, "'/namespaceOverride'", "pattern"),
        ({"namespaceOverride": "a" * 64}, "'/namespaceOverride'", "maxLength"),
        ({"dashboard": {"namespace": "Mine"}}, "'/dashboard/namespace'", "pattern"),
        ({"credentials": {"existingSecret": "My_Secret"}}, "'/credentials/existingSecret'", ""),
        ({"priorityClassName": "very high"}, "'/priorityClassName'", "pattern"),
        ({"imagePullSecrets": [{"name": ""}]}, "'/imagePullSecrets/0/name'", "pattern"),
        ({"web": {"externalUrl": "backups.internal"}}, "'/web/externalUrl'", "pattern"),
        ({"web": {"externalUrl": 'http://a"b'}}, "'/web/externalUrl'", "pattern"),
        ({"service": {"ipFamilies": ["IPv5"]}}, "'/service/ipFamilies/0'", "must be one of"),
        (
            {"verticalPodAutoscaler": {"updateMode": "On"}},
            "'/verticalPodAutoscaler/updateMode'",
            "",
        ),
        (
            {"prometheusRule": {"rules": {"A": {"fro": "1m"}}}},
            "'/prometheusRule/rules/A'",
            "'fro' not allowed",
        ),
        ({"podLabels": {"a b": "c"}}, "''", "invalid propertyName 'a b'"),
        ({"podLabels": {"a": "b c"}}, "'/podLabels/a'", "pattern"),
        ({"commonLabels": {"a": "b" * 64}}, "'/commonLabels/a'", "pattern"),
        ({"podAnnotations": {"a/b/c": "d"}}, "''", "invalid propertyName 'a/b/c'"),
        ({"image": {"repository": "my image"}}, "'/image/repository'", "pattern"),
        ({"image": {"repository": "exporter:0.1.0"}}, "'/image/repository'", "pattern"),
        ({"image": {"tag": "0.1.0@sha256:0"}}, "'/image/tag'", "pattern"),
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
            # What lies in `global` is for other charts too.
            ours = ours and path != "/properties/global"
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
            assert set(node) == set(known["properties"]), path
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
