import math
from collections.abc import Callable

import pytest

from exporter.backups.search import is_sorted
from exporter.errors import (
    BadResponseError,
)
from exporter.models import Backup
from tests.backups.fake_api import (
    ORDERS,
    FakeApi,
    make_rows,
    make_sync,
    refresh,
)
from tests.support.virtual_time import DAY, HOUR, NOON


def test_sorted_means_never_descending() -> None:
    assert is_sorted([])
    assert is_sorted([1.0])
    assert is_sorted([1.0, 1.0, 2.0])
    assert not is_sorted([1.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("order", "count", "requests"),
    [
        ("descending", 1, 1),
        ("shuffled", 49, 1),
        # No order to go by: what ended in the day and a half before what is found is listed too.
        ("shuffled", 50, 4),
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
    narrowing = [begin for begin, _ in api.asked[1:] if begin != NOON - 3 * DAY - 36 * HOUR]
    assert len(narrowing) <= 4
    assert narrowing == sorted(narrowing)
    # And the pages of a day and a half before what was found.
    assert len(api.offsets) <= 1 + 4 + 9


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


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
async def test_behind_many_that_run_all_is_read_where_no_total_is_told(order: str) -> None:
    stuck = [Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(200)]
    api = FakeApi([*stuck, *make_rows(3, last_age=3 * DAY)], order=order)
    api.total = lambda total: None
    assert (await refresh(make_sync(api))).latest_end == NOON - 3 * DAY


async def test_fifty_that_run_and_nothing_else_are_no_failure_where_no_total_is_told() -> None:
    """A page of just 50 proves nothing, so the search must look behind it."""
    running = [Backup(f"r-{n}", NOON - 60.0 * n, None, 0.0) for n in range(50)]
    api = FakeApi(running)
    api.total = lambda total: None
    reading = await refresh(make_sync(api))
    assert (reading.count, reading.latest_end) == (50, None)


@pytest.mark.parametrize("total", [lambda total: total + 1, lambda total: 1_001 if total else 0])
async def test_what_lies_behind_many_that_run_is_not_guessed(
    total: Callable[[int], int | None],
) -> None:
    """Where their number is not right, or too large: absent rather than wrong."""
    stuck = [Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(200)]
    api = FakeApi([*stuck, *make_rows(3, last_age=3 * DAY)], order="ascending")
    api.total = total
    with pytest.raises(BadResponseError, match="could not be found"):
        await refresh(make_sync(api))


async def test_without_a_total_no_more_running_backups_are_read_than_are_worth_it() -> None:
    api = FakeApi([Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(50_000)])
    api.total = lambda total: None
    with pytest.raises(BadResponseError, match="could not be found"):
        await refresh(make_sync(api))
    assert api.requests() <= 2 + 22


async def test_more_running_backups_than_are_worth_reading_fail_the_search() -> None:
    api = FakeApi([Backup(f"stuck-{n}", NOON - 5 * DAY, None, 0.0) for n in range(1_001)])
    with pytest.raises(BadResponseError, match="could not be found"):
        await refresh(make_sync(api))
    assert api.requests() == 2
