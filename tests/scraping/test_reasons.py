"""What is told of an instance that the deadline cut off."""

import asyncio

import pytest
from structlog.testing import capture_logs

from exporter.errors import Reason
from exporter.models import Failure
from exporter.simulator import Fault, RecordedRequest, Simulator
from tests.support.clouds import make_many, make_many_settings, make_one
from tests.support.factories import (
    fill,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import RESET
from tests.support.virtual_time import NOON, Clock


async def failures(exporter: object, seconds: float) -> list[Failure | None]:
    snapshot = await exporter.scraper.scrape(seconds)  # type: ignore[attr-defined]
    return [result.failure for result in snapshot.results]


async def test_an_answer_that_does_not_come_names_whom_was_asked_and_for_how_long(
    clock: Clock,
) -> None:
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(hang=True), times=None)
    async with running_exporter(simulator) as exporter:
        (failure,) = await failures(exporter, 9.5)
    assert failure is not None
    assert failure.reason is Reason.DEADLINE
    assert failure.message == (
        "asked gaussdb.example, and no answer for 9.5 s until the scrape's deadline"
    )
    assert failure.host == "gaussdb.example"
    assert "firewall" in failure.hint


async def test_an_endpoint_that_never_answers_is_a_time_out_where_the_scrape_waits_for_it(
    clock: Clock,
) -> None:
    """Three attempts of ten seconds outlast the deadline."""
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(hang=True), times=None)
    async with running_exporter(simulator) as exporter:
        for _ in range(3):
            (failure,) = await failures(exporter, 29.5)
            assert failure is not None
            assert failure.reason is Reason.TIMEOUT
            assert failure.message.startswith("no answer from gaussdb.example within 10 s")
            await clock.advance(60)
        published = await samples(exporter)
    assert published.errors().keys() == {"timeout"}


async def test_what_failed_before_the_deadline_is_the_reason(clock: Clock) -> None:
    simulator = make_one(clock=clock)
    faults = iter([RESET, Fault(hang=True)])
    simulator.fault_script = lambda request: next(faults, None)
    async with running_exporter(simulator) as exporter:
        (failure,) = await failures(exporter, 9.5)
        assert failure is not None
        assert failure.reason is Reason.NETWORK
        published = await samples(exporter)
    assert published.errors() == {"network": 1, "timeout": 1}


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        (
            {"rate_limit": 1},
            "not asked yet at the scrape's deadline: it waited for its turn, 1 requests a second"
            " (api.rate_limit)",
        ),
        (
            {"max_connections": 2},
            "not asked yet at the scrape's deadline: it waited for a free one of the 2 connections"
            " (api.max_connections)",
        ),
    ],
)
async def test_who_was_not_asked_tells_what_it_waited_for(
    clock: Clock, api: dict[str, int], expected: str
) -> None:
    simulator = make_many(10, clock=clock, latency_seconds=1.0)
    config = make_config(projects=[make_many_settings(10)], api=api)
    async with running_exporter(simulator, config) as exporter:
        found = await failures(exporter, 2.5)
    last = found[-1]
    assert last is not None
    assert (last.reason, last.message) == (Reason.DEADLINE, expected)
    assert "goes first in the next scrape" in last.hint


async def test_a_login_that_hangs_is_what_is_waited_for(clock: Clock) -> None:
    simulator = make_many(3, clock=clock)
    simulator.add_fault(Fault(hang=True), "login", times=None)
    config = make_config(projects=[make_many_settings(3, auth="password")])
    async with running_exporter(simulator, config) as exporter:
        found = await failures(exporter, 5.0)
    assert {failure.message for failure in found if failure} == {
        "not asked yet at the scrape's deadline: it waited for the login of its project"
    }
    assert all("who gives its credentials" in failure.hint for failure in found if failure)


async def test_a_listing_that_is_cut_off_tells_how_far_it_is(clock: Clock) -> None:
    """So many backups in two hours that they come in pages."""
    instance = make_instance(*(make_backup(age_hours=n / 400) for n in range(700)))
    simulator = make_simulator(instance, clock=clock, latency_seconds=1.0)
    config = make_config(api={"max_connections": 1})
    async with running_exporter(simulator, config) as exporter:
        (failure,) = await failures(exporter, 4.5)
    assert failure is not None
    assert failure.reason is Reason.DEADLINE
    assert failure.message == "listing under way at the scrape's deadline: 4 pages read"


async def test_a_first_listing_that_makes_no_sense_fails_the_instance_until_it_is_read(
    clock: Clock,
) -> None:
    simulator = make_simulator(fill(make_instance(), count=300), clock=clock)
    spoiled = True

    def spoil(request: RecordedRequest) -> Fault | None:
        is_listing = request.query["begin_time"] < "2023-07-28"
        return Fault(rows="negative_size") if is_listing and spoiled else None

    simulator.fault_script = spoil
    async with running_exporter(simulator) as exporter:
        for _ in range(2):
            (failure,) = await failures(exporter, 9.5)
            assert failure is not None
            assert failure.reason is Reason.BAD_RESPONSE
            await clock.advance(5)
        published = await samples(exporter)
        assert published.errors() == {"bad_response": 1}  # tried again after a while, not at once
        spoiled = False
        await clock.advance(60)
        published = await samples(exporter)
    assert published.of("incremental_backups") == 288


async def test_a_first_listing_that_fails_for_a_while_fails_nothing(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=300), clock=clock)

    def refuse(request: RecordedRequest) -> Fault | None:
        is_listing = request.query["begin_time"] < "2023-07-28"
        return Fault(status=503) if is_listing and clock() < NOON + 60 else None

    simulator.fault_script = refuse
    with capture_logs() as entries:
        await scrape_four_times_and_once_more(simulator, clock)
    told = [entry for entry in entries if entry["event"] == "listing the whole window failed"]
    assert [(entry["log_level"], entry["reason"]) for entry in told] == [("warning", "server")]


async def scrape_four_times_and_once_more(simulator: Simulator, clock: Clock) -> None:
    async with running_exporter(simulator) as exporter:
        for _ in range(4):
            published = await samples(exporter, timeout=10)
            assert published.of("scrape_success") == 1
            assert published.of("incremental_backup_latest_end_timestamp_seconds") == NOON
            assert published.of("incremental_backups") is None
            await clock.advance(5)
        assert published.errors().keys() == {"server"}
        await clock.advance(60)
        published = await samples(exporter)
    assert published.of("incremental_backups_listing_complete") == 1


async def test_an_instance_that_goes_while_it_is_listed_leaves_nothing_behind(
    clock: Clock,
) -> None:
    simulator = make_many(2, clock=clock)
    project = next(iter(simulator.projects.values()))
    release = asyncio.Event()

    def hold(request: RecordedRequest) -> Fault | None:
        is_listing = "begin_time" in request.query and request.query["begin_time"] < "2023-07-28"
        return Fault(hold=release) if is_listing else None

    simulator.fault_script = hold
    settings = make_many_settings(0, discovery={"enabled": True, "refresh_interval": "1s"})
    async with running_exporter(simulator, make_config(projects=[settings])) as exporter:
        await samples(exporter, timeout=5)
        project.instances.pop(instance_id(1))
        await clock.advance(2)
        for _ in range(2):
            published = await samples(exporter, timeout=5)
        assert published.by_instance("scrape_success") == {instance_id(0): 1}
        release.set()
        published = await samples(exporter, timeout=5)
        assert published.by_instance("incremental_backups") == {instance_id(0): 2}
