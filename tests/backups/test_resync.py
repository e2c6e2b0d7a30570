"""The whole window is listed anew, and what becomes of that."""

import asyncio
import itertools
from collections.abc import Callable, Iterator

import pytest
import structlog.testing
from structlog.typing import EventDict

from exporter.errors import ApiError, Reason, UnavailableError
from exporter.models import Backup
from exporter.transport.query import Query
from tests.backups.fake_api import (
    SIX_HOURS,
    Cut,
    FakeApi,
    Moment,
    let_run,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.virtual_time import DAY, HOUR, NOON


def server_error() -> UnavailableError:
    return UnavailableError("HTTP 500", reason=Reason.SERVER, status=500)


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
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    assert not sync.wants_listing()
    clock.now += SIX_HOURS
    api.requests()
    assert sync.wants_listing()
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
    assert not sync.wants_listing()
    reading = await sync.refresh(Query())
    assert reading.count == sum(row.end >= clock.now - DAY for row in api.rows if row.end)
    assert reading.listing_complete


async def test_a_resync_that_never_gets_its_turn_is_overdue_too() -> None:
    """What is new may take all the rate there is. Who is not scraped for so long is not overdue."""
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now += 2 * SIX_HOURS  # without a scrape
    wanted = []
    for _ in range(3):
        wanted.append(((await sync.refresh(Query())).listing_complete, sync.wants_listing()))
        clock.now += SIX_HOURS / 2
    assert wanted == [(True, True), (True, True), (False, True)]
    clock.now += 2 * SIX_HOURS  # overdue by three intervals: tried before anything is told
    assert (await sync.refresh(Query())).listing_complete
    assert not sync.wants_listing()


async def test_a_resync_that_fails_is_still_due_and_goes_on_from_its_pages() -> None:
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now += SIX_HOURS
    api.errors[49] = UnavailableError("no answer", reason=Reason.TIMEOUT)
    with pytest.raises(UnavailableError):
        await sync.list_window(Query())
    assert sync.wants_listing()
    clock.now += 60
    assert (await sync.refresh(Query())).latest_end == NOON - 60
    api.requests()
    await sync.list_window(Query())
    assert api.requests() < 7
    assert not sync.wants_listing()


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


# A listing anew that keeps failing -------------------------------------------------------------


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def fail_whole_listings(api: FakeApi) -> Callable[[int], object]:
    def fail(number: int) -> None:
        begin, end = api.asked[-1]
        if DAY < end - begin < 700 * DAY:
            raise server_error()

    return fail


async def test_a_listing_anew_that_keeps_failing_is_told_and_then_fails_the_instance(
    logged: list[EventDict],
) -> None:
    clock = Moment()
    api = FakeApi(make_rows(100))
    sync = make_sync(api, clock=clock, resync_interval=HOUR)
    await refresh(sync)
    api.before = fail_whole_listings(api)
    due: float | None = None
    for minute in range(5, 8 * 60, 5):
        clock.now = NOON + minute * 60
        if due is None and not sync.wants_listing():
            await sync.refresh(Query())
            continue
        due = clock.now if due is None else due
        overdue = clock.now - due
        if overdue < 3 * HOUR:
            reading = await sync.refresh(Query())
            assert (reading.count, reading.listing_complete) == (100, overdue < HOUR)
            assert reading.overdue == (None if overdue < HOUR else (due, Reason.SERVER))
            with pytest.raises(UnavailableError, match="HTTP 500"):
                await sync.list_window(Query())
        else:
            with pytest.raises(UnavailableError, match="HTTP 500"):
                await sync.refresh(Query())
    assert due is not None
    assert due - NOON <= HOUR
    assert [entry["event"] for entry in logged if entry["log_level"] == "warning"] == [
        "listing the whole window anew is overdue"
    ]
    warning = next(entry for entry in logged if entry["log_level"] == "warning")
    assert (warning["overdue_seconds"], warning["reason"]) == (3600, "server")

    api.before = lambda number: None
    clock.now += 300
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete, reading.overdue) == (100, True, None)
    assert logged[-1]["event"] == "the whole window is listed again"


async def test_what_is_overdue_is_not_forgotten_at_a_reload() -> None:
    clock = Moment()
    api = FakeApi(make_rows(100))
    sync = make_sync(api, clock=clock, resync_interval=HOUR)
    await refresh(sync)
    api.before = fail_whole_listings(api)
    for minutes in (60, 120):
        clock.now = NOON + minutes * 60
        reading = await sync.refresh(Query())
        with pytest.raises(UnavailableError):
            await sync.list_window(Query())
        before, sync = sync, make_sync(api, clock=clock, resync_interval=HOUR)
        sync.adopt(before)
    assert (reading.overdue, reading.listing_complete) == ((NOON + HOUR, Reason.SERVER), False)


async def test_a_machine_that_slept_for_hours_is_not_overdue() -> None:
    """Nothing has failed: nobody tried."""
    clock = Moment()
    api = FakeApi(make_rows(100))
    sync = make_sync(api, clock=clock, resync_interval=HOUR)
    await refresh(sync)
    clock.now += 20 * HOUR
    reading = await sync.refresh(Query())
    assert (reading.listing_complete, reading.overdue) == (True, None)
    assert sync.wants_listing()


async def test_listings_that_every_deadline_cuts_off_fail_the_instance_as_deadline() -> None:
    """One of them is still under way: it is not begun twice."""
    clock = Moment()
    api = FakeApi(make_rows(100))
    sync = make_sync(api, clock=clock, resync_interval=HOUR)
    await refresh(sync)
    clock.now += HOUR
    await sync.refresh(Query())
    api.hold = asyncio.Event()
    listing = asyncio.create_task(sync.list_window(Query()))
    await let_run()
    clock.now += 3 * HOUR
    requests = len(api.offsets)
    with pytest.raises(ApiError, match="before the deadline of any scrape") as caught:
        await sync.refresh(Query())
    assert caught.value.reason is Reason.DEADLINE
    assert len(api.offsets) == requests
    api.hold.set()
    await listing
    assert (await sync.refresh(Query())).listing_complete
