import asyncio
import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.backups.listing import PAGES_IN_PARALLEL, Listing, gather
from exporter.backups.sync import InstanceSync, is_sorted, next_resync
from exporter.errors import (
    ApiError,
    BadResponseError,
    DeadlineError,
    Reason,
    UnavailableError,
)
from exporter.models import Backup, Instance, InstanceKey, Page, Progress, Reading
from exporter.transport.limits import Query
from tests.support.virtual_time import DAY, HOUR, NOON, Clock

# As in the tests of the window: few random examples where a mutant is tested, always the same.
MUTATED = "MUTANT_UNDER_TEST" in os.environ

SIX_HOURS = 6 * HOUR
ORDERS: dict[str, Callable[[Backup], object]] = {
    "ascending": lambda row: row.end or 0.0,
    "descending": lambda row: -(row.end or 0.0),
    "shuffled": lambda row: random.Random(row.id).random(),
}


def make_rows(count: int, *, last_age: float = 60.0, every: float = 300.0) -> list[Backup]:
    """So many finished backups, one every five minutes; the last ended a minute before noon."""
    return [
        Backup(f"row-{number}", end - 30.0, end, 1.0)
        for number in range(count)
        for end in [NOON - last_age - number * every]
    ]


class FakeApi:
    """The backups of one instance, as an API lists them that keeps to its documentation.

    What deviates is told by its attributes. `before` is called ahead of each answer with the
    number of the request.
    """

    def __init__(self, rows: Sequence[Backup] = (), *, order: str = "descending") -> None:
        self.rows = list(rows)
        self.order = order
        self.page_rows = 50
        self.ignores_offset = False
        self.total: Callable[[int], int | None] = lambda total: total
        self.before: Callable[[int], object] = lambda number: None
        self.filter_by = "end"
        self.offsets: list[int] = []
        self.asked: list[tuple[float, float]] = []
        self.asked_for: list[tuple[Instance, Query]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.hold: asyncio.Event | None = None
        self.errors: dict[int, Exception] = {}  # by offset, once

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        self.offsets.append(offset)
        self.asked.append((begin, end))
        self.asked_for.append((instance, query))
        number = len(self.offsets)
        assert begin < end
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await (self.hold.wait() if self.hold is not None else asyncio.sleep(0))
        finally:
            self.in_flight -= 1
        if (error := self.errors.pop(offset, None)) is not None:
            raise error
        self.before(number)
        found = sorted(filter(self._shows(begin, end), self.rows), key=self._key)
        start = 0 if self.ignores_offset else offset
        return Page(found[start : start + self.page_rows], self.total(len(found)))

    def _shows(self, begin: float, end: float) -> Callable[[Backup], bool]:
        def shows(row: Backup) -> bool:
            moment = row.begin if row.end is None or self.filter_by == "begin" else row.end
            return moment is not None and begin <= moment <= end

        return shows

    def _key(self, row: Backup) -> tuple[object, str]:
        return ORDERS[self.order](row), row.id

    def requests(self) -> int:
        """How many since the last call."""
        self._seen, before = len(self.offsets), getattr(self, "_seen", 0)
        return self._seen - before


class Moment:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


INSTANCE = Instance("project", "orders", lookback_seconds=DAY)


def make_sync(
    api: FakeApi,
    *,
    clock: Callable[[], float] | None = None,
    lookback: float = DAY,
    resync_interval: float = SIX_HOURS,
    offsite: bool = False,
) -> InstanceSync:
    instance = replace(INSTANCE, lookback_seconds=lookback, offsite=offsite)
    return InstanceSync(instance, api, clock=clock or Moment(), resync_interval=resync_interval)


async def refresh(sync: InstanceSync) -> Reading:
    return await sync.refresh(Query(), lambda reading: None)


# Pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("count", "requests"),
    # A page begins with the last row of the one before; a full one is asked on.
    [(1, 1), (49, 1), (50, 2), (51, 2), (98, 2), (99, 3), (100, 3), (147, 3), (148, 4), (288, 6)],
)
async def test_a_full_listing_reads_each_page_once(count: int, requests: int, order: str) -> None:
    api = FakeApi(make_rows(count), order=order)
    reading = await refresh(make_sync(api))
    assert reading.count == count
    assert reading.size_kilobytes == count
    assert reading.listing_complete
    assert len(api.offsets) == len(set(api.offsets)) == requests


async def test_a_week_of_backups_is_read_in_parallel() -> None:
    api = FakeApi(make_rows(2016))
    reading = await refresh(make_sync(api, lookback=7 * DAY))
    assert (reading.count, reading.listing_complete) == (2016, True)
    assert len(api.offsets) == len(set(api.offsets)) == 42
    assert api.most_in_flight == PAGES_IN_PARALLEL == 8


@pytest.mark.parametrize(("count", "pages"), [(99, 1), (100, 2), (148, 2), (149, 3)])
async def test_all_pages_that_are_announced_are_read_at_a_time(count: int, pages: int) -> None:
    """All but the first: 49 rows more on each, and the last row of all is on the one before."""
    api = FakeApi(make_rows(count))
    await refresh(make_sync(api))
    assert api.most_in_flight == pages


async def test_nothing_at_all_takes_the_listing_and_one_search() -> None:
    api = FakeApi()
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end, reading.listing_complete) == (0, None, True)
    assert len(api.offsets) == 2


async def test_the_listing_asks_for_more_than_the_lookback() -> None:
    """The API may filter by begin, and a backup may take a day."""
    api = FakeApi([Backup("long", NOON - 2 * DAY + 60, NOON - DAY + 60, 5.0)])
    api.filter_by = "begin"
    assert (await refresh(make_sync(api))).count == 1
    assert api.asked == [(NOON - 2 * DAY, NOON + 60)]


async def test_a_missing_total_is_told_and_all_pages_are_read() -> None:
    api = FakeApi(make_rows(149))
    api.total = lambda total: None
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (149, False)
    assert api.offsets == [0, 49, 98, 147]


async def test_a_full_last_page_without_a_total_is_asked_on() -> None:
    api = FakeApi(make_rows(50))
    api.total = lambda total: None
    assert (await refresh(make_sync(api))).count == 50
    assert api.offsets == [0, 49]


@pytest.mark.parametrize("count", [10, 60, 120])
async def test_a_total_that_is_too_high_is_doubted_once(count: int) -> None:
    api = FakeApi(make_rows(count))
    api.total = lambda total: total + 5
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (count, False)
    assert len(api.offsets) <= 2 * (count // 49 + 2)


@pytest.mark.parametrize("count", [60, 120, 2016])
async def test_a_huge_total_does_not_spin(count: int) -> None:
    api = FakeApi(make_rows(count))
    api.total = lambda total: 10**9
    reading = await refresh(make_sync(api, lookback=7 * DAY))
    assert (reading.count, reading.listing_complete) == (count, False)
    assert len(api.offsets) <= 2 * (count // 49 + 1 + PAGES_IN_PARALLEL)


@pytest.mark.parametrize("claimed", [0, 7, 60])
async def test_a_total_that_is_too_low_does_not_hide_rows(claimed: int) -> None:
    api = FakeApi(make_rows(200))
    api.total = lambda total: claimed
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (200, False)


@pytest.mark.parametrize("total", [None, 30, 50, 51, 99, 2016, 10**9])
async def test_an_api_that_ignores_the_offset_does_not_spin(total: int | None) -> None:
    api = FakeApi(make_rows(51)[:50])
    api.ignores_offset = True
    api.total = lambda _: total
    reading = await refresh(make_sync(api, lookback=7 * DAY))
    assert reading.count == 50
    assert reading.listing_complete == (total == 50)
    assert len(api.offsets) <= 2 * (1 + PAGES_IN_PARALLEL + 1)


@pytest.mark.parametrize("page_rows", [2, 10, 20, 49])
async def test_pages_shorter_than_asked_for_are_all_read(page_rows: int) -> None:
    api = FakeApi(make_rows(101))
    api.page_rows = page_rows
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (101, True)


@pytest.mark.parametrize("total", [lambda n: n, lambda n: None])
async def test_pages_longer_than_asked_for_are_taken_as_they_are(
    total: Callable[[int], int | None],
) -> None:
    api = FakeApi(make_rows(170))
    api.page_rows = 70
    api.total = total
    assert (await refresh(make_sync(api))).count == 170


async def test_an_empty_page_ends_a_listing_that_announces_more() -> None:
    api = FakeApi(make_rows(50))
    api.total = lambda total: 99
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (50, False)


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
        await sync.refresh(query, lambda reading: None)
        assert len(api.asked_for) == 7
        for instance, by in api.asked_for:
            assert instance == INSTANCE
            assert by is query
        api.asked_for.clear()
        clock.now += SIX_HOURS


async def test_a_copy_of_a_listing_keeps_its_pages_and_knows_their_rows() -> None:
    rows = make_rows(60)
    listing = Listing(begin=0.0, end=1.0, started=0.0)

    async def fetch(offset: int) -> Page:
        return Page(rows[:50], 60)

    await listing.fetch_page(fetch, 0)
    copy = listing.copy()
    listing.restart()
    assert listing.progress == Progress(0, 2)
    assert copy.progress == Progress(1, 2)
    _, goes_on = await copy.fetch_page(fetch, 49)
    assert not goes_on  # the same rows again


# Rows that move --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [99, 300])
async def test_a_row_that_appears_between_pages_has_the_listing_read_once_more(count: int) -> None:
    api = FakeApi(make_rows(count))

    def appear(number: int) -> None:
        if number == 2:
            api.rows.append(Backup("new", NOON - 40, NOON - 10, 1.0))

    api.before = appear
    reading = await refresh(make_sync(api, lookback=2 * DAY))
    assert (reading.count, reading.listing_complete) == (count + 1, True)


async def test_a_row_that_vanishes_between_pages_has_the_listing_read_once_more() -> None:
    api = FakeApi(make_rows(150))

    def vanish(number: int) -> None:
        if number == 2:
            del api.rows[:2]

    api.before = vanish
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (148, True)


async def test_a_row_in_conflict_is_read_again_though_the_number_of_rows_is_right() -> None:
    first, second = Backup("a", NOON - 60, NOON - 30, 1.0), Backup("a", NOON - 60, NOON - 30, 4.0)
    api = FakeApi()

    def answer(number: int) -> None:
        api.rows = [first, second] if number == 1 else [second]

    api.before, api.total = answer, lambda total: 1
    reading = await refresh(make_sync(api))
    assert (reading.size_kilobytes, reading.listing_complete) == (4.0, True)
    assert api.offsets == [0, 0]


def test_a_copy_of_a_listing_is_its_own() -> None:
    listing = Listing(begin=0.0, end=1.0, started=0.0, pages={0: Page([], 0)})
    listing._totals.add(0)
    listing.copy().restart()
    assert listing.agrees
    assert listing.pages


async def test_pages_that_tell_different_totals_are_read_again() -> None:
    """A page without one of its rows, and a total that fits what is left of them."""
    rows = make_rows(2)
    api = FakeApi()
    answers = {1: (rows[1:], 2), 2: (rows, 1)}

    def answer(number: int) -> None:
        api.rows, total = answers.get(number, (rows, 2))
        api.total = lambda _: total

    api.before = answer
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (2, True)
    assert api.offsets == [0, 1, 0]


async def test_pages_that_keep_telling_different_totals_are_published_as_incomplete() -> None:
    api = FakeApi(make_rows(60))

    def answer(number: int) -> None:
        api.total = lambda total: total + number % 2

    api.before = answer
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (60, False)
    assert api.offsets == [0, 49, 0, 49]


async def test_a_listing_that_never_holds_still_is_published_as_incomplete() -> None:
    api = FakeApi(make_rows(120))
    api.before = lambda number: api.rows.insert(
        0, Backup(f"new-{number}", NOON - 40, NOON - 30 + number, 1.0)
    )
    reading = await refresh(make_sync(api))
    assert not reading.listing_complete
    assert reading.count >= 120


async def test_rows_whose_times_change_with_each_page_make_no_sense() -> None:
    rows = make_rows(99)
    api = FakeApi(rows)
    orders = [rows[start:] + rows[:start] for start in (0, 30, 60, 80)]

    def turn(number: int) -> None:
        api.rows = [
            row._replace(end=NOON - 60 - index) for index, row in enumerate(orders[number % 4])
        ]

    api.before = turn
    with pytest.raises(BadResponseError, match="listed twice"):
        await refresh(make_sync(api))  # the same ids with other times: nobody knows which


async def test_pages_in_an_order_of_their_own_lose_no_row_that_was_listed() -> None:
    rows = make_rows(99)
    shown: set[str] = set()

    class Shuffling(FakeApi):
        async def fetch_backups(
            self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
        ) -> Page:
            self.offsets.append(offset)
            order = random.Random(len(self.offsets)).sample(rows, len(rows))
            page = Page(order[offset : offset + 50], len(rows))
            shown.update(row.id for row in page.rows)
            return page

    api = Shuffling()
    reading = await refresh(make_sync(api))
    assert api.offsets == [0, 49, 98] * 2
    assert reading.count == len(shown)
    assert reading.listing_complete is (len(shown) == 99)


async def test_a_conflict_that_is_gone_at_the_second_reading_does_no_harm() -> None:
    api = FakeApi(make_rows(3))
    conflict = api.rows[0]._replace(size_kilobytes=99.0)
    api.rows.append(conflict)

    def settle(number: int) -> None:
        if number == 2:
            api.rows.remove(conflict)

    api.before = settle
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.size_kilobytes, reading.listing_complete) == (3, 3.0, True)


async def test_a_row_with_two_sizes_makes_no_sense() -> None:
    api = FakeApi(make_rows(3))
    api.rows.append(api.rows[0]._replace(size_kilobytes=99.0))
    sync = make_sync(api)
    for _ in range(2):
        with pytest.raises(BadResponseError, match="row-0 is listed twice") as caught:
            await refresh(sync)
        assert caught.value.reason is Reason.BAD_RESPONSE
    assert api.requests() == 3  # the second time it is read once: its pages are known to be bad


async def test_a_row_listed_twice_unchanged_counts_once() -> None:
    api = FakeApi(make_rows(3))
    api.rows.append(api.rows[0])
    api.total = lambda total: 3
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (3, True)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_row_that_ends_while_pages_are_read_is_finished(swapped: bool) -> None:
    runs, ended = Backup("a", NOON - 60, None, 0.0), Backup("a", NOON - 60, NOON, 4.0)
    first, second = (ended, runs) if swapped else (runs, ended)
    listed = gather({0: Page([first], 2), 49: Page([second], 2)})
    assert listed.rows == {"a": ended}
    assert listed.conflict is None


def test_pages_that_join_have_not_moved() -> None:
    rows = make_rows(60)
    assert not gather({0: Page(rows[:50], 60), 49: Page(rows[49:], 60)}).moved
    assert gather({0: Page(rows[:50], 60), 49: Page(rows[50:], 60)}).moved
    assert gather({0: Page(rows[:50], 60), 49: Page(rows[48:], 60)}).moved
    assert gather({0: Page(rows[:50], 60), 49: Page([], 60)}).moved


def test_a_row_that_ran_and_has_ended_on_one_page_is_a_conflict() -> None:
    """Within one answer a backup cannot end; the pages before and after make it no better."""
    runs, ended = Backup("a", NOON - 60, None, 0.0), Backup("a", NOON - 60, NOON, 4.0)
    other = Backup("b", NOON - 60, NOON, 1.0)
    pages = {0: Page([runs, ended, other], 4), 2: Page([other, other], 4)}
    assert gather(pages).conflict == "a"
    assert gather({0: pages[0]}).conflict == "a"


def test_of_rows_in_conflict_the_later_one_stays() -> None:
    first, second = Backup("a", NOON - 60, NOON - 30, 1.0), Backup("a", NOON - 60, NOON, 4.0)
    listed = gather({0: Page([first], 2), 49: Page([second], 2)})
    assert (listed.rows, listed.conflict) == ({"a": second}, "a")


async def test_pages_of_one_row_each_are_read_once_each() -> None:
    """No row can be asked for twice then, and none must be left out."""
    api = FakeApi(make_rows(5))
    api.page_rows = 1
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (5, True)
    assert api.offsets == [0, 1, 2, 3, 4]


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


async def test_a_window_listed_anew_for_a_clock_set_back_publishes_nothing_early() -> None:
    clock = Moment()
    api = FakeApi(make_rows(10))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now -= 3 * DAY
    early: list[Reading] = []
    await sync.refresh(Query(), early.append)
    assert early == []


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


async def test_a_resync_publishes_what_is_known_before_it_begins() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    early: list[Reading] = []
    await sync.refresh(Query(), early.append)
    assert early == []
    clock.now += SIX_HOURS
    api.rows.append(Backup("new", clock.now - 40, clock.now - 10, 1.0))
    api.requests()
    reading = await sync.refresh(Query(), early.append)
    assert [(found.at, found.count, found.latest_end) for found in early] == [
        (clock.now, reading.count, clock.now - 10)
    ]
    assert api.requests() == 1 + 5  # what is new; 201 rows


async def test_a_resync_that_fails_is_due_again_at_the_next_refresh() -> None:
    clock = Moment()
    api = FakeApi(make_rows(200))
    sync = make_sync(api, clock=clock)
    await refresh(sync)
    clock.now += SIX_HOURS
    early: list[Reading] = []
    api.errors[49] = UnavailableError("no answer", reason=Reason.TIMEOUT)
    with pytest.raises(UnavailableError):
        await sync.refresh(Query(), early.append)
    assert len(early) == 1
    clock.now += 60
    api.requests()
    await sync.refresh(Query(), early.append)
    assert len(early) == 2
    assert api.requests() > 1
    clock.now += 60
    await sync.refresh(Query(), early.append)
    assert len(early) == 2
    assert api.requests() == 1


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


# Cut off ---------------------------------------------------------------------------------------


class Cut:
    """Lets so many requests through and holds the others."""

    def __init__(self, api: FakeApi, requests: int) -> None:
        self._left = requests
        self._waiting: list[asyncio.Future[None]] = []
        self._fetch = api.fetch_backups
        api.fetch_backups = self.fetch  # type: ignore[method-assign]

    async def fetch(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        if self._left == 0:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await query.wait(future)
        self._left -= 1
        return await self._fetch(instance, begin=begin, end=end, offset=offset, query=query)

    def release(self) -> None:
        self._left = 10**6
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


async def let_run() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
@pytest.mark.parametrize("through", [1, 7, 20])
async def test_a_listing_that_was_cut_off_goes_on_from_its_pages(through: int, how: str) -> None:
    api = FakeApi(make_rows(2016))
    sync = make_sync(api, lookback=7 * DAY)
    cut = Cut(api, through)
    query = Query()
    task = asyncio.create_task(sync.refresh(query, lambda reading: None))
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
    assert len(api.offsets) == len(set(api.offsets)) == 42
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
    task = asyncio.create_task(sync.refresh(query, lambda reading: None))
    await let_run()
    query.expire()
    assert api.hold is not None
    api.hold.set()
    with pytest.raises(DeadlineError):
        await task
    assert len(api.offsets) == 8  # all but the one that had no slot
    reading = await refresh(sync)
    assert reading.count == 2016
    assert len(api.offsets) == len(set(api.offsets)) == 42


async def test_a_page_that_fails_fails_the_query_and_nothing_else_is_lost() -> None:
    api = FakeApi(make_rows(300))
    sync = make_sync(api, lookback=7 * DAY)
    api.errors[98] = UnavailableError("HTTP 500", reason=Reason.SERVER, status=500)
    with pytest.raises(UnavailableError, match="HTTP 500"):
        await refresh(sync)
    reading = await refresh(sync)
    assert (reading.count, reading.listing_complete) == (300, True)
    assert Counter(api.offsets) == Counter([0, 49, 98, 98, 147, 196, 245, 294])


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
    assert api.requests() == 5
    assert api.asked[-1] == (clock.now - 2 * DAY, clock.now + 60)


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


# The latest backup before the lookback ---------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "count", "requests"),
    [
        ("descending", 1, 1),
        ("shuffled", 49, 1),
        ("shuffled", 50, 4),  # no order to go by: the day before what is found is listed too
        ("descending", 50, 2),
        ("descending", 51, 2),
        ("descending", 2016, 2),
        ("ascending", 50, 2),
        ("ascending", 51, 2),
        ("ascending", 98, 2),
        ("ascending", 99, 2),
        ("ascending", 100, 2),
        ("ascending", 2016, 2),
    ],
)
@pytest.mark.parametrize("filter_by", ["begin", "end"])
async def test_the_latest_backup_before_the_lookback_takes_one_or_two_requests(
    order: str, count: int, requests: int, filter_by: str
) -> None:
    api = FakeApi(make_rows(count, last_age=3 * DAY), order=order)
    api.filter_by = filter_by
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end) == (0, NOON - 3 * DAY)
    assert len(api.offsets) == 1 + requests


@pytest.mark.parametrize("count", [51, 500, 2016, 50_000])
async def test_the_search_narrows_where_rows_are_in_no_order(count: int) -> None:
    api = FakeApi(make_rows(count, last_age=3 * DAY), order="shuffled")
    reading = await refresh(make_sync(api))
    assert reading.latest_end == NOON - 3 * DAY
    narrowing = [begin for begin, _ in api.asked[1:] if begin != NOON - 4 * DAY]
    assert len(narrowing) <= 4
    assert narrowing == sorted(narrowing)
    assert len(api.offsets) <= 1 + 4 + 6  # and the pages of the day before what was found


async def test_without_a_total_a_page_that_is_not_full_has_the_latest_backup() -> None:
    api = FakeApi(make_rows(10, last_age=3 * DAY))
    api.total = lambda total: None
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY
    assert api.requests() == 2


async def test_pages_in_order_each_are_not_taken_for_an_order_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first and the last page ascend, and the latest backup is on the one between."""
    monkeypatch.setitem(ORDERS, "by id", lambda row: row.id)
    latest = NOON - 3 * DAY
    starts = {"a": latest - 20 * HOUR, "b": latest - 49 * 60.0, "c": latest - 30 * HOUR}
    rows = [
        Backup(f"{block}-{number:02}", end - 30.0, end, 1.0)
        for block, start in starts.items()
        for number in range(50)
        for end in [start + number * 60.0]
    ]
    api = FakeApi(rows, order="by id")
    assert (await refresh(make_sync(api))).latest_end == latest


@pytest.mark.parametrize("count", [60, 98, 99])
async def test_two_pages_that_have_all_rows_need_no_order(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The first page ascends, and what follows does not."""
    monkeypatch.setitem(ORDERS, "by id", lambda row: row.id)
    ends = [NOON - 4 * DAY + number * 60.0 for number in range(50)]
    ends += [NOON - 3 * DAY - number * 60.0 for number in range(count - 50)]
    rows = [Backup(f"row-{n:02}", end - 30.0, end, 1.0) for n, end in enumerate(ends)]
    api = FakeApi(rows, order="by id")
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY
    assert api.requests() == 1 + 2


@pytest.mark.parametrize(("running", "found"), [(55, True), (1_000, False)])
async def test_a_full_page_with_nothing_later_is_not_the_end(running: int, found: bool) -> None:
    """Behind the running backups that fill it there is a later one, which nobody has seen."""
    api = FakeApi(make_rows(60, last_age=4 * DAY), order="shuffled")

    def hide(number: int) -> None:
        if number == 3:
            latest = Backup("latest", NOON - 3 * DAY, NOON - 3 * DAY, 1.0)
            others = [Backup(f"r-{n}", NOON - 3 * DAY, None, 0.0) for n in range(running)]
            api.rows, api.order = [latest, *others], "ascending"  # those that run come first

    api.before = hide
    if found:
        assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY
    else:  # too many to be read
        with pytest.raises(BadResponseError, match="could not be found"):
            await refresh(make_sync(api))


async def test_the_search_misses_no_backup_that_ended_within_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first page is in no order, and its latest backup ended half a second before another."""
    monkeypatch.setitem(ORDERS, "by id", lambda row: row.id)
    latest = NOON - 3 * DAY
    ends = [latest - 0.5 - number * 7 % 50 * 60.0 for number in range(50)] + [latest]
    rows = [Backup(f"row-{n:02}", end - 30.0, end, 1.0) for n, end in enumerate(ends)]
    assert (await refresh(make_sync(FakeApi(rows, order="by id")))).latest_end == latest


async def test_a_longer_backup_is_found_that_began_before_the_range_the_search_was_left_with() -> (
    None
):
    rows = make_rows(60, last_age=3 * DAY)
    latest = NOON - 3 * DAY
    long = Backup("long", latest - 8 * HOUR, latest + HOUR, 5.0)
    api = FakeApi([*rows, long], order="shuffled")
    api.filter_by = "begin"
    reading = await refresh(make_sync(api))
    assert (reading.latest_end, reading.latest_size_kilobytes) == (latest + HOUR, 5.0)


async def test_backups_that_ended_together_are_no_descending_order() -> None:
    rows = [row._replace(end=NOON - 4 * DAY) for row in make_rows(60)]
    rows.append(Backup("latest", NOON - 3 * DAY - 60, NOON - 3 * DAY, 1.0))
    api = FakeApi(rows, order="ascending")
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY


@pytest.mark.parametrize("lie", [1, 5, 1000, 10**9])
@pytest.mark.parametrize("order", ["ascending", "shuffled", "descending"])
@pytest.mark.parametrize("count", [3, 60, 200])
async def test_a_total_that_is_too_high_gives_no_wrong_latest_backup(
    count: int, order: str, lie: int
) -> None:
    api = FakeApi(make_rows(count, last_age=3 * DAY), order=order)
    api.total = lambda total: total + lie
    try:
        reading = await refresh(make_sync(api))
    except BadResponseError:
        assert count == 200  # absent rather than wrong
        assert order == "ascending"
    else:
        assert reading.latest_end == NOON - 3 * DAY
        assert not reading.listing_complete


@pytest.mark.parametrize("claimed", [0, 50, 51, 60, 99, 100])
@pytest.mark.parametrize("order", ["ascending", "shuffled", "descending"])
async def test_a_total_that_is_too_low_gives_no_wrong_latest_backup(
    claimed: int, order: str
) -> None:
    api = FakeApi(make_rows(2016, last_age=3 * DAY), order=order)
    api.total = lambda total: min(total, claimed)
    try:
        reading = await refresh(make_sync(api))
    except BadResponseError:
        assert order == "ascending"
    else:
        assert reading.latest_end == NOON - 3 * DAY


async def test_a_total_without_any_row_is_none_at_all() -> None:
    api = FakeApi()
    api.total = lambda total: 5
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end, reading.listing_complete) == (0, None, False)


async def test_what_the_search_has_found_counts_though_a_later_answer_lacks_it() -> None:
    """The first answer is in no order, and then all rows but two older ones are deleted."""
    api = FakeApi(make_rows(60, last_age=3 * DAY), order="shuffled")
    seen: list[float] = []

    def delete(number: int) -> None:
        if number == 3:
            seen.extend(row.end or 0.0 for row in sorted(api.rows, key=api._key)[:50])
            api.rows = []

    api.before = delete
    reading = await refresh(make_sync(api))
    assert len(api.offsets) == 4
    assert reading.latest_end == max(seen)


async def test_short_pages_give_no_wrong_latest_backup() -> None:
    api = FakeApi(make_rows(100, last_age=3 * DAY), order="ascending")
    api.page_rows = 20
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY


async def test_a_search_that_does_not_end_fails_the_query() -> None:
    api = FakeApi(make_rows(2016, last_age=3 * DAY), order="ascending")
    api.total = lambda total: None if total else 0
    sync = make_sync(api)
    for _ in range(2):  # not remembered as "none at all"
        with pytest.raises(BadResponseError, match="could not be found"):
            await refresh(sync)
    assert len(api.offsets) <= 2 * 8


async def test_only_running_backups_in_the_past_are_no_latest_one() -> None:
    api = FakeApi([Backup("stuck", NOON - 5 * DAY, None, 0.0)])
    reading = await refresh(make_sync(api))
    assert (reading.running, reading.latest_end) == (0, None)


@pytest.mark.parametrize("running", [48, 49, 50, 120])
@pytest.mark.parametrize("order", ["begin", "end, those that run last"])
@pytest.mark.parametrize("filter_by", ["begin", "end"])
async def test_running_backups_behind_all_others_hide_no_later_one(
    monkeypatch: pytest.MonkeyPatch, running: int, order: str, filter_by: str
) -> None:
    """The last page has no end then, and says nothing of the order."""
    monkeypatch.setitem(
        ORDERS,
        order,
        (lambda row: row.begin) if order == "begin" else (lambda row: row.end or math.inf),
    )
    stuck = [Backup(f"stuck-{n}", NOON - 3 * DAY + n, None, 0.0) for n in range(running)]
    api = FakeApi([*make_rows(100, last_age=5 * DAY), *stuck], order=order)
    api.filter_by = filter_by
    assert (await refresh(make_sync(api))).latest_end == NOON - 5 * DAY


async def test_a_long_backup_that_ended_after_fifty_that_began_later_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ORDERS, "begin, the newest first", lambda row: -(row.begin or 0.0))
    last = NOON - 5 * DAY
    long = Backup("long", last - DAY, last + 600, 9.0)
    api = FakeApi([*make_rows(300, last_age=5 * DAY), long], order="begin, the newest first")
    reading = await refresh(make_sync(api))
    assert (reading.latest_end, reading.latest_size_kilobytes) == (last + 600, 9.0)


async def test_a_page_in_order_by_chance_is_followed_by_all_that_no_order_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first page descends; what has ended later is in no order, and one began long before."""
    monkeypatch.setitem(ORDERS, "by id", lambda row: row.id)
    first = [NOON - 9 * DAY - number * 60.0 for number in range(50)]
    later = [NOON - 5 * DAY + number * 7 % 60 * 60.0 for number in range(60)]
    rows = [Backup(f"row-{n:03}", end - 30.0, end, 1.0) for n, end in enumerate(first + later)]
    latest = NOON - 5 * DAY + 2 * HOUR
    rows.append(Backup("row-999", latest - 20 * HOUR, latest, 9.0))
    api = FakeApi(rows, order="by id")
    api.filter_by = "begin"
    assert (await refresh(make_sync(api))).latest_end == latest


async def test_a_search_whose_rows_do_not_match_their_number_is_told_as_incomplete() -> None:
    """The listing is empty and complete; the day before the latest is not."""
    api = FakeApi(make_rows(60, last_age=3 * DAY), order="shuffled")
    api.total = lambda total: total + 1 if total == 61 else total

    def add(number: int) -> None:
        if number == 4:
            api.rows.append(Backup("other", NOON - 4 * DAY, NOON - 4 * DAY + 60, 1.0))

    api.before = add
    reading = await refresh(make_sync(api))
    assert (reading.latest_end, reading.listing_complete) == (NOON - 3 * DAY, False)


@pytest.mark.parametrize("count", [50, 60, 1_000])
async def test_many_running_backups_in_the_past_are_no_latest_one_either(count: int) -> None:
    api = FakeApi([Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(count)])
    reading = await refresh(make_sync(api))
    assert (reading.running, reading.latest_end) == (0, None)


async def test_a_finished_backup_behind_many_that_run_is_found() -> None:
    stuck = [Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(200)]
    api = FakeApi([*stuck, *make_rows(3, last_age=3 * DAY)], order="ascending")
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY
    assert api.requests() == 2 + 5
    assert len({query for _, query in api.asked_for}) == 1


@pytest.mark.parametrize(
    "total", [lambda total: None, lambda total: total + 1, lambda total: 1_001 if total else 0]
)
async def test_what_lies_behind_many_that_run_is_not_guessed(
    total: Callable[[int], int | None],
) -> None:
    """Where their number is not known, or too large: absent rather than wrong."""
    stuck = [Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(200)]
    api = FakeApi([*stuck, *make_rows(3, last_age=3 * DAY)], order="ascending")
    api.total = total
    with pytest.raises(BadResponseError, match="could not be found"):
        await refresh(make_sync(api))


async def test_more_running_backups_than_are_worth_reading_fail_the_search() -> None:
    api = FakeApi([Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(1_001)])
    with pytest.raises(BadResponseError, match="could not be found"):
        await refresh(make_sync(api))
    assert api.requests() == 2


# Going on after a reload -----------------------------------------------------------------------


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
    assert api.requests() == 5


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
    assert len(api.offsets) == 42


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


def test_sorted_means_never_descending() -> None:
    assert is_sorted([])
    assert is_sorted([1.0])
    assert is_sorted([1.0, 1.0, 2.0])
    assert not is_sorted([1.0, 3.0, 2.0])


def test_the_progress_of_a_listing_counts_its_pages() -> None:
    rows = make_rows(50)
    listing = Listing(begin=0.0, end=1.0, started=0.0)
    assert listing.progress == Progress(0, 0)
    for total, pages in [(1, 1), (50, 1), (51, 2), (99, 2), (100, 3), (2016, 42)]:
        listing.pages, listing.total_count = {0: Page(rows, total)}, total
        assert listing.progress == Progress(1, pages)


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
