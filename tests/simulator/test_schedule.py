"""Backups made by the clock are those that rows written down one by one would be."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.simulator import (
    DEMO_PROJECT_ID,
    Knobs,
    Schedule,
    SimulatedInstance,
    build_cloud,
)
from exporter.simulator.listing import Window, find_listed
from tests.support.simulated_cloud import (
    DAY,
    HOUR,
    NOON,
    ORDERS,
    PROJECT,
    Clock,
    fetch,
    ids,
    make_backup,
    make_simulator,
)


def make_schedule(**changes: Any) -> Schedule:
    return Schedule(**{"since": NOON - 2 * DAY, "retention_seconds": 1.5 * DAY, **changes})


def test_schedule_whose_backups_would_overtake_each_other_is_refused() -> None:
    with pytest.raises(ValueError, match="out of order"):
        make_schedule(every_seconds=60.0)


@given(
    meaning=st.sampled_from(["begin", "end", "overlap"]),
    running=st.sampled_from(["by_begin", "always", "hidden"]),
    bounds=st.sampled_from(["inclusive", "exclusive", "half_open"]),
    order=st.sampled_from(["begin_asc", "begin_desc", "end_asc", "end_desc"]),
    hide_running=st.booleans(),
    now=st.floats(-2.1 * DAY, 0.1 * DAY),
    begin=st.integers(int(-2.1 * DAY), int(0.2 * DAY)),
    length=st.integers(1, int(2 * DAY)),
    pauses=st.lists(st.tuples(st.floats(-2 * DAY, 0), st.floats(0, 0.5 * DAY)), max_size=3),
    cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_schedule_lists_what_its_rows_written_down_would(
    meaning: Any,
    running: Any,
    bounds: Any,
    order: Any,
    hide_running: bool,
    now: float,
    begin: int,
    length: int,
    pauses: list[tuple[float, float]],
    cuts: tuple[int, int],
) -> None:
    spans = [(NOON + start, NOON + start + span) for start, span in pauses]
    schedule = make_schedule(every_seconds=1200.0, seed=7, pauses=spans)
    rows = [schedule.row(slot) for slot in range(160)]
    written = [row for row in rows if not any(a <= row.begin < b for a, b in spans)]
    knobs = Knobs(
        filter_meaning=meaning,
        running_under_end_filter=running,
        bounds=bounds,
        order=order,
        hide_running=hide_running,
    )

    def listed(instance: SimulatedInstance) -> list[str]:
        window = Window(NOON + begin, NOON + begin + length)
        found = find_listed(
            instance,
            knobs,
            window,
            now=NOON + now,
            offsite=False,
            rng=random.Random(0),
            seed=0,
        )
        page = found[cuts[0] : cuts[0] + cuts[1]]
        return [str(len(found)), *(row.id for row in page)]

    assert listed(SimulatedInstance("scheduled", schedule=schedule)) == listed(
        SimulatedInstance("written", backups=written)
    )


async def test_schedule_and_written_rows_are_listed_together() -> None:
    simulator = make_simulator(make_backup("extra", "11:59:30", "11:59:40"), order="id")
    simulator.instance(ORDERS).schedule = make_schedule()

    answer = await fetch(simulator, limit=10)

    assert answer.json()["total_count"] == len(
        simulator.backups_between(PROJECT, ORDERS, 0, NOON + 1)
    )
    assert ids(answer) == sorted(ids(answer))


async def test_stopped_backups_begin_again_when_resumed() -> None:
    clock = Clock()
    simulator = build_cloud(1, 288, clock=clock)
    instance_id = next(iter(simulator.projects[DEMO_PROJECT_ID].instances))

    def begun_in_last_hour() -> int:
        now = clock.now
        found = simulator.backups_between(DEMO_PROJECT_ID, instance_id, now - DAY, now)
        return sum(backup.begin > now - HOUR for backup in found)

    counts = [begun_in_last_hour()]
    simulator.stop_backups(instance_id)
    simulator.stop_backups(instance_id)
    clock.now += HOUR
    counts.append(begun_in_last_hour())
    simulator.resume_backups(instance_id)
    clock.now += HOUR
    counts.append(begun_in_last_hour())

    assert counts == [12, 0, 12]
