"""What is listed late, or has gone, hours back: seen without a request more."""

import pytest

from exporter.backups.late import LateCheck, compare
from exporter.backups.window import Filter, Window, build_window
from exporter.models import Backup, Reading
from tests.backups.fake_api import FakeApi, Moment, make_rows, make_sync, refresh
from tests.support.virtual_time import DAY, HOUR, NOON

MINUTE = 60.0
QUARTER = 15 * MINUTE


class Instance:
    """One whose backups go on, every five minutes; it is scraped every minute."""

    def __init__(self, *, every: float = 300.0, duration: float = 30.0) -> None:
        self.clock = Moment()
        self.every, self.duration = every, duration
        count = int(26 * HOUR / every)
        rows = make_rows(count, every=every)
        self.api = FakeApi([row._replace(begin=(row.end or 0.0) - duration) for row in rows])
        self.sync = make_sync(self.api, clock=self.clock, resync_interval=30 * DAY)
        self.last_end = NOON - 60.0

    async def scrape_for(self, seconds: float) -> Reading:
        """One request each."""
        reading = await refresh(self.sync)
        self.api.requests()
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now += MINUTE
            while self.last_end + self.every <= self.clock.now:
                self.last_end += self.every
                begin = self.last_end - self.duration
                self.api.rows.append(Backup(f"at-{self.last_end}", begin, self.last_end, 1.0))
            reading = await refresh(self.sync)
            assert self.api.requests() == 1
            assert reading.listing_complete
        return reading

    def count(self) -> int:
        since = self.clock.now - DAY
        return sum(1 for row in self.api.rows if row.end is not None and row.end >= since)


@pytest.mark.parametrize("filter_by", ["begin", "end"])
@pytest.mark.parametrize("duration", [30.0, 20 * MINUTE])
async def test_a_backup_first_listed_three_hours_after_its_end_is_soon_counted(
    filter_by: str, duration: float
) -> None:
    instance = Instance(duration=duration)
    instance.api.filter_by = filter_by
    await instance.scrape_for(HOUR)
    end = instance.clock.now - 3 * HOUR + 7.0
    instance.api.rows.append(Backup("late", end - 30.0, end, 512.0))
    reading = await instance.scrape_for(QUARTER)
    assert (reading.count, instance.count()) == (289, 289)
    assert reading.size_kilobytes == 288 + 512.0


async def test_what_was_deleted_three_hours_back_is_soon_not_counted_any_more() -> None:
    """History has changed: the window is listed anew, and until then nothing older is told."""
    instance = Instance()
    await instance.scrape_for(HOUR)
    gone = instance.clock.now - 3 * HOUR
    instance.api.rows = [r for r in instance.api.rows if not gone - 600 < (r.end or 0.0) < gone]
    readings = []
    for _ in range(15):
        instance.clock.now += MINUTE
        readings.append(await refresh(instance.sync))
    assert readings[-1].count == instance.count()
    assert readings[-1].listing_complete


@pytest.mark.parametrize(("every", "looks"), [(300.0, 96), (MINUTE, 0), (HOUR, 96)])
async def test_where_nothing_changes_a_longer_look_finds_nothing(every: float, looks: int) -> None:
    """One every quarter of an hour; where a page holds an hour there is nothing to be gained."""
    instance = Instance(every=every)
    begun = len(instance.api.asked)
    if every > MINUTE:
        reading = await instance.scrape_for(DAY)
    else:
        reading = await refresh(instance.sync)
    assert reading.count == instance.count()
    reaches = [end - begin for begin, end in instance.api.asked[begun:]][2:]
    long = [reach for reach in reaches if reach > 2.2 * HOUR and reach < 8 * HOUR]
    assert len(long) in range(looks - 2, looks + 2) if looks else not long


async def test_an_api_that_lags_does_not_have_the_window_listed_anew_each_time() -> None:
    """Its narrow answers lack a row that its full listing shows: they are not believed at once."""
    instance = Instance()
    await instance.scrape_for(HOUR)
    hidden = instance.clock.now - 2 * HOUR
    rows = instance.api.rows

    def lag(number: int) -> None:
        begin, end = instance.api.asked[-1]
        is_whole = end - begin > DAY
        instance.api.rows = [
            r for r in rows if is_whole or not hidden - 300 < (r.end or 0) < hidden
        ]

    instance.api.before = lag
    instance.api.requests()
    for _ in range(60):
        instance.clock.now += MINUTE
        reading = await refresh(instance.sync)
        assert reading.count is not None
    assert instance.api.requests() < 60 + 3 * 8  # windows of eight pages


# What is compared -----------------------------------------------------------------------------


def make_window(*rows: Backup, filter_: Filter = Filter.NOT_BY_BEGIN) -> Window:
    window = build_window(rows, now=NOON, lookback_seconds=DAY, complete=True)
    return Window(**{**{k: getattr(window, k) for k in window.__slots__}, "filter": filter_})


def settled(number: int) -> Backup:
    end = NOON - 4 * HOUR + number * 300.0
    return Backup(f"settled-{number}", end - 60.0, end, float(number))


ROWS = [*(settled(number) for number in range(20)), Backup("last", NOON - 90, NOON - 60, 1.0)]
BEGIN, END = NOON - 5 * HOUR, NOON + 60


def by_id(*rows: Backup) -> dict[str, Backup]:
    return {row.id: row for row in rows}


def test_the_same_rows_change_nothing() -> None:
    window = make_window(*ROWS)
    assert compare(window, by_id(*ROWS), BEGIN, END) == (window, None)


def test_a_settled_row_that_was_not_known_counts_from_then_on() -> None:
    late = Backup("late", NOON - 4 * HOUR + 10, NOON - 4 * HOUR + 20, 99.0)
    window, gone = compare(make_window(*ROWS), by_id(*ROWS, late), BEGIN, END)
    assert gone is None
    assert list(window.ends) == sorted([*(row.end or 0.0 for row in ROWS), late.end or 0.0])
    assert window.sizes[window.ends.index(NOON - 4 * HOUR + 20)] == 99.0


def test_one_that_ended_with_another_and_has_its_size_counts_too() -> None:
    twin = settled(3)._replace(id="twin")
    window, _ = compare(make_window(*ROWS), by_id(*ROWS, twin), BEGIN, END)
    assert len(window.ends) == len(ROWS) + 1


def test_one_that_takes_longer_than_all_others_is_remembered_as_the_longest() -> None:
    late = Backup("late", NOON - 4 * HOUR - 1_000, NOON - 4 * HOUR + 20, 1.0)
    window, _ = compare(make_window(*ROWS), by_id(*ROWS, late), BEGIN, END)
    assert window.longest == late


def test_a_settled_row_that_is_lacking_has_gone() -> None:
    _, gone = compare(make_window(*ROWS), by_id(*ROWS[:3], *ROWS[4:]), BEGIN, END)
    assert gone is not None
    assert (gone.end, gone.size_kilobytes) == (settled(3).end, 3.0)


def test_a_settled_row_that_has_another_size_now_is_not_counted_twice() -> None:
    changed = settled(3)._replace(size_kilobytes=99.0)
    window, gone = compare(make_window(*ROWS), by_id(*ROWS, changed), BEGIN, END)
    assert gone is not None
    assert len(window.ends) == len(ROWS)


def test_what_the_listing_need_not_show_proves_nothing() -> None:
    """The first row ended before what is asked, or began before it where the API looks at that."""
    listed = by_id(*ROWS[1:])
    begin = (ROWS[0].end or 0.0) + 2.0
    assert compare(make_window(*ROWS), listed, begin, END)[1] is None
    begin = (ROWS[0].begin or 0.0) + 2.0
    assert compare(make_window(*ROWS), listed, begin, END)[1] is not None
    for filter_ in (Filter.BY_BEGIN, Filter.UNKNOWN):
        assert compare(make_window(*ROWS, filter_=filter_), listed, begin, END)[1] is None


def test_what_ended_after_the_listing_ends_proves_nothing() -> None:
    """The clock was set back."""
    end = settled(10).end or 0.0
    assert compare(make_window(*ROWS), by_id(*ROWS[:10]), BEGIN, end)[1] is None


# When -----------------------------------------------------------------------------------------


def test_what_is_late_is_looked_for_once_in_a_quarter_of_an_hour() -> None:
    window = make_window(*ROWS)
    narrow = NOON - HOUR - 60
    check = LateCheck(("project", "orders"))  # type: ignore[arg-type]
    assert check.begin(window, narrow, NOON) == narrow  # just listed
    due_at = check.due_at
    assert due_at is not None
    assert NOON < due_at <= NOON + QUARTER
    assert check.begin(window, narrow, due_at - 1) == narrow
    assert check.begin(window, narrow, due_at) == settled(0).end
    assert check.begin(window, narrow, due_at + 1) == narrow
    assert check.due_at == due_at + QUARTER
    # Set back, the clock makes it due at once: when it was planned it was wrong.
    assert check.begin(window, narrow, NOON - DAY) == settled(0).end


def test_what_is_late_is_looked_for_no_further_back_than_six_hours() -> None:
    """Where a retention may end, rows go by themselves."""
    rows = [Backup(f"r-{n}", None, NOON - n * HOUR, 1.0) for n in range(20)]
    check = LateCheck(("project", "orders"), due_at=NOON)  # type: ignore[arg-type]
    assert check.begin(make_window(*rows), NOON - HOUR, NOON) == NOON - 7 * HOUR
