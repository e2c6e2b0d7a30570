"""Options of the chart that other charts have too: each renders what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from exporter.shipped import read_rules
from tests.helm.charts import (
    CASES,
    CHART,
    NAME,
    WAYS_IN,
    Manifest,
    Render,
    Values,
    config_of,
    container_of,
    endpoint_of,
    find,
    kinds,
    manifests_of,
    merged,
    notes_of,
    pod_of,
    refusal,
    rules_of,
    shipped_rules,
    values_of,
    with_file,
    with_values,
)

# The configuration --------------------------------------------------------------------------------


def test_projects_of_a_map_are_merged_over_layered_values(render: Render) -> None:
    project = {"id": "p", "region": "cn-north-4", "instances": ["i"]}
    first = {
        "config": {"projects": [], "projectsByName": {"b": project, "a": project, "c": project}}
    }
    second = {"b": {"region": "eu-west-101", "name": "named"}, "c": None}
    layered = merged(with_values("minimal", first), {"config": {"projectsByName": second}})

    assert yaml.safe_load(config_of(render(layered)))["projects"] == [
        {**project, "name": "a"},
        {**project, "name": "named", "region": "eu-west-101"},
    ]


def test_secret_in_a_project_of_the_map_is_refused_too(chart: helm.Chart) -> None:
    auth = {"type": "token", "token": "hunter2"}
    project = {"id": "p", "region": "cn-north-4", "auth": auth, "instances": ["i"]}
    message = refusal(chart, {"config": {"projectsByName": {"a": project}}})

    assert "config.projectsByName.a.auth.token holds a secret" in message
    assert "hunter2" not in message


def test_metadata_service_is_open_to_a_project_of_the_map(render: Render) -> None:
    project = {"id": "p", "region": "r", "auth": {"type": "ecs-agency"}, "discovery": {}}
    values = {"config": {"projectsByName": {"a": project}}, "networkPolicy": {"enabled": True}}

    assert "169.254.169.254/32" in json.dumps(find(render(values), "NetworkPolicy"))


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_existing_configuration_is_mounted_by_its_key(render: Render, kind: str) -> None:
    manifests = render({"existingConfig": {kind: "mine", "key": "exporter.yaml"}})
    (volume,) = pod_of(manifests)["spec"]["volumes"]
    items = [{"key": "exporter.yaml", "path": "config.yaml"}]

    assert "ConfigMap" not in kinds(manifests)
    assert volume == {
        "name": "config",
        **(
            {"configMap": {"name": "mine", "items": items}}
            if kind == "configMap"
            else {"secret": {"secretName": "mine", "items": items, "defaultMode": 0o440}}
        ),
    }
    assert container_of(manifests)["args"][0].endswith("/config/config.yaml")
    assert "checksum/config" not in pod_of(manifests)["metadata"]["annotations"]


# Where it runs ------------------------------------------------------------------------------------


def test_every_resource_is_in_the_namespace_that_overrides(render: Render) -> None:
    manifests = render(values_of("existing_config"))

    assert {item["metadata"]["namespace"] for item in manifests} == {"backups"}
    environment = container_of_test(manifests)["env"]
    assert environment[0] == {"name": "TARGET", "value": f"http://{NAME}.backups.svc:10042"}
    assert find(manifests, "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["backups"]}


def container_of_test(manifests: list[Manifest]) -> Manifest:
    (container,) = find(manifests, "Pod")["spec"]["containers"]
    return container  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("registries", "image"),
    [
        ({}, "exporter:1"),
        ({"image": {"registry": "own.internal"}}, "own.internal/exporter:1"),
        (
            {"image": {"registry": "own.internal"}, "global": {"imageRegistry": "all.internal/"}},
            "all.internal/exporter:1",
        ),
    ],
)
def test_global_registry_wins_over_that_of_the_image(
    render: Render, registries: Values, image: str
) -> None:
    values = with_values("minimal", {"image": {"repository": "exporter", "tag": "1"}})
    for key, value in registries.items():
        values[key] = {**values.get(key, {}), **value}
    manifests = render(values)

    assert container_of(manifests)["image"] == image
    assert container_of_test(manifests)["image"] == image


def test_pull_secrets_of_all_charts_are_added_once(render: Render) -> None:
    manifests = render(values_of("existing_config"))
    expected = [{"name": "shared"}, {"name": "other"}]

    assert pod_of(manifests)["spec"]["imagePullSecrets"] == expected
    assert find(manifests, "Pod")["spec"]["imagePullSecrets"] == expected


def test_workload_is_replaced_as_the_values_say(render: Render) -> None:
    sharded = find(render(values_of("everything")), "StatefulSet")["spec"]
    single = find(render(values_of("minimal")), "Deployment")["spec"]
    recreated = find(
        render(with_values("minimal", {"strategy": {"type": "Recreate", "rollingUpdate": None}})),
        "Deployment",
    )["spec"]

    assert sharded["updateStrategy"] == values_of("everything")["updateStrategy"]
    assert sharded["revisionHistoryLimit"] == 5
    assert single["revisionHistoryLimit"] == 3
    assert single["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert recreated["strategy"] == {"type": "Recreate"}


def test_extra_containers_stand_beside_the_exporter(render: Render) -> None:
    spec = pod_of(render(values_of("everything")))["spec"]

    assert [container["name"] for container in spec["initContainers"]] == ["wait"]
    assert [container["name"] for container in spec["containers"]] == ["exporter", "proxy"]


# Ways in ------------------------------------------------------------------------------------------


def test_service_has_the_options_of_kubernetes(render: Render) -> None:
    service = find(render(values_of("everything")), "Service", NAME)
    values = values_of("everything")["service"]
    written = {**service["spec"]}

    assert written.pop("ports") == [
        {
            "name": "http",
            "port": 8443,
            "targetPort": "http",
            "protocol": "TCP",
            "nodePort": 30042,
        },
        *values["extraPorts"],
    ]
    assert written.pop("selector")
    apart = ("port", "nodePort", "labels", "annotations", "extraPorts")
    assert written == {key: value for key, value in values.items() if key not in apart}
    assert service["metadata"]["labels"]["tier"] == "monitoring"


def test_ingress_leads_to_the_service(render: Render) -> None:
    ingress = find(render(values_of("everything")), "Ingress")

    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["metadata"]["annotations"]["example.com/owner"] == "sre"
    assert ingress["spec"]["rules"][0]["http"]["paths"] == [
        {
            "path": "/",
            "pathType": "Prefix",
            "backend": {"service": {"name": NAME, "port": {"name": "http"}}},
        }
    ]
    plain = {"ingress": {"enabled": True, "hosts": ["a.internal", "b.internal"], "path": "/b"}}
    spec = find(render(with_values("minimal", plain)), "Ingress")["spec"]
    assert set(spec) == {"rules"}
    assert [rule["host"] for rule in spec["rules"]] == ["a.internal", "b.internal"]
    assert {rule["http"]["paths"][0]["path"] for rule in spec["rules"]} == {"/b"}


def test_http_route_leads_to_the_service(render: Render) -> None:
    route = find(render(values_of("everything")), "HTTPRoute")

    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["metadata"]["labels"]["tier"] == "monitoring"
    assert route["spec"] == {
        "parentRefs": [{"name": "gateway", "namespace": "gateways"}],
        "hostnames": ["backups.databases.internal"],
        "rules": [
            {
                "backendRefs": [{"name": NAME, "port": 8443}],
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("case", "kind"),
    [("minimal", "Deployment"), ("everything", "StatefulSet"), ("targets", "Deployment")],
)
def test_autoscaler_scales_the_exporter_s_container(render: Render, case: str, kind: str) -> None:
    autoscaler = {"verticalPodAutoscaler": {"enabled": True}}
    scaler = find(render(with_values(case, autoscaler)), "VerticalPodAutoscaler")
    (policy,) = scaler["spec"]["resourcePolicy"]["containerPolicies"]

    assert scaler["apiVersion"] == "autoscaling.k8s.io/v1"
    assert scaler["spec"]["targetRef"] == {"apiVersion": "apps/v1", "kind": kind, "name": NAME}
    # A text: a bare Off is false to YAML.
    modes = {"minimal": "Off", "everything": "Initial", "targets": "Off"}
    resources = {case: ["cpu", "memory"] for case in modes} | {"targets": ["memory"]}
    assert scaler["spec"]["updatePolicy"] == {"updateMode": modes[case]}
    bounds = values_of(case).get("verticalPodAutoscaler", {})
    assert policy == {
        "containerName": "exporter",
        "controlledResources": resources[case],
        **{key: bounds[key] for key in ("minAllowed", "maxAllowed") if key in bounds},
    }


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
        ({"minAvailable": "50%", "maxUnavailable": 2}, {"minAvailable": "50%"}),
        (
            {"unhealthyPodEvictionPolicy": "AlwaysAllow"},
            {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        ),
    ],
)
def test_disruption_budget_takes_one_of_its_two_numbers(
    render: Render, budget: Values, expected: Values
) -> None:
    values = {"podDisruptionBudget": {"enabled": True, **budget}}
    spec = find(render(with_values("minimal", values)), "PodDisruptionBudget")["spec"]
    del spec["selector"]

    assert spec == expected


# Prometheus' ways ---------------------------------------------------------------------------------


def test_monitor_passes_on_what_the_operator_knows(render: Render) -> None:
    values = values_of("everything")["serviceMonitor"]
    spec = find(render(values_of("everything")), "ServiceMonitor")["spec"]
    ours = [
        "enabled",
        "namespace",
        "labels",
        "annotations",
        "interval",
        "scrapeTimeout",
        "relabelings",
        "metricRelabelings",
        "tlsConfig",
    ]

    passed = {key: value for key, value in values.items() if key not in ours}
    assert {key: spec[key] for key in passed} == passed
    assert set(spec) == {*passed, "namespaceSelector", "selector", "endpoints"}


def test_pod_monitor_scrapes_as_the_service_monitor_does(render: Render) -> None:
    settings = {"interval": "30s", "relabelings": [{"targetLabel": "a", "replacement": "b"}]}
    web = {"web": values_of("probe_targets")["web"]}
    by_service = with_values("minimal", {**web, "serviceMonitor": {"enabled": True, **settings}})
    by_pod = with_values("minimal", {**web, "podMonitor": {"enabled": True, **settings}})
    monitor = find(render(by_pod), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    assert endpoint == endpoint_of(render(by_service))
    assert endpoint["basicAuth"]["username"] == {"name": "exporter-client", "key": "username"}
    labels = pod_of(render(by_pod))["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_each_instance_is_scraped_where_its_shard_lists_it(render: Render) -> None:
    manifests = render(values_of("probe_targets"))
    scraped = find(manifests, "ScrapeConfig")
    client = {
        "tlsConfig": {
            "ca": {"secret": {"name": "exporter-tls", "key": "ca.crt"}},
            "serverName": f"{NAME}.databases.svc",
        },
        "basicAuth": {
            "username": {"name": "exporter-client", "key": "username"},
            "password": {"name": "exporter-client", "key": "password"},
        },
    }
    headless = find(manifests, "StatefulSet")["spec"]["serviceName"]

    assert scraped["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert scraped["metadata"]["annotations"] == {"example.com/owner": "dba"}
    assert scraped["spec"] == {
        "jobName": f"gaussdb-mysql-backup-exporter/{NAME}",
        "honorLabels": True,
        "scheme": "HTTPS",
        "scrapeInterval": "30s",
        "scrapeTimeout": "25s",
        **client,
        "httpSDConfigs": [
            {
                "url": f"https://{NAME}-{shard}.{headless}.databases.svc:10042/sd",
                "refreshInterval": "2m",
                **client,
            }
            for shard in (0, 1)
        ],
        "relabelings": values_of("probe_targets")["scrapeConfig"]["relabelings"],
        "metricRelabelings": values_of("probe_targets")["scrapeConfig"]["metricRelabelings"],
    }
    # Without this both would bring the instances.
    assert endpoint_of(manifests)["params"] == {"collect[]": ["exporter"]}


def test_service_monitor_asks_for_each_target_by_itself(render: Render) -> None:
    manifests = render(values_of("targets"))
    itself, first, second = find(manifests, "ServiceMonitor")["spec"]["endpoints"]
    common = {
        "port": "http",
        "scheme": "http",
        "honorLabels": True,
        "proxyUrl": "http://proxy.internal:3128",
    }
    own = {"targetLabel": "tier", "replacement": "monitoring"}

    # The instances come by themselves: not twice.
    assert itself == {
        **common,
        "path": "/metrics",
        "params": {"collect[]": ["exporter"]},
        "relabelings": [own],
    }
    for endpoint, instance in ((first, "24a4ea66210545909d74a05c27a7179ein07"), (second, "1000")):
        assert endpoint == {
            **common,
            "path": "/probe",
            "params": {"project": ["1234"], "instance": [instance]},
            # `up` of all of them would be one series otherwise.
            "relabelings": [
                {"targetLabel": "project", "replacement": "1234"},
                {"targetLabel": "instance", "replacement": instance},
                own,
            ],
        }


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"shards": 2}, "would ask every shard for every instance"),
        ({"scrapeConfig": {"enabled": True}}, "would scrape the same instances twice"),
    ],
)
def test_targets_are_refused_where_others_bring_them(
    chart: helm.Chart, more: Values, what: str
) -> None:
    assert what in refusal(chart, with_values("targets", more))


@pytest.mark.parametrize(("shards", "kind"), [(1, "Deployment"), (2, "StatefulSet")])
def test_workload_carries_labels_and_annotations_of_its_own(
    render: Render, shards: int, kind: str
) -> None:
    values = {"shards": shards, "workload": values_of("targets")["workload"]}
    metadata = find(render(with_values("minimal", values)), kind)["metadata"]

    assert metadata["labels"]["tier"] == "monitoring"
    assert metadata["annotations"] == {"reloader.stakater.com/auto": "true"}


def test_one_exporter_lists_the_instances_at_its_service(render: Render) -> None:
    values = with_values("minimal", {"scrapeConfig": {"enabled": True}, "service": {"port": 80}})

    assert find(render(values), "ScrapeConfig")["spec"] == {
        "jobName": f"gaussdb-mysql-backup-exporter/{NAME}",
        "honorLabels": True,
        "scheme": "HTTP",
        "httpSDConfigs": [{"url": f"http://{NAME}.databases.svc:80/sd"}],
    }


# Rules and dashboard ------------------------------------------------------------------------------


def test_alert_takes_the_settings_under_its_name(render: Render) -> None:
    rules = {
        rule["alert"]: rule for rule in rules_of(render(values_of("everything"))) if "alert" in rule
    }
    shipped = {rule["alert"]: rule for rule in shipped_rules() if "alert" in rule}
    stale = rules["GaussDBMySQLBackupStale"]
    hole = rules["GaussDBMySQLBackupWindowHole"]

    assert (stale["for"], stale["labels"]["severity"], stale["labels"]["team"]) == (
        "15m",
        "page",
        "sre",
    )
    assert stale["annotations"]["chat"] == "#sre"
    assert hole.get("for") == shipped["GaussDBMySQLBackupWindowHole"].get("for")
    assert (hole["labels"]["team"], hole["annotations"]["chat"]) == ("dba", "#dba")
    assert set(rules) == {*shipped, "OwnRule"} - {"GaussDBMySQLBackupNone"}


def test_runbooks_are_the_exporter_s_own_where_people_reach_it(render: Render) -> None:
    values = {
        "web": {"externalUrl": "https://backups.internal/exporter/"},
        "prometheusRule": {"enabled": True},
    }
    printed = yaml.safe_load(read_rules("https://backups.internal/exporter"))

    rendered = find(render(with_values("minimal", values)), "PrometheusRule")["spec"]
    assert rendered["groups"] == printed["groups"]


def test_dashboard_links_of_alerts_lead_to_grafana(tmp_path: Path) -> None:
    path = "/d/x?var-project={{ $labels.project }}"
    rule = {
        "alert": "A",
        "expr": "up",
        "labels": {},
        "annotations": {"dashboard_url": path, "runbook_url": "docs/runbooks/A.md"},
    }
    rules = yaml.safe_dump({"groups": [{"name": "a", "rules": [rule]}]})
    values = {"prometheusRule": {"enabled": True, "grafanaUrl": "https://grafana.internal/g/"}}
    with helm.Chart.load(with_file(tmp_path, "alerts.yaml", rules)) as chart:
        (rendered,) = rules_of(manifests_of(chart.render(with_values("minimal", values))))

    assert rendered["annotations"] == {
        "dashboard_url": f"https://grafana.internal/g{path}",
        "runbook_url": "docs/runbooks/A.md",
    }


@pytest.mark.parametrize(
    ("external_url", "exporter"),
    [
        ("", "http://localhost:10042"),
        ("https://backups.internal/exporter/", "https://backups.internal/exporter"),
        ("https://{{ .Release.Name }}.internal", "https://backups.internal"),
    ],
)
def test_dashboard_s_variable_names_where_people_reach_the_exporter(
    tmp_path: Path, external_url: str, exporter: str
) -> None:
    def dashboard(address: str) -> dict[str, Any]:
        value = {"text": address, "value": address}
        return {"list": [{"name": "exporter", "query": address, "current": value}]}

    text = json.dumps(dashboard("http://localhost:10042"))
    values = {"dashboard": {"enabled": True}, "web": {"externalUrl": external_url}}
    with helm.Chart.load(with_file(tmp_path, "dashboard.json", text)) as chart:
        rendered = chart.render(with_values("minimal", values), name="backups")
    data = find(manifests_of(rendered), "ConfigMap", f"{NAME}-dashboard")["data"]

    assert json.loads(data[f"{NAME}.json"]) == dashboard(exporter)


# What the user reads ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "said", "unsaid"),
    [
        ("minimal", ["watches 1 project(s).", "Nothing scrapes it yet", "Nobody is told"], []),
        (
            "everything",
            ["watches 7 project(s) with 3 shards.", "at https://backups.internal/"],
            ["Nothing scrapes", "Nobody is told", "runbook links are relative"],
        ),
        (
            "existing_config",
            ["the Secret that you named says (key exporter.yaml)", "--namespace backups port-f"],
            ["project(s)", "Nothing scrapes"],
        ),
        ("probe_targets", ["with 2 shards"], ["Nothing scrapes", "not what the exporter says"]),
        ("demo", ["SIMULATOR"], ["watches"]),
    ],
)
def test_notes_tell_what_was_installed(
    chart: helm.Chart, case: str, said: list[str], unsaid: list[str]
) -> None:
    notes = notes_of(chart, values_of(case))

    assert [text for text in said if text not in notes] == []
    assert [text for text in unsaid if text in notes] == []


@pytest.mark.parametrize("case", sorted(set(CASES) - {"everything_off", *WAYS_IN}))
def test_helm_test_is_a_program_in_each_case(render: Render, case: str) -> None:
    manifests = render(values_of(case))
    container = container_of_test(manifests)
    environment = {item["name"]: item.get("value", "made-up") for item in container["env"]}
    # A port where nobody listens: it runs, and tells so.
    environment |= {"TARGET": "http://127.0.0.1:1", "TIMEOUT_SECONDS": "0"}

    ran = subprocess.run(
        [sys.executable, *container["command"][1:], *container["args"]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "refused" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert find(manifests, "Pod")["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_chart_tells_the_hub_what_it_is() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    hub = "artifacthub.io"

    assert chart["icon"].startswith("data:image/svg+xml;base64,")
    assert chart["annotations"][f"{hub}/license"] == "Apache-2.0"
    changes = yaml.safe_load(chart["annotations"][f"{hub}/changes"])
    assert {change["kind"] for change in changes} <= {"added", "changed", "fixed", "removed"}
