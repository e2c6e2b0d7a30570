"""The exporter over HTTP, in front of the simulated cloud."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.assembly import Exporter
from exporter.config.schema import Config, ScrapeConfig
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import Fault, Simulator
from exporter.simulator.faults import Rows
from exporter.web.app import create_app, scrape_seconds
from tests.support.factories import (
    BILLING,
    ORDERS,
    PASSWORD,
    PROJECT,
    TOKEN,
    Samples,
    fetch_metrics,
    fill,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    parse_samples,
    running_exporter,
    samples,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import NOON, Clock

OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"
EXPORTER_WIDE = (
    "gaussdb_mysql_exporter_",
    "gaussdb_mysql_api_request_duration_seconds",
    "gaussdb_mysql_token_expiry_timestamp_seconds",
    "gaussdb_mysql_discover",
    "gaussdb_mysql_unmonitored_instances",
    "process_",
    "python_",
)


@asynccontextmanager
async def client_of(exporter: Exporter, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the exporter's application."""
    transport = httpx.ASGITransport(create_app(exporter, **options))
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://exporter.example:10042",
        headers={"Accept-Encoding": "identity"},
    ) as client:
        yield client


@asynccontextmanager
async def client_on(
    simulator: Simulator, config: Config | Callable[[], Config] | None = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The same, of a started exporter of that cloud."""
    async with running_exporter(simulator, config) as exporter, client_of(exporter, **options) as c:
        yield c


class Settings:
    """A configuration that can be changed between two reloads; None cannot be loaded."""

    def __init__(self, config: Config | None) -> None:
        self.config = config

    def __call__(self) -> Config:
        if self.config is None:
            raise ConfigError(["projects[0].region: is wrong", "api.retries: is wrong too"])
        return self.config


# The deadline ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 30.0),
        ("10", 9.5),
        ("10.0", 9.5),
        (" 10 ", 9.5),
        ("30", 29.5),
        ("30.5", 30.0),
        ("60", 30.0),
        ("1e3", 30.0),
        ("inf", 30.0),
        ("0.75", 0.25),
        ("0.5", 0.0),
        ("0.1", 0.0),
        ("", 30.0),
        ("soon", 30.0),
        ("0", 30.0),
        ("-5", 30.0),
        ("-inf", 30.0),
        ("nan", 30.0),
    ],
)
def test_a_scrape_takes_what_prometheus_names_less_the_offset(
    header: str | None, seconds: float
) -> None:
    config = ScrapeConfig()  # 30s and 500ms
    assert scrape_seconds(header, config) == pytest.approx(seconds)


async def test_an_instance_that_hangs_fails_alone_within_the_named_deadline(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(make_backup(age_hours=1)),
        make_instance(make_backup(age_hours=2), id=BILLING),
        clock=clock,
    )
    simulator.add_fault(Fault(hang=True), "list_backups", BILLING)
    async with running_exporter(simulator) as exporter:
        scrape = await fetch_metrics(exporter, timeout=5)
    assert scrape.status == 200
    assert 4.0 < scrape.seconds <= 4.5
    assert scrape.samples.by_instance("scrape_success") == {ORDERS: 1.0, BILLING: 0.0}
    assert scrape.samples.errors(BILLING) == {"deadline": 1.0}


# /metrics -------------------------------------------------------------------------------------


async def test_metrics_are_answered_with_200_though_every_instance_fails(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), make_instance(id=BILLING), clock=clock)
    simulator.fault_script = lambda request: Fault(status=500)
    async with running_exporter(simulator) as exporter:
        scrape = await fetch_metrics(exporter)
    assert scrape.status == 200
    assert scrape.samples.by_instance("scrape_success") == {ORDERS: 0.0, BILLING: 0.0}
    assert scrape.samples.backup_gauges(ORDERS) == {}
    assert scrape.samples.backup_gauges(BILLING) == {}


async def test_metrics_are_answered_with_200_though_nobody_can_be_reached(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    transport = StreamingTransport(simulator, before=lambda request: httpx.ConnectError("refused"))
    config = make_config(ORDERS, auth="password")
    async with running_exporter(simulator, config, transport=transport) as exporter:
        scrape = await fetch_metrics(exporter)
    assert scrape.status == 200
    assert scrape.samples.of("scrape_success") == 0.0
    assert scrape.samples.errors() == {"auth": 1.0}


async def test_metrics_hold_the_exporters_own_as_well(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    async with client_on(simulator) as client:
        text = (await client.get("/metrics")).text
    assert 'gaussdb_mysql_api_request_duration_seconds_count{operation="list_backups"}' in text
    for name in EXPORTER_WIDE[:1] + EXPORTER_WIDE[-2:]:
        assert name in text


async def test_the_format_is_negotiated(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator) as client:
        plain = await client.get("/metrics")
        openmetrics = await client.get(
            "/metrics",
            headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"},
        )
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept, Accept-Encoding"
    assert openmetrics.headers["content-type"].startswith(
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    assert openmetrics.text.endswith("# EOF\n")


async def test_the_body_is_compressed_for_whom_asks_for_it(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator) as client:
        answer = await client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert parse_samples(answer.text).of("scrape_success") == 1.0


async def test_the_metrics_path_can_be_another(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator, telemetry_path="/stats/backups") as client:
        assert (await client.get("/stats/backups")).status_code == 200
        assert (await client.get("/metrics")).status_code == 404
        assert 'href="./stats/backups"' in (await client.get("/")).text


# /probe ---------------------------------------------------------------------------------------


@pytest.fixture
def two_named(clock: Clock) -> tuple[Simulator, Config]:
    simulator = make_simulator(
        make_instance(make_backup(age_hours=1), make_backup(age_hours=2)),
        make_instance(make_backup(age_hours=3), id=BILLING),
        clock=clock,
    )
    config = make_config(
        projects=[
            make_project_settings({"id": ORDERS, "name": "orders"}, BILLING, name="production")
        ]
    )
    return simulator, config


@pytest.mark.parametrize("project", [PROJECT, "production"])
@pytest.mark.parametrize("instance", [ORDERS, "orders"])
async def test_a_probe_names_its_instance_by_id_or_by_name(
    two_named: tuple[Simulator, Config], project: str, instance: str
) -> None:
    async with client_on(*two_named) as client:
        answer = await client.get("/probe", params={"project": project, "instance": instance})
    assert answer.status_code == 200
    found = parse_samples(answer.text)
    assert found.by_instance("incremental_backups") == {ORDERS: 2.0}
    assert found.by_instance("scrape_success") == {ORDERS: 1.0}


async def test_a_probe_asks_for_its_instance_alone(two_named: tuple[Simulator, Config]) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        await client.get("/probe", params={"project": PROJECT, "instance": ORDERS})
    assert {request.instance_id for request in simulator.requests_of("list_backups")} == {ORDERS}


async def test_a_probe_has_no_metric_of_the_exporter_or_a_project(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    settings = make_project_settings(ORDERS, auth="password", discovery={"enabled": True})
    async with client_on(simulator, make_config(projects=[settings])) as client:
        text = (await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")).text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    assert "gaussdb_mysql_scrape_success" in names
    assert not [name for name in names if name.startswith(EXPORTER_WIDE)]


async def test_a_probe_of_a_failing_instance_is_200_and_says_so(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.add_fault(Fault(status=403), "list_backups", times=None)
    async with client_on(simulator) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert answer.status_code == 200
    found = parse_samples(answer.text)
    assert found.of("scrape_success") == 0.0
    assert found.errors() == {"forbidden": 1.0}
    assert found.backup_gauges() == {}


@pytest.mark.parametrize(
    "query",
    [
        "",
        f"project={PROJECT}",
        f"instance={ORDERS}",
        f"project=&instance={ORDERS}",
        f"project={PROJECT}&instance=",
    ],
)
async def test_a_probe_without_a_whole_name_is_400_with_how_to_ask(
    two_named: tuple[Simulator, Config], query: str
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?{query}")
    assert answer.status_code == 400
    assert answer.text == ("name the instance: /probe?project=ID&instance=ID (or their names)\n")
    assert not simulator.requests


@pytest.mark.parametrize(
    ("project", "instance"),
    [
        (PROJECT, "nobody"),
        ("nobody", ORDERS),
        (OTHER_PROJECT, ORDERS),
        (PROJECT, ORDERS.upper()),
        (PROJECT, "<script>alert(1)</script>"),
        (PROJECT, "x" * 10_000),
    ],
)
async def test_a_probe_of_an_unknown_instance_is_400_and_asks_nobody(
    two_named: tuple[Simulator, Config], project: str, instance: str
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get("/probe", params={"project": project, "instance": instance})
    assert answer.status_code == 400
    assert answer.text.startswith("unknown instance")
    assert len(answer.text) < 500
    assert answer.headers["content-type"].startswith("text/plain")
    assert not simulator.requests


async def test_a_name_of_two_instances_is_400(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), make_instance(id=BILLING), clock=clock)
    config = make_config({"id": ORDERS, "name": "same"}, {"id": BILLING, "name": "same"})
    async with client_on(simulator, config) as client:
        ambiguous = await client.get(f"/probe?project={PROJECT}&instance=same")
        by_id = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert ambiguous.status_code == 400
    assert "its name is not unique" in ambiguous.text
    assert by_id.status_code == 200


async def test_an_id_goes_before_another_instances_name(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), make_instance(id=BILLING), clock=clock)
    config = make_config(ORDERS, {"id": BILLING, "name": ORDERS})
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
    assert parse_samples(answer.text).by_instance("scrape_success") == {ORDERS: 1.0}


async def test_the_first_probe_finds_what_only_discovery_knows(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup(), name="found"), clock=clock)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        answer = await client.get(f"/probe?project={PROJECT}&instance=found")
    assert answer.status_code == 200
    assert parse_samples(answer.text).by_instance("incremental_backups") == {ORDERS: 1.0}


# /sd ------------------------------------------------------------------------------------------


async def test_service_discovery_lists_every_instance_as_a_probe(
    two_named: tuple[Simulator, Config],
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get("/sd")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [
        {
            "targets": ["exporter.example:10042"],
            "labels": {
                "__metrics_path__": "/probe",
                "__param_project": PROJECT,
                "__param_instance": id_,
                "project": PROJECT,
                "instance": id_,
                "__meta_gaussdb_mysql_project": PROJECT,
                "__meta_gaussdb_mysql_project_name": "production",
                "__meta_gaussdb_mysql_instance": id_,
                "__meta_gaussdb_mysql_instance_name": name,
                "__meta_gaussdb_mysql_region": "cn-north-4",
            },
        }
        for id_, name in ((ORDERS, "orders"), (BILLING, ""))
    ]
    assert not simulator.requests  # nothing but what discovery needs


async def test_targets_behind_tls_are_probed_over_tls(two_named: tuple[Simulator, Config]) -> None:
    async with client_on(*two_named) as client:
        groups = (await client.get("https://exporter.example/sd")).json()
    assert {group["labels"]["__scheme__"] for group in groups} == {"https"}
    assert {target for group in groups for target in group["targets"]} == {"exporter.example"}


async def test_each_target_of_service_discovery_can_be_probed(
    two_named: tuple[Simulator, Config],
) -> None:
    async with client_on(*two_named) as client:
        for group in (await client.get("/sd")).json():
            labels = group["labels"]
            answer = await client.get(
                labels["__metrics_path__"],
                params={
                    name.removeprefix("__param_"): value
                    for name, value in labels.items()
                    if name.startswith("__param_")
                },
            )
            assert parse_samples(answer.text).by_instance("scrape_success") == {
                labels["instance"]: 1.0
            }


async def test_service_discovery_has_what_the_cloud_lists(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(name="prod-orders"), make_instance(id=BILLING, name="test"), clock=clock
    )
    config = make_config(projects=[make_project_settings(discovery={"name": "prod-*"})])
    async with client_on(simulator, config) as client:
        groups = (await client.get("/sd")).json()
    assert [group["labels"]["instance"] for group in groups] == [ORDERS]
    assert groups[0]["labels"]["__meta_gaussdb_mysql_instance_name"] == "prod-orders"


async def test_service_discovery_of_nothing_is_an_empty_list(clock: Clock) -> None:
    simulator = make_simulator(clock=clock)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        assert json.loads((await client.get("/sd")).text) == []


# For people -----------------------------------------------------------------------------------


async def test_the_page_tells_why_discovery_fails(clock: Clock) -> None:
    simulator = make_simulator(make_instance(id=ORDERS), clock=clock)
    simulator.add_fault(Fault(status=403), "list_instances", times=None)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        await client.get("/metrics")
        page = (await client.get("/")).text
    assert "discovery is failing" in page
    assert "<code>forbidden</code> <bdi>HTTP 403" in page
    assert "gaussdbformysql:instance:list" in page


async def test_the_status_page_costs_no_request(two_named: tuple[Simulator, Config]) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        before = await client.get("/")
        assert not simulator.requests
        await client.get("/metrics")
        asked = len(simulator.requests)
        after = await client.get("/")
        assert len(simulator.requests) == asked
    for page in (before, after):
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "orders" not in before.text
    assert "orders" in after.text


async def test_the_status_page_shows_what_a_probe_has_learned(
    two_named: tuple[Simulator, Config],
) -> None:
    async with client_on(*two_named) as client:
        await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")
        assert "orders" in (await client.get("/")).text


@pytest.mark.parametrize("query", ["?q=%3Cscript%3E", "?state=nonsense", "?page=-1", "?page=x"])
async def test_the_status_page_stands_any_question(
    two_named: tuple[Simulator, Config], query: str
) -> None:
    async with client_on(*two_named) as client:
        await client.get("/metrics")
        page = await client.get(f"/{query}")
    assert page.status_code == 200
    assert "<script>" not in page.text


async def test_unknown_paths_are_404(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator) as client:
        for path in ("/metric", "/-/quit", "/probe/x", "/favicon.ico"):
            assert (await client.get(path)).status_code == 404


# Health ---------------------------------------------------------------------------------------


async def test_it_is_not_ready_until_the_configuration_is_loaded(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    exporter = Exporter(
        lambda: make_config(ORDERS),
        own=OwnMetrics(clock=clock),
        registry=SecretRegistry(),
        transport=lambda: StreamingTransport(simulator),
        clock=clock,
    )
    async with client_of(exporter) as client:
        assert (await client.get("/-/healthy")).status_code == 200
        assert (await client.get("/-/ready")).status_code == 503
        await exporter.reload()
        assert (await client.get("/-/ready")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
    await exporter.aclose()


async def test_it_is_healthy_and_not_ready_while_it_stops_and_still_answers(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with running_exporter(simulator) as exporter, client_of(exporter) as client:
        assert (await client.get("/-/ready")).text == "ready\n"
        exporter.stopping = True
        assert (await client.get("/-/ready")).status_code == 503
        assert (await client.get("/-/healthy")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200


async def test_it_is_ready_though_the_cloud_is_down(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.fault_script = lambda request: Fault(status=503)
    async with client_on(simulator) as client:
        await client.get("/metrics")
        assert (await client.get("/-/ready")).status_code == 200


# Reload ---------------------------------------------------------------------------------------

RELOAD_SUCCESSFUL = "exporter_config_last_reload_successful"
RELOAD_SUCCESS_AT = "exporter_config_last_reload_success_timestamp_seconds"


async def reload_gauges(exporter: Exporter) -> tuple[float | None, float | None]:
    found = await samples(exporter)
    return found.of(RELOAD_SUCCESSFUL, instance=""), found.of(RELOAD_SUCCESS_AT, instance="")


async def test_a_reload_over_http_must_be_allowed(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    settings = Settings(make_config(ORDERS))
    async with client_on(simulator, settings) as client:
        settings.config = make_config(BILLING)
        answer = await client.post("/-/reload")
        assert answer.status_code == 403
        assert "--web.enable-lifecycle" in answer.text
        assert parse_samples((await client.get("/metrics")).text).of("scrape_success") == 1.0


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("allowed", [False, True])
async def test_a_reload_is_a_post(clock: Clock, method: str, allowed: bool) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator, enable_lifecycle=allowed) as client:
        assert (await client.request(method, "/-/reload")).status_code == 405


async def test_a_reload_puts_the_new_configuration_in_force(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(make_backup()), make_instance(make_backup(), id=BILLING), clock=clock
    )
    settings = Settings(make_config(ORDERS))
    async with (
        running_exporter(simulator, settings) as exporter,
        client_of(exporter, enable_lifecycle=True) as client,
    ):
        assert (await samples(exporter)).by_instance("scrape_success") == {ORDERS: 1.0}
        settings.config = make_config(BILLING)
        answer = await client.post("/-/reload")
        assert (answer.status_code, answer.text) == (200, "configuration reloaded\n")
        later = await samples(exporter)
        assert later.by_instance("scrape_success") == {BILLING: 1.0}
        assert not [key for key in later if ("instance", ORDERS) in key[1]]


async def test_a_wrong_configuration_is_refused_whole_and_the_old_one_stays(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    settings = Settings(make_config(ORDERS))
    async with (
        running_exporter(simulator, settings) as exporter,
        client_of(exporter, enable_lifecycle=True) as client,
    ):
        await client.get("/metrics")
        settings.config = None
        answer = await client.post("/-/reload")
        assert answer.status_code == 500
        assert answer.text == (
            "the old configuration stays in force:\n"
            "projects[0].region: is wrong\n"
            "api.retries: is wrong too\n"
        )
        assert (await client.get("/-/ready")).status_code == 200
        assert (await samples(exporter)).by_instance("incremental_backups") == {ORDERS: 1.0}


async def test_the_two_gauges_tell_of_the_last_reload(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    settings = Settings(make_config(ORDERS))
    async with (
        running_exporter(simulator, settings) as exporter,
        client_of(exporter, enable_lifecycle=True) as client,
    ):
        assert await reload_gauges(exporter) == (1.0, NOON)
        await clock.advance(60.0)
        settings.config = None
        await client.post("/-/reload")
        assert await reload_gauges(exporter) == (0.0, NOON)
        await clock.advance(60.0)
        settings.config = make_config(ORDERS)
        at = clock()
        await client.post("/-/reload")
        assert await reload_gauges(exporter) == (1.0, at)


async def test_a_configuration_whose_certificates_cannot_be_used_is_refused(
    clock: Clock, tmp_path: Path
) -> None:
    absent = tmp_path / "absent.pem"
    settings = Settings(make_config(ORDERS))
    exporter = Exporter(
        settings, own=OwnMetrics(clock=clock), registry=SecretRegistry(), clock=clock
    )
    async with client_of(exporter, enable_lifecycle=True) as client:
        await exporter.reload()
        settings.config = make_config(ORDERS, api={"ca_file": str(absent)})
        answer = await client.post("/-/reload")
    assert answer.status_code == 500
    assert f"api.ca_file: cannot use {absent}: No such file or directory" in answer.text
    await exporter.aclose()


# What a reload keeps

ROWS = 200  # within a day: five pages


@asynccontextmanager
async def reloadable(
    clock: Clock, config: Config
) -> AsyncIterator[tuple[Simulator, Settings, Exporter, Callable[[], Any]]]:
    """An exporter after its first scrape of one instance, or two, with 200 backups each.

    The last value scrapes again and gives how many listings that took, by instance.
    """
    simulator = make_simulator(
        make_project(
            fill(make_instance(), count=ROWS),
            fill(make_instance(id=BILLING), count=ROWS),
        ),
        make_project(fill(make_instance(), count=ROWS), id=OTHER_PROJECT),
        clock=clock,
    )
    settings = Settings(config)

    async def listings() -> dict[str, int]:
        before = len(simulator.requests)
        found: Samples = await samples(exporter)
        assert set(found.by_instance("scrape_success").values()) <= {1.0}
        asked: dict[str, int] = {}
        for request in list(simulator.requests)[before:]:
            if request.operation == "list_backups":
                asked[request.instance_id] = asked.get(request.instance_id, 0) + 1
        return asked

    async with running_exporter(simulator, settings) as exporter:
        assert set((await listings()).values()) <= {5}
        await clock.advance(60.0)
        yield simulator, settings, exporter, listings


async def test_an_unchanged_instance_keeps_its_window(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, _, exporter, listings):
        assert await listings() == {ORDERS: 1, BILLING: 1}
        await exporter.reload()
        assert await listings() == {ORDERS: 1, BILLING: 1}


async def test_a_changed_lookback_lists_that_instance_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, listings):
        settings.config = make_config({"id": ORDERS, "lookback": "2d"}, BILLING)
        await exporter.reload()
        assert await listings() == {ORDERS: 5, BILLING: 1}


async def test_offsite_backups_need_a_listing_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, listings):
        settings.config = make_config({"id": ORDERS, "offsite": True}, BILLING)
        await exporter.reload()
        assert await listings() == {ORDERS: 5, BILLING: 1}


async def test_a_changed_threshold_or_name_needs_no_listing_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (_, settings, exporter, listings):
        settings.config = make_config({"id": ORDERS, "name": "orders", "stale_after": "30m"})
        await exporter.reload()
        assert await listings() == {ORDERS: 1}
        found = await samples(exporter)
        assert found.of("incremental_backup_stale_after_seconds") == 1_800.0
        assert found.of("instance_info", instance_name="orders") == 1.0


async def test_changed_settings_of_the_api_keep_the_windows(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (_, settings, exporter, listings):
        settings.config = make_config(ORDERS, api={"timeout": "5s", "max_connections": 3})
        await exporter.reload()
        assert await listings() == {ORDERS: 1}


async def test_another_way_in_keeps_the_windows(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (simulator, settings, exporter, listings):
        settings.config = make_config(ORDERS, auth="password")
        await exporter.reload()
        assert await listings() == {ORDERS: 1}
        assert len(simulator.requests_of("login")) == 1


async def test_an_unchanged_way_in_keeps_its_token(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, auth="password")) as state:
        simulator, settings, exporter, listings = state
        settings.config = make_config(ORDERS, BILLING, auth="password")
        await exporter.reload()
        assert await listings() == {ORDERS: 1, BILLING: 5}
        assert len(simulator.requests_of("login")) == 1


async def test_counters_of_an_unchanged_instance_go_on(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (_, _, exporter, _):
        await exporter.reload()
        found = await samples(exporter)
    assert found.of("api_requests_total") == 6.0  # five pages, and one for what is new
    assert found.of("scrape_api_requests") == 1.0


async def test_an_instance_that_was_away_begins_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, listings):
        settings.config = make_config(ORDERS)
        await exporter.reload()
        assert await listings() == {ORDERS: 1}
        settings.config = make_config(ORDERS, BILLING)
        await exporter.reload()
        assert await listings() == {ORDERS: 1, BILLING: 5}


async def test_the_same_id_in_another_project_is_another_instance(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (simulator, settings, exporter, listings):
        settings.config = make_config(projects=[make_project_settings(ORDERS, id=OTHER_PROJECT)])
        await exporter.reload()
        assert await listings() == {ORDERS: 5}
        assert simulator.requests[-1].project_id == OTHER_PROJECT


async def test_a_removed_instance_leaves_the_page_and_service_discovery(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, _):
        settings.config = make_config(ORDERS)
        await exporter.reload()
        async with client_of(exporter) as client:
            assert [group["labels"]["instance"] for group in (await client.get("/sd")).json()] == [
                ORDERS
            ]
            page = (await client.get("/")).text
            assert BILLING not in page


async def test_reloads_at_once_happen_one_after_the_other(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator, enable_lifecycle=True) as client:
        answers = await asyncio.gather(*(client.post("/-/reload") for _ in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        assert (await client.get("/metrics")).status_code == 200


async def test_a_scrape_under_way_is_answered_though_the_configuration_changes(
    clock: Clock,
) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    held = asyncio.Event()
    simulator.add_fault(Fault(hold=held), "list_backups", ORDERS)
    settings = Settings(make_config(ORDERS))
    async with running_exporter(simulator, settings) as exporter:
        scrape = asyncio.create_task(fetch_metrics(exporter))
        await clock.advance(1.0)
        settings.config = make_config(ORDERS, api={"retries": 0})
        await exporter.reload()
        held.set()
        answer = await scrape
    assert answer.status == 200
    assert answer.samples.of("incremental_backups") == 1.0


async def test_no_secret_is_on_any_page(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    simulator.add_fault(Fault(status=401, leak=True), times=None)
    config = make_config(ORDERS, auth="password")
    async with client_on(simulator, config, enable_lifecycle=True) as client:
        pages = [(await client.get("/metrics")).text]
        pages += [(await client.get(path)).text for path in ("/", "/sd")]
        pages.append((await client.get(f"/probe?project={PROJECT}&instance={ORDERS}")).text)
        pages.append((await client.post("/-/reload")).text)
    assert all(pages)
    assert not [page for page in pages if PASSWORD in page]


async def test_a_secret_within_a_row_is_not_on_the_page_that_shows_the_row(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)

    def spoil(rows: Rows) -> Rows:
        return [{**row, "end_time": f"session {TOKEN}-{PROJECT} ended"} for row in rows]

    simulator.add_fault(Fault(rows=spoil), times=None)
    async with running_exporter(simulator) as exporter, client_of(exporter) as client:
        await client.get("/metrics")
        page = (await client.get("/")).text
    assert "has an unreadable time" in page
    assert TOKEN not in page


@pytest.mark.parametrize("words", range(20, 60))
async def test_not_even_the_beginning_of_a_secret_is_on_the_page_where_a_message_is_cut(
    clock: Clock, words: int
) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    told = f"{'word ' * words}{TOKEN}-{PROJECT} and more"
    simulator.add_fault(Fault(status=400, message=told), times=None)
    async with running_exporter(simulator) as exporter, client_of(exporter) as client:
        await client.get("/metrics")
        page = (await client.get("/")).text
    assert "word word" in page
    assert TOKEN[:6] not in page
