"""What the chart brings for Prometheus and Grafana, and the network between."""

import json
import re

import helm_python as helm
import pytest

from tests.helm.charts import (
    CHART,
    NAME,
    Render,
    endpoint_of,
    find,
    refusal,
    rules_of,
    selects,
    shipped_rules,
    values_of,
    with_values,
)

# Prometheus and Grafana -------------------------------------------------------------------------


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
        "tlsConfig": values["serviceMonitor"]["tlsConfig"],
        "basicAuth": {
            "username": {"name": "exporter-client", "key": "username"},
            "password": {"name": "exporter-client", "key": "password"},
        },
        "relabelings": values["serviceMonitor"]["relabelings"],
        "metricRelabelings": values["serviceMonitor"]["metricRelabelings"],
    }


def test_certificate_is_checked_by_the_ca_beside_it_and_the_name_of_the_service(
    render: Render,
) -> None:
    assert endpoint_of(render(values_of("tls_alone")))["tlsConfig"] == {
        "ca": {"secret": {"name": "exporter-tls", "key": "ca.crt"}},
        "serverName": f"{NAME}.databases.svc",
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


def test_rules_are_those_of_the_shipped_file(render: Render) -> None:
    manifests = render(with_values("minimal", {"prometheusRule": {"enabled": True}}))

    rules = rules_of(manifests)
    assert [rule.get("alert") for rule in rules] == [rule.get("alert") for rule in shipped_rules()]
    for rendered, shipped in zip(rules, shipped_rules(), strict=True):
        assert rendered == shipped


def test_rules_get_more_labels_and_full_runbook_links(render: Render) -> None:
    switches = {"prometheusRule": {"rules": None, "additionalRules": None}}
    alerts = [
        rule for rule in rules_of(render(with_values("everything", switches))) if "alert" in rule
    ]
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
    assert dashboard["metadata"]["annotations"]["grafana_folder"] == "Backups"
    assert list(dashboard["data"]) == [f"{NAME}.json"]
    here = shipped.replace("http://localhost:10042", "https://backups.internal")
    assert json.loads(dashboard["data"][f"{NAME}.json"]) == json.loads(here)
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
    # OpenShift's DNS listens at 5353.
    dns = [(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")]
    assert opened == [*dns, (443, "TCP"), (80, "TCP"), (3128, "TCP")]
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
