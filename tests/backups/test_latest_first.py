"""The latest backup is known from the first request on; the whole window is listed behind it."""

import asyncio

import pytest

from exporter.backups.sync import FIRST_LOOK_SECONDS
from exporter.models import Backup
from exporter.transport.query import Query
from tests.backups.fake_api import (
    ORDERS,
    Cut,
    FakeApi,
    Moment,
    let_run,
    make_rows,
    make_sync,
)
from tests.support.virtual_time import DAY, HOUR, NOON


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("lookback", [HOUR, DAY, 7 * DAY])
async def test_the_first_request_tells_the_latest_backup_and_nothing_else(
    order: str, lookback: float
) -> None:
    api = FakeApi([Backup("runs", NOON - 50, None, 0.0), *make_rows(2016)], order=order)
    api.rows[1] = Backup("row-0", NOON - 90, NOON - 60, 7.5)
    reading = await make_sync(api, lookback=lookback).refresh(Query())
    assert api.requests() == 1
    (asked,) = api.asked
    assert asked[0] <= NOON - HOUR
    assert asked[1] >= NOON
    assert (reading.latest_end, reading.latest_size_kilobytes) == (NOON - 60, 7.5)
    assert not reading.listing_complete
    assert (reading.count, reading.size_kilobytes, reading.running) == (None, None, None)
    assert (reading.oldest_end, reading.max_interval_seconds) == (None, None)
    assert not reading.ends


async def test_the_whole_window_is_then_listed_less_what_is_known() -> None:
    api = FakeApi([Backup("runs", NOON - 50, None, 0.5), *make_rows(2016)])
    sync = make_sync(api, lookback=7 * DAY)
    await sync.refresh(Query())
    assert sync.wants_listing()
    api.requests()
    await sync.list_window(Query())
    assert api.requests() == 41 + 1  # of 1,981 rows, where 2,017 take 42; what was before them
    assert not sync.wants_listing()
    reading = await sync.refresh(Query(), waited=True)
    assert api.requests() == 0  # nothing can be new
    assert (reading.count, reading.size_kilobytes, reading.running) == (2017, 2016.5, 1)
    assert (reading.latest_end, reading.oldest_end) == (NOON - 60, NOON - 60 - 2015 * 300)
    assert reading.listing_complete


@pytest.mark.parametrize("filter_by", ["begin", "end"])
async def test_a_backup_on_the_border_of_the_first_request_counts_once(filter_by: str) -> None:
    border = NOON - FIRST_LOOK_SECONDS
    rows = [
        Backup(f"{begin}-{end}", border + begin, border + end, 1.0)
        for begin in (-60, -1, 0)
        for end in (0, 1, 2, 60)
    ]
    api = FakeApi([*rows, *make_rows(1)])
    api.filter_by = filter_by
    sync = make_sync(api)
    await sync.refresh(Query())
    await sync.list_window(Query())
    reading = await sync.refresh(Query(), waited=True)
    assert (reading.count, reading.listing_complete) == (13, True)


async def test_what_comes_while_the_window_is_listed_is_told_at_once_and_counts_after() -> None:
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock, lookback=7 * DAY)
    await sync.refresh(Query())
    cut = Cut(api, 0)
    listing = asyncio.create_task(sync.list_window(Query()))
    await let_run()
    for number in range(20):
        clock.now += 300
        api.rows.append(Backup(f"new-{number}", clock.now - 40, clock.now - 10, 1.0))
        cut.let(1)
        reading = await sync.refresh(Query())
        assert (reading.count, reading.latest_end) == (None, clock.now - 10)
    cut.release()
    await listing
    api.requests()
    reading = await sync.refresh(Query())
    assert api.requests() == 1
    assert (reading.count, reading.latest_end) == (320, clock.now - 10)
    assert reading.listing_complete


async def test_a_row_that_ended_while_the_window_was_listed_is_told_in_its_last_state() -> None:
    clock = Moment()
    api = FakeApi([Backup("long", NOON - 60, None, 0.0), *make_rows(200)])
    sync = make_sync(api, clock=clock)
    await sync.refresh(Query())
    clock.now += 60
    api.rows[0] = Backup("long", NOON - 60, NOON + 30, 9.0)
    await sync.refresh(Query())
    await sync.list_window(Query())
    reading = await sync.refresh(Query())
    assert (reading.count, reading.running, reading.latest_end) == (201, 0, NOON + 30)


@pytest.mark.parametrize(("rows", "requests"), [(0, 3), (1, 3), (49, 3)])
async def test_a_window_of_one_page_is_known_at_once_where_nothing_is_new(
    rows: int, requests: int
) -> None:
    """One request for what is new, one for the window, and one that looks before it."""
    api = FakeApi(make_rows(rows, last_age=3 * HOUR))
    reading = await make_sync(api).refresh(Query())
    assert api.requests() == requests
    assert (reading.count, reading.listing_complete) == (rows, True)


async def test_a_stale_instance_is_told_in_the_first_refresh_and_its_page_is_read_once() -> None:
    api = FakeApi(make_rows(300, last_age=5 * HOUR))
    sync = make_sync(api, lookback=7 * DAY)
    reading = await sync.refresh(Query())
    assert (reading.count, reading.latest_end) == (None, NOON - 5 * HOUR)
    assert api.requests() == 4  # what is new, the first page of the window, the search
    await sync.list_window(Query())
    assert api.requests() == 6 + 1  # and what was before them
    assert (await sync.refresh(Query())).count == 300


async def test_the_rows_of_the_first_request_are_listed_again_where_they_are_old() -> None:
    clock = Moment()
    api = FakeApi(make_rows(100))
    sync = make_sync(api, clock=clock)
    await sync.refresh(Query())
    clock.now += HOUR
    await sync.list_window(Query())
    assert max(end for _, end in api.asked) >= clock.now
    assert (await sync.refresh(Query())).count == 100


async def test_what_the_first_request_told_outlives_a_reload() -> None:
    api = FakeApi(make_rows(300))
    before, after = make_sync(api), make_sync(api)
    await before.refresh(Query())
    after.adopt(before)
    api.requests()
    assert (await after.refresh(Query())).latest_end == NOON - 60
    assert api.requests() == 1
    await after.list_window(Query())
    assert (await after.refresh(Query())).count == 288
