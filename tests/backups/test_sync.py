import asyncio
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import ApiError, DeadlineError, Reason, UnavailableError
from exporter.models import Backup
from exporter.transport.query import Query
from tests.backups.fake_api import (
    INSTANCE,
    ORDERS,
    SIX_HOURS,
    FakeApi,
    Moment,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.searches import extent
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

# As in the tests of the window: few random examples where a mutant is tested, always the same.
MUTATED = "MUTANT_UNDER_TEST" in os.environ


async def test_each_request_is_for_the_instance_and_by_the_query_of_its_refresh() -> None:
    """Two pages, a look at what is new since they were begun, and four to find the latest."""
    clock = Moment()
    api = FakeApi(make_rows(60, last_age=30 * HOUR), order="shuffled")

    def last_long(number: int) -> None:
        clock.now += 6 if number == 1 else 0

    api.before = last_long
    sync = make_sync(api, clock=clock)
    for _ in range(2):  # the first time, and a resync: what is new, two pages, and the search
        query = Query()
        await refresh(sync, query)
        assert len(api.asked_for) == 7
        for instance, by in api.asked_for:
            assert instance == INSTANCE
            assert by is query
        api.asked_for.clear()
        clock.now += SIX_HOURS


# The past is not read twice --------------------------------------------------------------------


@pytest.mark.parametrize("lookback", [300.0, DAY, 7 * DAY])
async def test_the_steady_state_takes_one_request(lookback: float) -> None:
    clock = Moment()
    api = FakeApi(make_rows(2016))
    sync = make_sync(api, clock=clock, lookback=lookback, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for number in range(1, 100):
        clock.now += 300
        api.rows.append(Backup(f"new-{number}", clock.now - 40, clock.now - 10, 1.0))
        reading = await refresh(sync)
        assert api.requests() == 1
        assert reading.listing_complete
        assert reading.latest_end == clock.now - 10
    # Once in a quarter of an hour as far back as one page holds, else an hour.
    reaches = [end - begin for begin, end in api.asked[-99:]]
    assert sum(reach <= HOUR + 420 for reach in reaches) >= 66
    assert max(reaches) < 4 * HOUR


async def test_a_stale_instance_takes_one_request_too() -> None:
    clock = Moment()
    api = FakeApi(make_rows(300, last_age=20 * DAY))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 20 * DAY
    assert api.requests() == 3  # the listing, and the search
    for _ in range(5):
        clock.now += 300
        reading = await refresh(sync)
        assert (reading.count, reading.latest_end) == (0, NOON - 20 * DAY)
        assert api.requests() == 1


async def test_a_backup_that_ended_a_lookback_ago_to_the_second_is_not_searched_for() -> None:
    """One that ended before it, 59 hours ago, is certain enough to measure a hole by."""
    api = FakeApi([*make_rows(1, last_age=DAY), Backup("old", NOON, NOON - 59 * HOUR, 1.0)])
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end) == (1, NOON - DAY)
    assert reading.max_interval_seconds == 35 * HOUR
    assert api.requests() == 1


async def test_a_hole_is_measured_from_the_last_backup_before_what_is_listed() -> None:
    clock = Moment()
    api = FakeApi([*make_rows(3), *make_rows(500, last_age=30 * DAY)])
    api.rows = [row._replace(id=f"row-{n}") for n, row in enumerate(api.rows)]
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    reading = await refresh(sync)
    hole = (NOON - 660) - (NOON - 30 * DAY)
    assert (reading.count, reading.max_interval_seconds) == (3, hole)
    assert api.requests() == 1 + 2
    clock.now += 60
    assert (await refresh(sync)).max_interval_seconds == hole
    assert api.requests() == 1


@pytest.mark.parametrize(
    "error",
    [
        ApiError("the range is too long", reason=Reason.BAD_REQUEST, status=400),
        UnavailableError("no answer", reason=Reason.TIMEOUT),
        DeadlineError(),
    ],
)
async def test_a_look_at_what_was_before_fails_no_instance(error: Exception) -> None:
    """All other numbers are known by then."""
    api = FakeApi(make_rows(3))

    def refuse(number: int) -> None:
        begin, end = api.asked[-1]
        if end - begin > 700 * DAY:
            raise error

    api.before = refuse
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.max_interval_seconds) == (3, None)


async def test_after_a_deadline_it_is_looked_for_at_the_next_refresh() -> None:
    clock = Moment()
    api = FakeApi(make_rows(3))
    sync = make_sync(api, clock=clock)
    errors = [DeadlineError()]

    def refuse(number: int) -> None:
        begin, end = api.asked[-1]
        if errors and end - begin > 700 * DAY:
            raise errors.pop()

    api.before = refuse
    assert (await refresh(sync)).max_interval_seconds is None
    clock.now += 1
    assert (await refresh(sync)).max_interval_seconds == 300


async def test_where_it_cannot_be_found_the_longest_interval_alone_is_absent() -> None:
    clock = Moment()
    api = FakeApi(make_rows(3) + make_rows(2016, last_age=30 * DAY), order="ascending")
    api.rows = [row._replace(id=f"row-{n}") for n, row in enumerate(api.rows)]
    api.total = lambda total: None if total > 50 else total
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    reading = await refresh(sync)
    assert (reading.count, reading.max_interval_seconds) == (3, None)
    assert reading.listing_complete
    searching = api.requests() - 1
    for wait in (60, 120, 240):  # it is tried again, ever more rarely
        clock.now += wait - 1
        assert (await refresh(sync)).max_interval_seconds is None
        assert api.requests() == 1
        clock.now += 1
        assert (await refresh(sync)).max_interval_seconds is None
        assert api.requests() == 1 + searching + 1
    for seconds in range(600, int(DAY) + 3600, 300):
        clock.now = NOON + seconds
        end = clock.now - 30
        api.rows.append(Backup(f"new-{seconds}", end - 30, end, 1.0))
        reading = await refresh(sync)
    # By then those of the first listing have left the lookback.
    assert reading.max_interval_seconds == 300


async def test_a_longer_backup_may_have_ended_after_those_of_the_margin() -> None:
    """It is filtered by begin, shows a day and a half more than the lookback, and not "long"."""
    clock = Moment()
    long = Backup("long", NOON - 61 * HOUR, NOON - 25 * HOUR, 8.0)
    api = FakeApi([long, *make_rows(5, last_age=30 * HOUR)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 25 * HOUR
    assert api.requests() == 2
    for requests in (2, 1, 1):  # once it is asked whether such a one is shown by its end
        clock.now += 300
        assert (await refresh(sync)).latest_end == NOON - 25 * HOUR
        assert api.requests() == requests


async def test_an_instance_that_goes_stale_is_not_searched_for_what_is_known() -> None:
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for _ in range(50):
        clock.now += HOUR
        assert (await refresh(sync)).latest_end == NOON - 60
        assert api.requests() == 1


async def test_that_there_is_none_at_all_is_remembered() -> None:
    clock = Moment()
    api = FakeApi()
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for _ in range(3):
        clock.now += 300
        assert (await refresh(sync)).latest_end is None
        assert api.requests() == 1
    api.rows = [Backup("first", clock.now, clock.now + 30, 3.0)]
    clock.now += 300
    reading = await refresh(sync)
    assert (reading.count, reading.latest_end) == (1, clock.now - 270)
    assert api.requests() == 1


async def test_a_backup_that_ends_between_listing_and_search_counts_once() -> None:
    clock = Moment()
    api = FakeApi()

    def end_now(number: int) -> None:
        if number == 2:
            api.rows = [Backup("first", NOON - 60, NOON, 3.0)]

    api.before = end_now
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).count == 0
    clock.now += 60
    reading = await refresh(sync)
    assert (reading.count, reading.size_kilobytes) == (1, 3.0)


async def test_running_backups_are_followed_to_their_end() -> None:
    clock = Moment()
    api = FakeApi([Backup("long", NOON - 5 * HOUR, None, 0.0), *make_rows(3)])
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).running == 1
    clock.now += 300
    api.rows[0] = Backup("long", NOON - 5 * HOUR, NOON + 100, 9.0)
    reading = await refresh(sync)
    assert (reading.running, reading.count, reading.latest_size_kilobytes) == (0, 4, 9.0)
    assert api.asked[-1][0] == NOON - 5 * HOUR - 1


async def test_a_running_backup_that_vanishes_is_noticed_at_once() -> None:
    clock = Moment()
    api = FakeApi([Backup("failed", NOON - 60, None, 0.0), *make_rows(3)])
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).running == 1
    del api.rows[0]
    clock.now += 60
    reading = await refresh(sync)
    assert (reading.count, reading.running) == (3, 0)


async def test_rows_deleted_further_back_are_noticed_at_the_next_resync() -> None:
    clock = Moment()
    api = FakeApi(make_rows(30))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    del api.rows[13:]  # the hour that is asked for each time has thirteen
    clock.now += 60
    assert (await refresh(sync)).count == 30
    clock.now += SIX_HOURS
    assert (await refresh(sync)).count == 13


async def test_a_clock_set_back_a_day_has_the_window_listed_anew() -> None:
    clock = Moment()
    api = FakeApi(make_rows(600))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now -= DAY
    expected = [row for row in api.rows if row.end and clock.now - DAY <= row.end <= clock.now]
    reading = await refresh(sync)
    assert reading.count == len(expected) == 288
    assert reading.listing_complete


async def test_after_a_clock_set_back_only_the_latest_is_told_until_all_is_listed() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now -= 3 * DAY
    reading = await sync.refresh(Query())
    assert (reading.count, reading.latest_end) == (None, None)
    assert sync.wants_listing()


# The numbers of both ways ----------------------------------------------------------------------


@settings(max_examples=20 if MUTATED else extent(60), derandomize=MUTATED)
@given(
    seed=st.integers(0, 10**6),
    order=st.sampled_from(sorted(ORDERS)),
    filter_by=st.sampled_from(["begin", "end"]),
    steps=st.lists(st.sampled_from([15, 300, 3600, 7 * 3600, 30 * 3600]), max_size=8),
    lookback=st.sampled_from([300.0, 6 * HOUR, DAY]),
)
def test_numbers_are_those_of_a_full_listing_at_every_refresh(
    seed: int, order: str, filter_by: str, steps: list[int], lookback: float
) -> None:
    rng = random.Random(seed)
    plan = [
        (f"row-{n}", begin, begin + rng.choice([20, 200, 3000, 20_000]), rng.choice([0.1, 7.7]))
        for n in range(rng.randrange(60))
        for begin in [NOON + rng.randrange(-int(2 * DAY), int(2 * DAY))]
    ]
    clock = Moment()
    api = FakeApi(order=order)
    api.filter_by = filter_by
    sync = make_sync(api, clock=clock, lookback=lookback)

    def shown() -> list[Backup]:
        return [
            Backup(id, begin, end if end <= clock.now else None, size)
            for id, begin, end, size in plan
            if begin <= clock.now
        ]

    for step in [0, *steps]:
        clock.now += step
        api.rows = shown()
        reading = asyncio.run(refresh(sync))
        since = clock.now - lookback
        ends = sorted(row.end for row in api.rows if row.end is not None)
        inside = [end for end in ends if end >= since]
        runs = [r for r in api.rows if r.end is None and r.begin is not None and r.begin >= since]
        assert list(reading.ends) == inside
        assert (reading.count, reading.running) == (len(inside) + len(runs), len(runs))
        assert reading.latest_end == (ends[-1] if ends else None)
        assert reading.listing_complete


async def test_time_passes_for_a_whole_day_at_one_request_each(clock: Clock) -> None:
    """The same on the tests' own clock: nothing depends on the loop's time."""
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for _ in range(24):
        await clock.advance(HOUR)
        await refresh(sync)
    assert api.requests() == 24


@pytest.mark.parametrize("waits", [1, 2])
@pytest.mark.parametrize("first", [True, False])
async def test_an_answer_that_waited_for_too_long_is_asked_for_again(
    first: bool, waits: int
) -> None:
    """A minute and a half in the rate limit, or a clock that is set: what came since was not asked
    for."""
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock)
    if not first:
        await refresh(sync)
    before = len(api.offsets)

    def wait(number: int) -> None:
        if number - before <= waits:
            clock.now += 90
            api.rows.append(Backup(f"new-{number}", clock.now - 20, clock.now - 10, 7.0))

    api.before = wait
    reading = await sync.refresh(Query())
    assert reading.latest_end == clock.now - 10
    assert reading.count == (None if first else 288 + waits)
    assert len(api.offsets) == before + waits + 1
