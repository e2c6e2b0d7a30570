"""A reload over HTTP, and what it keeps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import Fault, Simulator
from tests.support.clients import Settings, client_of, client_on
from tests.support.factories import (
    BILLING,
    ORDERS,
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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://exporter.example:10042", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "HTTP://EXPORTER.EXAMPLE:10042"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),  # typed by a person
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://exporter.example"}, 403),  # another port is another site's
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://exporter.example:10042", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://exporter.example", "Host": "exporter.example:443"}, 200),
        ({"Origin": "http://[::1", "Host": "x"}, 403),
    ],
)
async def test_a_page_of_another_site_does_not_reload(
    clock: Clock, headers: dict[str, str], status: int
) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with client_on(simulator, enable_lifecycle=True) as client:
        assert (await client.post("/-/reload", headers=headers)).status_code == status


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
ANEW = 6  # the latest first, then the pages


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
        assert set((await listings()).values()) <= {ANEW}
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
        assert await listings() == {ORDERS: ANEW, BILLING: 1}


async def test_offsite_backups_need_a_listing_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, listings):
        settings.config = make_config({"id": ORDERS, "offsite": True}, BILLING)
        await exporter.reload()
        assert await listings() == {ORDERS: ANEW, BILLING: 1}


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


async def test_another_way_in_lists_anew_for_it_may_see_others(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (simulator, settings, exporter, listings):
        settings.config = make_config(ORDERS, auth="password")
        await exporter.reload()
        assert await listings() == {ORDERS: ANEW}
        assert len(simulator.requests_of("login")) == 1


async def test_an_unchanged_way_in_keeps_its_token(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, auth="password")) as state:
        simulator, settings, exporter, listings = state
        settings.config = make_config(ORDERS, BILLING, auth="password")
        await exporter.reload()
        assert await listings() == {ORDERS: 1, BILLING: ANEW}
        assert len(simulator.requests_of("login")) == 1


async def test_counters_of_an_unchanged_instance_go_on(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (_, _, exporter, _):
        await exporter.reload()
        found = await samples(exporter)
    assert found.of("api_requests_total") == ANEW + 1.0  # and one for what is new
    assert found.of("scrape_api_requests") == 1.0


async def test_an_instance_that_was_away_begins_anew(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS, BILLING)) as (_, settings, exporter, listings):
        settings.config = make_config(ORDERS)
        await exporter.reload()
        assert await listings() == {ORDERS: 1}
        settings.config = make_config(ORDERS, BILLING)
        await exporter.reload()
        assert await listings() == {ORDERS: 1, BILLING: ANEW}


async def test_the_same_id_in_another_project_is_another_instance(clock: Clock) -> None:
    async with reloadable(clock, make_config(ORDERS)) as (simulator, settings, exporter, listings):
        settings.config = make_config(projects=[make_project_settings(ORDERS, id=OTHER_PROJECT)])
        await exporter.reload()
        assert await listings() == {ORDERS: ANEW}
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
