"""What discovery learned, as a scrape publishes it and hands it to the page."""

import pytest

from exporter.assembly import Exporter
from exporter.simulator import Fault, Simulator
from tests.support.factories import (
    PROJECT,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.virtual_time import Clock


def make_fleet(clock: Clock, *names: str) -> Simulator:
    return make_simulator(
        *(
            make_instance(make_backup(now=clock()), id=instance_id(number), name=name)
            for number, name in enumerate(names)
        ),
        clock=clock,
    )


def discovering(**filters: object) -> dict[str, object]:
    return make_project_settings(discovery={"enabled": True, **filters})


async def test_the_two_counts_are_absent_until_a_listing_has_succeeded(clock: Clock) -> None:
    """0 watched and 0 filtered out was said of a project that nobody had listed yet."""
    simulator = make_fleet(clock, "prod-a", "prod-b", "test-a")
    simulator.add_fault(Fault(status=403), "list_instances")
    config = make_config(projects=[discovering(name="prod-*")])
    async with running_exporter(simulator, config) as exporter:
        before = await samples(exporter)
        await clock.advance(60)
        await samples(exporter)  # asks again, and does not wait for it
        await clock.advance(1)
        after = await samples(exporter)

    names = ("discovery_success", "discovered_instances", "unmonitored_instances")
    assert [before.of(name, "") for name in names] == [0.0, None, None]
    assert [after.of(name, "") for name in names] == [1.0, 2.0, 1.0]


async def test_the_facts_of_a_project_tell_what_discovery_left_out(clock: Clock) -> None:
    simulator = make_fleet(clock, "prod-a", "prod-b", "test-a")
    instances = simulator.projects[PROJECT].instances
    instances["no id at all"] = make_instance(id="no id at all", name="prod-c")
    config = make_config(projects=[discovering(name="prod-*")])
    async with running_exporter(simulator, config) as exporter:
        (project,) = (await exporter.scraper.scrape(10)).projects
    assert (project.found_instances, project.discovered_instances) == (4, 2)
    assert project.unmonitored_instances == 1
    assert project.unusable_ids == ("no id at all",)
    assert not project.takes_none


@pytest.mark.parametrize(("names", "takes_none"), [(["test-a"], True), (["prod-a"], False)])
async def test_a_project_whose_filters_take_nothing_is_one_of_the_facts(
    clock: Clock, names: list[str], takes_none: bool
) -> None:
    config = make_config(projects=[discovering(name="prod-*")])
    async with running_exporter(make_fleet(clock, *names), config) as exporter:
        (project,) = (await exporter.scraper.scrape(10)).projects
    assert project.takes_none is takes_none


async def test_half_a_surrogate_pair_in_a_name_spoils_nothing(clock: Clock) -> None:
    """JSON allows it, UTF-8 cannot write it: the listing failed, or /metrics was a 500."""
    simulator = make_fleet(clock, "orders-\ud83d", "billing")
    config = make_config(projects=[discovering()])
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter)
    assert published.by_instance("scrape_success") == {instance_id(0): 1.0, instance_id(1): 1.0}
    assert published.of("instance_info", instance_id(0), instance_name="orders-\ufffd") == 1.0


async def test_status_and_retention_are_known_of_configured_instances_too(clock: Clock) -> None:
    simulator = make_fleet(clock, "orders", "billing")
    simulator.instance(instance_id(0)).status = "FROZEN"
    simulator.instance(instance_id(0)).keep_days = 30
    config = make_config(
        projects=[
            make_project_settings(
                {"id": instance_id(0), "name": "own name"},
                "0000-not-in-the-listing",
                discovery={"enabled": True},
            )
        ]
    )
    async with running_exporter(simulator, config) as exporter:
        results = (await exporter.scraper.scrape(10)).results
    assert [
        (each.instance.name, each.instance.status, each.instance.retention_seconds)
        for each in results
    ] == [
        ("own name", "FROZEN", 30 * 86_400.0),
        ("", "", None),
        ("billing", "normal", 7 * 86_400.0),
    ]


async def test_what_a_listing_told_of_an_instance_ends_where_the_next_one_fails(
    clock: Clock,
) -> None:
    """An instance that was frozen once would have been excused for as long as that goes on."""
    simulator = make_fleet(clock, "orders")
    simulator.instance(instance_id(0)).status = "FROZEN"
    config = make_config(projects=[discovering(refresh_interval="10m")])

    async def told(exporter: Exporter) -> tuple[float | None, float | None, float | None]:
        await exporter.scraper.scrape(10)
        await clock.advance(1)
        found = await samples(exporter)
        return (
            found.of("instance_status", instance_id(0), status="FROZEN"),
            found.of("backup_retention_seconds", instance_id(0)),
            found.of("scrape_success", instance_id(0)),
        )

    async with running_exporter(simulator, config) as exporter:
        assert await told(exporter) == (1, 7 * 86_400, 1)
        simulator.add_fault(Fault(status=403), "list_instances")
        await clock.advance(601)
        assert await told(exporter) == (None, None, 1)
        await clock.advance(61)
        assert await told(exporter) == (1, 7 * 86_400, 1)
