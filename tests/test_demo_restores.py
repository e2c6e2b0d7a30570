"""What the demo tells of restores, computed from the simulated cloud's own rows alone."""

from itertools import pairwise

import pytest

from exporter.config.schema import ApiConfig
from exporter.demo import build_demo_config
from exporter.simulator import (
    DEMO_BUSY,
    DEMO_EMPTY,
    DEMO_FAILING,
    DEMO_HOLE,
    DEMO_INSTANCES,
    DEMO_PROJECT_ID,
    DEMO_STALE,
    DemoInstance,
    SimulatedFullBackup,
    Simulator,
    build_demo,
)
from tests.support.factories import Samples, running_exporter, samples
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

CHAIN_BREAKS_AFTER = 900.0

Moments = list[tuple[float, float]]


def restorable(simulator: Simulator, demo: DemoInstance, now: float) -> Moments:
    """Backup after backup from each full one on, until one is missing; then what touches is one."""
    rows = simulator.backups_between(DEMO_PROJECT_ID, demo.id, 0, now, now)
    ends = sorted(row.end for row in rows if row.end is not None and row.end <= now)
    found: Moments = []
    for full in usable(simulator, demo, now):
        start = until = full.end or 0.0
        for end in ends:
            if end > until:
                if end - until > CHAIN_BREAKS_AFTER:
                    break
                until = end
        found.append((start, until))
    found.sort()
    merged: Moments = []
    for start, until in found:
        if merged and start <= merged[-1][1] + 1:
            start, last = merged.pop()
            until = max(until, last)
        merged.append((start, until))
    return merged


def ended(simulator: Simulator, demo: DemoInstance, now: float) -> list[SimulatedFullBackup]:
    fulls = simulator.full_backups(DEMO_PROJECT_ID, demo.id, now)
    return sorted(
        (full for full in fulls if full.end is not None and full.end <= now),
        key=lambda full: full.end or 0.0,
    )


def usable(simulator: Simulator, demo: DemoInstance, now: float) -> list[SimulatedFullBackup]:
    return [full for full in ended(simulator, demo, now) if full.status != "FAILED"]


def expected_window(simulator: Simulator, demo: DemoInstance, now: float) -> dict[str, float]:
    ranges = restorable(simulator, demo, now)
    numbers = {"restorable_ranges": float(len(ranges))}
    if ranges:
        numbers["restorable_until_timestamp_seconds"] = ranges[-1][1]
        numbers["restorable_since_timestamp_seconds"] = ranges[-1][0]
        numbers["restorable_oldest_timestamp_seconds"] = ranges[0][0]
    if len(ranges) > 1:
        gaps = [later[0] - earlier[1] for earlier, later in pairwise(ranges)]
        numbers["restorable_max_gap_seconds"] = max(gaps)
    return numbers


def expected_full(simulator: Simulator, demo: DemoInstance, now: float) -> dict[str, float]:
    good = usable(simulator, demo, now)
    numbers = {"full_backups": float(len(good))}
    every = ended(simulator, demo, now)
    if every:
        numbers["full_backup_latest_failed"] = float(every[-1].status == "FAILED")
    if good:
        last = good[-1]
        assert last.end is not None
        assert last.megabytes is not None
        numbers["full_backup_latest_end_timestamp_seconds"] = last.end
        numbers["full_backup_latest_duration_seconds"] = last.end - last.begin
        numbers["full_backup_latest_size_bytes"] = last.megabytes * 1024 * 1024
        numbers["full_backup_oldest_end_timestamp_seconds"] = good[0].end or 0.0
    return numbers


WINDOW = (
    "restorable_ranges",
    "restorable_until_timestamp_seconds",
    "restorable_since_timestamp_seconds",
    "restorable_oldest_timestamp_seconds",
    "restorable_max_gap_seconds",
)
FULL = ("full_backup_latest_failed", "full_backup_oldest_end_timestamp_seconds")
FULL_BY_TYPE = (
    "full_backups",
    "full_backup_latest_end_timestamp_seconds",
    "full_backup_latest_duration_seconds",
    "full_backup_latest_size_bytes",
)


def published(found: Samples, demo: DemoInstance) -> tuple[dict[str, float], dict[str, float]]:
    window = {name: found.of(name, demo.id) for name in WINDOW}
    full = {name: found.of(name, demo.id) for name in FULL}
    full |= {name: found.of(name, demo.id, backup_type="auto") for name in FULL_BY_TYPE}
    return tuple(  # type: ignore[return-value]  # two of them
        {name: value for name, value in numbers.items() if value is not None}
        for numbers in (window, full)
    )


async def test_the_demo_tells_truly_what_can_be_restored(clock: Clock) -> None:
    simulator = build_demo(clock)
    config = build_demo_config("http://demo.example")
    config = config.model_copy(update={"api": ApiConfig(rate_limit=0)})
    async with running_exporter(simulator, config) as exporter:
        for pause in (0.0, 60.0, 300.0, HOUR, 12 * HOUR, DAY, 10 * DAY):
            await clock.advance(pause)
            await samples(exporter)
            await clock.advance(1)
            found = await samples(exporter)
            for demo in DEMO_INSTANCES:
                window, full = published(found, demo)
                for source, numbers, expected in (
                    ("restore_window", window, expected_window),
                    ("full_backups", full, expected_full),
                ):
                    if demo is DEMO_FAILING and source == "restore_window":
                        assert numbers == {}
                        assert found.of("source_success", demo.id, source=source) == 0
                        continue
                    at = found.of("source_last_success_timestamp_seconds", demo.id, source=source)
                    assert at is not None
                    assert clock() - at <= 1_200
                    assert numbers == pytest.approx(expected(simulator, demo, at)), demo.name
                    assert found.of("source_success", demo.id, source=source) == 1


async def test_the_demos_instances_differ_in_what_can_be_restored(clock: Clock) -> None:
    simulator = build_demo(clock)
    async with running_exporter(simulator, build_demo_config("http://demo.example")) as exporter:
        await samples(exporter)
        await clock.advance(5)  # after the first scrape
        found = await samples(exporter)
    until = found.by_instance("restorable_until_timestamp_seconds")
    assert NOON - until[DEMO_STALE.id] == pytest.approx(3 * HOUR, abs=600)
    assert NOON - until[DEMO_HOLE.id] == pytest.approx(10 * HOUR, abs=600)  # its chain is broken
    ranges = found.by_instance("restorable_ranges")
    assert (ranges[DEMO_HOLE.id], ranges[DEMO_EMPTY.id]) == (2, 0)
    assert found.by_instance("restorable_max_gap_seconds").keys() == {DEMO_HOLE.id}
    failed = found.by_instance("full_backup_latest_failed")
    assert [id_ for id_, value in failed.items() if value] == [DEMO_BUSY.id]
    assert DEMO_FAILING.id not in ranges
