import pytest

from exporter.restores.schedule import RefreshSchedule
from tests.support.virtual_time import NOON

FIVE_MINUTES = 300.0


def make_schedule(name: str = "a", interval: float = FIVE_MINUTES) -> RefreshSchedule:
    return RefreshSchedule(("restore_window", "project", name), interval)


def test_it_is_due_at_once_and_then_once_in_each_interval() -> None:
    schedule = make_schedule()
    assert schedule.is_due(NOON)
    schedule.done(NOON, succeeded=True)
    second = schedule.due_at
    assert NOON < second <= NOON + FIVE_MINUTES
    assert not schedule.is_due(second - 0.001)
    assert schedule.is_due(second)
    schedule.done(second + 20, succeeded=True)  # late: the next one is not later for it
    assert schedule.due_at == pytest.approx(second + FIVE_MINUTES)


def test_instances_are_spread_over_the_interval() -> None:
    thirds = [0, 0, 0]
    for number in range(300):
        schedule = make_schedule(f"instance-{number}")
        schedule.done(NOON, succeeded=True)
        thirds[min(2, int((schedule.due_at - NOON) // 100))] += 1
    assert all(70 <= count <= 130 for count in thirds)


def test_what_failed_is_tried_again_sooner_and_then_more_and_more_seldom() -> None:
    schedule = make_schedule(interval=3_600.0)
    waits = []
    now = NOON
    for _ in range(4):
        schedule.done(now, succeeded=False)
        waits.append(min(schedule.due_at - now, 1_000_000))
        now = schedule.due_at
    assert waits[:2] == [60, 120]
    assert all(wait <= 3_600 for wait in waits)
    schedule.done(now, succeeded=True)
    assert schedule.failures == 0


def test_a_short_interval_is_never_shortened() -> None:
    schedule = make_schedule(interval=5.0)
    schedule.done(NOON, succeeded=False)
    assert 0 < schedule.due_at - NOON <= 5


def test_a_clock_that_was_set_back_does_not_keep_it_from_being_due() -> None:
    schedule = make_schedule()
    schedule.done(NOON, succeeded=True)
    assert schedule.is_due(NOON - 86_400)


def test_an_earlier_configurations_times_are_kept_but_not_beyond_a_shorter_interval() -> None:
    before = make_schedule(interval=3_600.0)
    before.done(NOON, succeeded=True)
    same, shorter = make_schedule(interval=3_600.0), make_schedule(interval=60.0)
    same.adopt(before, NOON)
    shorter.adopt(before, NOON)
    assert same.due_at == before.due_at
    assert NOON < shorter.due_at <= NOON + 60
