"""What is asked again, when, and when no more: faults that pass, 429s."""

import itertools
from email.utils import formatdate

import pytest

from exporter.simulator import Fault, RateLimit
from tests.support.clouds import (
    TEN_SECONDS,
    assert_failed,
    backup_requests,
    make_many,
    make_many_settings,
    make_one,
    seconds_of,
)
from tests.support.factories import (
    BILLING,
    ORDERS,
    OTHER_PROJECT,
    fetch_metrics,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.faults import RESET
from tests.support.virtual_time import HOUR, NOON, Clock

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
    async with running_exporter(simulator) as exporter:
        await samples(exporter)
        simulator.requests.clear()
        simulator.add_fault(fault, times=2)
        published = await samples(exporter)
    assert published.of("incremental_backups") == 2
    assert published.of("scrape_api_requests") == 3 == len(simulator.requests)
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
    assert seconds_of(backup_requests(simulator))[:4] == [0.0, 0.25, 0.75, 1.75]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_waits_for_the_announced_time(clock: Clock, status: int, as_date: bool) -> None:
    value = formatdate(NOON + 4, usegmt=True) if as_date else "4"
    simulator = make_one(clock=clock)
    simulator.add_fault(Fault(status=status, headers={"Retry-After": value}))
    async with running_exporter(simulator) as exporter:
        published = await samples(exporter)
    assert published.of("scrape_success") == 1
    assert seconds_of(backup_requests(simulator))[:2] == [0.0, 4.0]


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
    simulator = make_many(5, clock=clock)
    simulator.add_fault(OVER_THE_LIMIT, times=None)
    config = make_config(projects=[make_many_settings(5)], api={"rate_limit": 0})
    async with running_exporter(simulator, config) as exporter:
        while clock() < NOON + HOUR:
            snapshot = await exporter.scraper.scrape(TEN_SECONDS)
            assert all(result.reading is None for result in snapshot.results)
            await clock.advance(15)
    last_half = [at for at in seconds_of(backup_requests(simulator)) if at > HOUR / 2]
    assert len(last_half) <= 6
    assert all(b - a >= 300 for a, b in itertools.pairwise(last_half))


async def test_after_a_429_the_whole_project_falls_silent_for_the_time_that_is_named(
    clock: Clock,
) -> None:
    simulator = make_many(100, clock=clock, latency_seconds=0.25)
    simulator.add_fault(FIVE_MINUTES, times=None)
    config = make_config(projects=[make_many_settings(100)], api={"max_connections": 10})
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
            assert scrape.samples.errors(instance_id(99)).keys() == {"throttled"}
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
            await exporter.scraper.scrape(20)
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
