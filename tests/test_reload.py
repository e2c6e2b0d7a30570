"""What a reload keeps of what is known, and what it lists anew."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from exporter.assembly import Exporter
from exporter.config.schema import Config
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
    running_exporter,
    samples,
)
from tests.support.virtual_time import Clock

OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"


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
    assert answer.samples.of("scrape_success") == 1.0


def with_sources(auth: str = "token", **defaults: Any) -> Config:
    return make_config(
        projects=[make_project_settings(ORDERS, auth=auth)],
        defaults=defaults,
        api={"restore_window_interval": "1m", "full_backups_interval": "1m"},
    )


async def test_counters_go_on_whatever_a_reload_changes(clock: Clock) -> None:
    """Of what is asked beside the backups too: to Prometheus a lower value is a new process."""
    both: dict[str, Any] = {"restore_window": True, "full_backups": True}
    async with reloadable(clock, with_sources(**both)) as (_, settings, exporter, _):
        before = (await samples(exporter)).of("api_requests_total")
        assert before is not None
        for config in (with_sources("aksk", **both), with_sources("aksk"), with_sources()):
            await clock.advance(60.0)
            settings.config = config
            await exporter.reload()
            after = (await samples(exporter)).of("api_requests_total")
            assert after is not None
            assert after > before
            before = after


@pytest.mark.parametrize("change", [{"lookback": "2d"}, {"offsite": True}])
async def test_the_page_shows_no_numbers_of_another_question(
    clock: Clock, change: dict[str, object]
) -> None:
    """Not as those of the new lookback, nor as the last known ones where the next scrape fails."""
    async with reloadable(clock, make_config({"id": ORDERS})) as state:
        simulator, settings, exporter, _ = state
        settings.config = make_config({"id": ORDERS, **change})
        await exporter.reload()
        (unasked,) = exporter.scraper.view().results
        assert (unasked.reading, unasked.last_reading, unasked.last_end) == (None, None, None)
        simulator.add_fault(Fault(status=500), "list_backups", times=None)
        await samples(exporter)
        (failed,) = exporter.scraper.view().results
        assert failed.failure is not None
        assert (failed.last_reading, failed.last_end) == (None, None)
