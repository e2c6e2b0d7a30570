"""Where and as whom an instance is read, what vanishes, and what can no longer be listed."""

import calendar
import time
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from exporter.config.schema import Config
from exporter.simulator import Fault, RecordedRequest, SimulatedBackup, Simulator
from tests.support.factories import (
    AUTH,
    ENDPOINT,
    ORDERS,
    fill,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

ELSEWHERE = "https://elsewhere.example"


@dataclass
class Sites:
    """Two clouds that know the same project, told apart by the host that is asked."""

    here: Simulator
    elsewhere: Simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_elsewhere = scope["server"][0] in ELSEWHERE
        await (self.elsewhere if is_elsewhere else self.here)(scope, receive, send)


class Loader:
    """The configuration, to be changed between reloads."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __call__(self) -> Config:
        return make_config(projects=[make_project_settings(ORDERS, **self.settings)])


@pytest.mark.parametrize("count", [7, 0])
async def test_a_reload_to_another_endpoint_publishes_what_that_one_has(
    clock: Clock, count: int
) -> None:
    """100 backups here, seven there or none: never the hundred with scrape_success 1."""
    here = make_simulator(fill(make_instance(), count=100), clock=clock)
    elsewhere = make_simulator(fill(make_instance(), count=count), clock=clock)
    load = Loader()
    transport = StreamingTransport(Sites(here, elsewhere))
    async with running_exporter(here, load, transport=transport) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 100
        await clock.advance(60)
        load.settings = {"endpoint": ELSEWHERE}
        await exporter.reload()
        shown = [result.last_reading for result in exporter.scraper.view().results]
        assert shown == [None]  # nor on the page
        published = await samples(exporter)
        assert published.of("incremental_backups") == count
        assert published.of("incremental_backups_listing_complete") == 1
        await clock.advance(60)
        load.settings = {"endpoint": ENDPOINT}
        await exporter.reload()
        assert (await samples(exporter)).of("incremental_backups") == 100


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({}, True),
        ({"password": "changed"}, True),
        ({"username": "another"}, False),
        ({"domain": "another"}, False),
    ],
)
async def test_what_is_known_is_known_of_what_a_user_may_see(
    clock: Clock, change: dict[str, str], is_kept: bool
) -> None:
    """Another password of the same user is no reason to list the window anew."""
    simulator = make_simulator(fill(make_instance(), count=100), clock=clock)
    auth = {**AUTH["password"], **change}
    project = next(iter(simulator.projects.values()))
    project.users[auth["domain"], auth["username"]] = auth["password"]
    load = Loader(auth="password")
    if change == {"password": "changed"}:
        project.users[auth["domain"], auth["username"]] = AUTH["password"]["password"]
    async with running_exporter(simulator, load) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 100
        await clock.advance(60)
        project.users[auth["domain"], auth["username"]] = auth["password"]
        load.settings = {"auth": auth}
        await exporter.reload()
        simulator.requests.clear()
        published = await samples(exporter)
        assert published.of("incremental_backups") == 100
        assert (len(simulator.requests_of("list_backups", ORDERS)) == 1) is is_kept


async def test_an_instance_that_was_restored_shows_what_it_has_now(clock: Clock) -> None:
    """Twelve backups of the hour that each scrape reads: gone, they are none."""
    instance = fill(make_instance(), count=12)
    simulator = make_simulator(instance, clock=clock)
    async with running_exporter(simulator) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 12
        instance.backups.clear()
        await clock.advance(15)
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert published.of("incremental_backups") == 0
    assert published.of("incremental_backup_latest_end_timestamp_seconds") is None


async def test_the_same_backups_under_new_ids_are_not_counted_twice(clock: Clock) -> None:
    instance = fill(make_instance(), count=12)
    simulator = make_simulator(instance, clock=clock)
    async with running_exporter(simulator) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 12
        instance.backups[:] = [
            SimulatedBackup(f"{number:032x}br07", row.begin, row.end, row.size)
            for number, row in enumerate(instance.backups)
        ]
        await clock.advance(15)
        published = await samples(exporter)
    assert published.of("incremental_backups") == 12
    assert published.of("incremental_backups_listing_complete") == 1


@pytest.mark.parametrize("hidden", [False, True])
async def test_backups_of_a_day_are_the_latest_as_soon_as_they_end(
    clock: Clock, hidden: bool
) -> None:
    """As in the API's own example; it filters by begin_time."""
    day = DAY + 240
    instance = make_instance()
    for number in range(3):
        begin = NOON + 600 - (number + 1) * day
        instance.backups.append(SimulatedBackup(f"{number:032x}br07", begin, begin + day, 5.0))
    fill(instance, count=100)
    simulator = make_simulator(
        instance, clock=clock, filter_meaning="begin", hide_running=hidden, order="begin_desc"
    )
    async with running_exporter(simulator) as exporter:
        latest = "incremental_backup_latest_end_timestamp_seconds"
        assert (await samples(exporter)).of(latest) == NOON
        await clock.advance(599)
        assert (await samples(exporter)).of(latest) == NOON
        await clock.advance(2)
        assert (await samples(exporter)).of(latest) == NOON + 600


def fail_whole_windows(clock: Clock, status: int) -> Any:
    def fail(request: RecordedRequest) -> Fault | None:
        begin = time.strptime(request.query["begin_time"][:19], "%Y-%m-%dT%H:%M:%S")
        is_wide = calendar.timegm(begin) < clock() - 30 * HOUR
        return Fault(status=status) if is_wide else None

    return fail


async def test_a_listing_that_keeps_failing_is_told_and_ends_the_belief_in_the_old_one(
    clock: Clock,
) -> None:
    """Eight intervals of an hour; backups are made and answered all the time."""
    instance = make_instance()
    fill(instance, count=600, until=NOON + 9 * HOUR)
    simulator = make_simulator(instance, clock=clock)
    config = make_config(api={"resync_interval": "1h"})
    told = []
    async with running_exporter(simulator, config) as exporter:
        assert (await samples(exporter)).of("incremental_backups_listing_complete") == 1
        simulator.fault_script = fail_whole_windows(clock, 403)
        for _ in range(8 * 12):
            await clock.advance(300)
            published = await samples(exporter)
            success = published.of("scrape_success")
            told.append((success, published.of("incremental_backups_listing_complete")))
            reading = exporter.scraper.view().results[0].reading
            assert (reading is not None and reading.overdue is not None) == (told[-1] == (1, 0))
        errors = published.errors()
        simulator.fault_script = None
        await clock.advance(1000)
        published = await samples(exporter)
    assert [kind for i, kind in enumerate(told) if i == 0 or told[i - 1] != kind] == [
        (1, 1),
        (1, 0),
        (0, None),
    ]
    # Due within the first hour, overdue an hour later, not believed two hours after that.
    assert 12 <= told.index((1, 0)) <= 24
    assert told.index((0, None)) - told.index((1, 0)) == 24
    assert set(errors) == {"forbidden"}
    assert published.of("scrape_success") == 1
    assert published.of("incremental_backups_listing_complete") == 1
