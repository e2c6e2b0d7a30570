"""What the page says of the scrape that it shows."""

import pytest

from exporter.page.status import render_status
from tests.page.making import (
    HOUR,
    MINUTE,
    NOW,
    instance_rows,
    make_ok,
    make_reading,
    make_result,
    make_snapshot,
    render,
)
from tests.page.parsing import parse


def test_page_says_when_the_scrape_was() -> None:
    page = render(make_ok())
    assert page.one("p", "asof").text == "Scraped 2026-07-05 10:12:59Z (8 s ago, took 2 s)"
    assert not page.all("div", "notice")


def test_page_warns_when_nobody_scrapes_and_ages_go_on() -> None:
    result = make_result(reading=make_reading([2 * HOUR + 5 * MINUTE], at=NOW - 2 * HOUR))
    snapshot = make_snapshot([result], finished=NOW - 2 * HOUR)
    page = parse(render_status(snapshot, now=NOW, version="1"))
    assert page.one("div", "alarm").text.startswith("Nobody has scraped for 2 h.")
    (row,) = instance_rows(page)
    assert row.one("td", "latest").one("strong").text == "2 h 5 min ago"
    # What was not looked at is no hole.
    assert not row.all("rect", "hole")
    assert "not looked at since" in row.one("rect", "unread").text


@pytest.mark.parametrize(("age", "warns"), [(300, False), (301, True)])
def test_warning_comes_after_five_minutes(age: float, warns: bool) -> None:
    snapshot = make_snapshot([make_ok()], finished=NOW - age)
    page = parse(render_status(snapshot, now=NOW, version="1"))
    assert bool(page.all("div", "alarm")) is warns


def test_page_without_a_scrape_says_so_and_where_to_go() -> None:
    page = parse(render_status(None, now=NOW, version="1", telemetry_path="/other"))
    notice = page.one("div", "notice")
    assert notice.text.startswith("No scrape yet.")
    assert notice.one("a").attributes["href"] == "./other"
    assert not page.all("table")


def test_page_without_instances_says_so() -> None:
    assert "No instances" in render().one("p", "empty").text
