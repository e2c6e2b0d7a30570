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
from exporter.page.picture import WIDTH, build_picture
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
from tests.page.parsing import Element


def spans(path: str) -> list[tuple[float, float]]:
    """The strokes of path data that moves relatively, read as SVG defines it."""
    pen = 0.0
    found = []
    for move, line in re.findall(r"m(-?[\d.]+) 0h(-?[\d.]+)", path):
        start = pen + float(move)
        pen = start + float(line)
        found.append((start, pen))
    return found


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
    (hole,) = row.all("rect", "hole")
    # From 12 to 6 hours ago: half of the picture's 720 units, then a quarter; the tick stays free.
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert 360 <= x <= 364
    assert x + width == pytest.approx(540, abs=0.2)
    said = "2026-07-04 22:13 to 2026-07-05 04:13 UTC (6 h)"
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
    (hole,) = row.all("rect", "hole")
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert x + width == pytest.approx(WIDTH)
    assert hole.text == "hole: since 2026-07-05 07:13:07Z (3 h so far)"


def test_window_without_a_backup_is_one_hole_since_the_last_one() -> None:
    row = row_of(make_result(reading=make_reading([], latest_age=30 * HOUR)))
    (hole,) = row.all("rect", "hole")
    assert float(hole.attributes["width"]) == pytest.approx(WIDTH, abs=4)
    assert hole.text == "hole: since 2026-07-04 04:13:07Z (30 h so far)"


def test_instance_without_any_backup_has_an_empty_window() -> None:
    row = row_of(make_empty())
    (hole,) = row.all("rect", "hole")
    assert (hole.attributes["x"], float(hole.attributes["width"])) == ("0.0", WIDTH)
    assert row.one("desc").text == "No backup known, in this window or before it."
    assert "none known" in row.one("td", "latest").text


def test_young_instance_has_an_unknown_beginning_and_no_hole() -> None:
    row = row_of(make_result(reading=make_reading(minutes(120, 5))))
    assert not row.all("rect", "hole")
    before = row.one("rect", "before")
    assert float(before.attributes["width"]) == pytest.approx(660)
    assert before.text == "no backup in this window before 2026-07-05 08:13:07Z"


def test_hole_that_began_before_the_window_is_no_unknown_beginning() -> None:
    # The scrape of two hours ago still saw the backup before the hole; today's window does not.
    reading = make_reading([25 * HOUR, *minutes(12 * 60, 150)], at=NOW - 2 * HOUR)
    row = row_of(make_result(reading=reading))
    assert not row.all("rect", "before")
    (hole,) = row.all("rect", "hole")
    assert hole.text == "hole: 2026-07-04 09:13 to 22:13 UTC (13 h)"
    assert float(hole.attributes["width"]) == pytest.approx(360, abs=4)


def test_scrape_from_before_the_window_leaves_it_unknown() -> None:
    row = row_of(make_result(reading=make_reading([3 * DAY], at=NOW - 2 * DAY, lookback=DAY)))
    assert not row.all("rect", "hole")
    assert float(row.one("rect", "unread").attributes["width"]) == WIDTH


def test_gap_of_exactly_the_threshold_is_no_hole() -> None:
    exact = make_result(reading=make_reading([2 * HOUR, HOUR, 5 * MINUTE]))
    longer = make_result(reading=make_reading([2 * HOUR + 1, HOUR, 5 * MINUTE]))
    assert not row_of(exact).all("rect", "hole")
    assert len(row_of(longer).all("rect", "hole")) == 1


def test_hole_of_a_long_window_stays_wide_enough_to_be_seen() -> None:
    lookback = 732 * DAY
    ages = [*(day * DAY for day in range(731, 2, -1)), 36 * HOUR, 22 * HOUR, 5 * MINUTE]
    reading = make_reading(ages, lookback=lookback)
    result = make_result(reading=reading, lookback=lookback, stale_after=DAY)
    (hole,) = row_of(result).all("rect", "hole")
    x, width = float(hole.attributes["x"]), float(hole.attributes["width"])
    assert width >= 3
    assert x + width <= WIDTH


def test_many_holes_cost_no_more_than_some() -> None:
    reading = make_reading(minutes(7 * 24 * 60, 20, 20), lookback=7 * DAY)
    result = make_result(reading=reading, lookback=7 * DAY, stale_after=15 * MINUTE)
    row = row_of(result)
    assert len(row.all("rect", "hole")) == 12
    # 504 backups, 503 intervals and the open one of 20 minutes: 504 holes, 12 of them drawn above.
    assert len(spans(row.one("path", "holes").attributes["d"])) == 492
    assert row.all("p", "hole-text")[-1].text == "and 502 more"


@settings(max_examples=150, deadline=None)
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
    assert len(ticks) <= WIDTH
    assert all(a_end < b_start for (_, a_end), (b_start, _) in pairwise(ticks))
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
