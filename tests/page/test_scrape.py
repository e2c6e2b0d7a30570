"""What the page says of the scrape that it shows."""

import re

import pytest

from exporter.models import ConfigurationState, ProjectResult
from exporter.page.status import render_status
from tests.page.making import (
    HOUR,
    MINUTE,
    NOW,
    instance_rows,
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


def test_page_says_when_the_scrape_was() -> None:
    page = render(make_ok())
    scraped = page.one("p", "scraped")
    assert scraped.text == "Scraped 8 s ago, 10:12:59, in 2 s. All times are UTC."
    assert scraped.one("time").attributes == {
        "datetime": "2026-07-05T10:12:59Z",
        "title": "2026-07-05 10:12:59 UTC",
    }
    assert not page.all("div", "notice")


def test_page_warns_when_nobody_scrapes_and_ages_go_on() -> None:
    result = make_result(reading=make_reading([2 * HOUR + 5 * MINUTE], at=NOW - 2 * HOUR))
    snapshot = make_view([result], finished=NOW - 2 * HOUR)
    page = parse(render_status(snapshot, now=NOW, version="1"))
    alarm = page.one("div", "alarm")
    assert alarm.text.startswith("Nobody has scraped for 2 h.")
    assert alarm.one("a").attributes["href"] == "./runbooks/GaussDBMySQLBackupExporterDown"
    (row,) = instance_rows(page)
    assert row.one("td", "latest").one("strong").text == "2 h 5 min ago"
    # What was not looked at is no hole.
    assert not row.all("rect", "gap")
    assert "not looked at since" in row.one("rect", "unread").text


@pytest.mark.parametrize(("age", "warns"), [(300, False), (301, True)])
def test_warning_comes_after_five_minutes(age: float, warns: bool) -> None:
    snapshot = make_view([make_ok()], finished=NOW - age)
    page = parse(render_status(snapshot, now=NOW, version="1"))
    assert bool(page.all("div", "alarm")) is warns


def test_page_without_a_scrape_says_so_and_where_to_go() -> None:
    view = make_view([make_result("b"), make_result("a")], finished=None)
    page = parse(render_status(view, now=NOW, version="1", telemetry_path="/other"))
    assert page.one("h1").text == "no scrape yet, 2 instances wait"
    notice = page.one("div", "notice")
    assert notice.text.startswith("No scrape yet.")
    assert notice.one("a").attributes["href"] == "./other"
    # Every configured instance is there from the start.
    assert names(page) == ["a", "b"]
    assert all("Waits for the first scrape." in row.text for row in instance_rows(page))


def test_page_without_instances_says_so() -> None:
    assert "No instances" in render().one("p", "empty").text


def test_zone_is_written_once() -> None:
    project = ProjectResult("p", token_expiry=NOW + HOUR)
    page = render(make_ok("a"), make_stale("b"), make_with_hole("c"), projects=[project])
    assert page.one("body").text.count("UTC") == 1
    assert not re.search(r"\d\dZ", page.one("body").text)


def test_a_configuration_that_was_refused_is_told_with_its_problems() -> None:
    problems = [f"config.yaml:{line}:1: no such key" for line in range(1, 8)]
    state = ConfigurationState(NOW - 3 * HOUR, NOW - 5 * MINUTE, problems)
    notice = render(make_ok(), configuration=state).one("div", "warn")
    assert notice.text.startswith("The new configuration was refused 5 min ago.")
    assert "The one of 07:13:07 stays in force" in notice.text
    assert [item.text for item in notice.all("p", "item")] == [*problems[:5], "and 2 more"]
    (link,) = notice.all("a")
    assert link.attributes["href"] == "./runbooks/GaussDBMySQLBackupConfigReloadFailed"


def test_a_configuration_that_is_in_force_is_told_quietly() -> None:
    page = render(make_ok(), configuration=ConfigurationState(NOW - 26 * HOUR))
    assert not page.all("div", "notice")
    assert "Configuration loaded 4 Jul 08:13:07." in page.one("footer").text
