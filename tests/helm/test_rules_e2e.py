"""The alerting rules on the real programs: promtool, Prometheus, Alertmanager.

What is watched is real too: the exporter on the simulator, each a process of its own.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import yaml

from exporter.simulator import DEMO_PROJECT_ID, DEMO_REGION
from tests.page.making import instance_rows
from tests.page.parsing import parse
from tests.support.alerting import EXAMPLES, RULES, Pipeline, running_pipeline, shorten_alerts
from tests.support.demo_project import demo_config
from tests.support.paths import ROOT
from tests.support.programs import get, query, require
from tests.support.prometheus import Release, find_newest, find_release

pytestmark = pytest.mark.e2e

UNIT_TESTS = sorted((ROOT / "tests/helm/rules").glob("*.yaml"))


def run_program(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- promtool ---------------------------------------------------------------------------------


def rename_labels(series: str) -> str:
    """The series as Prometheus stores it without honor_labels.

    Of a pair each has an address of its own then, and needs no other label to be told apart.
    """
    renamed = re.sub(r'\binstance="(\w+in07)"', r'exported_instance="\1"', series)
    if renamed == series:
        return series
    replica = re.search(r'replica="(\w)"', series)
    address = f"exporter-{replica[1]}:10042" if replica else "exporter:10042"
    alike = re.sub(r'replica="\w",|,replica="\w"', "", renamed)
    return alike.replace("{", f'{{instance="{address}",', 1)


def pair_exporters(inputs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same from two exporters; a test that has replicas already stays as it is.

    `up` stays single: whether a pair's target is down has tests of its own.
    """
    if any("replica=" in item["series"] for item in inputs):
        return inputs
    paired = []
    for item in inputs:
        if item["series"].startswith("up{"):
            paired.append(item)
            continue
        for replica in "ab":
            series = item["series"].replace("{", f'{{replica="{replica}",', 1)
            paired.append(item | {"series": series})
    return paired


def test_promtool_accepts_the_rules(release: Release) -> None:
    run_program(release.promtool, "check", "rules", str(RULES))


Rewrite = Callable[[list[dict[str, str]]], list[dict[str, str]]]

# One exporter without honor_labels is left out: the rules take the maximum over exporters, and
# what holds for two of them, which can also be counted twice, holds for one.
SCRAPED: dict[str, Rewrite] = {
    "one": lambda inputs: inputs,
    "pair": pair_exporters,
    "pair_without_honor_labels": lambda inputs: [
        item | {"series": rename_labels(item["series"])} for item in pair_exporters(inputs)
    ],
}


# Each takes a minute of one core: the pair is what the newer release is tried with, where it is.
@pytest.mark.parametrize("scraped", SCRAPED)
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_are_the_same_however_they_are_scraped(
    path: Path, scraped: str, tmp_path: Path
) -> None:
    release = find_newest() if scraped == "pair" else find_release("2")
    document = yaml.safe_load(path.read_text())
    document["rule_files"] = [str(RULES)]
    for test in document["tests"]:
        test["input_series"] = SCRAPED[scraped](test["input_series"])
    copy = tmp_path / path.name
    copy.write_text(yaml.safe_dump(document))
    run_program(release.promtool, "test", "rules", str(copy))


def test_queries_of_the_runbooks_are_promql(release: Release, tmp_path: Path) -> None:
    queries = [
        query
        for page in sorted((ROOT / "docs/runbooks").glob("*.md"))
        for query in re.findall(r"```promql\n(.+?)```", page.read_text(), re.DOTALL)
    ]
    assert queries
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    run_program(release.promtool, "check", "rules", str(path))


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-probe.yml"])
def test_example_of_a_scrape_job_is_valid_with_the_rules(
    name: str, release: Release, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "rules").mkdir()
    shutil.copy(RULES, tmp_path / "rules" / "gaussdb-mysql-backup.yaml")
    run_program(release.promtool, "check", "config", str(tmp_path / name))


def test_example_of_alertmanager_is_valid() -> None:
    run_program(require("amtool"), "check-config", str(EXAMPLES / "alertmanager.yml"))


# --- Prometheus and Alertmanager --------------------------------------------------------------

# The simulator names its instances by numbers.
ORDERS = f"{0:032x}in07"
BILLING = f"{1:032x}in07"
STALE_AFTER_SECONDS = 5


def exporter_config(simulator: str) -> str:
    return demo_config(
        simulator,
        [{"id": ORDERS, "name": "orders"}, {"id": BILLING, "name": "billing"}],
        name="production",
        defaults={"lookback": "5m", "stale_after": f"{STALE_AFTER_SECONDS}s"},
    )


@pytest.fixture
def pipeline(release: Release, tmp_path: Path) -> Iterator[Pipeline]:
    rules = shorten_alerts(tmp_path, {"GaussDBMySQLBackupStale": "1s"})
    # A backup each second. No more of them than two pages: a scrape reads the last hour.
    arguments = ("--instances", "2", "--every", "1", "--backups-per-instance", "90")
    with running_pipeline(
        tmp_path, exporter_config, rules, *arguments, prometheus=release.prometheus
    ) as running:
        yield running


def follow_the_links(alert: dict[str, Any], exporter: str) -> None:
    """From the alert to its runbook, from there to the page, to the instance's row and back."""
    name, url = alert["labels"]["alertname"], alert["annotations"]["runbook_url"]
    assert url == f"{exporter}/runbooks/{name}"
    runbook = get(url)
    assert f"<h1>{name}</h1>" in runbook
    (page,) = re.findall(r'<nav aria-label="Endpoints"><a href="([^"]+)"', runbook)
    first, *_ = instance_rows(parse(get(urljoin(url, page))))
    assert first.one("bdi", "id").text == alert["labels"]["instance"]
    assert first.one("span", "pill").text == "stale"
    (back,) = (each.attributes["href"] for each in first.all("a") if each.text == "Runbook")
    assert urljoin(f"{exporter}/", back) == url
    # The dashboard opens on the same instance.
    query = parse_qs(urlsplit(alert["annotations"]["dashboard_url"]).query)
    assert query["var-instance"] == [alert["labels"]["instance"]]


def test_stale_alert_reaches_the_receiver_and_resolves_when_backups_resume(
    pipeline: Pipeline,
) -> None:
    receiver = pipeline.receiver
    of_orders = f'{{instance="{ORDERS}"}}'
    # Well for longer than the threshold: nothing is sent.
    read = f"sum_over_time(gaussdb_mysql:scrape_success{of_orders}[1m])"
    pipeline.wait_for(f"{read} > {STALE_AFTER_SECONDS}")
    assert receiver.is_empty()

    pipeline.control("stop-backups", {"instance_id": ORDERS})
    firing = receiver.next_alert()
    assert firing["status"] == "firing"
    assert firing["labels"] == {
        "alertname": "GaussDBMySQLBackupStale",
        "severity": "critical",
        "project": DEMO_PROJECT_ID,
        "instance": ORDERS,
        "project_name": "production",
        "instance_name": "orders",
        "region": DEMO_REGION,
    }
    assert firing["annotations"]["summary"] == "Incremental backups of orders are stale"
    follow_the_links(firing, pipeline.exporter)

    # The numbers are gone for some rounds: that resolves nothing.
    pipeline.control("faults", {"fault": {"status": 500}, "instance_id": ORDERS, "times": None})
    pipeline.wait_for(f"count_over_time((gaussdb_mysql:scrape_success{of_orders} == 0)[1m:1s]) > 3")
    latest_end = f"gaussdb_mysql_incremental_backup_latest_end_timestamp_seconds{of_orders}"
    assert not query(pipeline.prometheus, latest_end)
    assert receiver.is_empty()

    pipeline.control("faults", [])
    pipeline.control("resume-backups", {"instance_id": ORDERS})
    resolved = receiver.next_alert()
    assert resolved["status"] == "resolved"
    assert resolved["labels"] == firing["labels"]
    # Of the other instance there was never anything to tell.
    assert receiver.is_empty()
