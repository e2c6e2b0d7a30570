"""The picture of the window: every backup, and the holes."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.models import (
    InstanceResult,
)
from exporter.page.axis import build_axis
from exporter.page.picture import build_picture
from exporter.page.strokes import WIDTH
from tests.page.making import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    make_empty,
    make_failing,
    make_ok,
    make_reading,
    make_result,
    make_stale,
    make_with_hole,
    minutes,
    render,
    row_of,
)
from tests.page.parsing import Element, spans
from tests.support.searches import extent


def picture_of(result: InstanceResult) -> Element:
    return row_of(result).one("svg", "window")


def test_picture_says_in_a_sentence_what_it_shows() -> None:
    svg = picture_of(make_result(reading=make_reading(minutes(23 * 60 + 55, 5))))
    assert svg.attributes["role"] == "img"
    (title,) = svg.all("title")
    (description,) = svg.all("desc")
    assert title.text == "287 backups in 24 h, longest gap 5 min"
    assert description.text == "No hole longer than 1 h."
    assert svg.attributes["aria-labelledby"].split() == [
        title.attributes["id"],
        description.attributes["id"],
    ]


def test_ids_of_the_page_are_unique() -> None:
    page = render(make_ok("a"), make_stale("b"), make_with_hole("c"), make_failing("d"))
    ids = [each.attributes["id"] for each in page.walk() if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    wanted = {
        name
        for each in page.all("svg")
        for name in each.attributes.get("aria-labelledby", "").split()
    }
    assert wanted <= set(ids)


def test_backup_is_a_tick_where_it_ended() -> None:
    svg = picture_of(make_result(reading=make_reading([12 * HOUR, 6 * HOUR, 5 * MINUTE])))
    starts = [start for start, _ in spans(svg.one("path", "ticks").attributes["d"])]
    assert starts == pytest.approx([360, 540, 716], abs=1.6)


def test_hole_is_drawn_between_its_backups_and_told_from_when_to_when() -> None:
    ages = [*minutes(24 * 60 - 5, 12 * 60), *minutes(6 * 60, 5)]
    row = row_of(make_result(reading=make_reading(ages)))
    (hole,) = row.all("rect", "gap")
    # From 12 to 6 hours ago: half of the picture's 720 units, then a quarter; the tick stays free.
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert 360 <= x <= 364
    assert x + width == pytest.approx(540, abs=0.2)
    said = "4 Jul 22:13 to 5 Jul 04:13 (6 h)"
    assert hole.one("title").text == f"hole: {said}"
    assert row.one("p", "hole-text").text == f"hole {said}"
    assert row.one("desc").text == f"1 hole longer than 1 h: {said}."


def test_covered_stretches_end_where_a_hole_begins() -> None:
    ages = [*minutes(24 * 60 - 5, 12 * 60), *minutes(6 * 60, 5)]
    svg = picture_of(make_result(reading=make_reading(ages)))
    covered = spans(svg.one("path", "covered").attributes["d"])
    assert len(covered) == 2
    assert covered[0] == pytest.approx((2.5, 360), abs=0.2)
    assert covered[1] == pytest.approx((540, 717.5), abs=0.2)


def test_stale_instance_has_a_hole_that_is_open() -> None:
    row = row_of(make_result(reading=make_reading([*minutes(600, 180)])))
    (hole,) = row.all("rect", "gap")
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert x + width == pytest.approx(WIDTH)
    assert hole.text == "hole: since 07:13 (3 h so far)"


def test_window_without_a_backup_is_one_hole_since_the_last_one() -> None:
    row = row_of(make_result(reading=make_reading([], latest_age=30 * HOUR)))
    (hole,) = row.all("rect", "gap")
    assert float(hole.attributes["width"]) == pytest.approx(WIDTH, abs=4)
    assert hole.text == "hole: since 4 Jul 04:13 (30 h so far)"


def test_instance_without_any_backup_has_an_empty_window() -> None:
    row = row_of(make_empty())
    (hole,) = row.all("rect", "gap")
    assert (hole.attributes["x"], float(hole.attributes["width"])) == ("0.0", WIDTH)
    assert row.one("desc").text == "No backup known, in this window or before it."
    assert "none known" in row.one("td", "latest").text


def test_young_instance_has_an_unknown_beginning_and_no_hole() -> None:
    row = row_of(make_result(reading=make_reading(minutes(120, 5))))
    assert not row.all("rect", "gap")
    before = row.one("rect", "before")
    assert float(before.attributes["width"]) == pytest.approx(660)
    assert before.text == "no backup in this window before 08:13"


def test_hole_that_began_before_the_window_is_no_unknown_beginning() -> None:
    # The scrape of two hours ago still saw the backup before the hole; today's window does not.
    reading = make_reading([25 * HOUR, *minutes(12 * 60, 150)], at=NOW - 2 * HOUR)
    row = row_of(make_result(reading=reading))
    assert not row.all("rect", "before")
    (hole,) = row.all("rect", "gap")
    assert hole.text == "hole: 4 Jul 09:13 to 22:13 (13 h)"
    assert float(hole.attributes["width"]) == pytest.approx(360, abs=4)


def test_scrape_from_before_the_window_leaves_it_unknown() -> None:
    row = row_of(make_result(reading=make_reading([3 * DAY], at=NOW - 2 * DAY, lookback=DAY)))
    assert not row.all("rect", "gap")
    assert float(row.one("rect", "unread").attributes["width"]) == WIDTH


def test_gap_of_exactly_the_threshold_is_no_hole() -> None:
    exact = make_result(reading=make_reading([2 * HOUR, HOUR, 5 * MINUTE]))
    longer = make_result(reading=make_reading([2 * HOUR + 1, HOUR, 5 * MINUTE]))
    assert not row_of(exact).all("rect", "gap")
    assert len(row_of(longer).all("rect", "gap")) == 1


def test_hole_of_a_long_window_stays_wide_enough_to_be_seen() -> None:
    lookback = 732 * DAY
    ages = [*(day * DAY for day in range(731, 2, -1)), 36 * HOUR, 22 * HOUR, 5 * MINUTE]
    reading = make_reading(ages, lookback=lookback)
    result = make_result(reading=reading, lookback=lookback, stale_after=DAY)
    (hole,) = row_of(result).all("rect", "gap")
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert width >= 3
    assert x + width <= WIDTH


def test_many_holes_cost_no_more_than_some() -> None:
    reading = make_reading(minutes(7 * 24 * 60, 20, 20), lookback=7 * DAY)
    result = make_result(reading=reading, lookback=7 * DAY, stale_after=15 * MINUTE)
    row = row_of(result)
    assert len(row.all("rect", "gap")) == 12
    # 504 backups, 503 intervals and the open one of 20 minutes: 504 holes, 12 of them drawn above.
    assert len(spans(row.one("path", "gaps").attributes["d"])) == 492
    assert row.all("p", "hole-text")[-1].text == "and 502 more"


def marks_of(row: Element) -> list[tuple[str, str]]:
    axis = row.one("svg", "axis")
    return [(text.text, text.attributes["x"]) for text in axis.all("text")]


def test_a_day_has_clock_times_below_it() -> None:
    # From 10:13:07 to 10:13:07: 12:00 is 1:46:53 after the beginning.
    row = row_of(make_result(reading=make_reading(minutes(23 * 60 + 55, 5))))
    assert marks_of(row) == [
        ("12:00", "7.42%"),
        ("18:00", "32.42%"),
        ("5 Jul", "57.42%"),
        ("06:00", "82.42%"),
        ("now", "100%"),
    ]
    assert row.one("path", "grid").attributes["d"].count("v24") == 4


def test_a_week_has_days_below_it_and_bars_instead_of_a_slab() -> None:
    ages = [*minutes(7 * 24 * 60 - 5, 48 * 60), *minutes(36 * 60, 5)]
    row = row_of(make_result(reading=make_reading(ages, lookback=7 * DAY), lookback=7 * DAY))
    assert [text for text, _ in marks_of(row)] == [
        *("29 Jun", "30 Jun", "1 Jul", "2 Jul", "3 Jul", "4 Jul"),
        "now",
    ]
    # All seven midnights are lines, the last one too near to the end for a text.
    assert row.one("path", "grid").attributes["d"].count("v24") == 7
    assert not row.all("path", "ticks")
    heights = outline(row.one("path", "bars").attributes["d"])
    # Each bar is of two hours and 24 backups, but for those at the edges; half a day has none.
    full, none = (sum(w for height, w in heights if height == h) for h in (15, 0))
    assert full == pytest.approx(156 / 168 * WIDTH, abs=8 / 168 * WIDTH)
    assert none == pytest.approx(12 / 168 * WIDTH, abs=4 / 168 * WIDTH)


def test_bars_are_as_high_as_backups_are_many() -> None:
    """Every minute for the last quarter, before that every four minutes."""
    ages = [*minutes(24 * 60 - 1, 6 * 60, 4), *minutes(6 * 60 - 1, 0, 1)]
    row = row_of(make_result(reading=make_reading(ages)))
    heights = outline(row.one("path", "bars").attributes["d"])
    # Of a quarter hour 15, or 3 to 4: a fifth to a quarter of what is above the lowest height.
    low = [width for height, width in heights if height in (5, 6)]
    high = [width for height, width in heights if height in (14, 15)]
    assert sum(low) == pytest.approx(WIDTH * 3 / 4, abs=WIDTH / 48)
    assert sum(high) == pytest.approx(WIDTH / 4, abs=WIDTH / 48)


def outline(path: str) -> list[tuple[int, float]]:
    """Each step of an outline: its height above the ground and its width."""
    steps = []
    x, height = 0.0, 0
    for kind, number in re.findall(r"([HV])([\d.]+)", path):
        if kind == "V":
            height = 24 - int(number)
        elif float(number) > x:
            steps.append((height, float(number) - x))
            x = float(number)
    return steps


@pytest.mark.parametrize(
    ("lookback", "most"), [(300.0, 5), (HOUR, 7), (30 * DAY, 5), (732 * DAY, 5)]
)
def test_marks_are_few_and_in_order(lookback: float, most: int) -> None:
    marks = build_axis(NOW - lookback, NOW)
    assert 2 <= len(marks) <= most
    assert [mark.percent for mark in marks] == sorted({mark.percent for mark in marks})
    assert all(0 <= mark.percent < 100 for mark in marks)
    texts = [mark.text for mark in marks if mark.text]
    assert len(texts) == len(set(texts)) > 0


def test_longest_gap_speaks_of_the_hole_that_is_open() -> None:
    """Of a stale instance the longest interval between backups is not the longest gap."""
    stale = picture_of(make_result(reading=make_reading([*minutes(600, 180)])))
    assert stale.all("title")[0].text == "85 backups in 24 h, longest gap 3 h so far"


def test_longest_gap_is_told_once() -> None:
    assert not row_of(make_with_hole()).all("p", "gaps")
    assert row_of(make_ok()).all("p", "gaps") == []  # one backup: no interval
    healthy = row_of(make_result(reading=make_reading(minutes(60, 5))))
    assert healthy.one("p", "gaps").text == "longest gap 5 min"


def test_a_hole_that_reaches_into_the_window_is_drawn_from_its_edge() -> None:
    # The backup before the hole ended 26 hours ago, the one that ended it 20 hours ago.
    reading = replace(
        make_reading(minutes(20 * 60, 5)),
        previous_end=NOW - 26 * HOUR,
        max_interval_seconds=6 * HOUR,
    )
    row = row_of(make_result(reading=reading))
    assert row.one("span", "pill").text == "hole"
    (hole,) = row.all("rect", "gap")
    assert (hole.attributes["x"], hole.attributes["width"]) == ("0.0", "120.0")
    assert hole.text == "hole: 4 Jul 08:13 to 14:13 (6 h)"
    assert not row.all("rect", "before")


@settings(max_examples=extent(150), deadline=None)
@given(
    ages=st.lists(st.floats(0, 2 * DAY), min_size=1, max_size=400),
    lookback=st.sampled_from([HOUR, DAY, 7 * DAY]),
    stale_after=st.sampled_from([5 * MINUTE, HOUR, 30 * HOUR]),
    read_ago=st.sampled_from([0.0, 10.0, 3 * HOUR, 40 * HOUR]),
)
def test_every_backup_of_the_window_is_drawn_and_nothing_outside(
    ages: list[float], lookback: float, stale_after: float, read_ago: float
) -> None:
    reading = make_reading(ages, at=NOW - read_ago, lookback=lookback, latest_age=2 * DAY)
    instance = replace(
        make_ok().instance, lookback_seconds=lookback, stale_after_seconds=stale_after
    )
    picture = build_picture(reading, instance, now=NOW)
    ticks = spans(picture.ticks)
    if picture.bars:
        x = 0.0
        for height, width in outline(picture.bars):
            ticks += [(x, x + width)] if height else []
            x += width
    assert len(ticks) <= WIDTH
    assert all(a_end <= b_start for (_, a_end), (b_start, _) in pairwise(ticks))
    for end in reading.ends:
        x = (end - (NOW - lookback)) / lookback * WIDTH
        if x >= 0:
            # Wholly, at least one unit wide; at the very end as far as there is room.
            x = min(x, WIDTH - 4)
            assert any(start <= x + 0.2 and x + 1 <= stop + 0.1 for start, stop in ticks), x
    stretches = [*picture.holes, *filter(None, (picture.before, picture.unread))]
    drawn = [*ticks, *spans(picture.covered), *((s.x, s.x + s.width) for s in stretches)]
    assert all(start >= -0.2 and stop <= WIDTH + 0.2 for start, stop in drawn)
    assert all(stretch.width >= 0 for stretch in stretches)
