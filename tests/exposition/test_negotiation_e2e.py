"""What Prometheus 3 and the exporter agree on: the form of the numbers, and names in UTF-8."""

import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import yaml

from tests.support.demo_project import demo_config
from tests.support.programs import (
    QuietHandler,
    eventually,
    query,
    running_exporter,
    running_prometheus,
    running_simulator,
    serving,
)
from tests.support.prometheus import find_release

pytestmark = pytest.mark.e2e

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="
TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
# A job for each way to ask: its settings, and the form of the answer.
JOBS: Mapping[str, tuple[dict[str, object], str]] = {
    "as-shipped": ({}, f"{OPENMETRICS}allow-utf-8"),
    "legacy-names": ({"metric_name_validation_scheme": "legacy"}, f"{OPENMETRICS}underscores"),
    # What the exporter does not speak is answered in the plain text that everybody reads.
    "protobuf": ({"scrape_protocols": ["PrometheusProto"]}, TEXT_0),
    "old-openmetrics": ({"scrape_protocols": ["OpenMetricsText0.0.1"]}, TEXT_0),
    "new-text": ({"scrape_protocols": ["PrometheusText1.0.0"]}, TEXT_1),
    "old-text": ({"scrape_protocols": ["PrometheusText0.0.4"]}, TEXT_0),
}
# Names that only UTF-8 can hold, as people give them to their targets.
LABELS = {"as-shipped": {"data.center": "north", "机房": "北京"}}
INSTANCES = [
    {"id": f"{0:032x}in07", "name": '订单 "主"\\1'},
    {"id": f"{1:032x}in07", "name": "billing"},
    {"id": "nowhere", "name": "nowhere"},
]


@dataclass(slots=True)
class Relay:
    """Between Prometheus and the exporter; what each job was answered."""

    exporter: str
    address: str = ""
    forms: dict[str, str] = field(default_factory=dict)


@contextmanager
def relaying(exporter: str) -> Iterator[Relay]:
    relay = Relay(exporter)

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            headers = {key: value for key, value in self.headers.items() if key != "Host"}
            request = urllib.request.Request(f"{relay.exporter}{self.path}", headers=headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                body = answer.read()
            asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            relay.forms[asked["asked"][0]] = answer.headers["Content-Type"]
            self.send_response(200)
            for key in ("Content-Type", "Content-Encoding"):
                if key in answer.headers:
                    self.send_header(key, answer.headers[key])
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as relay.address:
        yield relay


@dataclass(frozen=True, slots=True)
class Scraped:
    """A Prometheus 3 that has scraped each job, and what each was answered."""

    prometheus: str
    forms: Mapping[str, str]

    def series(self, job: str) -> set[frozenset[tuple[str, str]]]:
        """All that the exporter said to a job, without the labels that are the job's."""
        found = query(self.prometheus, f'{{job="{job}", __name__=~"gaussdb_mysql_.+"}}')
        own = {"job", *LABELS["as-shipped"]}
        return {
            frozenset((key, value) for key, value in sample["metric"].items() if key not in own)
            for sample in found
        }


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    release = find_release("3")
    folder = tmp_path_factory.mktemp("negotiation")
    arguments = ("--instances", "2", "--backups-per-instance", "20")
    with (
        running_simulator(folder, *arguments) as simulator,
        running_exporter(folder, demo_config(simulator, INSTANCES, name="生产")) as exporter,
        relaying(exporter) as relay,
    ):
        jobs = [
            {
                "job_name": job,
                "honor_labels": True,
                "params": {"asked": [job]},
                "static_configs": [{"targets": [relay.address], "labels": LABELS.get(job, {})}],
                **settings,
            }
            for job, (settings, _) in JOBS.items()
        ]
        config = yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": jobs,
            }
        )
        with running_prometheus(folder, config, release.prometheus) as prometheus:
            yield Scraped(prometheus, relay.forms)


def test_each_protocol_gets_its_form_and_brings_the_same_series(scraped: Scraped) -> None:
    def all_alike() -> set[frozenset[tuple[str, str]]] | None:
        first, *others = (scraped.series(job) for job in JOBS)
        listed = any(("__name__", "gaussdb_mysql_incremental_backups") in each for each in first)
        return first if listed and all(each == first for each in others) else None

    series = eventually(all_alike, what="the same series by each protocol")
    assert dict(scraped.forms) == {job: form for job, (_, form) in JOBS.items()}
    up = query(scraped.prometheus, "up")
    assert {sample["metric"]["job"]: sample["value"][1] for sample in up} == dict.fromkeys(
        JOBS, "1"
    )
    names = {dict(each)["__name__"] for each in series}
    assert "gaussdb_mysql_api_errors_total" in names
    assert "gaussdb_mysql_api_request_duration_seconds_bucket" in names


def test_names_in_utf8_stand_beside_the_exporters_labels(scraped: Scraped) -> None:
    def info() -> list[dict[str, str]] | None:
        found = query(
            scraped.prometheus,
            '{"gaussdb_mysql_instance_info", "data.center"="north", "机房"="北京"}',
        )
        return [sample["metric"] for sample in found] or None

    found = eventually(info, what="the information about instances")
    names = {each["instance"]: (each["project_name"], each["instance_name"]) for each in found}
    assert names == {
        f"{0:032x}in07": ("生产", '订单 "主"\\1'),
        f"{1:032x}in07": ("生产", "billing"),
        "nowhere": ("生产", "nowhere"),
    }
