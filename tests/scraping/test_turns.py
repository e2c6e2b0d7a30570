"""Who is asked when there is not enough time, rate or connections for all. Time is virtual."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.assembly import Exporter
from exporter.models import InstanceResult, Snapshot
from exporter.simulator import Fault, RateLimit, RecordedRequest, Simulator
from tests.support.clouds import make_many, make_many_settings
from tests.support.factories import (
    fill,
    instance_id,
    make_config,
    make_instance,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.searches import extent
from tests.support.virtual_time import Clock

NINE_AND_A_HALF = 9.5  # of Prometheus' ten seconds


@asynccontextmanager
async def watching(
    simulator: Simulator, instances: int, *, defaults: dict[str, Any] | None = None, **api: Any
) -> AsyncIterator[Exporter]:
    config = make_config(projects=[make_many_settings(instances)], api=api, defaults=defaults or {})
    async with running_exporter(simulator, config) as exporter:
        yield exporter


def answered(snapshot: Snapshot) -> set[str]:
    return {result.instance.id for result in snapshot.results if result.reading is not None}


def result_of(snapshot: Snapshot, number: int) -> InstanceResult:
    (found,) = [r for r in snapshot.results if r.instance.id == instance_id(number)]
    return found


def hang(simulator: Simulator, numbers: set[int]) -> None:
    ids = {instance_id(number) for number in numbers}

    def script(request: RecordedRequest) -> Fault | None:
        return Fault(hang=True) if request.instance_id in ids else None

    simulator.fault_script = script


# Those that hang -------------------------------------------------------------------------------


async def test_what_hangs_takes_no_answer_from_the_others_of_its_project(clock: Clock) -> None:
    """300 instances, of which the API hangs for 60: more than there are connections."""
    simulator = make_many(300, clock=clock, latency_seconds=0.05)
    hanging = set(range(0, 300, 5))
    healthy = {instance_id(number) for number in range(300) if number not in hanging}
    hang(simulator, hanging)
    async with watching(simulator, 300) as exporter:
        for number in range(extent(12)):
            snapshot = await exporter.scraper.scrape(NINE_AND_A_HALF)
            assert answered(snapshot) == healthy, number
            await clock.advance(15 - NINE_AND_A_HALF)
        simulator.fault_script = lambda request: None
        for _ in range(2):
            snapshot = await exporter.scraper.scrape(NINE_AND_A_HALF)
            await clock.advance(15)
        assert len(answered(snapshot)) == 300


async def test_each_that_hangs_is_asked_again_in_its_turn(clock: Clock) -> None:
    simulator = make_many(40, clock=clock, latency_seconds=0.05)
    hang(simulator, set(range(30)))
    async with watching(simulator, 40, max_connections=10) as exporter:
        for _ in range(6):  # to find out
            await exporter.scraper.scrape(NINE_AND_A_HALF)
            await clock.advance(20)
        simulator.requests.clear()
        for _ in range(15):  # two connections for thirty instances
            snapshot = await exporter.scraper.scrape(NINE_AND_A_HALF)
            assert len(answered(snapshot)) == 10
            await clock.advance(20)
    asked = Counter(
        request.instance_id
        for request in simulator.requests
        if request.instance_id in {instance_id(number) for number in range(30)}
    )
    assert set(asked.values()) == {1}
    assert len(asked) == 30


# A budget below the demand ---------------------------------------------------------------------


async def test_a_gateway_that_lets_too_few_through_serves_all_in_turn(clock: Clock) -> None:
    """Eight requests a minute for twelve instances."""
    simulator = make_many(12, clock=clock)
    async with watching(simulator, 12) as exporter:
        await exporter.scraper.scrape(NINE_AND_A_HALF)
        await clock.advance(60)
        simulator.knobs = make_many(12, clock=clock, rate_limit=RateLimit(8, 60.0)).knobs
        turns: Counter[str] = Counter()
        unanswered = dict.fromkeys(map(instance_id, range(12)), 0)
        longest = 0
        for _ in range(24):
            fresh = answered(await exporter.scraper.scrape(NINE_AND_A_HALF))
            turns.update(fresh)
            for id_ in unanswered:
                unanswered[id_] = 0 if id_ in fresh else unanswered[id_] + 1
            longest = max(longest, *unanswered.values())
            await clock.advance(60 - NINE_AND_A_HALF)
    assert len(turns) == 12
    assert max(turns.values()) - min(turns.values()) <= 2, turns
    assert longest <= 3


async def test_who_was_not_asked_goes_first_next_time(clock: Clock) -> None:
    """The rate allows a third of the instances in each scrape."""
    simulator = make_many(30, clock=clock)
    async with watching(simulator, 30, rate_limit=2) as exporter:
        seen = [answered(await exporter.scraper.scrape(5.0)) for _ in range(3)]
    assert [len(some) for some in seen] == [10, 10, 10]
    assert len(set.union(*seen)) == 30


# After a start ---------------------------------------------------------------------------------


def make_week(count: int, clock: Clock) -> Simulator:
    """So many instances with a backup every five minutes for a week and a day."""
    return make_simulator(
        *(fill(make_instance(id=instance_id(n)), count=8 * 288) for n in range(count)),
        clock=clock,
        latency_seconds=0.05,
    )


async def test_every_latest_backup_is_known_after_one_scrape_and_stays_known(
    clock: Clock,
) -> None:
    """Whatever is still to be listed, each known instance has its one request per scrape."""
    count = extent(12)
    simulator = make_week(count, clock)
    scrapes = 0
    async with watching(simulator, count, defaults={"lookback": "7d"}, rate_limit=2) as exporter:
        started = clock()
        while True:
            snapshot = await exporter.scraper.scrape(NINE_AND_A_HALF)
            scrapes += 1
            readings = [result.reading for result in snapshot.results]
            assert all(reading is not None and reading.latest_end for reading in readings)
            known = [reading for reading in readings if reading and reading.count is not None]
            for reading in known:
                ages = range(0, 8 * 86_400, 300)  # the last one ended when the clock began
                since = reading.at - started
                assert reading.count == sum(age + since <= 7 * 86_400 for age in ages)
                assert reading.listing_complete
            if len(known) == count:
                break
            await clock.advance(15 - NINE_AND_A_HALF)
    requests = len(simulator.requests)
    assert requests <= 1.05 * (count * 46 + count * scrapes)  # 46 pages hold what is older
    assert clock() - started <= 1.2 * requests / 2


async def test_a_known_instance_is_answered_while_a_new_one_is_listed(clock: Clock) -> None:
    simulator = make_week(2, clock)
    late = simulator.projects[next(iter(simulator.projects))].instances.pop(instance_id(1))
    async with watching(simulator, 2, defaults={"lookback": "7d"}, rate_limit=1) as exporter:
        await clock.advance(60)
        for _ in range(8):
            await exporter.scraper.scrape(NINE_AND_A_HALF)
        simulator.projects[next(iter(simulator.projects))].instances[late.id] = late
        for _ in range(8):
            snapshot = await exporter.scraper.scrape(NINE_AND_A_HALF)
            assert answered(snapshot) == {instance_id(0), instance_id(1)}
            await clock.advance(5)


async def test_instances_with_nothing_new_are_listed_first(clock: Clock) -> None:
    """Of 20 instances the last ten were backed up three hours ago."""
    simulator = make_simulator(
        *(
            fill(
                make_instance(id=instance_id(n)),
                count=600,
                until=clock() - (0 if n < 10 else 10_800),
            )
            for n in range(20)
        ),
        clock=clock,
    )
    async with watching(simulator, 20, defaults={"lookback": "7d"}, rate_limit=10) as exporter:
        snapshot = await exporter.scraper.scrape(28.0)
    listed = [n for n in range(20) if (r := result_of(snapshot, n).reading) and r.count is not None]
    # Those that began before any stale one was known are done too.
    assert set(range(10, 20)) <= set(listed)
    assert len(listed) < 20


# A scrape without time -------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["0.000001", "0.6", "1e-300"])
async def test_an_absurd_time_out_counts_against_no_instance_and_is_not_told(
    clock: Clock, header: str
) -> None:
    simulator = make_many(50, clock=clock, latency_seconds=0.5)
    config = make_config(projects=[make_many_settings(50)])
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        await clock.advance(15)
        with capture_logs() as entries:
            published = await samples(exporter, timeout=header)
            assert [entry for entry in entries if entry["log_level"] != "debug"] == []
        assert set(published.by_instance("scrape_success").values()) == {0}
        assert published.errors(instance_id(0)) == {}
        assert set(published.by_instance("scrape_api_errors").values()) == {0}
        view = exporter.scraper.view()
        assert all(result.failure is None for result in view.results)
        after = await samples(exporter)
        assert set(after.by_instance("scrape_success").values()) == {1}


@pytest.mark.parametrize("header", ["nan", "-5", "0", "inf", "-inf", "soon", ""])
async def test_a_time_out_that_is_none_is_the_configured_one(clock: Clock, header: str) -> None:
    simulator = make_many(5, clock=clock, latency_seconds=3.0)
    config = make_config(projects=[make_many_settings(5)])
    async with running_exporter(simulator, config) as exporter:
        published = await samples(exporter, timeout=header)
    assert set(published.by_instance("scrape_success").values()) == {1}


async def test_min_interval_serves_nothing_that_a_deadline_cut_short(clock: Clock) -> None:
    simulator = make_many(5, clock=clock, latency_seconds=2.0)
    config = make_config(projects=[make_many_settings(5)], scrape={"min_interval": "1m"})
    async with running_exporter(simulator, config) as exporter:
        for header in ("0.1", "2"):
            short = await samples(exporter, timeout=header)
            assert set(short.by_instance("scrape_success").values()) == {0}
        full = await samples(exporter)
        assert set(full.by_instance("scrape_success").values()) == {1}
        simulator.requests.clear()
        for header in ("0.1", "10"):
            again = await samples(exporter, timeout=header)
            assert set(again.by_instance("scrape_success").values()) == {1}
    assert not simulator.requests
