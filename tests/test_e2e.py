"""The exporter on the simulator, scraped by a real Prometheus."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.simulator import (
    DEMO_FAILING,
    DEMO_INSTANCES,
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
)
from tests.support.demo_project import demo_config
from tests.support.programs import (
    eventually,
    get,
    query,
    running_exporter,
    running_prometheus,
    running_simulator,
)
from tests.support.prometheus import Release

pytestmark = pytest.mark.e2e

SUCCEEDING = {instance.id for instance in DEMO_INSTANCES} - {DEMO_FAILING.id}
EVERYONE = {instance.id for instance in DEMO_INSTANCES}


def write_config(simulator: str) -> str:
    instances = [
        {"id": instance.id, "lookback": f"{instance.lookback_seconds:.0f}s"}
        for instance in DEMO_INSTANCES
    ]
    return demo_config(simulator, instances)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the exporter writes its log."""
    return tmp_path_factory.mktemp("exporter")


@pytest.fixture(scope="module")
def exporter(folder: Path) -> Iterator[str]:
    with (
        running_simulator(folder, "--demo") as simulator,
        running_exporter(folder, write_config(simulator), "--log.level", "debug") as address,
    ):
        yield address


@pytest.fixture(scope="module")
def prometheus(
    exporter: str, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    target = exporter.removeprefix("http://")
    config = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: gaussdb-mysql-backup-exporter
    honor_labels: true
    static_configs: [{{targets: ["{target}"]}}]
  - job_name: by-discovery
    http_sd_configs: [{{url: "{exporter}/sd", refresh_interval: 1s}}]
"""
    folder = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(folder, config, release.prometheus) as address:
        yield address


JOB = 'job="gaussdb-mysql-backup-exporter"'


def test_prometheus_holds_the_series_of_every_instance_with_its_labels(prometheus: str) -> None:
    def scraped_often() -> bool | None:
        found = query(
            prometheus, f"min(count_over_time(gaussdb_mysql_scrape_success{{{JOB}}}[1m]))"
        )
        return True if found and float(found[0]["value"][1]) >= 4 else None

    eventually(scraped_often, what="four scrapes of each instance")
    held = query(prometheus, f"gaussdb_mysql_scrape_success{{{JOB}}}")
    success = {sample["metric"]["instance"]: sample["value"][1] for sample in held}
    assert success == {id_: "1" if id_ in SUCCEEDING else "0" for id_ in EVERYONE}
    assert {sample["metric"]["project"] for sample in held} == {DEMO_PROJECT_ID}
    assert not query(prometheus, f'{{{JOB}, exported_instance!=""}}')
    counted = query(prometheus, f"gaussdb_mysql_incremental_backups{{{JOB}}}")
    assert {sample["metric"]["instance"] for sample in counted} == SUCCEEDING
    assert query(prometheus, f"up{{{JOB}}}")[0]["value"][1] == "1"


def test_prometheus_discovers_instances_and_probes_each_without_honor_labels(
    prometheus: str,
) -> None:
    def all_probed() -> bool | None:
        found = query(prometheus, 'gaussdb_mysql_scrape_success{job="by-discovery"}')
        return True if {sample["metric"]["instance"] for sample in found} == EVERYONE else None

    eventually(all_probed, what="a probe of each discovered instance")
    # What the exposition says and what discovery says is the same.
    held = query(prometheus, 'gaussdb_mysql_scrape_success{job="by-discovery"}')
    assert all(s["metric"]["exported_instance"] == s["metric"]["instance"] for s in held)
    assert {s["metric"]["project"] for s in held} == {DEMO_PROJECT_ID}
    up = query(prometheus, 'up{job="by-discovery"}')
    assert {sample["metric"]["instance"] for sample in up} == EVERYONE
    assert {sample["value"][1] for sample in up} == {"1"}


def test_promtool_finds_nothing_but_the_unit_that_was_asked_for(
    exporter: str, release: Release
) -> None:
    exposition = get(f"{exporter}/metrics")
    found = subprocess.run(
        [release.promtool, "check", "metrics"],
        input=exposition.encode(),
        capture_output=True,
        check=False,
    )
    findings = (found.stdout + found.stderr).decode().strip().splitlines()
    assert findings == [
        'gaussdb_mysql_incremental_backups_size_kilobytes use base unit "bytes" instead of'
        ' "kilobytes"'
    ]
    assert found.returncode == 3


def test_log_and_pages_of_a_running_exporter_name_no_secret(exporter: str, folder: Path) -> None:
    metrics, page = get(f"{exporter}/metrics"), get(f"{exporter}/")
    log = (folder / "exporter.log").read_text()
    assert DEMO_FAILING.id in log
    assert DEMO_FAILING.id in page
    for text in (metrics, page, log):
        assert DEMO_PASSWORD not in text
