"""A scrape's deadline, and the queries that two scrapes share. Time is virtual."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from exporter.simulator import Fault
from tests.support.clouds import (
    TEN_SECONDS,
    assert_failed,
    backup_requests,
    make_many,
    make_many_settings,
    make_one,
)
from tests.support.factories import (
    ORDERS,
    PROJECT,
    fetch_metrics,
    fill,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.searches import extent
from tests.support.virtual_time import Clock

# The deadline ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [("10", 9.5), ("3.25", 2.75), (None, 30.0), ("600", 30.0), ("soon", 30.0), ("-1", 30.0)],
)
async def test_deadline_is_what_prometheus_names_less_the_offset_or_the_configured_timeout(
    clock: Clock, header: Any, expected: float
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(hang=True), times=None)
    config = make_config(api={"timeout": "5m"})
    async with running_exporter(simulator, config) as exporter:
        scrape = await fetch_metrics(exporter, timeout=header)
    assert scrape.seconds == pytest.approx(expected, abs=0.01)
    assert scrape.seconds <= expected
    assert_failed(scrape.samples, "deadline")


async def test_many_instances_are_answered_at_the_deadline_when_some_hang(
    clock: Clock,
) -> None:
    count = extent(1_000)
    simulator = make_many(count, clock=clock)
    hanging = {instance_id(number) for number in range(0, count, 33)}
    for id_ in hanging:
        simulator.add_fault(Fault(hang=True), instance_id=id_, times=None)
    config = make_config(projects=[make_many_settings(count)], api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
        published = scrape.samples
    assert 8.5 <= scrape.seconds <= 9.5  # rendering a thousand instances takes its share
    success = published.by_instance("scrape_success")
    assert {id_ for id_, value in success.items() if value == 0} == hanging
    assert len(success) == count
    counts = published.by_instance("incremental_backups")
    assert counts == dict.fromkeys(success.keys() - hanging, 2)
    # Of the others what is new, and the rest of the window.
    assert len(backup_requests(simulator)) == 2 * count - len(hanging)
    for id_ in hanging:
        assert_failed(published, "deadline", id_)


async def test_many_instances_are_answered_at_the_deadline_when_all_hang(
    clock: Clock,
) -> None:
    count = extent(1_000)
    simulator = make_many(count, clock=clock)
    simulator.add_fault(Fault(hang=True), times=None)
    config = make_config(projects=[make_many_settings(count)])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
            assert scrape.seconds <= 9.5
            assert set(scrape.samples.by_instance("scrape_success").values()) == {0}
            await clock.advance(15 - scrape.seconds)


async def test_instances_that_were_cut_off_go_first_next_time(clock: Clock) -> None:
    simulator = make_many(12, clock=clock)
    config = make_config(projects=[make_many_settings(12)], api={"max_connections": 4})
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(60)
        simulator.knobs = replace(simulator.knobs, latency_seconds=1.0)
        first = (await samples(exporter, timeout=3.0)).by_instance("scrape_success")
        cut_off = {id_ for id_, value in first.items() if value == 0}
        assert len(cut_off) == 4
        await clock.advance(60)
        simulator.requests.clear()
        await samples(exporter, timeout=TEN_SECONDS)
    assert {request.instance_id for request in list(simulator.requests)[:4]} == cut_off


async def test_every_instance_gets_its_turn_when_no_scrape_has_time_for_all(clock: Clock) -> None:
    simulator = make_many(30, clock=clock, latency_seconds=1.0)
    config = make_config(projects=[make_many_settings(30)], api={"max_connections": 5})
    succeeded: set[str] = set()
    async with running_exporter(simulator, config) as exporter:
        for _ in range(4):
            published = await samples(exporter, timeout=3.0)
            by_instance = published.by_instance("scrape_success")
            succeeded |= {id_ for id_, value in by_instance.items() if value}
            await clock.advance(15)
    assert len(succeeded) == 30


async def test_a_query_that_was_cut_off_goes_on_and_the_next_scrape_joins_it(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    release = asyncio.Event()
    config = make_config(api={"timeout": "1m"})
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        simulator.add_fault(Fault(hold=release))
        simulator.requests.clear()
        assert_failed(await samples(exporter, timeout=TEN_SECONDS), "deadline")
        await clock.advance(5)
        asyncio.get_running_loop().call_later(2.0, release.set)
        joined = await samples(exporter, timeout=TEN_SECONDS)
    assert joined.of("incremental_backups") == 2
    assert joined.errors() == {"deadline": 1}
    assert len(backup_requests(simulator)) == 1


async def test_pages_that_were_read_before_the_deadline_are_not_read_again(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=500), clock=clock, latency_seconds=1.0)
    config = make_config(
        ORDERS, api={"max_connections": 1}, scrape={"timeout_offset": "0s"}, defaults={}
    )
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter, timeout=5.0)
        assert first.of("scrape_success") == 1
        assert first.of("incremental_backup_latest_end_timestamp_seconds") is not None
        assert first.of("incremental_backups") is None
        assert first.of("incremental_backups_listing_complete") == 0
        await clock.advance(10)
        published = await samples(exporter, timeout=30.0)
    assert published.of("incremental_backups") == 288
    assert published.of("incremental_backups_listing_complete") == 1
    day_ago = "2023-07-27T12"
    pages = [
        request.query["offset"]
        for request in backup_requests(simulator)
        if request.query["begin_time"] < day_ago
    ]
    assert len(pages) == len(set(pages)) == 10


async def test_a_deadline_of_nothing_is_answered_at_once(clock: Clock) -> None:
    simulator = make_many(20, clock=clock)
    config = make_config(projects=[make_many_settings(20)], scrape={"timeout_offset": "10s"})
    async with running_exporter(simulator, config) as exporter:
        scrape = await fetch_metrics(exporter, timeout=5.0)
    assert scrape.status == 200
    assert scrape.seconds == 0


# One query at a time ---------------------------------------------------------------------------


async def test_two_scrapes_at_once_share_one_query_per_instance(clock: Clock) -> None:
    simulator = make_many(20, clock=clock, latency_seconds=1.0)
    config = make_config(projects=[make_many_settings(20)])
    async with running_exporter(simulator, config) as exporter:
        first = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        second = await samples(exporter)
        assert (await first).by_instance("incremental_backups") == second.by_instance(
            "incremental_backups"
        )
    assert set(second.by_instance("incremental_backups").values()) == {2}
    assert len(backup_requests(simulator)) == 2 * 20  # what is new, and the rest of the window


async def test_a_probe_shares_the_query_of_a_scrape(clock: Clock) -> None:
    simulator = make_one(clock=clock, latency_seconds=1.0)
    async with running_exporter(simulator) as exporter:
        scraping = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        probed = await samples(exporter, path=f"/probe?project={PROJECT}&instance={ORDERS}")
        await scraping
    assert probed.of("incremental_backups") == 2
    assert len(backup_requests(simulator)) == 2  # what is new, and the rest of the window


async def test_a_scrape_that_comes_sooner_than_min_interval_is_answered_from_the_last(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    config = make_config(scrape={"min_interval": "30s"})
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter)
        simulator.requests.clear()
        await clock.advance(29)
        simulator.instance(ORDERS).backups.append(make_backup(age_hours=0.01))
        sooner = await samples(exporter)
        assert sooner.backup_gauges() == first.backup_gauges()
        assert not simulator.requests
        await clock.advance(2)
        later = await samples(exporter)
    assert later.of("incremental_backups") == 3
    assert len(backup_requests(simulator)) == 1


async def test_a_scraper_that_hangs_up_cancels_nothing_that_another_waits_for(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock, latency_seconds=2.0)
    async with running_exporter(simulator) as exporter:
        impatient = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        patient = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        impatient.cancel()
        assert (await patient).of("incremental_backups") == 2
        with pytest.raises(asyncio.CancelledError):
            await impatient
    assert len(backup_requests(simulator)) == 2  # what is new, and the rest of the window


async def test_a_query_whose_scraper_hung_up_serves_the_next_scrape(clock: Clock) -> None:
    simulator = make_one(clock=clock, latency_seconds=2.0)
    async with running_exporter(simulator) as exporter:
        impatient = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        impatient.cancel()
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert len(backup_requests(simulator)) == 2  # what is new, and the rest of the window


async def test_a_scrape_tells_the_cost_of_its_own_query_alone(clock: Clock) -> None:
    """One of a pair waits for a slow instance while the other asks the fast one anew."""
    simulator = make_many(2, clock=clock)
    fast, slow = instance_id(0), instance_id(1)
    config = make_config(projects=[make_many_settings(2)])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        simulator.fault_script = lambda request: (
            Fault(delay_seconds=8) if request.instance_id == slow else None
        )
        first = asyncio.create_task(samples(exporter, timeout=TEN_SECONDS))
        await clock.advance(5)
        simulator.instance(fast).failure = Fault(status=500)
        second = await samples(exporter, timeout=1.0)
        assert second.of("scrape_success", fast) == 0
        assert second.of("scrape_api_errors", fast) == 1
        published = await first
        assert published.of("scrape_success", fast) == 1
        assert published.of("scrape_api_requests", fast) == 1
        assert published.of("scrape_api_errors", fast) == 0
        assert published.of("api_requests_total", fast) == 4  # two of them after the start
        view = exporter.scraper.view()
        assert view is not None
        shown = {result.instance.id: result.failure for result in view.results}
        assert shown[fast] is not None  # the page has the newer of the two
