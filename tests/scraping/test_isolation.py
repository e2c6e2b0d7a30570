"""A failure stays with whom it belongs to: an instance, a project, a discovery."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.backups.sync import InstanceSync
from exporter.models import Reading
from exporter.simulator import Fault, RecordedRequest
from tests.support.clouds import (
    TEN_SECONDS,
    assert_failed,
    make_many,
    make_many_settings,
    make_one,
)
from tests.support.factories import (
    BACKUP_GAUGES,
    BILLING,
    ORDERS,
    OTHER_PROJECT,
    PROJECT,
    fetch_metrics,
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
from tests.support.virtual_time import HOUR, NOON, Clock


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

    async def broken(self: InstanceSync, *arguments: Any, **more: Any) -> Reading:
        if self._instance.id == instance_id(1):
            raise ZeroDivisionError
        return await refresh(self, *arguments, **more)

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
