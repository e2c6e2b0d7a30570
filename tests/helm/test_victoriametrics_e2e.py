"""VictoriaMetrics in the place of Prometheus: it scrapes, discovers, and vmalert has the rules."""

from collections.abc import Iterator

import pytest
import yaml

from exporter.simulator import DEMO_INSTANCES
from tests.support.alerting import RULES
from tests.support.programs import (
    answers,
    eventually,
    free_port,
    query,
    require,
    running,
    running_exporter,
    running_simulator,
)
from tests.test_e2e import EVERYONE, write_config

pytestmark = pytest.mark.e2e

JOB = "gaussdb-mysql-backup-exporter"
# Of the demo's cloud, as tests/support/past.py numbers the states.
STATES = {
    "orders": 0,
    "billing": 0,
    "shipping": 9,  # stale
    "sandbox": 8,  # no backups
    "legacy-crm": 6,  # failing
    "sessions": 5,  # hole
}


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; what it keeps back of the newest samples is shortened, and vmalert hurries."""
    folder = tmp_path_factory.mktemp("victoria")
    scrape, database, alerting = folder / "scrape.yml", free_port(), free_port()
    address = f"http://127.0.0.1:{database}"
    with (
        running_simulator(folder, "--demo") as simulator,
        running_exporter(folder, write_config(simulator)) as exporter,
    ):
        jobs = [
            {
                "job_name": JOB,
                "honor_labels": True,
                "static_configs": [{"targets": [exporter.removeprefix("http://")]}],
            },
            {"job_name": "by-discovery", "http_sd_configs": [{"url": f"{exporter}/sd"}]},
        ]
        scrape.write_text(
            yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs})
        )
        with (
            running(
                require("victoria-metrics"),
                f"-promscrape.config={scrape}",
                f"-storageDataPath={folder / 'data'}",
                f"-httpListenAddr=127.0.0.1:{database}",
                "-search.latencyOffset=1s",
                log=folder / "victoria.log",
            ),
            running(
                require("vmalert"),
                f"-rule={RULES}",
                *(f"-{name}.url={address}" for name in ("datasource", "remoteWrite")),
                "-notifier.url=http://127.0.0.1:9",
                "-remoteWrite.flushInterval=500ms",
                "-evaluationInterval=1s",
                f"-httpListenAddr=127.0.0.1:{alerting}",
                log=folder / "vmalert.log",
            ),
        ):
            eventually(lambda: answers(f"{address}/health"), what="VictoriaMetrics")
            yield address


def test_victoriametrics_scrapes_and_discovers_with_the_labels_intact(victoria: str) -> None:
    def jobs() -> dict[str, set[str]] | None:
        found = query(victoria, "gaussdb_mysql_scrape_success")
        by_job: dict[str, set[str]] = {}
        for sample in found:
            by_job.setdefault(sample["metric"]["job"], set()).add(sample["metric"]["instance"])
        return by_job if by_job == {JOB: EVERYONE, "by-discovery": EVERYONE} else None

    eventually(jobs, what="each instance by both jobs")


def test_vmalert_comes_to_the_same_states(victoria: str) -> None:
    names = {instance.id: instance.name for instance in DEMO_INSTANCES}

    def states() -> dict[str, float] | None:
        found = query(victoria, "gaussdb_mysql:state")
        shown = {names[s["metric"]["instance"]]: float(s["value"][1]) for s in found}
        return shown if shown == STATES else None

    eventually(states, seconds=120, what="the states of the demo")
