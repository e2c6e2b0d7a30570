"""Restore windows and full backups beside the scrapes: when they are asked for, what they say."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import structlog

from exporter.simulator import (
    Fault,
    RecordedRequest,
    SimulatedFullBackup,
    SimulatedInstance,
    Simulator,
)
from tests.support.factories import (
    ORDERS,
    PROJECT,
    Samples,
    fetch_metrics,
    fill,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
    samples,
)
from tests.support.virtual_time import HOUR, NOON, Clock

WINDOW = ("restorable_until_timestamp_seconds", "restorable_since_timestamp_seconds")
BOTH: dict[str, Any] = {"restore_window": True, "full_backups": True}


def make_full(id_: str, age_hours: float, **more: Any) -> SimulatedFullBackup:
    end = NOON - age_hours * HOUR
    return SimulatedFullBackup(id_, end - 600, end, **more)


def restorable(id_: str = ORDERS, hours: float = 10.0) -> SimulatedInstance:
    """With a full backup so long ago, and incremental ones every five minutes from then on."""
    instance = fill(make_instance(id=id_), count=int(hours * 12))
    instance.full_backups = [make_full(f"full-{id_}", hours)]
    return instance


def configured(*ids: str, **sections: Any) -> Any:
    return make_config(*(ids or (ORDERS,)), **{"defaults": BOTH, **sections})


def asked(simulator: Simulator, since: int = 0) -> dict[str, int]:
    """How often, by operation, without those of the backups."""
    found: dict[str, int] = {}
    for request in list(simulator.requests)[since:]:
        if request.operation in ("show_restore_time", "list_full_backups"):
            found[request.operation] = found.get(request.operation, 0) + 1
    return found


def source(found: Samples, name: str, instance: str = ORDERS) -> float | None:
    return found.of("source_success", instance, source=name)


def restores(found: Samples, instance: str = ORDERS) -> dict[str, float | None]:
    """The numbers that a failed source must not publish."""
    names = (*WINDOW, "restorable_oldest_timestamp_seconds", "restorable_ranges")
    values = {name: found.of(name, instance) for name in names}
    for name in ("full_backup_oldest_end_timestamp_seconds", "full_backup_latest_failed"):
        values[name] = found.of(name, instance)
    values["full_backups"] = found.of("full_backups", instance, backup_type="auto")
    return {name: value for name, value in values.items() if value is not None}


# What they say ---------------------------------------------------------------------------------


async def test_the_first_scrape_tells_to_which_moments_and_from_what(clock: Clock) -> None:
    instance = fill(make_instance(), count=6)  # ends 11:35 to 12:00
    instance.backups += [make_backup(age_hours=age) for age in (8, 8.1, 8.2)]
    instance.full_backups = [
        make_full("old", 8.25, megabytes=100.0),
        make_full("new", 0.5, megabytes=250.5),
        make_full("by-hand", 20, backup_type="manual", status="AVAILABLE"),
        make_full("failed", 0.25, status="FAILED"),
        SimulatedFullBackup("running", NOON - 60, None),
    ]
    simulator = make_simulator(instance, clock=clock)
    async with running_exporter(simulator, configured()) as exporter:
        found = await samples(exporter)
    assert found.of("restorable_ranges") == 3
    assert found.of("restorable_until_timestamp_seconds") == NOON
    assert found.of("restorable_since_timestamp_seconds") == NOON - 0.5 * HOUR
    assert found.of("restorable_oldest_timestamp_seconds") == NOON - 20 * HOUR
    assert found.of("restorable_max_gap_seconds") == 11.75 * HOUR
    by_type = {
        kind: [
            found.of(name, backup_type=kind)
            for name in (
                "full_backups",
                "full_backup_latest_end_timestamp_seconds",
                "full_backup_latest_duration_seconds",
                "full_backup_latest_size_bytes",
            )
        ]
        for kind in ("auto", "manual")
    }
    assert by_type == {
        "auto": [2, NOON - 0.5 * HOUR, 600, 250.5 * 1024 * 1024],
        "manual": [1, NOON - 20 * HOUR, 600, 2_048 * 1024 * 1024],
    }
    assert found.of("full_backup_oldest_end_timestamp_seconds") == NOON - 20 * HOUR
    assert found.of("full_backup_latest_failed") == 1
    assert found.of("full_backup_stale_after_seconds") == 8 * 86_400
    for name in ("restore_window", "full_backups"):
        assert source(found, name) == 1
        assert found.of("source_last_success_timestamp_seconds", source=name) == NOON


async def test_nothing_is_asked_and_nothing_said_where_the_settings_are_off(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    async with running_exporter(simulator, make_config(ORDERS)) as exporter:
        text = (await fetch_metrics(exporter)).text
    assert asked(simulator) == {}
    names = {line.split("{")[0] for line in text.splitlines() if not line.startswith("#")}
    assert not any("restorable" in name or "full_" in name or "source" in name for name in names)


@pytest.mark.parametrize("on", ["restore_window", "full_backups"])
async def test_each_can_be_on_without_the_other(clock: Clock, on: str) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    config = make_config(ORDERS, defaults={on: True})
    async with running_exporter(simulator, config) as exporter:
        found = await samples(exporter)
    operation = {"restore_window": "show_restore_time", "full_backups": "list_full_backups"}[on]
    assert asked(simulator) == {operation: 1}
    other = "full_backups" if on == "restore_window" else "restore_window"
    assert (source(found, on), source(found, other)) == (1, None)


async def test_nothing_to_restore_to_is_an_answer(clock: Clock) -> None:
    simulator = make_simulator(fill(make_instance(), count=3), clock=clock)
    async with running_exporter(simulator, configured()) as exporter:
        found = await samples(exporter)
    assert restores(found) == {"restorable_ranges": 0, "full_backups": 0}
    assert source(found, "restore_window") == source(found, "full_backups") == 1


async def test_backups_of_deleted_instances_belong_to_nobody(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    simulator.projects[PROJECT].left_behind = [
        make_full("gone", 30, backup_type="manual", instance_id=instance_id(99))
    ]
    other = instance_id(1)
    simulator.projects[PROJECT].instances[other] = make_instance(id=other)
    async with running_exporter(simulator, configured(ORDERS, other)) as exporter:
        found = await samples(exporter)
    assert found.of("full_backups", backup_type="manual") == 0
    assert found.of("full_backup_oldest_end_timestamp_seconds") == NOON - 10 * HOUR
    assert {dict(labels).get("instance") for _, labels in found} <= {None, ORDERS, other}


@pytest.mark.parametrize("form", ["true", "split"])
async def test_ranges_that_touch_are_one(clock: Clock, form: str) -> None:
    simulator = make_simulator(restorable(), clock=clock, restore_times=form)
    async with running_exporter(simulator, configured()) as exporter:
        found = await samples(exporter)
    assert found.of("restorable_ranges") == 1
    assert found.of("restorable_max_gap_seconds") is None
    assert found.of("restorable_since_timestamp_seconds") == NOON - 10 * HOUR


# Failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "reason", "said"),
    [
        ({"restore_times": "inverted"}, "bad_response", "starts after its end: start_time 16905"),
        ({"restore_times": "text"}, "bad_response", "not a list of restorable ranges"),
        ({"restore_times": "seconds"}, "bad_response", "not in milliseconds: start_time 16905"),
        ({"restore_times": "missing"}, "bad_response", "no restore_times"),
        ({"restore_time_status": 403}, "forbidden", "DBS.200010"),
        ({"restore_time_status": 404}, "not_found", "APIGW.0101"),
    ],
)
async def test_a_restore_window_that_cannot_be_read_fails_nothing_else(
    clock: Clock, knobs: Mapping[str, Any], reason: str, said: str
) -> None:
    simulator = make_simulator(restorable(), clock=clock, **knobs)
    async with running_exporter(simulator, configured()) as exporter:
        (result,) = (await exporter.scraper.scrape(10)).results
        found = await samples(exporter)
    assert result.restore_window is not None
    failure = result.restore_window.failure
    assert failure is not None
    assert failure.reason.value == reason
    assert said in failure.message
    assert found.of("scrape_success") == 1
    assert found.of("incremental_backups") == 120
    assert (source(found, "restore_window"), source(found, "full_backups")) == (0, 1)
    assert set(restores(found)) == {
        "full_backups",
        "full_backup_oldest_end_timestamp_seconds",
        "full_backup_latest_failed",
    }
    assert found.errors() == {reason: 1}


@pytest.mark.parametrize(("status", "reason"), [(403, "forbidden"), (404, "not_found")])
async def test_full_backups_that_cannot_be_read_fail_nothing_else(
    clock: Clock, status: int, reason: str
) -> None:
    other = instance_id(1)
    simulator = make_simulator(
        restorable(), restorable(other), clock=clock, full_backups_status=status
    )
    async with running_exporter(simulator, configured(ORDERS, other)) as exporter:
        results = (await exporter.scraper.scrape(10)).results
        found = await samples(exporter)
    for result in results:
        assert result.full_backups is not None
        assert result.full_backups.failure is not None
        assert result.full_backups.failure.reason.value == reason
        instance = result.instance.id
        assert found.of("scrape_success", instance) == 1
        assert source(found, "full_backups", instance) == 0
        assert source(found, "restore_window", instance) == 1
        assert "full_backups" not in restores(found, instance)
        assert found.of("full_backup_stale_after_seconds", instance) == 691_200


async def test_a_failed_refresh_ends_the_numbers_until_one_succeeds(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    async with running_exporter(simulator, configured()) as exporter:
        good = await samples(exporter)
        simulator.add_fault(Fault(status=500), "show_restore_time")
        simulator.add_fault(Fault(status=500), "list_full_backups")
        failing: list[tuple[float | None, float | None]] = []
        for _ in range(20):  # both intervals are over within it
            await clock.advance(60)
            await samples(exporter)  # begins what is due, and does not wait for it
            await clock.advance(1)
            found = await samples(exporter)
            state = source(found, "restore_window"), source(found, "full_backups")
            failing.append(state)
            assert ("restorable_ranges" in restores(found)) is (state[0] == 1)
            assert ("full_backups" in restores(found)) is (state[1] == 1)
            assert found.of("scrape_success") == 1
    assert restores(good)["restorable_ranges"] == 1
    for number in (0, 1):
        states = [state[number] for state in failing]
        assert 1 <= states.count(0) <= 3  # tried again a minute later
        assert states[-1] == 1


async def test_what_fails_for_one_cause_is_told_in_one_line(clock: Clock) -> None:
    ids = [instance_id(number) for number in range(20)]
    simulator = make_simulator(*map(restorable, ids), clock=clock, restore_time_status=403)
    async with running_exporter(simulator, configured(*ids)) as exporter:
        with structlog.testing.capture_logs() as logs:
            for _ in range(4):
                await samples(exporter)
                await clock.advance(300)
            simulator.knobs = make_simulator(clock=clock).knobs
            for _ in range(8):
                await samples(exporter)
                await clock.advance(60)
    told = [line for line in logs if line["event"].startswith("source")]
    assert told[0]["event"] == "source failing"
    assert (told[0]["source"], told[0]["reason"]) == ("restore_window", "forbidden")
    assert told[0]["instances"] == 20
    assert told[0]["names"].startswith(ids[0])
    assert told[0]["names"].endswith(" more")
    recovered = told[1:]
    assert {line["event"] for line in recovered} == {"source works again"}
    assert sum(line["instances"] for line in recovered) == 20
    assert len(recovered) <= 7  # as they become due, a scrape's together


async def test_an_old_number_is_absent_after_two_intervals(clock: Clock) -> None:
    """Its refreshes hang: nothing has failed, and still nothing old is said as new."""
    simulator = make_simulator(restorable(), clock=clock)
    config = configured(api={"timeout": "10m", "retries": 0})
    async with running_exporter(simulator, config) as exporter:
        await samples(exporter)
        simulator.fault_script = lambda request: (
            Fault(hang=True) if request.operation == "show_restore_time" else None
        )
        seen = []
        for _ in range(12):
            await clock.advance(60)
            found = await samples(exporter)
            seen.append((restores(found).get("restorable_ranges"), source(found, "restore_window")))
        (result,) = (await exporter.scraper.scrape(10)).results
    assert (seen[:9], seen[10:]) == ([(1, 1)] * 9, [(None, 0)] * 2)
    assert result.restore_window is not None
    assert result.restore_window.failure is not None
    assert "minutes old, and no newer one came" in result.restore_window.failure.message


# When they are asked ---------------------------------------------------------------------------


async def test_each_is_asked_once_in_its_interval(clock: Clock) -> None:
    ids = [instance_id(number) for number in range(5)]
    simulator = make_simulator(*(restorable(id_, hours=1) for id_ in ids), clock=clock)
    async with running_exporter(simulator, configured(*ids)) as exporter:
        await samples(exporter)
        assert asked(simulator) == {"show_restore_time": 5, "list_full_backups": 1}
        since = len(simulator.requests)
        for _ in range(60):  # an hour
            await clock.advance(60)
            await samples(exporter)
        await clock.advance(1)
    # Twelve intervals of five minutes and six of ten; the last may be under way or not.
    assert 5 * 11 <= asked(simulator, since)["show_restore_time"] <= 5 * 13
    assert 5 <= asked(simulator, since)["list_full_backups"] <= 7


async def test_an_instance_and_scrape_of_a_minute_cost_at_most_one_and_a_quarter_requests(
    clock: Clock,
) -> None:
    """One for what is new, a fifth for the restore window, and a page of full backups for many."""
    ids = [instance_id(number) for number in range(50)]
    instances = [restorable(id_, hours=1) for id_ in ids]
    for instance in instances:
        instance.full_backups += [make_full(f"{n}-{instance.id}", n * 24.0) for n in range(1, 8)]
    simulator = make_simulator(*instances, clock=clock)
    async with running_exporter(simulator, configured(*ids)) as exporter:
        await samples(exporter)
        await clock.advance(60)
        since = len(simulator.requests)
        for _ in range(20):  # two intervals of the longer one
            await exporter.scraper.scrape(30)
            await clock.advance(60)
    requests = len(simulator.requests) - since
    assert asked(simulator, since)["list_full_backups"] == 2 * 5  # 400 rows
    assert requests / (20 * len(ids)) <= 1.25


async def test_refreshes_are_spread_over_the_interval(clock: Clock) -> None:
    ids = [instance_id(number) for number in range(60)]
    simulator = make_simulator(*(restorable(id_, hours=1) for id_ in ids), clock=clock)
    async with running_exporter(simulator, configured(*ids)) as exporter:
        await samples(exporter)
        await clock.advance(10)
        each_minute = []
        for _ in range(10):
            since = len(simulator.requests)
            await clock.advance(60)
            await exporter.scraper.scrape(30)
            await clock.advance(3)
            each_minute.append(asked(simulator, since).get("show_restore_time", 0))
    assert 105 <= sum(each_minute) <= 135
    assert all(2 <= count <= 24 for count in each_minute)  # a fifth each, give or take


async def test_an_interval_shorter_than_the_scrapes_still_has_numbers(clock: Clock) -> None:
    """Nothing that is young enough would be left to say: so it is waited for."""
    simulator = make_simulator(restorable(), clock=clock)
    intervals = {"restore_window_interval": "5s", "full_backups_interval": "5s"}
    async with running_exporter(simulator, configured(api=intervals)) as exporter:
        for _ in range(5):
            found = await samples(exporter)
            assert {"restorable_ranges", "full_backups"} <= set(restores(found))
            await clock.advance(60)


async def test_an_instance_that_discovery_finds_later_is_asked_for(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    settings = make_project_settings(discovery={"enabled": True}, **BOTH)
    async with running_exporter(simulator, make_config(projects=[settings])) as exporter:
        first = await samples(exporter)
        new = instance_id(7)
        simulator.projects[PROJECT].instances[new] = restorable(new, hours=2)
        for _ in range(12):
            await clock.advance(60)
            await samples(exporter)
        found = await samples(exporter)
    assert restores(first)["restorable_ranges"] == 1
    assert restores(found, new) == {
        "restorable_until_timestamp_seconds": NOON,
        "restorable_since_timestamp_seconds": NOON - 2 * HOUR,
        "restorable_oldest_timestamp_seconds": NOON - 2 * HOUR,
        "restorable_ranges": 1,
        "full_backup_oldest_end_timestamp_seconds": NOON - 2 * HOUR,
        "full_backup_latest_failed": 0,
        "full_backups": 1,
    }


async def test_requests_are_counted_for_the_instance_but_not_for_its_query(clock: Clock) -> None:
    other = instance_id(1)
    simulator = make_simulator(restorable(), restorable(other), clock=clock)
    async with running_exporter(simulator, configured(ORDERS, other)) as exporter:
        found = await samples(exporter)
    queries = len(simulator.requests_of("list_backups", ORDERS))
    assert found.of("scrape_api_requests") == queries
    assert found.of("api_requests_total") == queries + 1  # the restore window's
    histogram = 'gaussdb_mysql_api_request_duration_seconds_count{operation="show_restore_time"}'
    async with running_exporter(simulator, configured()) as exporter:
        text = (await fetch_metrics(exporter)).text
        text = (await fetch_metrics(exporter)).text
    assert f"{histogram} 1.0" in text


# Beside the queries, never before them ---------------------------------------------------------


def hanging(*operations: str) -> Callable[[RecordedRequest], Fault | None]:
    return lambda request: Fault(hang=True) if request.operation in operations else None


async def test_a_hanging_source_keeps_a_first_scrape_for_a_second_and_no_other(
    clock: Clock,
) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    simulator.fault_script = hanging("show_restore_time", "list_full_backups")
    async with running_exporter(simulator, configured()) as exporter:
        first = await fetch_metrics(exporter)
        await clock.advance(59)
        second = await fetch_metrics(exporter)
    assert 1.0 <= first.seconds <= 1.2
    assert first.samples.of("incremental_backups") == 120
    assert (first.samples.of("scrape_duration_seconds") or 0.0) <= 0.1
    assert source(first.samples, "restore_window") == 0
    # It has failed meanwhile: there is something to say, and nothing to wait for.
    assert second.seconds <= 0.2
    assert second.samples.of("scrape_success") == 1


async def test_once_waits_for_them_as_long_as_it_may(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    simulator.fault_script = lambda request: (
        Fault(delay_seconds=7) if request.operation == "show_restore_time" else None
    )
    async with running_exporter(simulator, configured()) as exporter:
        (result,) = (await exporter.scraper.scrape(30, patient=True)).results
    assert result.restore_window is not None
    assert result.restore_window.reading is not None


@pytest.mark.parametrize("pause", [0, 3_600])
async def test_queries_take_no_longer_where_everything_is_due_at_once(
    clock: Clock, pause: float
) -> None:
    """Fifty requests a second, a fifth of a second each: the queries have the first ones. At the
    first scrape, and at one that comes when all intervals are over."""
    ids = [instance_id(number) for number in range(80)]

    async def scrape(defaults: Mapping[str, bool]) -> tuple[list[float], float]:
        """When each instance was asked, and when the last one had answered."""
        simulator = make_simulator(
            *(restorable(id_, hours=1) for id_ in ids), clock=clock, latency_seconds=0.2
        )
        config = make_config(*ids, defaults=defaults)
        async with running_exporter(simulator, config) as exporter:
            if pause:
                await exporter.scraper.scrape(30)
                await clock.advance(pause)
            started = clock()
            found = (await fetch_metrics(exporter, timeout=30)).samples
            await clock.advance(20)
        assert set(found.by_instance("scrape_success").values()) == {1.0}
        if defaults:  # they were due indeed, and were asked
            since = [each.at for each in simulator.requests_of("show_restore_time")]
            assert sum(at >= started for at in since) == 80
        asked_at: dict[str, float] = {}
        for request in simulator.requests_of("list_backups"):
            if request.at >= started:
                asked_at.setdefault(request.instance_id, request.at - started)
        assert len(asked_at) == 80
        return sorted(asked_at.values()), max(found.by_instance("scrape_duration_seconds").values())

    alone, alone_took = await scrape({})
    beside, beside_took = await scrape(BOTH)
    late = [with_ - without for with_, without in zip(beside, alone, strict=True)]
    assert max(late) <= 0.001
    assert beside_took <= alone_took + 0.001  # whole windows and all


async def test_what_never_gets_a_turn_says_why_and_keeps_its_place(clock: Clock) -> None:
    """Two hundred instances, a request a second: no time is left for what has time."""
    ids = [instance_id(number) for number in range(200)]
    simulator = make_simulator(*(restorable(id_, hours=0.1) for id_ in ids), clock=clock)
    async with running_exporter(simulator, configured(*ids, api={"rate_limit": 1})) as exporter:
        told: list[set[str]] = []
        for _ in range(8):
            begun = clock()
            results = (await exporter.scraper.scrape(30)).results
            told.append(
                {
                    asked.failure.message if asked.failure is not None else ""
                    for result in results
                    for asked in result.sources.values()
                }
            )
            await clock.advance(60 - (clock() - begun))
        found = (await fetch_metrics(exporter, timeout=30)).samples
    assert told[0] == {""}  # nobody can know yet
    assert told[-1] == {"not asked for 300 s: queries of incremental backups go first"}
    assert [source(found, name, ids[7]) for name in ("restore_window", "full_backups")] == [0, 0]


async def test_a_probe_carries_what_is_known_of_its_instance(clock: Clock) -> None:
    other = instance_id(1)
    simulator = make_simulator(restorable(), restorable(other), clock=clock)
    async with running_exporter(simulator, configured(ORDERS, other)) as exporter:
        path = f"/probe?project={PROJECT}&instance={ORDERS}"
        found = (await fetch_metrics(exporter, path=path)).samples
        # The listing of full backups is that of the project: the other's is known with it.
        path = f"/probe?project={PROJECT}&instance={other}"
        second = (await fetch_metrics(exporter, path=path)).samples
    assert len(restores(found)) == len(restores(second, other)) == 7
    assert asked(simulator) == {"show_restore_time": 2, "list_full_backups": 1}


# A reload --------------------------------------------------------------------------------------


class Settings:
    """A configuration that a test may change between two loads."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self) -> Any:
        return self.config


async def test_a_reload_keeps_what_is_known_and_when_it_is_due(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    settings = Settings(configured())
    async with running_exporter(simulator, settings) as exporter:
        before = await samples(exporter)
        settings.config = configured(scrape={"timeout": "20s"})
        since = len(simulator.requests)
        await exporter.reload()
        after = await samples(exporter)
    assert restores(after) == restores(before)
    assert asked(simulator, since) == {}


async def test_a_reload_that_reads_another_cloud_forgets_the_first_one(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    settings = Settings(configured())
    async with running_exporter(simulator, settings) as exporter:
        before = await samples(exporter)
        simulator.instance(ORDERS).full_backups = []
        project = make_project_settings(ORDERS) | {"endpoint": "https://elsewhere.example"}
        settings.config = make_config(projects=[project], defaults=BOTH)
        await exporter.reload()
        after = await samples(exporter)
    assert restores(before)["full_backups"] == 1
    assert (restores(after)["restorable_ranges"], restores(after)["full_backups"]) == (0, 0)


async def test_a_reload_may_switch_them_on_and_off(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    settings = Settings(make_config(ORDERS))
    async with running_exporter(simulator, settings) as exporter:
        assert restores(await samples(exporter)) == {}
        settings.config = configured()
        await exporter.reload()
        assert len(restores(await samples(exporter))) == 7
        settings.config = make_config(ORDERS)
        await exporter.reload()
        off = await samples(exporter)
    assert restores(off) == {}
    assert source(off, "restore_window") is None


async def test_what_is_under_way_ends_with_the_program(clock: Clock) -> None:
    simulator = make_simulator(restorable(), clock=clock)
    simulator.fault_script = hanging("show_restore_time", "list_full_backups")
    async with running_exporter(simulator, configured(api={"timeout": "10m"})) as exporter:
        await samples(exporter)
    # The loop of the test would report a task that is left behind.
