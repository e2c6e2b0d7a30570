"""A listing goes on where a deadline or a reload has cut it off."""

import asyncio
from collections import Counter

import pytest

from exporter.errors import (
    ApiError,
    DeadlineError,
    Reason,
    UnavailableError,
)
from exporter.models import Backup, Instance, Page, Progress
from exporter.transport.query import Query
from tests.backups.fake_api import (
    Cut,
    FakeApi,
    Moment,
    let_run,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.virtual_time import DAY, HOUR, NOON

# After a deadline or a failure -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancelled", "expired"])
@pytest.mark.parametrize("through", [1, 7, 20])
async def test_a_listing_that_was_cut_off_goes_on_from_its_pages(through: int, how: str) -> None:
    api = FakeApi(make_rows(2016))
    sync = make_sync(api, lookback=7 * DAY)
    cut = Cut(api, through)
    query = Query()
    task = asyncio.create_task(refresh(sync, query))
    await let_run()
    assert sync.progress == Progress(through, 42)
    if how == "cancelled":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        query.expire()
        with pytest.raises(DeadlineError):
            await task
    cut.release()
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (2016, True)
    assert len(api.listed) == len(set(api.listed)) == 42
    assert sync.progress is None


async def test_pages_on_their_way_when_the_deadline_comes_are_kept() -> None:
    """One worker waits for a slot, the others for answers."""
    api = FakeApi(make_rows(2016))
    sync = make_sync(api, lookback=7 * DAY)
    await_first = FakeApi.fetch_backups
    waiting: list[asyncio.Future[None]] = []

    async def fetch(
        instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        if offset == 49:
            api.hold = asyncio.Event()
        if offset == 49 * 8 and not waiting:
            waiting.append(asyncio.get_running_loop().create_future())
            await query.wait(waiting[0])
        return await await_first(api, instance, begin=begin, end=end, offset=offset, query=query)

    api.fetch_backups = fetch  # type: ignore[method-assign]
    query = Query()
    task = asyncio.create_task(refresh(sync, query))
    await let_run()
    query.expire()
    assert api.hold is not None
    api.hold.set()
    with pytest.raises(DeadlineError):
        await task
    assert len(api.listed) == 8  # all but the one that had no slot
    reading = await refresh(sync)
    assert reading.count == 2016
    assert len(api.listed) == len(set(api.listed)) == 42


async def test_a_page_that_fails_fails_the_query_and_nothing_else_is_lost() -> None:
    api = FakeApi(make_rows(300))
    sync = make_sync(api, lookback=7 * DAY)
    api.errors[98] = UnavailableError("HTTP 500", reason=Reason.SERVER, status=500)
    with pytest.raises(UnavailableError, match="HTTP 500"):
        await refresh(sync)
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (300, True)
    assert Counter(api.listed) == Counter([0, 49, 98, 98, 147, 196, 245, 294])


async def test_a_query_that_fails_has_no_request_left_on_its_way() -> None:
    """Four pages are asked for together: one fails, the others take longer."""
    api = FakeApi(make_rows(200))
    answer = asyncio.Event()
    fetch_backups = api.fetch_backups
    fetched: list[int] = []

    async def fetch(
        instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        if offset > 49:
            await answer.wait()
        page = await fetch_backups(instance, begin=begin, end=end, offset=offset, query=query)
        fetched.append(offset)
        return page

    api.fetch_backups = fetch  # type: ignore[method-assign]
    api.errors[49] = UnavailableError("HTTP 500", reason=Reason.SERVER, status=500)
    task = asyncio.create_task(refresh(make_sync(api)))
    await let_run()
    assert not task.done()
    answer.set()
    with pytest.raises(UnavailableError):
        await task
    assert sorted(fetched) == [0, 98, 147, 196]


async def test_a_first_page_that_fails_is_asked_again() -> None:
    api = FakeApi(make_rows(3))
    api.errors[0] = ApiError("HTTP 403", reason=Reason.FORBIDDEN, status=403)
    sync = make_sync(api)
    with pytest.raises(ApiError):
        await refresh(sync)
    assert sync.progress == Progress(0, 0)
    assert (await refresh(sync)).count == 3


async def test_pages_that_are_too_old_are_read_again() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    api.errors[98] = DeadlineError()
    with pytest.raises(DeadlineError):
        await refresh(sync)
    api.requests()
    clock.now += 901
    await refresh(sync)
    assert api.requests() == 5 + 1  # and whether there was one before
    assert api.asked[-2] == (clock.now - 60 * HOUR, clock.now + 60)


async def test_a_listing_that_took_long_is_followed_by_a_look_at_what_is_new() -> None:
    clock = Moment()
    api = FakeApi(make_rows(60))

    def last_long(number: int) -> None:
        if number == 2:
            clock.now += 600
            api.rows.append(Backup("new", clock.now - 300, clock.now - 200, 1.0))

    api.before = last_long
    reading = await refresh(make_sync(api, clock=clock))
    assert (reading.at, reading.count) == (NOON + 600, 61)
    assert reading.latest_end == NOON + 400


# After a reload --------------------------------------------------------------------------------


async def test_what_is_known_outlives_a_reload() -> None:
    api = FakeApi(make_rows(200))
    before = make_sync(api)
    expected = await refresh(before)
    api.requests()
    after = make_sync(api)
    after.adopt(before)
    reading = await refresh(after)
    assert reading == expected
    assert reading.ends is expected.ends  # not even the walk over the window is made again
    assert api.requests() == 1


async def test_that_there_is_none_at_all_outlives_a_reload() -> None:
    api = FakeApi()
    before = make_sync(api)
    await refresh(before)
    after = make_sync(api)
    after.adopt(before)
    api.requests()
    await refresh(after)
    assert api.requests() == 1


async def test_incomplete_listings_are_not_read_more_often_after_a_reload() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    api.total = lambda total: None
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    whole = []
    for minute in range(1, 40):
        clock.now = NOON + minute * 60
        before, sync = sync, make_sync(api, clock=clock, resync_interval=732 * DAY)
        sync.adopt(before)
        await refresh(sync)
        if api.requests() > 1:
            whole.append(minute)
    assert whole == [1, 3, 7, 15, 31]


@pytest.mark.parametrize("change", [{"lookback": 7 * DAY}, {"offsite": True}])
async def test_another_question_has_the_window_listed_anew(change: dict[str, float]) -> None:
    api = FakeApi(make_rows(200))
    before = make_sync(api)
    await refresh(before)
    after = make_sync(api, **change)  # type: ignore[arg-type]
    after.adopt(before)
    api.requests()
    await refresh(after)
    assert api.requests() == 5 + 1


async def test_pages_of_an_unfinished_listing_outlive_a_reload() -> None:
    api = FakeApi(make_rows(2016))
    before = make_sync(api, lookback=7 * DAY)
    cut = Cut(api, 20)
    task = asyncio.create_task(refresh(before))
    await let_run()
    after = make_sync(api, lookback=7 * DAY)
    after.adopt(before)
    assert after.progress == Progress(20, 42)
    task.cancel()
    await let_run()
    cut.release()
    reading = await refresh(after)
    assert reading.count == 2016
    assert len(api.listed) == 42


async def test_the_earlier_query_does_not_disturb_the_one_that_took_over() -> None:
    """It goes on while the new one reads: rows that moved make it drop its own pages only."""
    api = FakeApi(make_rows(300))
    before = make_sync(api, lookback=7 * DAY)
    cut = Cut(api, 3)
    task = asyncio.create_task(refresh(before))
    await let_run()
    after = make_sync(api, lookback=7 * DAY)
    after.adopt(before)
    api.rows.append(Backup("new", NOON - 40, NOON - 10, 1.0))
    after_task = asyncio.create_task(refresh(after))
    await let_run()
    assert before.progress == after.progress == Progress(3, 7)
    task.cancel()
    cut.release()
    assert (await after_task).count == 301


async def test_a_shorter_resync_interval_holds_from_the_reload_on() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    before = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(before)
    after = make_sync(api, clock=clock, resync_interval=HOUR)
    after.adopt(before)
    api.requests()
    clock.now += HOUR
    await refresh(after)
    assert api.requests() > 1


async def test_what_is_known_is_not_taken_to_another_cloud() -> None:
    old, new = FakeApi(make_rows(100)), FakeApi(make_rows(7))
    before = make_sync(old, origin=("https://old.example", "reader"))
    assert (await refresh(before)).count == 100
    after = make_sync(new, origin=("https://new.example", "reader"))
    after.adopt(before)
    assert (await refresh(after)).count == 7


async def test_what_is_known_is_taken_to_the_same_cloud() -> None:
    api = FakeApi(make_rows(100))
    before = make_sync(api, origin=("https://old.example", "reader"))
    await refresh(before)
    after = make_sync(api, origin=("https://old.example", "reader"))
    after.adopt(before)
    api.requests()
    assert (await refresh(after)).count == 100
    assert api.requests() == 1
