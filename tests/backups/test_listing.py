import random
from collections.abc import Callable

import pytest

from exporter.backups.listing import PAGES_IN_PARALLEL, Listing, gather
from exporter.errors import (
    BadResponseError,
    Reason,
)
from exporter.models import Backup, Instance, Page, Progress
from exporter.transport.query import Query
from tests.backups.fake_api import (
    ORDERS,
    FakeApi,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.virtual_time import DAY, HOUR, NOON

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
    assert len(api.listed) == len(set(api.listed)) == requests


async def test_a_week_of_backups_is_read_in_parallel() -> None:
    api = FakeApi(make_rows(2016))
    reading = await refresh(make_sync(api, lookback=7 * DAY))
    assert (reading.count, reading.listing_complete) == (2016, True)
    assert len(api.listed) == len(set(api.listed)) == 42
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
    assert (len(api.listed), api.requests()) == (1, 2)


async def test_the_listing_asks_for_more_than_the_lookback() -> None:
    """The API may filter by begin, and a backup may take a day and more."""
    api = FakeApi([Backup("long", NOON - 60 * HOUR + 60, NOON - DAY + 60, 5.0)])
    api.filter_by = "begin"
    assert (await refresh(make_sync(api))).count == 1
    assert api.asked[0] == (NOON - 60 * HOUR, NOON + 60)


async def test_a_missing_total_is_told_and_all_pages_are_read() -> None:
    api = FakeApi(make_rows(149))
    api.total = lambda total: None
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (149, False)
    assert api.listed == [0, 49, 98, 147]


async def test_a_full_last_page_without_a_total_is_asked_on() -> None:
    api = FakeApi(make_rows(50))
    api.total = lambda total: None
    assert (await refresh(make_sync(api))).count == 50
    assert api.listed == [0, 49]


@pytest.mark.parametrize("count", [10, 60, 120])
async def test_a_total_that_is_too_high_is_doubted_once(count: int) -> None:
    api = FakeApi(make_rows(count))
    api.total = lambda total: total + 5
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (count, False)
    assert len(api.listed) <= 2 * (count // 49 + 2)


@pytest.mark.parametrize("count", [60, 120, 2016])
async def test_a_huge_total_does_not_spin(count: int) -> None:
    api = FakeApi(make_rows(count))
    api.total = lambda total: 10**9
    reading = await refresh(make_sync(api, lookback=7 * DAY))
    assert (reading.count, reading.listing_complete) == (count, False)
    assert len(api.listed) <= 2 * (count // 49 + 1 + PAGES_IN_PARALLEL)


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
    assert len(api.listed) <= 2 * (1 + PAGES_IN_PARALLEL + 1)


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


def test_the_progress_of_a_listing_counts_its_pages() -> None:
    rows = make_rows(50)
    listing = Listing(begin=0.0, end=1.0, started=0.0)
    assert listing.progress == Progress(0, 0)
    for total, pages in [(1, 1), (50, 1), (51, 2), (99, 2), (100, 3), (2016, 42)]:
        listing.pages, listing.total_count = {0: Page(rows, total)}, total
        assert listing.progress == Progress(1, pages)


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
    assert api.listed == [0, 0]


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
    assert api.listed == [0, 1, 0]


async def test_pages_that_keep_telling_different_totals_are_published_as_incomplete() -> None:
    api = FakeApi(make_rows(60))

    def answer(number: int) -> None:
        api.total = lambda total: total + number % 2

    api.before = answer
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (60, False)
    assert api.listed == [0, 49, 0, 49]


async def test_a_listing_that_never_holds_still_is_published_as_incomplete() -> None:
    api = FakeApi(make_rows(120))
    api.before = lambda number: api.rows.insert(
        0, Backup(f"new-{number}", NOON - 40, NOON - 30 + number, 1.0)
    )
    reading = await refresh(make_sync(api))
    assert not reading.listing_complete
    assert (reading.count or 0) >= 120


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
            self.asked.append((begin, end))
            order = random.Random(len(self.offsets)).sample(rows, len(rows))
            page = Page(order[offset : offset + 50], len(rows))
            if end - begin < 700 * DAY:  # not the look at what was before
                shown.update(row.id for row in page.rows)
            return page

    api = Shuffling()
    reading = await refresh(make_sync(api))
    assert api.listed == [0, 49, 98] * 2
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
    assert api.listed == [0, 1, 2, 3, 4]


# Listings without an end -----------------------------------------------------------------------


class Endless(FakeApi):
    """Each page is full of backups that nobody has seen before."""

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        self.offsets.append(offset)
        number = len(self.offsets)
        rows = [Backup(f"row-{number}-{i}", NOON - 60 - i, NOON - 30 - i, 1.0) for i in range(50)]
        return Page(rows, self.total(50 * number))


@pytest.mark.parametrize(
    ("total", "pages"),
    [
        # 60 hours, one a minute, and 500: 4,100 rows.
        (lambda total: None, 83),
        (lambda total: 0, 83),
        (lambda total: 288, 83),
        # Twice what is announced, and 500.
        (lambda total: 10_000, 20_500 // 50 + 1),
        # One a second at the most, and eight pages on their way.
        (lambda total: 10**9, (60 * 3600 + 500) // 50 + 8),
        (lambda total: 2 * total, (60 * 3600 + 500) // 50 + 8),
    ],
)
async def test_a_listing_without_end_makes_no_sense(
    total: Callable[[int], int | None], pages: int
) -> None:
    api = Endless()
    api.total = total
    sync = make_sync(api)
    with pytest.raises(BadResponseError, match="the listing does not end") as caught:
        await refresh(sync)
    assert len(api.offsets) <= pages
    assert "total_count is" in str(caught.value)
    assert sync.progress is not None
    assert sync.progress.pages_done == 0  # nothing of it is kept


async def test_a_full_day_of_backups_each_ten_seconds_is_a_listing() -> None:
    api = FakeApi(make_rows(8_700, every=10.0))
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.listing_complete) == (8_635, True)  # from 60 s to 86,400 s ago
