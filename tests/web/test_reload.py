"""A reload over HTTP."""

from pathlib import Path

import pytest

from exporter.assembly import Exporter
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from tests.support.clients import Settings, client_of, client_on
from tests.support.factories import (
    BILLING,
    ORDERS,
    make_backup,
    make_config,
    make_instance,
    make_simulator,
    parse_samples,
    running_exporter,
    samples,
)
from tests.support.virtual_time import NOON, Clock

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
