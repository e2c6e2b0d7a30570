"""What is known ends where the API no longer shows it, and is not believed for ever."""

from dataclasses import replace

import pytest

from exporter.backups.window import (
    Filter,
    Window,
    build_window,
    find_vanished,
    increment_begin,
    merge,
    reaches_settled,
)
from exporter.errors import Reason, UnavailableError
from exporter.models import Backup
from exporter.transport.query import Query
from tests.backups.fake_api import (
    SIX_HOURS,
    FakeApi,
    Moment,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.virtual_time import DAY, HOUR, NOON


def server_error() -> UnavailableError:
    return UnavailableError("HTTP 500", reason=Reason.SERVER, status=500)


def make_window(*rows: Backup) -> Window:
    return build_window(rows, now=NOON, lookback_seconds=DAY, complete=True)


def by_id(*rows: Backup) -> dict[str, Backup]:
    return {row.id: row for row in rows}


# Rows that vanish from what each scrape asks for -----------------------------------------------


async def test_backups_that_are_gone_are_not_counted_any_more() -> None:
    """Twelve in the hour that each scrape reads, and the instance is restored: none."""
    clock = Moment()
    api = FakeApi(make_rows(12))
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).count == 12
    api.rows = []
    clock.now += 60
    reading = await sync.refresh(Query())
    assert (reading.count, reading.latest_end, reading.size_kilobytes) == (0, None, 0.0)
    assert reading.listing_complete


async def test_the_same_backups_under_new_ids_count_once() -> None:
    clock = Moment()
    api = FakeApi(make_rows(12))
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).count == 12
    api.rows = [row._replace(id=f"restored-{row.id}") for row in api.rows]
    clock.now += 60
    reading = await sync.refresh(Query())
    assert reading.count in (None, 12)
    assert reading.latest_end == NOON - 60
    reading = await refresh(sync)
    assert (reading.count, reading.size_kilobytes) == (12, 12.0)


@pytest.mark.parametrize("filter_by", ["begin", "end"])
async def test_one_that_is_gone_has_the_rows_of_all_days_listed_anew(filter_by: str) -> None:
    """A restore deletes what no scrape asks for as well."""
    clock = Moment()
    api = FakeApi(make_rows(200))
    api.filter_by = filter_by
    sync = make_sync(api, clock=clock)
    assert (await refresh(sync)).count == 200
    del api.rows[3], api.rows[100:120]
    clock.now += 60
    reading = await refresh(sync)
    assert (reading.count, reading.max_interval_seconds) == (179, 21 * 300.0)


async def test_until_the_window_is_listed_anew_nothing_older_is_published() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    del api.rows[0], api.rows[50:]
    for _ in range(3):
        clock.now += 60
        reading = await sync.refresh(Query())
        assert (reading.count, reading.size_kilobytes, reading.running) == (None, None, None)
        assert (reading.oldest_end, reading.max_interval_seconds) == (None, None)
        assert (reading.latest_end, reading.listing_complete) == (NOON - 360, False)
        assert not sync.is_listed()
        assert sync.wants_listing()
        api.errors[49] = server_error()
        with pytest.raises(UnavailableError):
            await sync.list_window(Query())
    await sync.list_window(Query())
    assert (await sync.refresh(Query())).count == 50


async def test_a_restore_that_leaves_no_backup_of_late_shows_the_one_before() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    del api.rows[:100]
    clock.now += 60
    reading = await sync.refresh(Query())
    assert reading.latest_end == NOON - 60 - 100 * 300


async def test_pages_of_before_are_not_gone_on_from() -> None:
    """A resync has read its first pages when a backup vanishes."""
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now += SIX_HOURS
    api.errors[98] = server_error()
    with pytest.raises(UnavailableError):
        await refresh(sync)
    del api.rows[3]
    clock.now += 60
    assert (await refresh(sync)).count == 199


def test_rows_at_the_bounds_of_what_was_asked_prove_nothing() -> None:
    """Whether the bounds count is not documented, and times are cut to the second."""
    begin, end = NOON - HOUR, NOON + 60

    def vanished(begins: float, ends: float) -> bool:
        row = Backup("a", begins, ends, 1.0)
        found = find_vanished(make_window(row), {}, begin, end)
        assert found in (None, row)
        return found is not None

    assert vanished(begin + 1.5, NOON)
    assert not vanished(begin + 1, NOON)
    assert not vanished(begin, NOON)
    assert not vanished(begin - 60, NOON)
    assert vanished(NOON, end - 1.5)
    assert not vanished(NOON, end - 1)
    assert not vanished(NOON, end + 60)


def test_a_row_without_a_begin_or_an_end_proves_nothing() -> None:
    for row in (Backup("a", None, NOON - 60, 1.0), Backup("a", NOON - 60, None, 1.0)):
        assert find_vanished(make_window(row), {}, NOON - HOUR, NOON + 60) is None


def test_a_row_that_has_changed_has_not_vanished() -> None:
    row = Backup("a", NOON - 60, NOON, 1.0)
    changed = by_id(row._replace(end=NOON - 10))
    assert find_vanished(make_window(row), changed, NOON - HOUR, NOON + 60) is None


async def test_an_answer_that_is_not_complete_proves_nothing() -> None:
    clock = Moment()
    api = FakeApi(make_rows(12))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    hidden, api.rows = api.rows, api.rows[1:]
    api.total = lambda total: 12
    clock.now += 60
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (12, False)
    api.rows = hidden
    clock.now += 60
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (12, True)


async def test_a_backup_that_vanishes_while_the_window_is_listed_is_noticed_too() -> None:
    clock = Moment()
    api = FakeApi(make_rows(120))

    def vanish(number: int) -> None:
        if number == 3:
            clock.now += 60
            del api.rows[0]

    api.before = vanish
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (119, True)


async def test_an_api_that_contradicts_itself_has_the_window_listed_ever_more_rarely() -> None:
    """Narrow answers lack a backup that the full listing shows, as where a replica lags behind."""
    clock = Moment()
    api = FakeApi(make_rows(30))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).count == 30
    everything = api.rows

    def lag(number: int) -> None:
        begin, end = api.asked[-1]
        api.rows = everything if end - begin > DAY else everything[1:]

    api.before = lag
    api.requests()
    whole = []
    for minute in range(1, 40):
        clock.now = NOON + minute * 60
        reading = await refresh(sync)
        assert reading.count == 30
        if api.requests() > 1:
            whole.append(minute)
            assert reading.listing_complete
        else:
            assert not reading.listing_complete
    assert whole == [1, 2, 4, 8, 16, 32]


async def test_a_backup_that_vanishes_after_a_contradiction_is_noticed_when_that_is_over() -> None:
    clock = Moment()
    api = FakeApi(make_rows(30))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    everything = api.rows

    def lag(number: int) -> None:
        begin, end = api.asked[-1]
        api.rows = everything if end - begin > DAY else everything[1:]

    api.before = lag
    clock.now += 60
    await refresh(sync)
    api.before = lambda number: None
    api.rows = everything[2:]
    clock.now += 59
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (30, False)
    clock.now += 1
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (28, True)


# Backups that run for long ---------------------------------------------------------------------


def make_long(hours: float, *, ended: float, id: str = "long") -> Backup:
    return Backup(id, ended - hours * HOUR, ended, 9.0)


def test_the_next_listing_begins_before_the_latest_end_by_the_longest_duration() -> None:
    """And a second: the bound may not count."""
    window = make_window(make_long(5, ended=NOON - 20 * HOUR), *make_rows(3))
    assert increment_begin(window, NOON) == NOON - 60 - 5 * HOUR - 1


@pytest.mark.parametrize(
    ("hours", "begins"), [(0.5, HOUR), (1, HOUR + 1), (5, 5 * HOUR + 1), (300, 36 * HOUR + 1)]
)
def test_an_hour_is_the_least_and_a_day_and_a_half_the_most(hours: float, begins: float) -> None:
    """A row whose begin makes no sense would have all be read each time."""
    window = make_window(make_long(hours, ended=NOON - HOUR), *make_rows(3))
    assert increment_begin(window, NOON) == NOON - 60 - begins


def test_an_api_that_does_not_filter_by_begin_is_asked_for_an_hour() -> None:
    window = make_window(make_long(5, ended=NOON - 20 * HOUR), *make_rows(3))
    assert window.filter_matters
    window = replace(window, filter=Filter.NOT_BY_BEGIN)
    assert not window.filter_matters
    assert increment_begin(window, NOON) == NOON - 60 - HOUR


def test_short_backups_need_no_look_at_the_filter() -> None:
    assert not make_window(make_long(0.9, ended=NOON - HOUR), *make_rows(3)).filter_matters


def test_merged_rows_may_make_the_longest_longer() -> None:
    window = make_window(*make_rows(3))
    assert window.longest_seconds == 30.0
    window = merge(window, [make_long(2, ended=NOON)], now=NOON)
    assert window.longest_seconds == 2 * HOUR


@pytest.mark.parametrize("hours", [3, 30])
async def test_a_long_backup_is_the_latest_as_soon_as_it_has_ended(hours: float) -> None:
    """Hidden while it runs, and the API filters by begin: an hour would not show it."""
    clock = Moment()
    api = FakeApi([make_long(hours, ended=NOON - 5 * HOUR, id="first"), *make_rows(20)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    clock.now += 600
    api.rows.append(make_long(hours, ended=clock.now - 10))
    reading = await refresh(sync)
    assert (reading.latest_end, reading.latest_size_kilobytes) == (clock.now - 10, 9.0)
    assert reading.count == 22


async def test_an_api_that_shows_a_long_backup_by_its_end_is_asked_for_an_hour_again() -> None:
    clock = Moment()
    api = FakeApi([make_long(20, ended=NOON - 5 * HOUR), *make_rows(288)])
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for number, requests in enumerate((2, 1, 1, 1)):
        clock.now += 300
        api.rows.append(Backup(f"new-{number}", clock.now - 40, clock.now - 10, 1.0))
        await refresh(sync)
        assert api.requests() == requests
    begin, end = api.asked[-1]
    assert end - begin <= HOUR + 400


async def test_an_api_that_does_not_show_it_is_asked_for_its_whole_duration() -> None:
    clock = Moment()
    api = FakeApi([make_long(5, ended=NOON - 10 * HOUR), *make_rows(288)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    for number, requests in enumerate((1 + 2, 2, 2)):  # 60 rows
        clock.now += 600
        api.rows.append(Backup(f"new-{number}", clock.now - 40, clock.now - 10, 1.0))
        await refresh(sync)
        assert api.requests() == requests
    assert api.asked[-1][0] == clock.now - 10 - 600 - 5 * HOUR - 1


async def test_a_running_backup_that_began_before_what_was_asked_has_the_window_listed_anew() -> (
    None
):
    """From then on more is asked for than the rows whose ids are known."""
    clock = Moment()
    api = FakeApi(make_rows(300))
    api.shows_all_running = True
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.rows.append(Backup("long", NOON - 5 * HOUR, None, 9.0))
    clock.now += 60
    reading = await sync.refresh(Query())
    assert (reading.count, reading.running) == (289, 1)
    assert not sync.wants_listing()
    clock.now += 60
    reading = await sync.refresh(Query())
    assert (reading.count, reading.running) == (289, 1)
    assert sync.wants_listing()
    await sync.list_window(Query())
    clock.now += 60
    await sync.refresh(Query())
    assert not sync.wants_listing()
    del api.rows[50]  # which is among them
    clock.now += 60
    assert (await refresh(sync)).count == 288


def test_a_listing_that_reaches_among_settled_rows_is_told() -> None:
    window = make_window(*make_rows(100))
    assert window.settled_before == NOON - 60 - HOUR
    assert not reaches_settled(window, window.settled_before)
    assert not reaches_settled(window, window.settled_before - 299)
    assert reaches_settled(window, window.settled_before - 300)
    assert not reaches_settled(make_window(), NOON - DAY)


async def test_a_long_backup_before_the_lookback_has_nothing_listed_over_and_over() -> None:
    """Rows before it are known without their ids, and do not count."""
    clock = Moment()
    api = FakeApi([make_long(36.5, ended=NOON - 25.5 * HOUR), *make_rows(50, last_age=30 * HOUR)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 25.5 * HOUR
    for _ in range(3):
        clock.now += 60
        assert (await sync.refresh(Query())).latest_end == NOON - 25.5 * HOUR
        assert not sync.wants_listing()


# A clock that was set back ---------------------------------------------------------------------


async def test_a_clock_set_back_just_after_the_backup_that_ended_a_long_gap() -> None:
    """The one before the gap is the latest again."""
    clock = Moment()
    api = FakeApi([*make_rows(1, last_age=10 * DAY), Backup("new", NOON - 60, NOON - 30, 2.0)])
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 30
    clock.now -= 90
    reading = await refresh(sync)
    assert (reading.count, reading.latest_end) == (0, NOON - 10 * DAY)
    clock.now += 90
    reading = await refresh(sync)
    assert (reading.count, reading.latest_end) == (1, NOON - 30)
    assert reading.max_interval_seconds == 10 * DAY - 30


async def test_a_clock_set_back_after_the_gap_has_ended_before_our_eyes() -> None:
    clock = Moment()
    api = FakeApi(make_rows(5, last_age=2 * DAY))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    assert (await refresh(sync)).latest_end == NOON - 2 * DAY
    clock.now += 600
    api.rows.append(Backup("new", clock.now - 60, clock.now - 30, 2.0))
    assert (await refresh(sync)).latest_end == clock.now - 30
    api.requests()
    clock.now -= 90
    reading = await refresh(sync)
    assert (reading.count, reading.latest_end) == (0, NOON - 2 * DAY)
    assert api.requests() == 1  # it was not forgotten


async def test_a_clock_set_back_a_little_has_nothing_listed_anew() -> None:
    clock = Moment()
    api = FakeApi(make_rows(600))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    api.requests()
    clock.now -= 90
    reading = await refresh(sync)
    assert (reading.count, reading.latest_end) == (288, NOON - 360)
    assert api.requests() == 1


@pytest.mark.parametrize("hours", [-5.0, -0.5, 0.5, 5.0])
async def test_a_clock_that_is_corrected_while_the_window_is_listed(hours: float) -> None:
    """As where the first answer tells that ours is wrong: the numbers are those of its time."""
    clock = Moment(NOON - hours * HOUR)
    api = FakeApi(make_rows(600))

    def correct(number: int) -> None:
        clock.now = NOON

    api.before = correct
    sync = make_sync(api, clock=clock)
    reading = await refresh(sync)
    assert reading.count in (None, 288)
    reading = await refresh(sync)
    assert (reading.at, reading.count, reading.latest_end) == (NOON, 288, NOON - 60)
    assert reading.listing_complete


# A pause ---------------------------------------------------------------------------------------


async def test_after_a_pause_of_more_than_a_whole_listing_all_begins_anew() -> None:
    """What is new would be more than that, and the old rows may be gone by now."""
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    api.requests()
    clock.now += 10 * DAY
    api.rows = [
        row._replace(begin=row.begin + 10 * DAY, end=row.end + 10 * DAY, id=f"new-{row.id}")
        for row in api.rows
        if row.begin is not None and row.end is not None
    ]
    reading = await sync.refresh(Query())
    assert api.requests() == 1
    assert (reading.count, reading.latest_end) == (None, clock.now - 60)
    assert (await refresh(sync)).count == 288


async def test_a_stale_instance_that_is_asked_all_the_time_takes_one_request() -> None:
    clock = Moment()
    api = FakeApi(make_rows(300))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    for _ in range(12):
        clock.now += 20 * HOUR
        api.requests()
        assert (await sync.refresh(Query())).latest_end == NOON - 60
        assert api.requests() == 1


async def test_retention_that_takes_what_is_known_leaves_none() -> None:
    """The last hour of a stale instance is deleted, one backup after the other."""
    clock = Moment()
    api = FakeApi(make_rows(13))
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    for left in range(12, -1, -1):
        clock.now = NOON + 2 * DAY - left * 300
        api.rows = api.rows[:left]
        for _ in range(2):
            reading = await refresh(sync)
        assert (reading.count, reading.latest_end) == (0, NOON - 60 if left else None)
        assert reading.listing_complete


@pytest.mark.parametrize("lookback", [300.0, DAY])
async def test_scrapes_that_are_a_lookback_apart_take_one_request(lookback: float) -> None:
    clock = Moment()
    api = FakeApi(make_rows(600))
    sync = make_sync(api, clock=clock, lookback=lookback, resync_interval=732 * DAY)
    await refresh(sync)
    for _ in range(3):
        clock.now += 310
        api.requests()
        assert (await sync.refresh(Query())).count is not None
        assert api.requests() == 1


async def test_an_end_that_was_ahead_of_the_clock_says_nothing_of_those_before_it() -> None:
    """A machine that slept asks by the old time, is shown an end of later, and wakes up to it."""
    clock = Moment()
    api = FakeApi([Backup("runs", NOON, None, 0.0), *make_rows(3)])
    api.filter_by = "begin"
    sync = make_sync(api, clock=clock, resync_interval=732 * DAY)
    await refresh(sync)
    between = Backup("between", NOON + 100, NOON + 130, 2.0)
    api.rows = [Backup("runs", NOON, NOON + 2 * HOUR, 5.0), between, *api.rows[1:]]
    await sync.refresh(Query())
    clock.now += 3 * HOUR
    reading = await sync.refresh(Query())
    assert (reading.count, reading.latest_end) == (5, NOON + 2 * HOUR)
