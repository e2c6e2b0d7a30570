"""What the page tells of projects, and where its header leads."""

import pytest

from exporter.errors import Reason
from exporter.models import (
    Failure,
    ProjectResult,
)
from exporter.page.status import render_status
from tests.page.making import HOUR, MINUTE, NOW, make_ok, make_view, render
from tests.page.parsing import parse
from tests.support.paths import ROOT


def test_projects_show_token_and_discovery() -> None:
    project = ProjectResult(
        "97b026aa9cc4417888c14c84a1ad9860",
        name="production",
        region="cn-north-4",
        token_expiry=NOW + 5 * HOUR,
        discovery_success=True,
        discovered_instances=12,
        unmonitored_instances=3,
    )
    plain = ProjectResult("other")
    page = render(make_ok("a"), make_ok("b"), projects=[project, plain])
    first, second = page.one("table", "projects").one("tbody").all("tr")
    cells = [cell.text for cell in first.all("td")]
    assert cells == [
        "cn-north-4",
        "2",
        "ends in 5 h 15:13:07",
        "ok 12 found, 3 filtered out",
    ]
    assert [cell.text for cell in second.all("td")] == ["\u2013", "0", "none held", "not used"]
    assert not page.all("div", "notice")


def test_project_in_trouble_is_announced_above_the_instances() -> None:
    project = ProjectResult(
        "p", name="production", token_expiry=NOW - 2 * MINUTE, discovery_success=False
    )
    page = render(make_ok(), projects=[project])
    token, discovery = page.all("div", "warn")
    assert token.text.startswith("Project production: its token ended 2 min ago")
    assert discovery.text.startswith("Project production: discovery has not succeeded yet")
    cells = [cell.text for cell in page.one("table", "projects").one("tbody").all("td")]
    assert cells[2].startswith("expired 2 min ago")
    assert cells[3] == "failing"


def test_a_failing_discovery_says_why_and_what_to_do() -> None:
    failure = Failure(Reason.FORBIDDEN, "HTTP 403: <b>no</b>", "grant the instance:list permission")
    project = ProjectResult("p", discovery_success=False, discovery_failure=failure)

    notice = render(projects=[project]).one("div", "warn")

    assert notice.one("p", "message").text == "forbidden HTTP 403: <b>no</b>"
    assert notice.one("p", "hint").text == "grant the instance:list permission Runbook"
    assert "The log says why" not in notice.text


@pytest.mark.parametrize(
    ("project", "said", "runbook"),
    [
        (ProjectResult("p", token_expiry=NOW), "its token ended 0 s ago", "TokenExpiring"),
        (
            ProjectResult("p", token_expiry=NOW + 599),
            "its token ends in 9 min 59 s and has not been renewed",
            "TokenExpiring",
        ),
        (
            ProjectResult("p", discovery_success=False, discovered_instances=3),
            "discovery is failing, so instances created since are not watched",
            "DiscoveryFailing",
        ),
        (
            ProjectResult("p", discovery_success=False),
            "discovery has not succeeded yet, so none of its instances is watched",
            "DiscoveryFailing",
        ),
        (
            ProjectResult("p", discovery_success=True, found_instances=7, discovered_instances=0),
            "discovery finds 7 instances and its filters take none of them",
            "Unmonitored",
        ),
    ],
)
def test_each_trouble_of_a_project_is_told_with_its_runbook(
    project: ProjectResult, said: str, runbook: str
) -> None:
    (notice,) = render(make_ok(), projects=[project]).all("div", "warn")
    assert said in notice.text
    (link,) = notice.all("a")
    assert link.attributes["href"] == f"./runbooks/GaussDBMySQLBackup{runbook}"
    assert (ROOT / "docs" / "runbooks" / f"GaussDBMySQLBackup{runbook}.md").is_file()


def test_ids_that_cannot_be_watched_are_named() -> None:
    ids = [f"id {number}" for number in range(7)]
    notice = render(projects=[ProjectResult("p", unusable_ids=ids)]).one("div", "warn")
    assert "7 instances cannot be watched" in notice.text
    assert [item.text for item in notice.all("p", "item")] == [*ids[:5], "and 2 more"]


@pytest.mark.parametrize(
    "project",
    [
        ProjectResult("p", token_expiry=NOW + 601, discovery_success=True),
        ProjectResult("p", discovery_success=True, found_instances=0, discovered_instances=0),
        ProjectResult("p", discovery_success=True, found_instances=7, discovered_instances=1),
    ],
)
def test_a_project_that_is_well_is_not_announced(project: ProjectResult) -> None:
    assert not render(make_ok(), projects=[project]).all("div", "notice")


def test_no_more_projects_are_announced_than_can_be_read() -> None:
    projects = [ProjectResult(f"p{number}", discovery_success=False) for number in range(40)]
    page = render(make_ok(), projects=projects)
    assert len(page.all("div", "notice")) == 6
    assert page.one("p", "more-notices").text == "and 34 more: see Projects"


def test_header_has_version_and_links_that_hold_behind_a_prefix() -> None:
    html = render_status(
        make_view([make_ok()]), now=NOW, version="1.2.3", docs_url="https://example.invalid/d"
    )
    header = parse(html).one("header")
    assert header.one("span", "version").text == "1.2.3"
    assert [link.attributes["href"] for link in header.all("a")] == [
        "./metrics",
        "./sd",
        "./-/healthy",
        "./-/ready",
        "https://example.invalid/d",
    ]


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "", "//x.invalid"])
def test_documentation_is_linked_only_at_a_web_address(address: str) -> None:
    html = render_status(make_view([]), now=NOW, version="1", docs_url=address)
    assert len(parse(html).one("header").all("a")) == 4


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (7_200.0, "The clock of the exporter's machine is 2 h ahead."),
        (-300.0, "The clock of the exporter's machine is 5 min behind."),
    ],
)
def test_a_clock_that_is_off_is_told_once_however_many_projects(ahead: float, said: str) -> None:
    projects = [
        ProjectResult(id_, clock_skew_seconds=ahead, clock_ahead_seconds=ahead) for id_ in "pq"
    ]
    notice = render(projects=projects).one("div", "warn")
    assert said in notice.text
    assert "The cloud's time is used instead" in notice.text


def test_a_clock_within_a_minute_is_nothing_to_tell() -> None:
    assert not render(projects=[ProjectResult("p", clock_skew_seconds=50.0)]).all("div", "warn")
