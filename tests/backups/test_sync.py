import asyncio
import itertools
import os
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.backups.sync import next_resync
from exporter.errors import (
    Reason,
    UnavailableError,
)
from exporter.models import Backup, InstanceKey
from exporter.transport.query import Query
from tests.backups.fake_api import (
    INSTANCE,
    ORDERS,
    SIX_HOURS,
    Cut,
    FakeApi,
    Moment,
    let_run,
    make_rows,
    make_sync,
    refresh,
)
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
        assert api.asked[-1][0] >= clock.now - 300 - HOUR - 60
        assert reading.latest_end == clock.now - 10


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
    api = FakeApi(make_rows(1, last_age=DAY))
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end) == (1, NOON - DAY)
    assert api.requests() == 1


async def test_a_longer_backup_may_have_ended_after_those_of_the_margin() -> None:
    """The listing is filtered by begin: it shows a day more than the lookback, and not "long"."""
    clock = Moment()
    long = Backup("long", NOON - 60 * HOUR, NOON - 25 * HOUR, 8.0)
    api = FakeApi([long, *make_rows(5, last_age=30 * HOUR)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 25 * HOUR
    assert api.requests() == 2
    clock.now += 300
    assert (await refresh(sync)).latest_end == NOON - 25 * HOUR
    assert api.requests() == 1


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
    assert (await refresh(sync)).count == 1
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


async def test_deleted_rows_are_noticed_at_the_next_resync() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    del api.rows[5:]
    clock.now += 60
    assert (await refresh(sync)).count == 10
    clock.now += SIX_HOURS
    assert (await refresh(sync)).count == 5


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
    assert sync.is_listing_due()


# Resync ----------------------------------------------------------------------------------------


async def test_the_whole_window_is_listed_anew_each_interval() -> None:
    clock = Moment()
    api = FakeApi(make_rows(288))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    api.requests()
    whole = []
    for minute in range(5, 48 * 60, 5):
        clock.now = NOON + minute * 60
        await refresh(sync)
        if api.requests() > 1:
            whole.append(clock.now)
    gaps = [b - a for a, b in itertools.pairwise(whole)]
    assert len(whole) == 8  # 48 h / 6 h
    assert gaps == [SIX_HOURS] * 7
    assert whole[0] - NOON <= SIX_HOURS


async def test_what_is_known_is_told_while_a_resync_goes_on() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    assert not sync.is_listing_due()
    clock.now += SIX_HOURS
    api.requests()
    assert sync.is_listing_due()
    cut = Cut(api, 2)
    resync = asyncio.create_task(sync.list_window(Query()))
    await let_run()
    for number in range(3):
        cut.let(1)
        clock.now += 60
        api.rows.append(Backup(f"new-{number}", clock.now - 40, clock.now - 10, 1.0))
        reading = await sync.refresh(Query())
        assert reading.latest_end == clock.now - 10
        assert reading.count == sum(row.end >= clock.now - DAY for row in api.rows if row.end)
    cut.release()
    await resync
    assert not sync.is_listing_due()
    reading = await sync.refresh(Query())
    assert reading.count == sum(row.end >= clock.now - DAY for row in api.rows if row.end)
    assert reading.listing_complete


async def test_a_resync_that_fails_is_still_due_and_goes_on_from_its_pages() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now += SIX_HOURS
    api.errors[49] = UnavailableError("no answer", reason=Reason.TIMEOUT)
    with pytest.raises(UnavailableError):
        await sync.list_window(Query())
    assert sync.is_listing_due()
    clock.now += 60
    assert (await sync.refresh(Query())).latest_end == NOON - 60
    api.requests()
    await sync.list_window(Query())
    assert api.requests() < 5
    assert not sync.is_listing_due()


def test_resyncs_are_spread_evenly_and_at_most_an_interval_away() -> None:
    due = [
        next_resync(InstanceKey("project", f"instance-{number}"), NOON, SIX_HOURS) - NOON
        for number in range(6000)
    ]
    assert min(due) > 0
    assert max(due) <= SIX_HOURS
    buckets = Counter(int(seconds // 600) for seconds in due)
    assert sorted(buckets) == list(range(36))
    # 6000 in 36 parts: 167 each, give or take four standard deviations.
    assert all(115 <= count <= 219 for count in buckets.values())


@given(
    number=st.integers(0, 10**6),
    now=st.floats(1e9, 4e9),
    interval=st.floats(1.0, 732 * DAY),
)
def test_a_resync_is_always_ahead_and_then_due_again_an_interval_later(
    number: int, now: float, interval: float
) -> None:
    key = InstanceKey("project", str(number))
    first = next_resync(key, now, interval)
    assert now < first <= now + interval + 1e-5
    assert next_resync(key, first, interval) - first == pytest.approx(interval, abs=1e-5)


async def test_an_incomplete_listing_is_read_again_soon_but_ever_more_rarely() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    api.total = lambda total: None
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    whole = []
    for minute in range(1, 130):
        clock.now = NOON + minute * 60
        await refresh(sync)
        if api.requests() > 1:
            whole.append(minute)
    assert whole == [1, 3, 7, 15, 31, 63, 127]


async def test_a_listing_that_is_complete_again_forgets_the_trouble() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    api.total = lambda total: total + 1
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert not (await refresh(sync)).listing_complete
    api.total = lambda total: total
    clock.now += 60
    assert (await refresh(sync)).listing_complete
    api.requests()
    clock.now += 60
    await refresh(sync)
    assert api.requests() == 1


async def test_a_listing_that_becomes_incomplete_is_read_again_after_a_minute() -> None:
    clock = Moment()
    api = FakeApi(make_rows(5))
    sync = make_sync(api, clock=clock, resync_interval=SIX_HOURS)
    assert (await refresh(sync)).listing_complete
    api.total = lambda total: total + 1
    clock.now += SIX_HOURS  # a resync
    assert not (await refresh(sync)).listing_complete
    for seconds, listings in ((59, 0), (1, 1), (119, 0), (1, 1)):
        clock.now += seconds
        before = len(api.asked)
        await refresh(sync)
        whole = [begin for begin, _ in api.asked[before:] if begin <= clock.now - 2 * DAY]
        assert (len(whole) > 0) == (listings > 0)


async def test_an_incomplete_increment_is_told_as_well() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).listing_complete
    clock.now += 60
    api.total = lambda total: total + 1
    assert not (await refresh(sync)).listing_complete
    api.total = lambda total: total
    assert (await refresh(sync)).listing_complete


# The numbers of both ways ----------------------------------------------------------------------


@settings(max_examples=20 if MUTATED else 60, derandomize=MUTATED)
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
