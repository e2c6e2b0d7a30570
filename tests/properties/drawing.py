"""How examples are drawn: what clouds hold, how they answer, and what happens meanwhile."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from hypothesis import strategies as st

from exporter.simulator import Knobs
from exporter.simulator.knobs import Order
from tests.properties.world import (
    CHANGING_FAULTS,
    DATE_FAULTS,
    FAULTS,
    LOOKBACKS,
    SPECIAL_FAULTS,
    Cloud,
    Row,
    Scenario,
    Step,
)
from tests.support.virtual_time import HOUR

TotalCount = Literal["true", "missing", "null", "lie", "negative", "string", "float"]

SIZES = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.109375, 1.0, 2_048.0, 1e9]),
    st.floats(0.0, 1e6, allow_nan=False),
)
# Within a minute the machine's clock is good enough; beyond it is the cloud's that counts.
SKEWS = [0, 0, 0, 45, -45, 120, -120, 7_200, -7_200, -40 * 86_400]


@st.composite
def series(draw: st.DrawFn, times: Sequence[float]) -> list[Row]:
    """Backups made one after the other, some at the borders of pages, the last about a scrape."""
    cadence = draw(st.sampled_from([60, 300, 300, 600, 900, 1_800, 3_600, 9_000]))
    count = draw(
        st.one_of(st.integers(0, 20), st.sampled_from([48, 49, 50, 51, 52, 97, 98, 99, 100, 101]))
    )
    duration = draw(st.sampled_from([1, 30.5, 59, 200, 900, 2 * 3_600]))
    last = draw(st.sampled_from(times)) + draw(st.integers(-40, 20) | st.integers(-3, 1)) * cadence
    last += draw(st.sampled_from([0, 0.5, 7, 31]))
    retention = draw(st.sampled_from([None, None, None, 1_800.0, 4 * HOUR, 30 * HOUR]))
    late = draw(st.sampled_from([0, 0, 0, 5, 600]))
    rows = []
    for number in range(count):
        begin = last - number * cadence
        end = begin + duration
        appears = end + late if late else begin
        deleted = None if retention is None else max(end + retention, appears)
        rows.append(Row(begin, end, appears, deleted, float(number) + 0.5))
    return rows


@st.composite
def long_ones(draw: st.DrawFn, times: Sequence[float]) -> list[Row]:
    """A few backups that take long, one after the other; the last ends about a scrape."""
    duration = draw(st.integers(3_000, 3 * 3_600) | st.integers(3_600, 30 * 3_600))
    end = draw(st.sampled_from(times)) - draw(st.integers(0, 90) | st.integers(-3_600, 3_600))
    pause = draw(st.sampled_from([0, 60, 3_600]))
    rows: list[Row] = []
    for _ in range(draw(st.integers(1, 4))):
        rows.append(Row(end - duration, end, end - duration, size=float(len(rows))))
        end -= duration + pause
    return rows


@st.composite
def odd_rows(draw: st.DrawFn) -> Row:
    """One backup for itself: it may take thirty hours, and appear late."""
    begin = draw(
        st.integers(-60 * 3_600, 12 * 3_600) | st.integers(-3 * 3_600, 0) | st.integers(-600, 600)
    ) + draw(st.sampled_from([0, 0.25]))
    duration = draw(
        st.none() | st.integers(0, 600) | st.integers(0, 30 * 3_600) | st.integers(3_600, 5 * 3_600)
    )
    end = None if duration is None else begin + duration
    late = draw(st.just(0) | st.integers(0, 3_500) | st.integers(0, 20 * 3_600))
    deleted = draw(st.none() | st.integers(0, 40 * 3_600))
    return Row(
        begin,
        end,
        begin + late,
        None if deleted is None else begin + late + deleted,
        draw(SIZES),
        offsite=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def all_rows(draw: st.DrawFn, times: Sequence[float]) -> tuple[Row, ...]:
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 2))):
        rows += draw(series(times))
    if draw(st.integers(0, 2)) == 0:
        rows += draw(long_ones(times))
    rows += draw(st.lists(odd_rows(), max_size=3))
    if rows and draw(st.integers(0, 3)) == 0:
        # One of many is listed for the first time hours after its end.
        number = draw(st.integers(0, min(40, len(rows) - 1)))
        if (end := rows[number].end) is not None:
            late = draw(st.sampled_from([HOUR, 3 * HOUR, 3 * HOUR, 5 * HOUR]))
            rows[number] = replace(rows[number], appears=end + late, deleted=None)
    if draw(st.integers(0, 2)) == 0:
        rows = draw(restored(rows, times))
    return tuple(rows)


@st.composite
def restored(draw: st.DrawFn, rows: Sequence[Row], times: Sequence[float]) -> list[Row]:
    """What began since a moment is gone from another one on, or has another id from then on."""
    moment = draw(st.sampled_from(times)) - draw(st.sampled_from([0.0, 0.5, 1.0, 20.0, 300.0]))
    since = moment - draw(st.sampled_from([60, 600, 1_800, 3_000, 7_200, 20 * 3_600]))
    again = draw(st.booleans())
    changed: list[Row] = []
    for row in rows:
        is_there = row.appears < moment and (row.deleted is None or row.deleted > moment)
        if row.begin < since or not is_there:
            changed.append(row)
            continue
        changed.append(replace(row, deleted=moment))
        if again:
            changed.append(replace(row, appears=moment))
    return changed


@st.composite
def clouds(draw: st.DrawFn, times: Sequence[float], moves: bool) -> Cloud:
    return Cloud(
        draw(all_rows(times)),
        draw(st.sampled_from(LOOKBACKS)),
        draw(st.booleans()),
        elsewhere=draw(all_rows(times)) if moves else (),
    )


@st.composite
def all_knobs(draw: st.DrawFn) -> Knobs:
    pick = st.sampled_from
    total_counts: list[TotalCount] = ["missing", "null", "lie", "negative", "string", "float"]
    total_count: TotalCount = "true" if draw(st.integers(0, 3)) else draw(pick(total_counts))
    orders: list[Order] = [
        "begin_desc",
        "begin_asc",
        "end_asc",
        "end_desc",
        "id",
        "shuffled_stable",
    ]
    if total_count != "lie":
        # Pages in a new order for each request show all rows only if their number is right.
        orders.append("shuffled_each_request")
    return Knobs(
        order=draw(pick(orders)),
        filter_meaning=draw(pick(["begin", "end", "overlap"])),
        running_under_end_filter=draw(pick(["by_begin", "always", "hidden"])),
        bounds=draw(pick(["inclusive", "exclusive", "half_open"])),
        hide_running=draw(pick([False, False, True])),
        time_offset=draw(pick([480, 0, -210, 840, -720])),
        time_form=draw(pick(["basic", "colon", "zulu"])),
        show_empty_end_as=draw(pick(["null", "empty", "missing"])),
        total_count=total_count,
        total_count_lie=draw(st.integers(-3, 3)),
        latency_seconds=draw(pick([0.0, 0.0, 0.125, 0.5])),
        date=draw(pick(["true", "true", "true", "true", "missing"])),
    )


@st.composite
def steps(draw: st.DrawFn, faulty: bool) -> Step:
    pick = st.sampled_from
    faults: tuple[str, ...] = ()
    if faulty and draw(st.booleans()):
        names = pick([*SPECIAL_FAULTS, *FAULTS, *CHANGING_FAULTS, *DATE_FAULTS])
        faults = tuple(draw(st.lists(names, min_size=1, max_size=6)))
    gap = draw(
        pick([1.0, 15.0, 60.0, 60.0, 60.0, 300.0, 300.0, 1_860.0, 1_860.0, 2 * HOUR, 7.5 * HOUR])
        | st.integers(1, 90)
    )
    return Step(
        gap=gap,
        timeout=draw(pick([10.0, 10.0, 10.0, 2.0, 0.75])),
        faults=faults,
        action=draw(pick([*[""] * 8, "reload", "reconfigure", "restart", "move"])),
        overlapping=draw(pick([None, None, None, 0.0, 0.25])),
        clock=draw(st.tuples(pick([-0.5, 0.0, 0.05, 0.3]), pick(SKEWS)))
        if draw(st.integers(0, 9)) == 0
        else None,
        suspended=draw(pick([30.0, 600.0, 3 * HOUR, 30 * HOUR]))
        if draw(st.integers(0, 14)) == 0
        else 0.0,
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    pick = st.sampled_from
    all_steps = draw(st.lists(steps(draw(st.booleans())), min_size=2, max_size=8))
    if draw(st.integers(0, 4)) == 0:
        # Whole windows cannot be listed for a while.
        first = draw(st.integers(0, min(2, len(all_steps) - 1)))
        last = len(all_steps) - 1 - draw(pick([0, 0, 1, 2]))
        for number in range(first, last + 1):
            all_steps[number] = replace(all_steps[number], listings_fail=True)
    times = list(accumulate(step.gap + step.suspended for step in all_steps))
    moves = any(step.action == "move" for step in all_steps)
    return Scenario(
        tuple(draw(clouds(times, moves)) for _ in range(draw(pick([1, 1, 1, 2])))),
        draw(all_knobs()),
        tuple(all_steps),
        draw(pick([60, 900, 3_600, 21_600, 21_600])),
        draw(pick(SKEWS)),
        rate_limit=draw(pick([50, 50, 50, 50, 2, 1])),
        max_connections=draw(pick([50, 50, 50, 2, 1])),
    )
