"""An exporter that stops or reloads leaves no task, no connection and no unseen failure behind.

The event loop of these tests fails what asyncio would only log: "Task exception was never
retrieved".
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.config.schema import Config
from exporter.errors import ConfigError
from exporter.simulator import Fault, Simulator
from tests.support.factories import (
    BILLING,
    ORDERS,
    PROJECT,
    instance_id,
    make_backup,
    make_config,
    make_exporter,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import RESET, StreamingTransport
from tests.support.virtual_time import Clock


def make_cloud(clock: Clock, **knobs: Any) -> Simulator:
    return make_simulator(
        make_instance(make_backup(), id=ORDERS),
        make_instance(make_backup(), id=BILLING),
        clock=clock,
        **knobs,
    )


def assert_nothing_is_left(transport: StreamingTransport) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert transport.in_flight == 0
    assert transport.closed


FAULTS: dict[str, Fault] = {
    "hangs": Fault(hang=True),
    "is late": Fault(delay_seconds=8.0),
    "is slow": Fault(chunk_bytes=1, chunk_pause_seconds=1.0),
    "fails": Fault(status=502),
    "resets": RESET,
    "throttles": Fault(status=429),
    "refuses": Fault(status=401),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["list_backups", "login", "list_instances"])
@pytest.mark.parametrize("after", [0.0, 0.4, 3.0])
async def test_closing_in_the_middle_of_a_query_leaves_nothing(
    clock: Clock, fault: str, operation: Any, after: float
) -> None:
    simulator = make_cloud(clock, latency_seconds=0.25)
    simulator.add_fault(FAULTS[fault], operation, times=None)
    transport = StreamingTransport(simulator)
    config = make_config(
        projects=[make_project_settings(ORDERS, auth="password", discovery={"enabled": True})]
    )
    exporter = await make_exporter(simulator, config, transport=transport)
    scraping = asyncio.create_task(samples(exporter))
    await clock.advance(after)
    scraping.cancel()
    await asyncio.gather(scraping, return_exceptions=True)
    await exporter.aclose()
    assert_nothing_is_left(transport)


@pytest.mark.parametrize("fault", FAULTS)
async def test_closing_after_a_scrape_that_was_cut_off_leaves_nothing(
    clock: Clock, fault: str
) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(FAULTS[fault], times=None)
    transport = StreamingTransport(simulator)
    exporter = await make_exporter(simulator, transport=transport)
    await samples(exporter, timeout=2.0)
    await clock.advance(0.5)
    await exporter.aclose()
    assert_nothing_is_left(transport)


async def test_an_exporter_that_was_never_scraped_closes(clock: Clock) -> None:
    simulator = make_cloud(clock)
    transport = StreamingTransport(simulator)
    exporter = await make_exporter(simulator, transport=transport)
    await exporter.aclose()
    assert_nothing_is_left(transport)
    assert not simulator.requests


async def test_queries_that_nobody_waits_for_end_by_themselves(clock: Clock) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(Fault(hang=True), times=None)
    transport = StreamingTransport(simulator)
    async with running_exporter(simulator, transport=transport) as exporter:
        await samples(exporter, timeout=2.0)
        assert transport.in_flight == 1  # a key that nobody knows yet is tried by one
        await clock.advance(60)
        assert transport.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_instance_that_discovery_lost_leaves_no_query(clock: Clock) -> None:
    simulator = make_cloud(clock)
    transport = StreamingTransport(simulator)
    config = make_config(
        projects=[
            make_project_settings(discovery={"enabled": True, "refresh_interval": "1m"}),
        ],
        api={"timeout": "5m"},
    )
    async with running_exporter(simulator, config, transport=transport) as exporter:
        await samples(exporter)
        simulator.add_fault(Fault(hang=True), instance_id=BILLING, times=None)
        await samples(exporter, timeout=2.0)
        assert transport.in_flight == 1
        simulator.instance(BILLING).hidden_from_discovery = True
        await clock.advance(61)
        await samples(exporter, timeout=2.0)
        await clock.advance(1)
        published = await samples(exporter, timeout=2.0)
        assert published.by_instance("scrape_success") == {ORDERS: 1}
        assert transport.in_flight == 0


# Reloads ---------------------------------------------------------------------------------------


def make_loader(*configs: Config) -> Callable[[], Config]:
    """Gives one configuration after the other, and the last one for ever."""
    left = list(configs)

    def load() -> Config:
        return left.pop(0) if len(left) > 1 else left[0]

    return load


async def test_a_scrape_that_runs_during_a_reload_gets_its_answer(clock: Clock) -> None:
    simulator = make_cloud(clock, latency_seconds=2.0)
    load = make_loader(make_config(ORDERS), make_config(ORDERS, BILLING))
    async with running_exporter(simulator, load) as exporter:
        scraping = asyncio.create_task(samples(exporter))
        await clock.advance(0.5)
        await exporter.reload()
        before = await scraping
        after = await samples(exporter)
    # The whole window is no longer listed for a configuration that is gone.
    assert before.by_instance("scrape_success") == {ORDERS: 1}
    assert after.by_instance("incremental_backups") == {ORDERS: 1, BILLING: 1}


@pytest.mark.parametrize(
    "changed",
    [
        {"api": {"timeout": "1m"}},
        {"auth": "password"},
        {"defaults": {"lookback": "1h"}},
        {"scrape": {"timeout": "5s"}},
    ],
)
async def test_reloads_leave_nothing_of_the_old_configuration(
    clock: Clock, changed: dict[str, Any]
) -> None:
    simulator = make_cloud(clock)
    transports: list[StreamingTransport] = []

    class Recorded(StreamingTransport):
        def __init__(self) -> None:
            super().__init__(simulator)
            transports.append(self)

    load = make_loader(make_config(ORDERS), make_config(ORDERS, **changed))
    exporter = await make_exporter(simulator, load)
    exporter._transport = Recorded
    await samples(exporter)
    for _ in range(5):
        await exporter.reload()
        published = await samples(exporter)
        assert published.of("scrape_success") == 1
        await clock.advance(60)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(transports) <= 1
    await exporter.aclose()
    assert all(transport.closed for transport in transports)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reload_while_queries_hang_ends_them_in_time(clock: Clock) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(Fault(hang=True), times=None)
    transport = StreamingTransport(simulator)
    load = make_loader(make_config(ORDERS), make_config(BILLING))
    async with running_exporter(simulator, load, transport=transport) as exporter:
        await samples(exporter, timeout=2.0)
        simulator.clear_faults()
        await exporter.reload()
        assert (await samples(exporter)).by_instance("scrape_success") == {BILLING: 1}
        await clock.advance(60)
        assert transport.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reload_keeps_what_is_known_and_counted(clock: Clock) -> None:
    simulator = make_cloud(clock)
    async with running_exporter(simulator, make_config(ORDERS)) as exporter:
        await samples(exporter)
        await clock.advance(60)
        await exporter.reload()
        published = await samples(exporter)
    assert published.of("api_requests_total") == 4
    begins = [request.query["begin_time"] for request in simulator.requests]
    # The latest three hours, a day and a half before the window, the backup before it among all
    # that the cloud keeps (733 days); and after the reload what is new again.
    moments = ("2023-07-28T09", "2023-07-26T00", "2021-07-24T12", "2023-07-28T10")
    assert begins == [f"{moment}:00:00+0000" for moment in moments]


async def test_a_reload_with_a_mistake_keeps_the_old_configuration(
    clock: Clock, tmp_path: Path
) -> None:
    simulator = make_cloud(clock)
    answers: list[Config | ConfigError] = [make_config(ORDERS), ConfigError(["a mistake"])]

    def load() -> Config:
        answer = answers.pop(0)
        if isinstance(answer, ConfigError):
            raise answer
        return answer

    async with running_exporter(simulator, load) as exporter:
        with pytest.raises(ConfigError):
            await exporter.reload()
        published = await samples(exporter)
    assert published.by_instance("incremental_backups") == {ORDERS: 1}
    assert published.of("exporter_config_last_reload_successful", "") == 0


async def test_many_instances_that_fail_lose_no_exception(clock: Clock) -> None:
    instances = [make_instance(make_backup(), id=instance_id(number)) for number in range(60)]
    simulator = make_simulator(*instances, clock=clock)
    faults = list(FAULTS.values())
    for number, instance in enumerate(instances):
        simulator.add_fault(faults[number % len(faults)], "list_backups", instance.id, times=None)
    late = {instance_id(number) for number in range(list(FAULTS).index("is late"), 60, len(FAULTS))}
    transport = StreamingTransport(simulator)
    config = make_config(
        projects=[make_project_settings(*map(instance_id, range(60)), auth="password")]
    )
    exporter = await make_exporter(simulator, config, transport=transport)
    for _ in range(3):
        published = await samples(exporter, timeout=5.0)
        succeeded = {
            id for id, success in published.by_instance("scrape_success").items() if success
        }
        assert succeeded <= late  # the scrape after the next finds their answer there
        await clock.advance(1)
    await exporter.aclose()
    assert_nothing_is_left(transport)
    assert {request.project_id for request in simulator.requests} == {PROJECT}


async def test_a_listing_anew_that_was_cut_off_is_waited_for(clock: Clock) -> None:
    """Its scrape was answered from what was known before, and nobody asked for it again."""
    simulator = make_cloud(clock)
    transport = StreamingTransport(simulator)
    config = make_config(ORDERS, api={"resync_interval": "1m"})
    exporter = await make_exporter(simulator, config, transport=transport)
    await samples(exporter)
    await clock.advance(60)
    faults = iter([None, Fault(chunk_bytes=16, chunk_pause_seconds=1.0)])
    simulator.fault_script = lambda request: next(faults, None)
    assert (await samples(exporter, timeout=2.0)).of("scrape_success") == 1
    await exporter.aclose()
    assert_nothing_is_left(transport)


async def test_reloads_in_a_row_close_no_connection_that_is_in_use(clock: Clock) -> None:
    """The first keeps the connections, the second opens new ones, a query is older than both."""
    simulator = make_cloud(clock)
    transports: list[StreamingTransport] = []

    def connect() -> StreamingTransport:
        transports.append(StreamingTransport(simulator))
        return transports[-1]

    load = make_loader(
        make_config(ORDERS),
        make_config(BILLING),
        make_config(BILLING, api={"timeout": "11s"}),
    )
    exporter = await make_exporter(simulator, load, connect=connect)
    simulator.add_fault(Fault(status=502, delay_seconds=3.0), instance_id=ORDERS)
    scraping = asyncio.create_task(samples(exporter))
    await clock.advance(1)
    await exporter.reload()
    await clock.advance(1)
    await exporter.reload()
    assert (await scraping).of("scrape_success") == 1
    await exporter.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert all(transport.closed for transport in transports)


async def test_closing_right_after_a_reload_leaves_nothing(clock: Clock) -> None:
    simulator = make_cloud(clock)
    simulator.add_fault(Fault(hang=True), times=None)
    transport = StreamingTransport(simulator)
    load = make_loader(make_config(ORDERS), make_config(BILLING))
    exporter = await make_exporter(simulator, load, transport=transport)
    await samples(exporter, timeout=2.0)
    await exporter.reload()
    await exporter.aclose()
    assert_nothing_is_left(transport)
