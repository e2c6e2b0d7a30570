"""The numbers of whole scrapes, and the series that are there from the first one on."""

import pytest

from exporter.simulator import Fault, RecordedRequest
from tests.support.clouds import (
    TEN_SECONDS,
    backup_requests,
    make_many,
    make_many_settings,
    make_one,
)
from tests.support.factories import (
    ORDERS,
    REASONS,
    fill,
    make_backup,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.searches import extent
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

# The numbers -----------------------------------------------------------------------------------


async def test_every_number_of_a_small_cloud_is_right(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(
            make_backup(age_hours=30.0, size=5.0),
            make_backup(age_hours=23.0, size=100.0),
            make_backup(age_hours=3.0, size=None),
            make_backup(age_hours=1.0, size=0.5),
            make_backup(age_hours=0.25, size=8.0, running=True),
        ),
        clock=clock,
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.backup_gauges() == {
        "incremental_backups": 4,
        "incremental_backups_size_kilobytes": 108.5,
        "incremental_backups_size_bytes": 108.5 * 1024,
        "incremental_backup_latest_end_timestamp_seconds": NOON - HOUR,
        "incremental_backup_latest_size_bytes": 512.0,
        "incremental_backup_oldest_end_timestamp_seconds": NOON - 23 * HOUR,
        "incremental_backup_max_interval_seconds": 20 * HOUR,
        "incremental_backups_running": 1,
        "incremental_backups_listing_complete": 1,
    }


async def test_a_backup_that_ended_a_lookback_ago_to_the_second_counts(clock: Clock) -> None:
    simulator = make_simulator(make_instance(make_backup(age_hours=24.0)), clock=clock)
    async with running_exporter(simulator) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 1
        await clock.advance(1)
        published = await samples(exporter)
    assert published.of("incremental_backups") == 0
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON - DAY


async def test_the_steady_state_takes_one_request_whatever_the_lookback(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=8 * 288), clock=clock)
    config = make_config(ORDERS, defaults={"lookback": "7d"}, api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter)
        assert first.of("incremental_backups") == 7 * 288 + 1
        requests = len(backup_requests(simulator))
        for scrapes in range(1, 6):
            await clock.advance(60)
            published = await samples(exporter)
            assert published.of("scrape_api_requests") == 1
            assert len(backup_requests(simulator)) == requests + scrapes


async def test_an_instance_without_any_backup_costs_one_request_a_scrape(clock: Clock) -> None:
    simulator = make_simulator(make_instance(), clock=clock)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
        assert published.of("incremental_backups") == 0
        assert "incremental_backup_latest_end_timestamp_seconds" not in published.backup_gauges()
        for _ in range(3):
            await clock.advance(60)
            assert (await samples(exporter)).of("scrape_api_requests") == 1


async def test_the_latest_backup_before_the_lookback_is_found(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=120, until=NOON - 40 * DAY), clock=clock)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 0
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON - 40 * DAY
    # What is new, the first page of the window, and two that look before it.
    assert len(backup_requests(simulator)) <= 4


# What is there from the first scrape on --------------------------------------------------------

ALWAYS = (
    "scrape_success",
    "scrape_duration_seconds",
    "scrape_api_requests",
    "scrape_api_errors",
    "api_requests_total",
    "incremental_backup_stale_after_seconds",
    "incremental_backup_lookback_seconds",
    "instance_info",
)


@pytest.mark.parametrize("fault", [None, Fault(status=500), Fault(hang=True), Fault(status=401)])
async def test_some_series_are_there_from_the_first_scrape_whatever_happens(
    clock: Clock, fault: Fault | None
) -> None:
    simulator = make_one(clock=clock)
    if fault is not None:
        simulator.add_fault(fault, times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter, timeout=TEN_SECONDS)
    for name in ALWAYS:
        assert published.of(name) is not None, name
    reasons = [
        dict(labels)["reason"]
        for name, labels in published
        if name == "gaussdb_mysql_api_errors_total"
    ]
    assert reasons == list(REASONS)
    succeeded = published.of("last_success_timestamp_seconds")
    assert succeeded == (NOON if fault is None else None)


async def test_error_counters_begin_at_zero_and_count_by_reason(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
        for reason in REASONS:
            assert published.of("api_errors_total", reason=reason) == 0
        simulator.add_fault(Fault(status=403), times=2)
        for _ in range(2):
            published = await samples(exporter)
        assert published.errors() == {"forbidden": 2}
        simulator.add_fault(Fault(status=404))
        published = await samples(exporter)
    assert published.errors() == {"forbidden": 2, "not_found": 1}
    assert published.of("scrape_api_errors") == 1


# Deletions and resyncs -------------------------------------------------------------------------


async def test_deleted_backups_are_noticed_at_the_next_resync(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    config = make_config(api={"resync_interval": "1h"})
    async with running_exporter(simulator, config) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 2
        del simulator.instance(ORDERS).backups[1]
        counts = []
        for _ in range(12):
            await clock.advance(300)
            counts.append((await samples(exporter)).of("incremental_backups"))
    assert set(counts) == {2, 1}
    assert counts[-1] == 1
    assert 1 not in counts[: counts.index(1)]
    assert set(counts[counts.index(1) :]) == {1}


async def test_instances_resync_at_different_times(clock: Clock) -> None:
    count = extent(60)
    simulator = make_many(count, clock=clock)
    config = make_config(
        projects=[make_many_settings(count)], api={"resync_interval": "1h", "rate_limit": 0}
    )
    resyncs = []
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        for _ in range(60):
            await clock.advance(60)
            simulator.requests.clear()
            await exporter.scraper.scrape(TEN_SECONDS)
            resyncs.append(len(simulator.requests) - count)
    assert sum(resyncs) == count
    assert max(resyncs) <= 6


async def test_a_resync_that_fails_does_not_fail_the_scrape(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    config = make_config(api={"resync_interval": "1h"})

    def fail_full_listings(request: RecordedRequest) -> Fault | None:
        long_ago = request.query["begin_time"] < "2023-07-27T06"
        return Fault(status=500) if long_ago else None

    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        simulator.fault_script = fail_full_listings
        await clock.advance(3_601)
        published = await samples(exporter)
        assert published.of("scrape_success") == 1
        assert published.of("incremental_backups") == 2
        assert published.errors() == {"server": 1}
