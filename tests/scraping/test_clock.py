"""Scrapes on a machine whose clock is wrong: the numbers are those of the cloud's time."""

from collections.abc import Callable

import httpx
import pytest

from exporter.errors import ConfigError
from exporter.page.state import State, judge
from exporter.simulator import Simulator
from tests.reporting.test_logs import logging_into
from tests.support.clients import Settings
from tests.support.clouds import assert_failed
from tests.support.factories import (
    ORDERS,
    PROJECT,
    fetch_metrics,
    fill,
    make_backup,
    make_config,
    make_exporter,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import HOUR, NOON, Clock

Dating = Callable[[httpx.Request], dict[str, str]]


class DatingTransport(StreamingTransport):
    """A network on which something changes headers of the answers."""

    def __init__(self, cloud: Simulator, dating: Dating) -> None:
        super().__init__(cloud)
        self.dating = dating

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        response.headers.update(self.dating(request))
        return response


def make_cloud(clock: Clock) -> Simulator:
    """Backups every five minutes, the last at noon."""
    return make_simulator(fill(make_instance(), count=24), clock=clock)


@pytest.mark.parametrize("off", [-2 * HOUR, 2 * HOUR, -30 * 24 * HOUR, 120.0])
async def test_a_wrong_clock_changes_no_number_of_the_first_scrape(
    clock: Clock, off: float
) -> None:
    """Two hours slow, it found the latest backup to be two hours old, and said nothing."""
    cloud = make_cloud(clock)
    right = await make_exporter(cloud)
    expected = await samples(right)
    await right.aclose()
    machine = Clock(offset=off)
    async with running_exporter(cloud, clock=machine) as exporter:
        published = await samples(exporter)
    assert published.backup_gauges() == expected.backup_gauges()
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON
    assert published.of("last_success_timestamp_seconds") == pytest.approx(NOON, abs=1)
    assert published.of("clock_skew_seconds", "", project=PROJECT) == pytest.approx(off, abs=1)
    assert published.of("scrape_success") == 1


async def test_a_configuration_that_was_refused_takes_no_clock_away(clock: Clock) -> None:
    """It named another endpoint: the one that stays in force goes on to learn the cloud's time."""
    cloud = make_cloud(clock)
    settings = Settings(make_config())
    refuses = False

    def connect() -> StreamingTransport:
        if refuses:
            raise OSError("no such certificate")
        return StreamingTransport(cloud)

    async with running_exporter(
        cloud, settings, clock=Clock(offset=3 * HOUR), connect=connect
    ) as exporter:
        await samples(exporter)
        elsewhere = make_project_settings(ORDERS, endpoint="https://other.example")
        settings.config = make_config(projects=[elsewhere], api={"timeout": "5s"})
        refuses = True
        with pytest.raises(ConfigError):
            await exporter.reload()
        settings.config = make_config()
        await exporter.reload()
        await clock.advance(60)
        published = await samples(exporter)
    assert published.of("clock_skew_seconds", "") == pytest.approx(3 * HOUR, abs=1)
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON


async def test_a_clock_within_a_minute_costs_no_further_request(clock: Clock) -> None:
    cloud = make_cloud(clock)
    async with running_exporter(cloud, clock=Clock(offset=59.0)) as exporter:
        published = await samples(exporter)
        requests = published.of("scrape_api_requests")
    async with running_exporter(cloud) as exporter:
        assert (await samples(exporter)).of("scrape_api_requests") == requests
    assert published.of("clock_skew_seconds", "", project=PROJECT) == pytest.approx(59, abs=1)


async def test_without_a_date_the_skew_is_absent_and_the_machines_clock_counts(
    clock: Clock,
) -> None:
    cloud = make_simulator(fill(make_instance(), count=24), clock=clock, date="missing")
    async with running_exporter(cloud) as exporter:
        published = await samples(exporter)
    assert published.of("clock_skew_seconds", "", project=PROJECT) is None
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON


@pytest.mark.parametrize(
    "headers",
    [
        {"Date": "Fri, 28 Jul 2023 01:00:00 GMT", "Age": "39600"},
        {"Date": "Fri, 28 Jul 2023 01:00:00 GMT", "Age": "0"},
        {"Date": "yesterday"},
        {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ],
    ids=["of a cache", "of a cache just now", "nonsense", "1970"],
)
async def test_a_date_that_is_not_the_clouds_own_moves_nothing(
    clock: Clock, headers: dict[str, str]
) -> None:
    cloud = make_cloud(clock)
    transport = DatingTransport(cloud, lambda request: headers)
    async with running_exporter(cloud, transport=transport) as exporter:
        published = await samples(exporter)
    assert published.of("clock_skew_seconds", "", project=PROJECT) is None
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON


async def test_one_answer_with_a_strange_date_changes_no_number(clock: Clock) -> None:
    cloud = make_cloud(clock)
    strange = iter([{}, {"Date": "Fri, 28 Jul 2023 02:00:00 GMT"}])
    transport = DatingTransport(cloud, lambda request: next(strange, {}))
    async with running_exporter(cloud, transport=transport) as exporter:
        first = await samples(exporter)
        await clock.advance(60)
        second = await samples(exporter)
    assert first.backup_gauges() == second.backup_gauges()


async def test_a_clock_that_is_set_between_scrapes_changes_no_number(clock: Clock) -> None:
    cloud, machine = make_cloud(clock), Clock()
    async with running_exporter(cloud, clock=machine) as exporter:
        before = await samples(exporter)
        for off in (-2 * HOUR, 5 * HOUR, 0.0):
            machine.offset = off
            await clock.advance(1)
            after = await samples(exporter)
            assert after.backup_gauges() == before.backup_gauges()
            assert after.of("scrape_success") == 1


async def test_a_clock_that_is_set_during_a_scrape_changes_no_number(clock: Clock) -> None:
    cloud, machine = make_cloud(clock), Clock()

    def dating(request: httpx.Request) -> dict[str, str]:
        machine.offset = 3 * HOUR  # after the question was put, before its answer was read
        return {}

    transport = DatingTransport(cloud, lambda request: {})
    async with running_exporter(cloud, clock=machine, transport=transport) as exporter:
        before = await samples(exporter)
        transport.dating = dating
        await clock.advance(60)
        after = await samples(exporter)
    assert after.backup_gauges() == before.backup_gauges()


async def test_a_clock_that_is_set_right_during_a_scrape_has_it_ask_again(clock: Clock) -> None:
    """No answer tells the time, so the machine's counts. What was asked by the old one ends a
    while ago: what has ended since would be missed, though the answer was complete."""
    cloud = make_simulator(fill(make_instance(), count=24), clock=clock, date="missing")
    machine = Clock(offset=-1_200.0)

    def dating(request: httpx.Request) -> dict[str, str]:
        machine.offset = 0.0
        return {}

    transport = DatingTransport(cloud, lambda request: {})
    async with running_exporter(cloud, clock=machine, transport=transport) as exporter:
        await samples(exporter)
        transport.dating = dating
        await clock.advance(60)
        after = await samples(exporter)
    assert after.of("incremental_backups") == 24
    assert after.of("incremental_backup_latest_end_timestamp_seconds") == NOON


async def test_set_back_during_a_scrape_the_latest_by_then_is_looked_for(clock: Clock) -> None:
    """No answer tells the time. Of two hours ago nothing was known any more, and the instance was
    told as one that has no backup."""
    cloud = make_simulator(
        fill(make_instance(), count=200, every_seconds=60.0), clock=clock, date="missing"
    )
    machine = Clock()

    def dating(request: httpx.Request) -> dict[str, str]:
        machine.offset = -2 * HOUR
        return {}

    transport = DatingTransport(cloud, lambda request: {})
    config = make_config(defaults={"lookback": "5m"}, api={"rate_limit": 2})
    async with running_exporter(cloud, config, clock=machine, transport=transport) as exporter:
        await samples(exporter)
        transport.dating = dating
        meanwhile = await samples(exporter, timeout=3.0)
        await clock.advance(15)
        after = await samples(exporter)
    assert_failed(meanwhile, "deadline")
    assert after.of("scrape_success") == 1
    assert after.of("incremental_backup_latest_end_timestamp_seconds") == NOON - 2 * HOUR


async def test_the_latest_that_is_told_before_the_window_is_listed_is_the_clouds_latest(
    clock: Clock,
) -> None:
    """The first question was for two hours ago; the rest of the window takes longer than there is
    time for."""
    cloud = make_simulator(
        fill(make_instance(), count=2_000, every_seconds=30.0), clock=clock, latency_seconds=1.0
    )
    async with running_exporter(cloud, clock=Clock(offset=-2 * HOUR)) as exporter:
        published = await samples(exporter, timeout=9.0)
    assert published.of("incremental_backups") is None
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON


async def test_a_machine_that_was_stopped_as_a_whole_finds_what_was_made_meanwhile(
    clock: Clock,
) -> None:
    """For it no time has passed; the answers tell that eight hours have."""
    cloud, machine = make_cloud(clock), Clock()
    async with running_exporter(cloud, clock=machine) as exporter:
        await samples(exporter)
        clock.offset = 8 * HOUR
        instance = next(iter(cloud.projects[PROJECT].instances.values()))
        instance.backups.append(make_backup(now=NOON + 8 * HOUR, age_hours=0.5))
        after = await samples(exporter)
    assert after.of("incremental_backup_latest_end_timestamp_seconds") == NOON + 7.5 * HOUR
    assert after.of("incremental_backup_max_interval_seconds") == 7.5 * HOUR


@pytest.mark.parametrize("is_asleep", [True, False], ids=["asleep", "stopped as a whole"])
async def test_what_was_listed_before_a_machine_stood_still_is_not_told_after_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, is_asleep: bool
) -> None:
    """The window was listed just after the first scrape had ended. The next one told its numbers
    without a request: by the time that the machine had been up, it was two seconds old."""
    slept = 0.0
    monkeypatch.setattr("exporter.transport.clock.slept_seconds", lambda: slept)
    cloud = make_simulator(fill(make_instance(), count=12), clock=clock, latency_seconds=1.0)
    machine = Clock()
    config = make_config(defaults={"lookback": "4h"}, scrape={"timeout_offset": "0s"})
    async with running_exporter(cloud, config, clock=machine) as exporter:
        await samples(exporter, timeout=2.5)
        await clock.advance(2)
        clock.offset = 8 * HOUR
        if is_asleep:
            slept = machine.offset = 8 * HOUR
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert published.of("incremental_backups") == 0
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON


async def test_a_signature_of_the_wrong_time_is_made_again_and_locks_no_key(clock: Clock) -> None:
    cloud = make_cloud(clock)
    async with running_exporter(
        cloud, make_config(auth="aksk"), clock=Clock(offset=-2 * HOUR)
    ) as exporter:
        first = await samples(exporter)
        refused = [request.status for request in cloud.requests if request.status == 401]
        for _ in range(5):
            await clock.advance(60)
            published = await samples(exporter)
    assert first.of("scrape_success") == 1
    assert len(refused) == 1
    assert [request.status for request in cloud.requests].count(401) == 1
    assert published.of("scrape_success") == 1


async def test_it_is_told_once_and_shown_to_people(clock: Clock) -> None:
    cloud = make_simulator(make_instance(make_backup(age_hours=0.5)), clock=clock)
    machine = Clock(offset=2 * HOUR)
    with logging_into() as written:
        async with running_exporter(cloud, clock=machine) as exporter:
            for _ in range(3):
                await fetch_metrics(exporter)
                await clock.advance(60)
            view = exporter.scraper.view()
    (told,) = written.named("this machine's clock differs from the cloud's")
    assert (told["level"], told["skew_seconds"]) == ("warning", 7200)
    (result,) = view.results
    assert result.instance.id == ORDERS
    # By the machine's own clock the backup would be two and a half hours old.
    assert judge(result, now=machine()).state is State.OK
    (project,) = view.projects
    assert project.clock_ahead_seconds == pytest.approx(2 * HOUR, abs=1)
