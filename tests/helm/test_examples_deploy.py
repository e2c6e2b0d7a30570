"""The examples of docs/examples that other programs read: compose, Prometheus, Grafana, systemd."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.programs import require

EXAMPLES = ROOT / "docs/examples"
COMPOSE = EXAMPLES / "compose"
UNIT = EXAMPLES / "gaussdb-mysql-backup-exporter.service"
CHART_FILES = ROOT / "helm/gaussdb-mysql-backup-exporter/files"


def load(name: str) -> Any:
    return yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))


def mounts(service: str) -> dict[PurePosixPath, Path]:
    """Where in the container: what of the repository. Named volumes left out."""
    pairs = [volume.split(":") for volume in load("compose.yaml")["services"][service]["volumes"]]
    return {
        PurePosixPath(pair[1]): (COMPOSE / pair[0]).resolve()
        for pair in pairs
        if pair[0].startswith(".")
    }


def environment(service: str) -> dict[str, str]:
    values: dict[str, str] = load("compose.yaml")["services"][service]["environment"]
    return values


def test_compose_runs_the_demo_built_from_this_repository() -> None:
    exporter = load("compose.yaml")["services"]["exporter"]
    assert (COMPOSE / exporter["build"]).resolve() == ROOT
    assert exporter["command"] == ["--demo"]


def test_compose_opens_ports_on_this_machine_only() -> None:
    ports = [
        port
        for service in load("compose.yaml")["services"].values()
        for port in service.get("ports", ())
    ]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_names_images_by_a_version_and_no_digest() -> None:
    for name, service in load("compose.yaml")["services"].items():
        if name not in ("exporter", "rules"):
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])


def test_compose_asks_each_service_whether_it_is_well() -> None:
    for name, service in load("compose.yaml")["services"].items():
        if name == "rules":  # ends at once
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_compose_has_no_service_that_waits_for_one_that_waits() -> None:
    """podman 4 starts none of them: "depends on container ... not found in input list"."""
    waits = {
        name: set(service.get("depends_on", ()))
        for name, service in load("compose.yaml")["services"].items()
    }
    assert waits["prometheus"] == {"rules"}
    assert [name for name, others in waits.items() for other in others if waits[other]] == []


def test_compose_takes_privileges_away() -> None:
    for service in load("compose.yaml")["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_holds_no_secret() -> None:
    files = [path for path in COMPOSE.rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        keys = re.findall(
            r"(?im)^\s*-?\s*([\w.]*(?:password|secret|token|key)\w*)\s*:", path.read_text()
        )
        assert keys == [], path


def test_what_compose_mounts_is_there() -> None:
    for service in ("prometheus", "alertmanager", "grafana"):
        for source in mounts(service).values():
            assert source.exists(), source


def test_compose_uses_the_charts_dashboard_and_rules_not_copies() -> None:
    assert CHART_FILES / "dashboard.json" in mounts("grafana").values()


def test_compose_loads_the_shipped_rules_with_links_that_open(tmp_path: Path) -> None:
    services = load("compose.yaml")["services"]
    rules, exporter = services["rules"], services["exporter"]
    assert rules["build"] == exporter["build"]
    shell = [*rules["entrypoint"], *rules["command"]]
    # As in the container, but for the place.
    shell[-1] = shell[-1].replace("/rules/", f"{tmp_path}/")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(shell, check=True, env={**os.environ, "PATH": path})
    printed = yaml.safe_load((tmp_path / "alerts.yaml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((CHART_FILES / "alerts.yaml").read_text(encoding="utf-8"))
    for own, other in zip(
        printed["groups"][0]["rules"], shipped["groups"][0]["rules"], strict=True
    ):
        if "alert" in own:
            links, relative = own.pop("annotations"), other.pop("annotations")
            assert links["runbook_url"] == f"http://localhost:10042/runbooks/{own['alert']}"
            assert links["dashboard_url"] == f"http://localhost:3000{relative['dashboard_url']}"
        assert own == other
    for service, port in (("exporter", 10042), ("grafana", 3000)):
        assert services[service]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_prometheus_finds_the_rules_the_exporter_and_alertmanager() -> None:
    config = load("prometheus.yml")
    (rules,) = config["rule_files"]
    (written,) = load("compose.yaml")["services"]["rules"]["volumes"]
    volume = written.partition(":")[0]
    place = PurePosixPath("/etc/prometheus") / PurePosixPath(rules).parent
    assert f"{volume}:{place}:ro" in load("compose.yaml")["services"]["prometheus"]["volumes"]
    assert PurePosixPath(rules).name == "alerts.yaml"
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "gaussdb-mysql-backup-exporter"
    assert job["honor_labels"] is True
    assert job["static_configs"] == [{"targets": ["exporter:10042"]}]
    (alertmanagers,) = config["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"] == [{"targets": ["alertmanager:9093"]}]


def test_grafana_finds_the_dashboard_and_its_data_source() -> None:
    inside = mounts("grafana")
    dashboard = next(to for to, of in inside.items() if of.name == "dashboard.json")
    (provider,) = load("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    assert provider["options"]["path"] == str(dashboard.parent)
    assert environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(dashboard)
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["url"] == "http://prometheus:9090"
    # What $__rate_interval is computed from
    assert source["jsonData"]["timeInterval"] == load("prometheus.yml")["global"]["scrape_interval"]


# What the alerts about the exporter know its job by.
JOB = r".*gaussdb-mysql-backup-exporter.*"


def test_who_scrapes_probes_scrapes_the_exporter_itself_too() -> None:
    assert f'up{{job=~"{JOB}"}}' in (CHART_FILES / "alerts.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load((EXAMPLES / "prometheus-probe.yml").read_text(encoding="utf-8"))
    probes, itself = config["scrape_configs"]
    assert probes["metrics_path"] == "/probe"
    assert "metrics_path" not in itself
    assert itself["params"] == {"collect[]": ["exporter"]}
    assert itself["honor_labels"] is True
    for job in (probes, itself):
        assert re.fullmatch(JOB, job["job_name"])
    assert probes["job_name"] != itself["job_name"]


@pytest.mark.parametrize(
    "consequence",
    [
        "APIFailing",
        "Stale",
        "RestorableBehind",
        "SourceFailing",
        "TokenExpiring",
        "DiscoveryFailing",
    ],
)
def test_a_login_that_fails_silences_its_projects_consequences_alone(consequence: str) -> None:
    config = yaml.safe_load((EXAMPLES / "alertmanager.yml").read_text(encoding="utf-8"))
    (rule,) = (
        rule
        for rule in config["inhibit_rules"]
        if rule["source_matchers"] == ['alertname="GaussDBMySQLBackupLoginFailing"']
    )
    (matcher,) = rule["target_matchers"]
    pattern = matcher.removeprefix('alertname=~"').removesuffix('"')
    assert re.fullmatch(pattern, f"GaussDBMySQLBackup{consequence}")
    assert not re.fullmatch(pattern, "GaussDBMySQLBackupLoginFailing")
    assert rule["equal"] == ["project"]
    alerts = (CHART_FILES / "alerts.yaml").read_text(encoding="utf-8")
    assert f"alert: GaussDBMySQLBackup{consequence}\n" in alerts


def unit_settings() -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def test_the_unit_ends_within_systemds_patience_and_reloads() -> None:
    settings = unit_settings()
    assert settings["TimeoutStopSec"] == ["15s"]  # scrapes may take 10 s to end
    assert settings["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert settings["RestartPreventExitStatus"] == ["2"]  # bad usage or configuration


def test_the_unit_hands_the_secret_over_without_showing_it() -> None:
    settings = unit_settings()
    (credential,) = settings["LoadCredential"]
    assert credential == "password:/etc/gaussdb-mysql-backup-exporter/password"
    assert "${CREDENTIALS_DIRECTORY}/password" in UNIT.read_text(encoding="utf-8")
    assert "Environment" not in settings


# ---------------------------------------------------------------- by the programs themselves


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.e2e
def test_promtool_accepts_the_configuration_with_the_rules(tmp_path: Path) -> None:
    for inside, source in mounts("prometheus").items():
        target = tmp_path / inside.relative_to("/etc/prometheus")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(source, target)
    (tmp_path / "rules").mkdir()  # the volume that the service `rules` writes to
    shutil.copy(CHART_FILES / "alerts.yaml", tmp_path / "rules")
    assert "1 rule files found" in run(
        require("promtool"), "check", "config", tmp_path / "prometheus.yml"
    )


@pytest.mark.e2e
def test_amtool_accepts_the_configuration_of_alertmanager() -> None:
    assert "SUCCESS" in run(require("amtool"), "check-config", COMPOSE / "alertmanager.yml")


@pytest.mark.e2e
def test_systemd_accepts_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("only where systemd is")
    here = tmp_path / UNIT.name
    installed = "/opt/gaussdb-mysql-backup-exporter/bin/gaussdb-mysql-backup-exporter"
    here.write_text(UNIT.read_text().replace(f"={installed}", f"={shutil.which('true')}"))
    assert run("systemd-analyze", "verify", here) == ""
    # 0 is nothing at all, 10 everything; in tenths
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", here)
