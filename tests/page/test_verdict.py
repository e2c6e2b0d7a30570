"""The whole in a sentence, and the counts by state."""

import pytest

from exporter.models import InstanceResult
from exporter.page.status import render_status
from tests.page.making import (
    HOUR,
    NOW,
    instance_rows,
    make_empty,
    make_failing,
    make_listing,
    make_ok,
    make_reading,
    make_result,
    make_stale,
    make_view,
    make_with_hole,
    names,
    render,
)
from tests.page.parsing import parse


def test_headings_count_every_instance_by_state() -> None:
    page = render(
        make_ok("a"), make_with_hole("b"), make_stale("c"), make_empty("d"), make_failing("e")
    )
    assert [tally.text for tally in page.all("a", "tally")] == [
        "5 all",
        "1 stale",
        "1 no backups",
        "1 failing",
        "1 hole",
        "1 ok",
        "3 with a hole",
    ]


@pytest.mark.parametrize(
    ("results", "headline"),
    [
        ([make_ok("a"), make_stale("b"), make_with_hole("c")], "2 of 3 instances need attention"),
        ([make_empty()], "the only instance needs attention"),
        ([make_failing("a"), make_stale("b")], "all 2 instances need attention"),
        ([make_failing("a"), make_listing("b")], "1 of 2 instances need attention"),
        ([make_ok("a"), make_listing("b")], "not enough is known yet of 1 of 2 instances"),
        ([make_result()], "not enough is known yet of the only instance"),
        ([make_ok("a"), make_ok("b")], "all 2 instances are well"),
        ([make_ok()], "the only instance is well"),
        ([], "no instances"),
    ],
)
def test_title_says_the_verdict(results: list[InstanceResult], headline: str) -> None:
    page = render(*results)
    assert page.one("h1").text == headline
    assert page.one("head").one("title").text == f"{headline} · GaussDB MySQL backups"


@pytest.mark.parametrize(
    ("result", "severity", "colour"),
    [
        (make_empty(), "critical", "d92d20"),
        (make_failing(), "warning", "e08a00"),
        (make_listing(), "unknown", "4a7ab5"),
        (make_ok(), "good", "2f8f57"),
    ],
)
def test_verdict_and_icon_have_the_colour_of_the_worst(
    result: InstanceResult, severity: str, colour: str
) -> None:
    page = render(make_ok("a"), result)
    assert page.one("h1").attributes["class"] == f"verdict {severity}"
    (icon,) = page.all("link")
    assert f"fill='%23{colour}'" in icon.attributes["href"]


def test_what_was_well_long_ago_is_not_called_well() -> None:
    results = [make_result(name, make_reading(), stale_after=3 * HOUR) for name in "ab"]
    page = parse(render_status(make_view(results, finished=NOW - 2 * HOUR), now=NOW, version="1"))
    assert page.one("h1").text == "all 2 instances were well 2 h ago"


def test_holes_are_counted_as_the_pictures_show_them() -> None:
    page = render(make_ok("a"), make_with_hole("b"), make_stale("c"), make_empty("d"))
    shown = [row for row in instance_rows(page) if row.all("rect", "gap")]
    assert page.all("a", "tally")[-1].text == f"{len(shown)} with a hole"
    with_hole = render(
        make_ok("a"), make_with_hole("b"), make_stale("c"), make_empty("d"), state="with-a-hole"
    )
    assert names(with_hole) == ["c", "d", "b"]
