import itertools
import os
from array import array
from collections.abc import Iterable, Sequence
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.backups.reading import Sums, read
from exporter.backups.window import (
    Window,
    build_window,
    increment_begin,
    listing_begin,
    merge,
    with_previous,
)
from exporter.errors import BadResponseError, Reason
from exporter.models import Backup, Reading
from tests.support.searches import extent
from tests.support.virtual_time import DAY, HOUR, NOON

# A mutant is to be killed by what is stated here by hand: few random examples, always the same.
MUTATED = "MUTANT_UNDER_TEST" in os.environ

_numbers = itertools.count()


def make_backup(
    *, age_hours: float = 1.0, id: str = "", size: float = 8.0, lasting_seconds: float = 60.0
) -> Backup:
    """A backup that ended so long before noon."""
    end = NOON - age_hours * HOUR
    return Backup(id or f"b{next(_numbers)}", end - lasting_seconds, end, size)


def make_running(*, age_hours: float = 0.0, id: str = "", size: float = 0.0) -> Backup:
    """A running backup that began so long before noon."""
    return Backup(id or f"r{next(_numbers)}", NOON - age_hours * HOUR, None, size)


def make_window(
    *rows: Backup, now: float = NOON, lookback: float = DAY, complete: bool = True
) -> Window:
    return build_window(rows, now=now, lookback_seconds=lookback, complete=complete)


def read_at(window: Window, now: float = NOON, *, complete: bool = True) -> Reading:
    return read(window, now=now, complete=complete)[0]


# The numbers -----------------------------------------------------------------------------------


def test_all_numbers_of_a_small_window() -> None:
    reading = read_at(
        make_window(
            make_backup(age_hours=25, size=1000.0),  # before the lookback of a day
            make_backup(age_hours=3, size=0.109375),
            make_backup(age_hours=2.5, size=10.0),
            make_backup(age_hours=0.5, size=2.5),
            make_running(age_hours=0.25, size=1.0),
        )
    )
    assert reading == Reading(
        at=NOON,
        count=4,
        size_kilobytes=13.609375,
        running=1,
        listing_complete=True,
        latest_end=NOON - 0.5 * HOUR,
        latest_size_kilobytes=2.5,
        oldest_end=NOON - 3 * HOUR,
        max_interval_seconds=22 * HOUR,
        previous_end=NOON - 25 * HOUR,
        ends=array("d", [NOON - 3 * HOUR, NOON - 2.5 * HOUR, NOON - 0.5 * HOUR]),
    )


def test_an_empty_window_has_a_count_of_zero_and_no_times() -> None:
    assert read_at(make_window()) == Reading(
        at=NOON, count=0, size_kilobytes=0.0, running=0, listing_complete=True
    )


@pytest.mark.parametrize(
    ("age_seconds", "count"),
    [(-0.001, 0), (0.0, 1), (0.001, 1), (DAY - 0.001, 1), (DAY, 1), (DAY + 0.001, 0)],
)
def test_both_bounds_of_the_window_count(age_seconds: float, count: int) -> None:
    moment = NOON - age_seconds
    finished = make_window(Backup("one", moment - 60, moment, 8.0))
    assert read_at(finished).count == count
    running = make_window(Backup("one", moment, None, 0.0))
    assert (read_at(running).count, read_at(running).running) == (count, count)


def test_the_latest_backup_may_lie_before_the_window() -> None:
    reading = read_at(
        make_window(make_backup(age_hours=30, size=4.0), make_backup(age_hours=26, size=7.0))
    )
    assert (reading.count, reading.size_kilobytes) == (0, 0.0)
    assert (reading.latest_end, reading.latest_size_kilobytes) == (NOON - 26 * HOUR, 7.0)
    assert reading.oldest_end is None
    assert reading.max_interval_seconds is None


def test_of_the_first_backups_of_all_one_has_no_interval_and_two_have_one() -> None:
    one = with_previous(make_window(make_backup(age_hours=2)), None, now=NOON)
    assert read_at(one).max_interval_seconds is None
    two = make_window(make_backup(age_hours=2), make_backup(age_hours=0.5))
    assert read_at(with_previous(two, None, now=NOON)).max_interval_seconds == 1.5 * HOUR


def test_the_interval_that_begins_before_the_lookback_counts() -> None:
    window = make_window(
        make_backup(age_hours=24.5), make_backup(age_hours=2), make_backup(age_hours=1)
    )
    assert read_at(window).max_interval_seconds == 22.5 * HOUR
    # The hole has left the lookback when the backup after it has.
    assert read_at(window, NOON + 22 * HOUR).max_interval_seconds == 22.5 * HOUR
    assert read_at(window, NOON + 22 * HOUR + 1).max_interval_seconds == HOUR
    assert read_at(window, NOON + 23 * HOUR + 1).max_interval_seconds is None


def test_a_hole_that_began_before_what_was_listed_is_measured_when_its_begin_is_found() -> None:
    window = make_window(make_backup(age_hours=2), make_backup(age_hours=1))
    assert not window.knows_previous(NOON)
    assert read_at(window).max_interval_seconds is None
    window = with_previous(window, make_backup(age_hours=70), now=NOON)
    assert window.knows_previous(NOON)
    reading = read_at(window)
    assert (reading.count, reading.max_interval_seconds) == (2, 68 * HOUR)
    assert reading.oldest_end == NOON - 2 * HOUR


def test_where_a_hole_begins_is_not_certain_where_a_longer_backup_may_have_ended_later() -> None:
    """The listing begins 60 hours ago; one of two hours that ended an hour later is not in it."""
    rows = [make_backup(age_hours=2, lasting_seconds=2 * HOUR), make_backup(age_hours=1)]
    assert not make_window(make_backup(age_hours=58.5), *rows).knows_previous(NOON)
    assert make_window(make_backup(age_hours=57.5), *rows).knows_previous(NOON)


def test_backups_that_end_together_all_count() -> None:
    window = make_window(
        make_backup(age_hours=1, size=2.0),
        make_backup(age_hours=1, size=5.0),
        make_backup(age_hours=1, size=3.0),
    )
    window = with_previous(window, None, now=NOON)
    reading = read_at(window)
    assert (reading.count, reading.size_kilobytes) == (3, 10.0)
    assert reading.max_interval_seconds == 0.0
    assert reading.latest_size_kilobytes == 5.0  # the same one whatever the order of the rows
    assert list(reading.ends) == [NOON - HOUR] * 3


def test_an_end_ahead_of_our_clock_counts_when_its_time_has_come() -> None:
    window = make_window(make_backup(age_hours=1), Backup("ahead", NOON - 5, NOON + 30, 4.0))
    assert read_at(window, NOON).count == 1
    assert read_at(window, NOON).latest_end == NOON - HOUR
    assert read_at(window, NOON + 29.9).count == 1
    later = read_at(window, NOON + 30)
    assert (later.count, later.latest_end, later.latest_size_kilobytes) == (2, NOON + 30, 4.0)


def test_time_alone_takes_backups_out_of_the_window() -> None:
    window = make_window(make_backup(age_hours=24, id="a"), make_backup(age_hours=23, id="b"))
    assert read_at(window, NOON).count == 2
    assert read_at(window, NOON + 1).count == 1
    assert read_at(window, NOON + 1).oldest_end == NOON - 23 * HOUR
    assert read_at(window, NOON + HOUR + 1).count == 0
    assert read_at(window, NOON + 50 * DAY).latest_end == NOON - 23 * HOUR


def test_a_running_backup_that_began_before_the_window_does_not_count() -> None:
    window = make_window(make_running(age_hours=24.5), make_backup(age_hours=1))
    assert (read_at(window).count, read_at(window).running) == (1, 0)


def test_a_running_backup_that_begins_ahead_of_our_clock_does_not_count_yet() -> None:
    window = make_window(Backup("ahead", NOON + 10, None, 0.0))
    assert read_at(window, NOON).running == 0
    assert read_at(window, NOON + 10).running == 1


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_the_listing_is_complete_only_if_both_listings_are(listed: bool, counted: bool) -> None:
    window = make_window(make_backup(), complete=listed)
    assert read_at(window, complete=counted).listing_complete is (listed and counted)


# Sums ------------------------------------------------------------------------------------------


def test_the_total_is_exact_whatever_the_order() -> None:
    # Added from left to right this gives 0.0 or 2.0 by the order.
    sizes = [1e16, 1.0, 1.0, 2.5e-7]
    expected = float(sum(map(Fraction, sizes)))
    for order in itertools.permutations(sizes):
        window = make_window(
            *(make_backup(age_hours=hours + 1, size=size) for hours, size in enumerate(order))
        )
        assert read_at(window).size_kilobytes == expected == 10000000000000002.0


def test_the_total_with_running_backups_is_rounded_once() -> None:
    finished = [1e16, 1.0]
    running = [1.0, 1.0]
    window = make_window(
        *(make_backup(age_hours=1, size=size) for size in finished),
        *(make_running(age_hours=1, size=size) for size in running),
    )
    assert read_at(window).size_kilobytes == float(sum(map(Fraction, finished + running)))


@pytest.mark.parametrize(
    "rows",
    [
        [make_backup(size=1.7e308), make_backup(size=1.7e308)],
        [make_backup(size=1.0e305), make_backup(size=1.0e305)],  # finite, but not in bytes
        [make_backup(size=1.0), make_running(size=1.7e308), make_running(size=1.7e308)],
        [make_backup(size=1.0), make_running(size=1.0e306)],
    ],
)
def test_sizes_that_add_up_to_infinity_make_no_sense(rows: list[Backup]) -> None:
    window = make_window(*rows)
    message = "^the sizes of the backups add up to no finite number$"
    with pytest.raises(BadResponseError, match=message) as caught:
        read_at(window)
    assert caught.value.reason is Reason.BAD_RESPONSE


def test_the_largest_sizes_that_are_finite_in_bytes_are_taken() -> None:
    # 1.755e305 KB are 1.79712e308 bytes; the largest float is 1.79769e308.
    assert read_at(make_window(make_backup(size=1.755e305))).size_kilobytes == 1.755e305


def test_the_walk_over_the_window_is_spared_while_nothing_changes() -> None:
    window = make_window(make_backup(age_hours=24, id="old"), make_backup(age_hours=1))
    _, sums = read(window, now=NOON, complete=True)
    _, again = read(window, now=NOON, complete=True, known=sums)
    assert again is sums
    _, after = read(window, now=NOON + 1, complete=True, known=sums)  # "old" has left
    assert after is not sums
    assert (after.first, after.last) == (1, 2)


def test_sums_of_another_window_are_not_used() -> None:
    """The same indices of other rows."""
    first, second = make_window(make_backup(size=3.0)), make_window(make_backup(size=4.0))
    _, sums = read(first, now=NOON, complete=True)
    reading, _ = read(second, now=NOON, complete=True, known=sums)
    assert reading.size_kilobytes == 4.0


# Increments ------------------------------------------------------------------------------------


def test_the_next_listing_begins_an_hour_before_the_latest_end() -> None:
    window = make_window(make_backup(age_hours=5), make_backup(age_hours=0.5))
    assert increment_begin(window, NOON) == NOON - 1.5 * HOUR
    assert increment_begin(window, NOON + DAY) == NOON - 1.5 * HOUR


def test_the_next_listing_begins_at_the_oldest_running_backup() -> None:
    window = make_window(
        make_backup(age_hours=0.5), make_running(age_hours=7), make_running(age_hours=3)
    )
    # And a second: whether the API's bounds count is not documented.
    assert increment_begin(window, NOON) == NOON - 7 * HOUR - 1


@pytest.mark.parametrize(("after_seconds", "begins"), [(0.5, -0.5), (0.0, -1.0), (1.5, 0.0)])
def test_the_next_listing_begins_at_a_running_backup_only_if_that_is_earlier(
    after_seconds: float, begins: float
) -> None:
    """A running backup that began about where the listing begins for the latest end."""
    begin = NOON - 1.5 * HOUR
    runs = Backup("runs", begin + after_seconds, None, 0.0)
    window = make_window(make_backup(age_hours=0.5), runs)
    assert increment_begin(window, NOON) == begin + begins


def test_the_next_listing_begins_before_now_where_all_known_ends_lie_ahead() -> None:
    window = make_window(Backup("ahead", NOON, NOON + 3 * HOUR, 1.0))
    assert increment_begin(window, NOON) <= NOON - DAY


def test_an_empty_window_is_listed_whole_each_time() -> None:
    """And a day and a half more."""
    window = make_window(lookback=7 * DAY)
    assert increment_begin(window, NOON + 60) == NOON + 60 - 7 * DAY - 36 * HOUR
    assert listing_begin(NOON, 7 * DAY) == NOON - 7 * DAY - 36 * HOUR


def test_a_listing_that_says_nothing_new_leaves_the_window_itself() -> None:
    row = make_backup(id="a")
    window = make_window(row)
    assert merge(window, [row], now=NOON + 60) is window
    assert merge(window, [], now=NOON + 60) is window


def test_new_rows_are_put_in_by_their_time() -> None:
    window = make_window(make_backup(age_hours=2, size=1.0), make_backup(age_hours=0.25, size=2.0))
    window = merge(window, [make_backup(age_hours=0.5, size=4.0)], now=NOON)
    assert list(window.ends) == [NOON - 2 * HOUR, NOON - 0.5 * HOUR, NOON - 0.25 * HOUR]
    assert list(window.sizes) == [1.0, 4.0, 2.0]


def test_a_running_backup_that_ends_is_counted_once() -> None:
    window = make_window(make_running(age_hours=5, id="long"), make_backup(age_hours=0.1))
    assert read_at(window).running == 1
    ended = Backup("long", NOON - 5 * HOUR, NOON - 60, 9.0)
    reading = read_at(merge(window, [ended], now=NOON))
    assert (reading.count, reading.running, reading.latest_size_kilobytes) == (2, 0, 9.0)


def test_a_backup_that_ends_far_in_the_past_is_still_seen() -> None:
    """It was running when the rows around its end were settled."""
    window = make_window(make_running(age_hours=5, id="long"), make_backup(age_hours=0.1))
    ended = Backup("long", NOON - 5 * HOUR, NOON - 4 * HOUR, 9.0)
    assert read_at(merge(window, [ended], now=NOON)).count == 2


def test_a_row_that_is_corrected_replaces_what_was_known() -> None:
    window = make_window(make_backup(id="a", age_hours=0.5, size=1.0), make_backup(age_hours=1))
    corrected = make_backup(id="a", age_hours=0.4, size=3.0)
    reading = read_at(merge(window, [corrected], now=NOON))
    assert (reading.count, reading.size_kilobytes) == (2, 11.0)
    assert (reading.latest_end, reading.latest_size_kilobytes) == (NOON - 0.4 * HOUR, 3.0)


def test_a_row_corrected_twice_in_one_listing_counts_once() -> None:
    window = make_window(make_backup(age_hours=1))
    rows = [
        make_backup(id="new", age_hours=0.5, size=1.0),
        make_backup(id="new", age_hours=0.4, size=2.0),
        make_backup(id="new", age_hours=0.4, size=2.0),
    ]
    reading = read_at(merge(window, rows, now=NOON))
    assert (reading.count, reading.size_kilobytes) == (2, 10.0)


def test_a_finished_row_that_runs_again_is_no_longer_finished() -> None:
    window = make_window(make_backup(id="a", age_hours=0.5), make_backup(age_hours=1))
    again = Backup("a", NOON - HOUR, None, 0.0)
    reading = read_at(merge(window, [again], now=NOON))
    assert (reading.count, reading.running) == (2, 1)
    assert reading.latest_end == NOON - HOUR


def test_a_row_of_the_stale_windows_margin_may_be_corrected() -> None:
    """Both ended long before the lookback; the API lists the last hour of them each time."""
    window = make_window(make_backup(id="a", age_hours=30.5), make_backup(id="b", age_hours=30))
    window = merge(window, [make_backup(id="a", age_hours=30.5, size=5.0)], now=NOON)
    reading = read_at(window)
    assert (reading.count, reading.latest_end) == (0, NOON - 30 * HOUR)


def test_settled_rows_listed_again_are_not_counted_again() -> None:
    rows = [make_backup(age_hours=hours) for hours in range(1, 20)]
    window = make_window(*rows)
    again = merge(window, [*rows, make_running(age_hours=0.1)], now=NOON)
    assert read_at(again).count == 19 + 1
    assert len(again.ends) == 19


def test_a_backup_may_run_longer_than_the_lookback() -> None:
    """A lookback of five minutes, a backup of two hours, and an API that filters by the begin."""
    lookback = 300.0
    window = make_window(make_running(age_hours=0, id="long"), lookback=lookback)
    for minutes in range(5, 120, 5):
        now = NOON + minutes * 60
        listed = [Backup("long", NOON, None, 0.0)] if increment_begin(window, now) <= NOON else []
        row = Backup(f"short-{minutes}", now - 30, now - 10, 1.0)
        window = merge(window, [*listed, row], now=now)
    now = NOON + 120 * 60
    assert increment_begin(window, now) <= NOON, "the API would not list it when it ends"
    window = merge(window, [Backup("long", NOON, now - 1, 7.0)], now=now)
    assert read_at(window, now).latest_size_kilobytes == 7.0


def test_a_running_backup_is_given_up_when_no_listing_would_show_it() -> None:
    stuck = make_running(age_hours=0, id="stuck")
    window = make_window(stuck)
    now = NOON + 60 * HOUR + 60  # the lookback and the margin of a full listing
    window = merge(window, [stuck, Backup("new", now - 30, now - 10, 1.0)], now=now)
    assert "stuck" not in window.recent
    assert increment_begin(window, now) == now - 10 - HOUR
    assert merge(window, [stuck], now=now) is window


def test_a_running_backup_is_followed_just_as_long_as_a_full_listing_would_show_it() -> None:
    """A lookback of a day, and a day and a half more."""
    window = make_window(make_running(age_hours=60, id="edge"), make_backup(age_hours=1))
    assert "edge" in window.recent
    assert increment_begin(window, NOON) == NOON - 60 * HOUR - 1
    window = merge(window, [make_backup(age_hours=0)], now=NOON + 1)
    assert "edge" not in window.recent


def test_a_running_backup_that_is_too_old_does_not_hide_the_rows_behind_it() -> None:
    window = make_window(make_running(age_hours=61), make_backup(age_hours=1))
    assert (read_at(window).count, read_at(window).running) == (1, 0)


def test_a_running_backup_that_a_complete_listing_no_longer_shows_is_gone() -> None:
    window = make_window(make_running(age_hours=0.5, id="failed"), make_backup(age_hours=1))
    new = make_backup(age_hours=0.1)
    assert read_at(merge(window, [new], now=NOON, complete=False)).running == 1
    reading = read_at(merge(window, [new], now=NOON, complete=True))
    assert (reading.count, reading.running) == (2, 0)
    assert read_at(merge(window, [], now=NOON, complete=True)).running == 0


def test_running_backups_that_are_listed_stay() -> None:
    runs = make_running(age_hours=0.5)
    window = make_window(runs, make_backup(age_hours=1))
    assert merge(window, [runs], now=NOON, complete=True) is window
    more = merge(window, [runs, make_running(age_hours=0.1)], now=NOON, complete=True)
    assert read_at(more).running == 2


# The last backup before the lookback -----------------------------------------------------------


def test_the_latest_backup_before_the_listing_is_taken_in_once() -> None:
    earlier = make_backup(age_hours=100, size=6.0)
    window = with_previous(make_window(), earlier, now=NOON)
    assert read_at(window).latest_end == NOON - 100 * HOUR
    assert read_at(window).latest_size_kilobytes == 6.0
    assert increment_begin(window, NOON) == NOON - 101 * HOUR
    again = merge(window, [earlier], now=NOON + 60)
    assert list(again.ends) == [NOON - 100 * HOUR]


def test_an_earlier_backup_is_taken_in_beside_ends_that_lie_ahead() -> None:
    ahead = Backup("ahead", NOON, NOON + 60, 2.0)
    window = make_window(ahead, make_running(age_hours=1, id="runs"))
    earlier = make_backup(age_hours=100, size=6.0)
    window = with_previous(window, earlier, now=NOON)
    assert read_at(window).latest_end == NOON - 100 * HOUR
    assert read_at(window).running == 1
    window = merge(window, [earlier, ahead], now=NOON + 60)
    assert list(window.ends) == [NOON - 100 * HOUR, NOON + 60]


def test_an_earlier_backup_counts_only_if_it_is_later_than_what_is_known() -> None:
    known = make_backup(age_hours=30, id="known", size=1.0)
    window = make_window(known)
    assert not window.knows_latest(NOON)
    for other in (
        make_backup(age_hours=31),
        known,
        make_backup(age_hours=30, size=2.0),  # perhaps a settled one, known without its id
    ):
        after = with_previous(window, other, now=NOON)
        assert (list(after.ends), list(after.sizes)) == ([NOON - 30 * HOUR], [1.0])
        assert after.knows_latest(NOON)
    corrected = known._replace(size_kilobytes=4.0)
    after = with_previous(window, corrected, now=NOON)
    assert (list(after.ends), list(after.sizes)) == ([NOON - 30 * HOUR], [4.0])
    longer = make_backup(age_hours=29, size=5.0, lasting_seconds=3 * DAY)
    assert read_at(with_previous(window, longer, now=NOON)).latest_size_kilobytes == 5.0


def test_that_there_is_none_before_is_known_from_then_on() -> None:
    window = with_previous(make_window(), None, now=NOON)
    assert window.knows_previous(NOON)
    window = merge(window, [make_backup(age_hours=-1)], now=NOON + HOUR)
    assert window.knows_previous(NOON + HOUR)
    assert window.knows_previous(NOON)  # the clock was set back


def test_a_latest_backup_that_was_found_says_nothing_of_the_time_before_it() -> None:
    """The clock is set back to before its end: another one was the latest then."""
    window = with_previous(make_window(), make_backup(age_hours=24.5), now=NOON)
    assert window.knows_previous(NOON)
    assert window.covers(NOON - HOUR)
    assert not window.knows_previous(NOON - HOUR)


def test_a_backup_that_began_a_hole_is_known_without_its_id() -> None:
    rows = [make_backup(age_hours=hours / 10) for hours in range(1, 30)]
    window = with_previous(make_window(*rows), make_backup(age_hours=90, id="old"), now=NOON)
    assert "old" not in window.recent
    assert len(window.ends) == 30
    assert increment_begin(window, NOON) == NOON - 1.1 * HOUR
    window = merge(window, [make_backup(age_hours=0)], now=NOON)
    assert read_at(window).max_interval_seconds == 90 * HOUR - 2.9 * HOUR


# Memory and cover ------------------------------------------------------------------------------


def make_week(now: float = NOON) -> list[Backup]:
    """2,016 backups, one every five minutes; the last ended just now."""
    return [
        Backup(f"{number:032x}br07", end - 60, end, 16.0)
        for number in range(2016)
        for end in [now - number * 300.0]
    ]


def test_a_settled_backup_takes_sixteen_bytes_and_no_id() -> None:
    window = make_window(*make_week(), lookback=7 * DAY)
    assert len(window.ends) == len(window.sizes) == 2016
    assert window.ends.itemsize + window.sizes.itemsize == 16
    assert len(window.recent) == 13  # those of the last hour, both ends included
    assert min(row.end or 0 for row in window.recent.values()) == NOON - HOUR


def test_what_is_kept_does_not_grow_as_days_pass() -> None:
    window = make_window(*make_week(), lookback=7 * DAY)
    for number in range(1, 3 * 288 + 1):
        now = NOON + number * 300.0
        listed = [
            Backup(f"new-{n}", end - 60, end, 16.0)
            for n in range(max(1, number - 12), number + 1)
            for end in [NOON + n * 300.0]
        ]
        window = merge(window, listed, now=now)
        assert len(window.recent) == 13
        assert len(window.ends) <= 2016 + 13 + 1  # an hour beyond the lookback, and the one before
    assert read_at(window, now).count == 2017  # both bounds: 7 d / 5 min + 1


def test_the_latest_backup_is_kept_however_old_it_gets() -> None:
    window = make_window(make_backup(age_hours=2), make_backup(age_hours=1, size=5.0))
    now = NOON + 400 * DAY
    window = merge(window, [Backup("runs", now - 60, None, 0.0)], now=now)
    assert read_at(window, now).latest_end == NOON - HOUR
    assert read_at(window, now).latest_size_kilobytes == 5.0


def test_the_latest_backup_is_kept_when_the_one_after_it_turns_out_to_run() -> None:
    """By then it would have left the lookback and the hour beyond."""
    window = make_window(make_backup(age_hours=24.5), make_backup(age_hours=0.5, id="new"))
    again = Backup("new", NOON - 0.6 * HOUR, None, 0.0)
    window = merge(window, [again], now=NOON + HOUR)
    assert read_at(window, NOON + HOUR).latest_end == NOON - 24.5 * HOUR


def test_a_window_covers_an_hour_more_than_its_lookback_as_days_pass() -> None:
    now = NOON + 2 * DAY
    window = merge(make_window(), [Backup("new", now - 60, now, 1.0)], now=now)
    assert window.covers(now - HOUR)
    assert not window.covers(now - HOUR - 1)


def test_a_window_does_not_cover_what_a_clock_set_back_makes_of_it() -> None:
    window = make_window(make_backup())
    assert window.covers(NOON)
    assert window.covers(NOON + 30 * DAY)
    assert window.covers(NOON - HOUR)
    assert not window.covers(NOON - HOUR - 1)


def test_a_clock_set_back_a_little_leaves_exact_numbers() -> None:
    rows = [make_backup(age_hours=hours / 4) for hours in range(120)]
    window = merge(make_window(*rows), [make_running()], now=NOON)
    now = NOON - 0.9 * HOUR
    assert window.covers(now)
    expected = [row.end for row in rows if row.end is not None and now - DAY <= row.end <= now]
    assert sorted(read_at(window, now).ends) == sorted(expected)


def test_windows_do_not_print_their_rows() -> None:
    assert len(repr(make_window(*make_week()))) < 300
    assert isinstance(read(make_window(), now=NOON, complete=True)[1], Sums)


# Both ways to the same numbers -----------------------------------------------------------------


class Row:
    """A backup of a made-up cloud, in whole seconds after noon."""

    def __init__(self, number: int, begin: int, lasts: int, late: int, size: float) -> None:
        self.id = f"row-{number}"
        self.begin, self.end, self.size = NOON + begin, NOON + begin + lasts, size
        self.shown = NOON + begin if late == 0 else NOON + begin + lasts + late

    def at(self, now: float) -> Backup | None:
        if self.shown > now:
            return None
        return Backup(self.id, self.begin, self.end if self.end <= now else None, self.size)


def expected_numbers(rows: Iterable[Backup], now: float, lookback: float) -> tuple[object, ...]:
    """By the words of the contract, without any of its means."""
    counted = [r for r in rows if r.end is not None and now - lookback <= r.end <= now]
    ends = sorted(r.end for r in counted if r.end is not None)
    runs = [r for r in rows if r.end is None and r.begin is not None]
    runs = [r for r in runs if r.begin is not None and now - lookback <= r.begin <= now]
    past = [(r.end, r.size_kilobytes) for r in rows if r.end is not None and r.end <= now]
    return (
        len(counted) + len(runs),
        float(sum(Fraction(r.size_kilobytes) for r in [*counted, *runs])),
        len(runs),
        max(past)[0] if past else None,
        max(past)[1] if past else None,
        ends[0] if ends else None,
        max(
            (b - a for a, b in itertools.pairwise(sorted(e for e, _ in past)) if b in ends),
            default=None,
        ),
        ends,
    )


def published(reading: Reading) -> tuple[object, ...]:
    return (
        reading.count,
        reading.size_kilobytes,
        reading.running,
        reading.latest_end,
        reading.latest_size_kilobytes,
        reading.oldest_end,
        reading.max_interval_seconds,
        list(reading.ends),
    )


@st.composite
def clouds(draw: st.DrawFn) -> list[Row]:
    """Backups that begin in two days; some last long, some are shown only after they ended."""
    rows = []
    for number in range(draw(st.integers(0, 25))):
        begin = draw(st.integers(-26 * 3600, 26 * 3600))
        lasts = draw(st.sampled_from([0, 60, 300, 900, 4 * 3600, 11 * 3600]))
        # The overlap of an hour is for rows like these: the listing lags behind a little.
        late = draw(st.sampled_from([0, 0, 0, 30, 600])) if lasts <= 900 else 0
        size = draw(st.sampled_from([0.0, 0.1, 0.109375, 3.3, 1e15]))
        rows.append(Row(number, begin, lasts, late, size))
    return rows


def listing(
    rows: Sequence[Row], now: float, begin: float, end: float, meaning: str
) -> list[Backup]:
    """What an API shows that filters by begin or by end; a running row has no end to filter by."""
    shown = []
    for row in rows:
        if (backup := row.at(now)) is not None:
            moment = backup.begin if meaning == "begin" or backup.end is None else backup.end
            assert moment is not None
            if begin <= moment <= end or (meaning == "end" and backup.end is None):
                shown.append(backup)
    return shown


@settings(max_examples=30 if MUTATED else extent(300), derandomize=MUTATED)
@given(
    rows=clouds(),
    steps=st.lists(st.sampled_from([0, 20, 300, 301, 3600, 9000, 30_000]), min_size=1, max_size=12),
    skew=st.sampled_from([0.0, 0.0, 45.0, -45.0, 1800.0]),
    lookback=st.sampled_from([300.0, 3_600.0, 36_000.0]),
    meaning=st.sampled_from(["begin", "end"]),
    reverse=st.booleans(),
)
@example(
    rows=[Row(0, -7200, 60, 0, 1.0), Row(1, -7000, 60, 0, 1.0)],
    steps=[0, 300, 9000],
    skew=0.0,
    lookback=300.0,
    meaning="end",
    reverse=False,
)
def test_increments_give_the_numbers_of_a_full_listing(
    rows: list[Row], steps: list[int], skew: float, lookback: float, meaning: str, reverse: bool
) -> None:
    """`skew`: how far the cloud's clock is ahead of ours. Nothing is deleted meanwhile."""
    now = NOON - 8 * HOUR
    window: Window | None = None
    for step in steps:
        now += step
        cloud_now = now + skew

        def ask(begin: float, now: float = now, cloud_now: float = cloud_now) -> list[Backup]:
            found = listing(rows, cloud_now, begin, now + 60, meaning)
            return found[::-1] if reverse else found

        everything = [row for row in (r.at(cloud_now) for r in rows) if row is not None]
        if window is None:
            window = build_window(
                ask(listing_begin(now, lookback)), now=now, lookback_seconds=lookback, complete=True
            )
        else:
            listed = ask(increment_begin(window, now))
            window = merge(window, listed, now=now, complete=True)
        past = [row for row in everything if row.end is not None and row.end < now - lookback]
        last = max(past, key=lambda row: (row.end or 0.0, row.size_kilobytes), default=None)
        if not window.knows_previous(now):
            window = with_previous(window, last, now=now)
        full = build_window(ask(float("-inf")), now=now, lookback_seconds=lookback, complete=True)
        full = with_previous(full, last, now=now)
        assert published(read_at(window, now)) == expected_numbers(everything, now, lookback)
        assert published(read_at(full, now)) == expected_numbers(everything, now, lookback)
