"""A scrape against a cloud that is slow, hangs, throttles, refuses and lies. Time is virtual."""

import asyncio
import itertools
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.backups.sync import InstanceSync
from exporter.models import Reading
from exporter.simulator import ROW_SPOILERS, Fault, RateLimit, RecordedRequest, Simulator
from tests.support.factories import (
    BACKUP_GAUGES,
    BILLING,
    ORDERS,
    OTHER_PROJECT,
    PASSWORD,
    PROJECT,
    REASONS,
    Samples,
    fetch_metrics,
    fill,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import RESET, StreamingTransport
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

MIB = 1024 * 1024
TEN_SECONDS = 10.0  # Prometheus' own default of scrape_timeout

# A few cloud shapes ----------------------------------------------------------------------------


def make_many(count: int, *, clock: Clock, **knobs: Any) -> Simulator:
    """One project with so many instances, each with two backups."""
    instances = [
        make_instance(
            make_backup(age_hours=1.0), make_backup(age_hours=2.0), id=instance_id(number)
        )
        for number in range(count)
    ]
    return make_simulator(*instances, clock=clock, **knobs)


def make_many_settings(count: int, **more: Any) -> dict[str, Any]:
    return make_project_settings(*map(instance_id, range(count)), **more)


def make_one(*, clock: Clock, **knobs: Any) -> Simulator:
    """ORDERS with two backups, of 1024 and 512 KB, one and two hours old."""
    return make_simulator(
        make_instance(
            make_backup(age_hours=1.0, size=1024.0), make_backup(age_hours=2.0, size=512.0)
        ),
        clock=clock,
        **knobs,
    )


def assert_failed(published: Samples, reason: str, instance: str = ORDERS) -> None:
    """Not one number, and why."""
    assert published.of("scrape_success", instance) == 0
    assert published.backup_gauges(instance) == {}
    assert published.errors(instance).keys() == {reason}


def backup_requests(simulator: Simulator, instance: str | None = None) -> list[RecordedRequest]:
    return simulator.requests_of("list_backups", instance)


def seconds_of(requests: Sequence[RecordedRequest]) -> list[float]:
    """When they came, in seconds since noon."""
    return [request.at - NOON for request in requests]


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
    assert len(backup_requests(simulator)) <= 3


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


async def test_a_thousand_instances_are_answered_at_the_deadline_when_some_hang(
    clock: Clock,
) -> None:
    simulator = make_many(1_000, clock=clock)
    hanging = {instance_id(number) for number in range(0, 1_000, 33)}
    for id_ in hanging:
        simulator.add_fault(Fault(hang=True), instance_id=id_, times=None)
    config = make_config(projects=[make_many_settings(1_000)], api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
        published = scrape.samples
    assert 8.5 <= scrape.seconds <= 9.5  # rendering a thousand instances takes its share
    success = published.by_instance("scrape_success")
    assert {id_ for id_, value in success.items() if value == 0} == hanging
    assert len(success) == 1_000
    counts = published.by_instance("incremental_backups")
    assert counts == dict.fromkeys(success.keys() - hanging, 2)
    assert len(backup_requests(simulator)) == 1_000
    for id_ in hanging:
        assert_failed(published, "deadline", id_)


async def test_a_thousand_instances_are_answered_at_the_deadline_when_all_hang(
    clock: Clock,
) -> None:
    simulator = make_many(1_000, clock=clock)
    simulator.add_fault(Fault(hang=True), times=None)
    config = make_config(projects=[make_many_settings(1_000)])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
            assert scrape.seconds <= 9.5
            assert set(scrape.samples.by_instance("scrape_success").values()) == {0}
            await clock.advance(15 - scrape.seconds)


async def test_instances_that_were_cut_off_go_first_next_time(clock: Clock) -> None:
    simulator = make_many(12, clock=clock, latency_seconds=1.0)
    config = make_config(projects=[make_many_settings(12)], api={"max_connections": 4})
    async with running_exporter(simulator, config) as exporter:
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
        assert_failed(await samples(exporter, timeout=5.0), "deadline")
        await clock.advance(10)
        published = await samples(exporter, timeout=30.0)
    assert published.of("incremental_backups") == 288
    pages = [request.query["offset"] for request in backup_requests(simulator)][:-1]
    assert len(pages) == len(set(pages))


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
    assert len(backup_requests(simulator)) == 20


async def test_a_probe_shares_the_query_of_a_scrape(clock: Clock) -> None:
    simulator = make_one(clock=clock, latency_seconds=1.0)
    async with running_exporter(simulator) as exporter:
        scraping = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        probed = await samples(exporter, path=f"/probe?project={PROJECT}&instance={ORDERS}")
        await scraping
    assert probed.of("incremental_backups") == 2
    assert len(backup_requests(simulator)) == 1


async def test_a_scrape_that_comes_sooner_than_min_interval_is_answered_from_the_last(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    config = make_config(scrape={"min_interval": "30s"})
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter)
        await clock.advance(29)
        simulator.instance(ORDERS).backups.append(make_backup(age_hours=0.01))
        sooner = await samples(exporter)
        assert sooner.backup_gauges() == first.backup_gauges()
        assert len(backup_requests(simulator)) == 1
        await clock.advance(2)
        later = await samples(exporter)
    assert later.of("incremental_backups") == 3
    assert len(backup_requests(simulator)) == 2


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
    assert len(backup_requests(simulator)) == 1


async def test_a_query_whose_scraper_hung_up_serves_the_next_scrape(clock: Clock) -> None:
    simulator = make_one(clock=clock, latency_seconds=2.0)
    async with running_exporter(simulator) as exporter:
        impatient = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        impatient.cancel()
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert len(backup_requests(simulator)) == 1


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
        assert published.of("api_requests_total", fast) == 3
        view = exporter.scraper.view()
        assert view is not None
        shown = {result.instance.id: result.failure for result in view.results}
        assert shown[fast] is not None  # the page has the newer of the two


# Failures stay where they are ------------------------------------------------------------------


async def test_the_failure_of_one_instance_stays_its_own(clock: Clock) -> None:
    simulator = make_many(10, clock=clock)
    simulator.instance(instance_id(3)).failure = Fault(status=500)
    config = make_config(projects=[make_many_settings(10)])
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter)
    assert_failed(published, "server", instance_id(3))
    counts = published.by_instance("incremental_backups")
    assert counts == {instance_id(number): 2 for number in range(10) if number != 3}


async def test_a_mistake_in_the_exporter_fails_its_instance_alone(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = InstanceSync.refresh

    async def broken(self: InstanceSync, *arguments: Any) -> Reading:
        if self._instance.id == instance_id(1):
            raise ZeroDivisionError
        return await refresh(self, *arguments)

    monkeypatch.setattr(InstanceSync, "refresh", broken)
    simulator = make_many(3, clock=clock)
    config = make_config(projects=[make_many_settings(3)])
    with capture_logs() as entries:
        async with running_exporter(simulator, config) as exporter:
            published = await samples(exporter)
    assert_failed(published, "bad_response", instance_id(1))
    assert published.by_instance("scrape_success") == {
        instance_id(0): 1,
        instance_id(1): 0,
        instance_id(2): 1,
    }
    (told,) = [entry for entry in entries if entry["log_level"] == "error"]
    assert (told["event"], told["instance"]) == ("query broke", instance_id(1))


async def test_a_failed_query_publishes_no_number_not_even_an_old_one(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator) as exporter:
        assert len((await samples(exporter)).backup_gauges()) == len(BACKUP_GAUGES)
        await clock.advance(60)
        simulator.add_fault(Fault(status=500))
        failed = await samples(exporter)
        assert_failed(failed, "server")
        assert failed.of("last_success_timestamp_seconds") == NOON
        await clock.advance(60)
        recovered = await samples(exporter)
    assert recovered.of("incremental_backups") == 2
    assert recovered.of("last_success_timestamp_seconds") == NOON + 120


async def test_the_last_reading_of_a_failing_instance_is_remembered_for_people(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator) as exporter:
        await samples(exporter)
        await clock.advance(HOUR)
        simulator.add_fault(Fault(status=404))
        await samples(exporter)
        view = exporter.scraper.view()
    assert view is not None
    (result,) = view.results
    assert result.reading is None
    assert result.last_reading is not None
    assert (result.last_reading.at, result.last_reading.count) == (NOON, 2)
    assert result.last_end == NOON - HOUR


async def test_a_project_that_hangs_does_not_starve_another(clock: Clock) -> None:
    hanging = make_project(
        *(make_instance(make_backup(), id=instance_id(number)) for number in range(200))
    )
    healthy = make_project(
        *(make_instance(make_backup(), id=instance_id(number)) for number in range(500, 520)),
        id=OTHER_PROJECT,
    )
    simulator = make_simulator(hanging, healthy, clock=clock)

    def hang(request: RecordedRequest) -> Fault | None:
        return Fault(hang=True) if request.project_id == PROJECT else None

    simulator.fault_script = hang
    async with running_exporter(simulator) as exporter:
        for _ in range(3):
            scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
            success = scrape.samples.by_instance("scrape_success")
            assert {id_ for id_, value in success.items() if value} == set(healthy.instances)
            await clock.advance(15 - scrape.seconds)


async def test_a_discovery_that_hangs_keeps_no_known_instance_from_being_asked(
    clock: Clock,
) -> None:
    simulator = make_simulator(
        make_project(make_instance(make_backup(), id=ORDERS)),
        make_project(make_instance(make_backup(), id=BILLING), id=OTHER_PROJECT),
        clock=clock,
    )
    simulator.add_fault(Fault(hang=True), "list_instances", times=None)
    config = make_config(
        projects=[
            make_project_settings(ORDERS),
            make_project_settings(id=OTHER_PROJECT, discovery={"enabled": True}),
        ]
    )
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
            assert scrape.samples.of("incremental_backups", ORDERS) == 1
            assert scrape.samples.of("discovery_success", "", project=OTHER_PROJECT) == 0
            await clock.advance(15 - scrape.seconds)


async def test_what_is_discovered_is_asked_while_another_discovery_hangs(clock: Clock) -> None:
    simulator = make_simulator(
        make_project(make_instance(make_backup(), id=ORDERS)),
        make_project(make_instance(make_backup(), id=BILLING), id=OTHER_PROJECT),
        clock=clock,
    )

    def slow(request: RecordedRequest) -> Fault | None:
        if request.operation != "list_instances":
            return None
        return Fault(hang=True) if request.project_id == OTHER_PROJECT else Fault(delay_seconds=3)

    simulator.fault_script = slow
    config = make_config(
        projects=[
            make_project_settings(id=id, discovery={"enabled": True})
            for id in (PROJECT, OTHER_PROJECT)
        ]
    )
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter, timeout=TEN_SECONDS)
        assert first.by_instance("incremental_backups") == {ORDERS: 1}
        assert first.of("scrape_duration_seconds") == 0


async def test_an_instance_that_goes_and_comes_back_is_published_once(clock: Clock) -> None:
    """While a scrape waits for another project's first discovery."""
    simulator = make_simulator(
        make_project(
            make_instance(make_backup(), id=ORDERS), make_instance(make_backup(), id=BILLING)
        ),
        make_project(id=OTHER_PROJECT),
        clock=clock,
    )
    project = simulator.projects[PROJECT]
    both = dict(project.instances)

    def hang(request: RecordedRequest) -> Fault | None:
        if (request.operation, request.project_id) == ("list_instances", OTHER_PROJECT):
            return Fault(hang=True)
        return None

    simulator.fault_script = hang
    settings = {"enabled": True, "refresh_interval": "1s"}
    config = make_config(
        projects=[
            make_project_settings(id=id, discovery=settings) for id in (PROJECT, OTHER_PROJECT)
        ],
    )
    probe = f"/probe?project={PROJECT}&instance={BILLING}"
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter, path=probe)
        scraping = asyncio.create_task(samples(exporter, timeout=25.0))
        for instances in ({BILLING: both[BILLING]}, both):
            project.instances = dict(instances)
            await clock.advance(2)
            for _ in range(2):  # the first asks, the second sees
                await samples(exporter, path=probe)
                await clock.advance(0.5)
        published = await scraping  # two series of one instance would be refused
    # The one that came back was seen at the deadline alone.
    assert published.by_instance("scrape_success") == {ORDERS: 0, BILLING: 1}
    assert published.backup_gauges(ORDERS) == {}


async def test_instances_follow_what_discovery_finds(clock: Clock) -> None:
    """One is new, one has another name, one is gone while it is being asked."""
    simulator = make_many(3, clock=clock)
    project = simulator.projects[PROJECT]
    late = project.instances.pop(instance_id(0))
    settings = make_project_settings(discovery={"enabled": True, "refresh_interval": "1m"})
    async with running_exporter(simulator, make_config(projects=[settings])) as exporter:
        first = await samples(exporter)
        assert first.by_instance("scrape_success") == {instance_id(1): 1, instance_id(2): 1}
        await clock.advance(61)
        orders = project.instances[instance_id(1)]
        orders.name = "orders"
        project.instances = {late.id: late, orders.id: orders}

        def hang(request: RecordedRequest) -> Fault | None:
            return Fault(hang=True) if request.instance_id == instance_id(2) else None

        simulator.fault_script = hang
        before = await fetch_metrics(exporter, timeout=TEN_SECONDS)  # asks while it is listed
        assert before.samples.by_instance("scrape_success") == {
            instance_id(1): 1,
            instance_id(2): 0,
        }
        after = await fetch_metrics(exporter, timeout=TEN_SECONDS)
        assert list(after.samples.by_instance("scrape_success").items()) == [
            (instance_id(0), 1),
            (instance_id(1), 1),
        ]
        assert after.samples.of("instance_info", instance_id(1), instance_name="orders") == 1
        assert after.seconds < 1  # nobody waits for the one that is gone


# Retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=429), "throttled"),
        (Fault(status=502, form="html"), "server"),
        (Fault(status=503), "server"),
        (Fault(status=504, form="empty"), "server"),
        (RESET, "network"),
        (Fault(cut_after_bytes=0), "network"),
        (Fault(cut_after_bytes=40), "network"),
        (Fault(hang=True), "timeout"),
        (Fault(chunk_bytes=1, chunk_pause_seconds=1.0), "timeout"),
    ],
)
async def test_a_passing_fault_is_retried_and_mended(
    clock: Clock, fault: Fault, reason: str
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(fault, times=2)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    # After a listing that took long comes a look at what is new since it began.
    requests = 4 if reason == "timeout" else 3
    assert published.of("scrape_api_requests") == requests == len(simulator.requests)
    assert published.of("scrape_api_errors") == 2
    assert published.errors() == {reason: 2}


@pytest.mark.parametrize("status", [502, 503, 504, 429])
async def test_no_more_is_tried_than_configured(clock: Clock, status: int) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=status), times=None)
    async with running_exporter(simulator, make_config(api={"retries": 1})) as exporter:
        published = await samples(exporter)
    assert_failed(published, "throttled" if status == 429 else "server")
    assert len(backup_requests(simulator)) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "bad_request"),
        (403, "forbidden"),
        (404, "not_found"),
        (500, "server"),
        (204, "bad_response"),
        (302, "bad_response"),
    ],
)
async def test_an_answer_that_would_not_change_is_not_asked_for_again(
    clock: Clock, status: int, reason: str
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=status, headers={"Location": "https://elsewhere.example/"}))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, reason)
    assert published.errors() == {reason: 1}
    assert len(simulator.requests) == 1


async def test_retries_wait_at_random_up_to_a_bound_that_doubles(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=502), times=3)
    bounds: list[tuple[float, float]] = []

    def half(low: float, high: float) -> float:
        bounds.append((low, high))
        return high / 2

    config = make_config(api={"retries": 3})
    async with running_exporter(simulator, config, jitter=half) as exporter:
        await samples(exporter)
    assert bounds == [(0.0, 0.5), (0.0, 1.0), (0.0, 2.0)]
    assert seconds_of(backup_requests(simulator)) == [0.0, 0.25, 0.75, 1.75]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_waits_for_the_announced_time(clock: Clock, status: int, as_date: bool) -> None:
    value = formatdate(NOON + 4, usegmt=True) if as_date else "4"
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=status, headers={"Retry-After": value}))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert seconds_of(backup_requests(simulator)) == [0.0, 4.0]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_announced_time_past_the_deadline_fails_at_once(clock: Clock, status: int) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=status, headers={"Retry-After": "60"}), times=None)
    async with running_exporter(simulator) as exporter:
        scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
    assert scrape.seconds == 0
    assert_failed(scrape.samples, "throttled" if status == 429 else "server")
    assert len(backup_requests(simulator)) == 1


async def test_no_retry_is_sent_after_the_deadline(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=502, delay_seconds=4.0), times=None)
    config = make_config(api={"retries": 10}, scrape={"timeout_offset": "0s"})
    async with running_exporter(simulator, config) as exporter:
        scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
        assert scrape.seconds <= TEN_SECONDS
        await clock.advance(60)
    assert all(at < TEN_SECONDS for at in seconds_of(backup_requests(simulator)))


# Throttling ------------------------------------------------------------------------------------

OVER_THE_LIMIT = Fault(
    status=429, form="gateway", message="policy user over ratelimit,limit:200,time:5 minute"
)
FIVE_MINUTES = Fault(status=429, form="gateway", headers={"Retry-After": "300"})


async def test_passing_429s_are_mended_within_the_scrape_whatever_period_they_name(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    simulator.add_fault(OVER_THE_LIMIT, times=2)
    config = make_config(projects=[make_many_settings(50)])
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter, timeout=TEN_SECONDS)
    assert set(published.by_instance("scrape_success").values()) == {1}


async def test_lasting_429s_are_asked_about_once_in_a_while_up_to_the_period_they_name(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    simulator.add_fault(OVER_THE_LIMIT, times=None)
    config = make_config(projects=[make_many_settings(50)], api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        while clock() < NOON + HOUR:
            published = await samples(exporter, timeout=TEN_SECONDS)
            assert set(published.by_instance("scrape_success").values()) == {0}
            await clock.advance(15)
    last_half = [at for at in seconds_of(backup_requests(simulator)) if at > HOUR / 2]
    assert len(last_half) <= 6
    assert all(b - a >= 300 for a, b in itertools.pairwise(last_half))


async def test_after_a_429_the_whole_project_falls_silent_for_the_time_that_is_named(
    clock: Clock,
) -> None:
    simulator = make_many(500, clock=clock, latency_seconds=0.25)
    simulator.add_fault(FIVE_MINUTES, times=None)
    config = make_config(projects=[make_many_settings(500)], api={"max_connections": 10})
    async with running_exporter(simulator, config) as exporter:
        first = await samples(exporter, timeout=TEN_SECONDS)
        assert set(first.by_instance("scrape_success").values()) == {0}
        assert len(simulator.requests) <= 10  # those in flight, and not one more
        simulator.requests.clear()
        for _ in range(4):
            await clock.advance(60)
            scrape = await fetch_metrics(exporter, timeout=TEN_SECONDS)
            assert scrape.seconds == 0
            assert set(scrape.samples.by_instance("scrape_success").values()) == {0}
            assert scrape.samples.errors(instance_id(499)).keys() == {"throttled"}
    assert not simulator.requests


async def test_after_the_silence_one_request_goes_first(clock: Clock) -> None:
    simulator = make_many(100, clock=clock, latency_seconds=0.25)
    simulator.add_fault(FIVE_MINUTES, times=None)
    config = make_config(projects=[make_many_settings(100)], api={"max_connections": 10})
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter, timeout=TEN_SECONDS)
        await clock.advance(301)
        simulator.requests.clear()
        still = await samples(exporter, timeout=TEN_SECONDS)
        assert len(simulator.requests) == 1
        assert set(still.by_instance("scrape_success").values()) == {0}
        await clock.advance(301)
        simulator.clear_faults()
        simulator.requests.clear()
        begun = clock()
        published = await samples(exporter, timeout=TEN_SECONDS)
    assert set(published.by_instance("scrape_success").values()) == {1}
    times = [request.at - begun for request in simulator.requests]
    assert times[0] == 0
    assert times[1] >= 0.25
    assert len(times) == 100


async def test_a_429_without_a_hint_backs_off_longer_each_time(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=429), times=4)
    config = make_config(api={"retries": 4})
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert seconds_of(backup_requests(simulator))[:5] == [0.0, 1.0, 3.0, 7.0, 15.0]


async def test_the_silence_of_one_project_is_not_that_of_another(clock: Clock) -> None:
    throttled = make_project(make_instance(make_backup(), id=ORDERS))
    other = make_project(make_instance(make_backup(), id=BILLING), id=OTHER_PROJECT)
    simulator = make_simulator(throttled, other, clock=clock)
    simulator.add_fault(FIVE_MINUTES, instance_id=ORDERS, times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter, timeout=TEN_SECONDS)
    assert_failed(published, "throttled", ORDERS)
    assert published.of("incremental_backups", BILLING) == 1


@pytest.mark.parametrize("limit", [1, 3, 10, 50])
async def test_no_second_sees_more_requests_than_the_rate_limit(clock: Clock, limit: int) -> None:
    simulator = make_many(120, clock=clock, latency_seconds=0.125)
    config = make_config(
        projects=[make_many_settings(120)],
        api={"rate_limit": limit},
        scrape={"timeout": "20s"},
    )
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            await samples(exporter)
            await clock.advance(0.25)
    times = seconds_of(backup_requests(simulator))
    assert len(times) >= min(120, 20 * limit)
    for i, at in enumerate(times):
        assert sum(at <= other < at + 1 for other in times[i:]) <= limit


async def test_a_gateway_that_counts_itself_is_never_offended(clock: Clock) -> None:
    """The limit is kept by a stranger's count as well, whatever that counts."""
    simulator = make_many(150, clock=clock, rate_limit=RateLimit(20, 1.0))
    config = make_config(projects=[make_many_settings(150)], api={"rate_limit": 20})
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {1}
            await clock.advance(15)
    assert {request.status for request in simulator.requests} == {200}


# Logins ----------------------------------------------------------------------------------------


async def test_one_wrong_password_is_one_login_in_each_step_of_the_back_off(clock: Clock) -> None:
    simulator = make_many(500, clock=clock)
    wrong = {
        "type": "password",
        "domain": "my-account",
        "username": "backup-reader",
        "password": "a wrong password",
    }
    config = make_config(projects=[make_many_settings(500, auth=wrong)])
    async with running_exporter(simulator, config) as exporter:
        for number in range(1, 4):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            assert published.errors(instance_id(499)) == {"auth": number}
            await clock.advance(15)
        while clock() < NOON + 62 * 60:
            await exporter.scraper.scrape(TEN_SECONDS)
            await clock.advance(60 if clock() >= NOON + 60 else 15)
    assert {request.operation for request in simulator.requests} == {"login"}
    gaps = [b - a for a, b in itertools.pairwise(seconds_of(simulator.requests_of("login")))]
    assert gaps == [60, 120, 240, 480, 900, 900, 900]
    assert not simulator.is_locked("my-account/backup-reader")


async def test_a_password_file_that_changes_ends_the_back_off_at_once(
    clock: Clock, tmp_path: Path
) -> None:
    simulator = make_many(20, clock=clock)
    secret = tmp_path / "password"
    secret.write_text("a wrong password\n")
    auth = {
        "type": "password",
        "domain": "my-account",
        "username": "backup-reader",
        "password_file": str(secret),
    }
    config = make_config(projects=[make_many_settings(20, auth=auth)])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(5)
        secret.write_text(PASSWORD)
        published = await samples(exporter)
    assert set(published.by_instance("scrape_success").values()) == {1}
    assert seconds_of(simulator.requests_of("login")) == [0.0, 5.0]


async def test_a_changed_password_in_a_reload_ends_the_back_off_at_once(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    passwords = iter(["a wrong password", PASSWORD])

    def load() -> Any:
        auth = {
            "type": "password",
            "domain": "my-account",
            "username": "backup-reader",
            "password": next(passwords),
        }
        return make_config(auth=auth)

    async with running_exporter(simulator, load) as exporter:
        assert_failed(await samples(exporter), "auth")
        await clock.advance(5)
        await exporter.reload()
        published = await samples(exporter)
    assert published.of("scrape_success") == 1


async def test_a_wrong_secret_key_is_one_request_in_each_step_of_the_back_off(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    wrong = {"type": "aksk", "access_key": "AKEXAMPLEEXAMPLE0001", "secret_key": "wrong"}
    config = make_config(projects=[make_many_settings(50, auth=wrong)])
    async with running_exporter(simulator, config) as exporter:
        while clock() < NOON + 8 * 60:
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            await clock.advance(15)
    assert seconds_of(backup_requests(simulator)) == [0, 60, 180, 420]
    assert not simulator.is_locked("AKEXAMPLEEXAMPLE0001")


async def test_token_is_renewed_once_when_requests_fail_together(clock: Clock) -> None:
    simulator = make_many(50, clock=clock, latency_seconds=0.5)
    config = make_config(projects=[make_many_settings(50, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(60)
        simulator.revoke_tokens()
        simulator.requests.clear()
        published = await samples(exporter)
    assert set(published.by_instance("scrape_success").values()) == {1}
    assert len(simulator.requests_of("login")) == 1
    refused = [request for request in backup_requests(simulator) if request.status == 401]
    assert len(refused) == 50
    assert published.errors(instance_id(0)) == {"auth": 1}


async def test_a_token_that_the_cloud_never_takes_is_tried_once_more_and_then_not(
    clock: Clock,
) -> None:
    simulator = make_many(50, clock=clock)
    simulator.add_fault(Fault(status=401, form="gateway"), "list_backups", times=None)
    config = make_config(projects=[make_many_settings(50, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(3):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {0}
            await clock.advance(15)
    assert len(simulator.requests_of("login")) == 2


async def test_tokens_that_expire_are_renewed_before_their_end(clock: Clock) -> None:
    simulator = make_many(5, clock=clock, token_lifetime_seconds=600.0)
    config = make_config(projects=[make_many_settings(5, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        for _ in range(60):
            published = await samples(exporter)
            assert set(published.by_instance("scrape_success").values()) == {1}
            await clock.advance(60)
    assert {request.status for request in simulator.requests} == {200, 201}
    assert 6 <= len(simulator.requests_of("login")) <= 9


async def test_a_token_that_expired_while_nobody_asked_is_renewed(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    async with running_exporter(simulator, make_config(auth="password")) as exporter:
        await samples(exporter)
        await clock.advance(2 * DAY)
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert published.errors() == {}


# Data that makes no sense ----------------------------------------------------------------------

HARMLESS_SPOILERS = {"null_size", "missing_size", "repeated", "repeated_changed"}


@pytest.mark.parametrize("spoiler", sorted(ROW_SPOILERS.keys() - HARMLESS_SPOILERS))
async def test_a_row_that_makes_no_sense_fails_the_query(clock: Clock, spoiler: str) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows=spoiler))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
        assert_failed(published, "bad_response")
        assert published.errors() == {"bad_response": 1}
        assert (await samples(exporter)).of("incremental_backups") == 2


@pytest.mark.parametrize("spoiler", ["null_size", "missing_size"])
async def test_a_size_that_is_not_there_is_zero(clock: Clock, spoiler: str) -> None:
    simulator = make_one(clock=clock, order="end_desc")
    simulator.add_fault(Fault(rows=spoiler))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert published.of("incremental_backups_size_kilobytes") == 512.0
    assert published.of("incremental_backup_latest_size_bytes") == 0


async def test_rows_that_come_twice_count_once(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows="repeated"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert published.of("incremental_backups_size_kilobytes") == 1536.0


async def test_a_row_that_comes_with_different_values_is_asked_for_again(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows="repeated_changed"))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups_size_kilobytes") == 1536.0
    assert published.of("incremental_backups_listing_complete") == 1
    assert len(backup_requests(simulator)) == 2


async def test_a_row_that_keeps_coming_with_different_values_fails_the_query(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(rows="repeated_changed"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


async def test_a_row_that_runs_and_has_ended_on_one_page_fails_the_query(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(make_backup(age_hours=0.01, running=True)), clock=clock
    )
    simulator.add_fault(Fault(rows="repeated_changed"), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(body=b""),
        Fault(body=b"\x00\xff\xfe{]"),
        Fault(body=b'{"backups": [], "total_count": 0'),
        Fault(body=b'{"backups": [], "total_count": 0} trailing'),
        Fault(body=b"[]"),
        Fault(body=b"null"),
        Fault(body=b"7"),
        Fault(body=b"{}"),
        Fault(body=b'{"backups": {}, "total_count": 0}'),
        Fault(body=b'{"backups": null, "total_count": 3}'),
        Fault(body=b'{"backups": "none", "total_count": 0}'),
        Fault(body=b'{"backups": [], "total_count": -1}'),
        Fault(body=b'{"backups": [], "total_count": "0"}'),
        Fault(body=b'{"backups": [], "total_count": 1e400}'),
        Fault(body=b'{"backups": [], "total_count": 0.5}'),
        Fault(body=b'{"backups": [], "total_count": true}'),
        Fault(body=b'{"backups": [{"id": "\xff"}], "total_count": 1}'),
        Fault(nesting=100),
        Fault(nesting=200_000),
        Fault(body=b'{"backups": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        Fault(body=b'{"deep": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"),
        Fault(status=200, form="html"),
        Fault(body=b"<html>sign in</html>", content_type="text/html"),
        Fault(headers={"Content-Encoding": "gzip"}),
        Fault(headers={"Content-Encoding": "br"}),
        Fault(body=b"\x1f\x8b\x08\x00not", headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda fault: repr(fault.body[:40] if fault.body is not None else fault)[:60],
)
async def test_an_answer_that_is_no_listing_fails_the_query(clock: Clock, fault: Fault) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(fault, times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    assert len(backup_requests(simulator)) == 1


async def test_a_body_over_the_bound_is_not_read_to_its_end(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(filler_bytes=14 * MIB), times=None)
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    (exchange,) = transport.exchanges
    assert 10 * MIB <= exchange.bytes_read <= 10 * MIB + 128 * 1024


async def test_a_body_just_under_the_bound_is_read(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(
        Fault(alter=lambda document: {**document, "filler": "x" * (10 * MIB - 2_000)}), times=None
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2


async def test_a_gzip_bomb_is_noticed_while_it_is_unpacked(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    bomb = Fault(gzip_bomb_bytes=300 * MIB, chunk_bytes=4_096)
    size = len(bomb.build_replacement("", "").body)
    simulator.add_fault(bomb, times=None)
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    (exchange,) = transport.exchanges
    assert exchange.bytes_read < size / 10


async def test_redirects_are_not_followed(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=307, headers={"Location": "https://elsewhere.example/"}))
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")
    assert [exchange.request.url.host for exchange in transport.exchanges] == ["gaussdb.example"]


# Listings that move, and counts that lie -------------------------------------------------------


@pytest.mark.parametrize("total_count", ["missing", "null"])
async def test_without_a_total_count_the_numbers_are_right_but_not_called_complete(
    clock: Clock, total_count: str
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=120), clock=clock, total_count=total_count
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == 120
    assert published.of("incremental_backups_listing_complete") == 0


@pytest.mark.parametrize("total_count", ["negative", "string"])
async def test_a_total_count_that_is_no_count_fails_the_query(
    clock: Clock, total_count: str
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=120), clock=clock, total_count=total_count
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


@pytest.mark.parametrize(
    ("rows", "lie"),
    [
        (rows, lie)
        for rows in (3, 49, 50, 51, 99, 100, 120)
        for lie in (-60, -1, 1, 60, 10_000)
        if rows + lie >= 0
    ],
)
async def test_a_total_count_that_lies_is_told_and_every_row_is_counted(
    clock: Clock, rows: int, lie: int
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=rows), clock=clock, total_count="lie", total_count_lie=lie
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups") == rows
    assert published.of("incremental_backups_listing_complete") == 0
    assert len(backup_requests(simulator)) <= 20


async def test_a_listing_that_shifts_while_it_is_read_is_read_again(clock: Clock) -> None:
    """A row goes and another comes after the first page: the count stays, the pages shift."""
    instance = fill(make_instance(), count=150)
    simulator = make_simulator(instance, clock=clock, order="end_desc")

    def shift(request: RecordedRequest) -> Fault | None:
        if len(backup_requests(simulator)) == 2:
            instance.backups.append(make_backup(age_hours=-1 / 3600, id="f" * 32 + "br07"))
            oldest = min(instance.backups, key=lambda backup: backup.begin)
            instance.backups.remove(oldest)
        return None

    simulator.fault_script = shift
    async with running_exporter(simulator) as exporter:
        await clock.advance(10)
        published = await samples(exporter)
    assert published.of("incremental_backups") == 150
    assert published.of("incremental_backups_listing_complete") == 1
    right = NOON + 1
    assert published.of("incremental_backup_latest_end_timestamp_seconds") == right


async def test_an_api_that_ignores_the_offset_ends_and_is_told(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=120), clock=clock)
    first_page: list[Any] = []

    def remember(document: Any) -> Any:
        first_page[:] = first_page or document["backups"]
        return {**document, "backups": first_page}

    simulator.add_fault(Fault(alter=remember), times=None)
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("incremental_backups_listing_complete") in (0, None)
    assert len(backup_requests(simulator)) <= 10


async def test_an_incomplete_listing_is_tried_again_and_then_called_complete(
    clock: Clock,
) -> None:
    simulator = make_simulator(
        fill(make_instance(), count=60), clock=clock, total_count="lie", total_count_lie=1
    )
    async with running_exporter(simulator) as exporter:
        assert (await samples(exporter)).of("incremental_backups_listing_complete") == 0
        simulator.knobs = make_simulator(clock=clock).knobs
        await clock.advance(61)
        published = await samples(exporter)
    assert published.of("incremental_backups_listing_complete") == 1


async def test_sizes_that_add_up_to_no_finite_number_fail_the_query(clock: Clock) -> None:
    simulator = make_simulator(
        make_instance(*(make_backup(age_hours=hours, size=1e308) for hours in (1.0, 2.0, 3.0))),
        clock=clock,
    )
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert_failed(published, "bad_response")


# Deletions and resyncs -------------------------------------------------------------------------


async def test_deleted_backups_are_noticed_at_the_next_resync(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    config = make_config(api={"resync_interval": "1h"})
    async with running_exporter(simulator, config) as exporter:
        assert (await samples(exporter)).of("incremental_backups") == 2
        simulator.instance(ORDERS).backups.pop()
        counts = []
        for _ in range(12):
            await clock.advance(300)
            counts.append((await samples(exporter)).of("incremental_backups"))
    assert set(counts) == {2, 1}
    assert counts[-1] == 1
    assert 1 not in counts[: counts.index(1)]
    assert set(counts[counts.index(1) :]) == {1}


async def test_instances_resync_at_different_times(clock: Clock) -> None:
    simulator = make_many(60, clock=clock)
    config = make_config(
        projects=[make_many_settings(60)], api={"resync_interval": "1h", "rate_limit": 0}
    )
    resyncs = []
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        for _ in range(60):
            await clock.advance(60)
            simulator.requests.clear()
            await exporter.scraper.scrape(TEN_SECONDS)
            resyncs.append(len(simulator.requests) - 60)
    assert sum(resyncs) == 60
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
