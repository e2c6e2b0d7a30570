"""Metrics, the page and health over HTTP, in front of the simulated cloud."""

import httpx
import pytest

from exporter.assembly import Exporter
from exporter.config.schema import Config, ScrapeConfig
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import Fault, Simulator
from exporter.simulator.faults import Rows
from exporter.web.deadlines import scrape_seconds
from tests.support.clients import Settings, client_of, client_on
from tests.support.factories import (
    BILLING,
    ORDERS,
    PASSWORD,
    PROJECT,
    TOKEN,
    fetch_metrics,
    make_backup,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    parse_samples,
    running_exporter,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import Clock

EXPORTER_WIDE = (
    "gaussdb_mysql_exporter_",
    "gaussdb_mysql_api_request_duration_seconds",
    "gaussdb_mysql_token_expiry_timestamp_seconds",
    "gaussdb_mysql_discover",
    "gaussdb_mysql_unmonitored_instances",
    "process_",
    "python_",
)


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
    assert scrape.samples.errors() == {"network": 1.0}


async def test_metrics_hold_the_exporters_own_as_well(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup()), clock=clock)
    async with client_on(simulator) as client:
        text = (await client.get("/metrics")).text
    assert 'gaussdb_mysql_api_request_duration_seconds_count{operation="list_backups"}' in text
    for name in EXPORTER_WIDE[:1] + EXPORTER_WIDE[-2:]:
        assert name in text


def names_of(text: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[:1] != "#"}


async def test_the_exporter_tells_of_itself_and_its_projects_alone(
    two_named: tuple[Simulator, Config],
) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        alone = await client.get("/metrics?collect[]=exporter")
        assert not simulator.requests
        await client.get("/metrics")
        asked = len(simulator.requests)
        again = await client.get("/metrics", params={"collect[]": "exporter"})
        assert len(simulator.requests) == asked
    assert "process_open_fds" in names_of(alone.text)
    assert 'gaussdb_mysql_clock_skew_seconds{project="' in again.text
    for name in names_of(alone.text) | names_of(again.text):
        assert not name.startswith(("gaussdb_mysql_scrape_", "gaussdb_mysql_incremental_"))


async def test_instances_alone_are_the_rest(two_named: tuple[Simulator, Config]) -> None:
    async with client_on(*two_named) as client:
        whole = names_of((await client.get("/metrics")).text)
        both = names_of((await client.get("/metrics?collect[]=exporter&collect[]=instances")).text)
        instances = names_of((await client.get("/metrics?collect[]=instances")).text)
        exporter = names_of((await client.get("/metrics?collect[]=exporter")).text)
    assert "gaussdb_mysql_scrape_success" in instances
    assert not instances & exporter
    assert both == whole == instances | exporter


async def test_what_cannot_be_collected_is_400(two_named: tuple[Simulator, Config]) -> None:
    simulator, config = two_named
    async with client_on(simulator, config) as client:
        answer = await client.get("/metrics?collect[]=instances&collect[]=<script>")
    assert answer.status_code == 400
    assert answer.text == "collect[] has no '<script>': it takes exporter and instances\n"
    assert not simulator.requests


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


# For people -----------------------------------------------------------------------------------


async def test_the_page_tells_why_discovery_fails(clock: Clock) -> None:
    simulator = make_simulator(make_instance(id=ORDERS), clock=clock)
    simulator.add_fault(Fault(status=403), "list_instances", times=None)
    config = make_config(projects=[make_project_settings(discovery={"enabled": True})])
    async with client_on(simulator, config) as client:
        await client.get("/metrics")
        page = (await client.get("/")).text
    assert "discovery has not succeeded yet" in page
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
    # Who is watched is there from the start, what of it is known comes with the scrape.
    assert "orders" in before.text
    assert '<span class="pill">not asked yet</span>' in before.text
    assert '<span class="pill">not asked yet</span>' not in after.text


async def test_the_status_page_says_when_a_configuration_was_refused(
    two_named: tuple[Simulator, Config],
) -> None:
    simulator, config = two_named
    settings = Settings(config)
    async with client_on(simulator, settings, enable_lifecycle=True) as client:
        assert "was refused" not in (await client.get("/")).text
        settings.config = None
        await client.post("/-/reload")
        page = (await client.get("/?refresh=60")).text
    assert "The new configuration was refused" in page
    assert "projects[0].region: is wrong" in page
    assert '<meta http-equiv="refresh" content="60">' in page


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
