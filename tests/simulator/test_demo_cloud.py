"""The demo and the cloud of any size hold what they are described by."""

import itertools

from exporter.simulator import (
    DEMO_BUSY,
    DEMO_EMPTY,
    DEMO_FAILING,
    DEMO_HEALTHY,
    DEMO_HOLE,
    DEMO_PROJECT_ID,
    DEMO_STALE,
    Simulator,
    build_cloud,
    build_demo,
)
from tests.support.simulated_cloud import DAY, HOUR, NOON, Clock, at, fetch


def latest_end(simulator: Simulator, instance_id: str, now: float) -> float:
    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, 0, now, now)
    return max(backup.end for backup in found if backup.end is not None and backup.end <= now)


def count(simulator: Simulator, instance_id: str, hours: float) -> int:
    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, NOON - hours * HOUR, NOON)
    return len(found)


def test_demo_shows_a_healthy_a_busy_a_stale_and_an_empty_instance() -> None:
    simulator = build_demo(Clock())

    assert 287 <= count(simulator, DEMO_HEALTHY.id, 24) <= 289
    assert 2015 <= count(simulator, DEMO_BUSY.id, 7 * 24) <= 2017
    assert count(simulator, DEMO_BUSY.id, 8 * 24) > 2290
    assert NOON - latest_end(simulator, DEMO_HEALTHY.id, NOON) < 10 * 60
    assert 0 <= NOON - latest_end(simulator, DEMO_STALE.id, NOON) - 2.9 * HOUR < 0.25 * HOUR
    assert count(simulator, DEMO_EMPTY.id, 10_000) == 0
    assert {len(i) for i in simulator.projects[DEMO_PROJECT_ID].instances} == {36}


def test_demo_has_a_hole_of_four_hours_and_backups_on_both_sides() -> None:
    simulator = build_demo(Clock())

    begins = [
        backup.begin
        for backup in simulator.backups_between(DEMO_PROJECT_ID, DEMO_HOLE.id, NOON - DAY, NOON)
    ]
    gaps = sorted(after - before for before, after in itertools.pairwise(begins))

    assert 4 * HOUR <= gaps[-1] < 4.2 * HOUR
    assert gaps[-2] < 6 * 60


def test_demo_goes_on_with_the_clock_and_repeats_itself_exactly() -> None:
    clock = Clock()
    simulator = build_demo(clock)
    before = latest_end(simulator, DEMO_HEALTHY.id, clock.now)
    clock.now += HOUR

    assert clock.now - latest_end(simulator, DEMO_HEALTHY.id, clock.now) < 10 * 60
    assert latest_end(build_demo(Clock()), DEMO_HEALTHY.id, NOON) == before


def test_demo_sizes_follow_the_day() -> None:
    simulator = build_demo(Clock())

    def megabytes(begin: str, end: str) -> float:
        window = (at(begin), at(end))
        found = simulator.backups_between(DEMO_PROJECT_ID, DEMO_BUSY.id, *window)
        return sum(backup.size or 0.0 for backup in found) / 1024

    afternoon = megabytes("05:00", "09:00")  # 13:00 to 17:00 in the cloud's zone
    evening = megabytes("07:59", "11:59") - megabytes("07:59", "09:00")
    assert afternoon > evening > 0


async def test_demo_has_an_instance_that_always_fails() -> None:
    simulator = build_demo(Clock())
    simulator.projects[DEMO_PROJECT_ID].tokens.add("a-static-token")
    path = f"/v3/{DEMO_PROJECT_ID}/instances/{DEMO_FAILING.id}/incremental-backups"

    answers = [await fetch(simulator, path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[0].json()["error_code"] == "DBS.200412"
    assert (await fetch(simulator, path, {})).status_code == 401


def test_cloud_of_any_size_has_about_the_backups_asked_for() -> None:
    simulator = build_cloud(3, 500, clock=Clock())

    instances = simulator.projects[DEMO_PROJECT_ID].instances
    assert len(instances) == 3
    assert {len(id_) for id_ in instances} == {36}
    assert all(499 <= count(simulator, id_, 100) <= 501 for id_ in instances)


def test_cloud_makes_backups_as_often_as_asked() -> None:
    clock = Clock()
    simulator = build_cloud(1, 500, every_seconds=2, clock=clock)
    instance_id = next(iter(simulator.projects[DEMO_PROJECT_ID].instances))
    clock.now += 3 * HOUR

    found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, clock.now - 60, clock.now)

    ends = [backup.end for backup in found if backup.end is not None and backup.end <= clock.now]
    assert 29 <= len(ends) <= 31
    assert {later - earlier for earlier, later in itertools.pairwise(ends)} <= {1, 2, 3}


def hours_ago(simulator: Simulator, instance_id: str) -> list[tuple[int, int]]:
    ranges = simulator.restorable_ranges(DEMO_PROJECT_ID, instance_id)
    return [(round((NOON - start) / HOUR), round((NOON - end) / HOUR)) for start, end in ranges]


def test_demo_can_be_restored_as_far_as_its_backups_let_it() -> None:
    simulator = build_demo(Clock())

    assert hours_ago(simulator, DEMO_HEALTHY.id) == [(179, 0)]
    assert hours_ago(simulator, DEMO_STALE.id) == [(179, 3)]
    assert hours_ago(simulator, DEMO_HOLE.id) == [(179, 96), (83, 10)]  # its chain is broken
    assert hours_ago(simulator, DEMO_EMPTY.id) == []


def test_demo_has_an_instance_whose_last_full_backup_failed() -> None:
    simulator = build_demo(Clock())

    last = {
        id_: [full.status for full in simulator.full_backups(DEMO_PROJECT_ID, id_)][-1:]
        for id_ in simulator.projects[DEMO_PROJECT_ID].instances
    }
    assert last.pop(DEMO_EMPTY.id) == []
    assert [id_ for id_, status in last.items() if status == ["FAILED"]] == [DEMO_BUSY.id]
