"""What the page tells of projects, and where its header leads."""

import pytest

from exporter.errors import Reason
from exporter.models import (
    Failure,
    ProjectResult,
)
from exporter.page.status import render_status
from tests.page.making import HOUR, MINUTE, NOW, make_ok, make_snapshot
from tests.page.parsing import parse


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
    snapshot = make_snapshot([make_ok("a"), make_ok("b")], [project, plain])
    page = parse(render_status(snapshot, now=NOW, version="1"))
    first, second = page.one("table", "projects").one("tbody").all("tr")
    cells = [cell.text for cell in first.all("td")]
    assert cells == [
        "cn-north-4",
        "2",
        "ends in 5 h 2026-07-05 15:13:07Z",
        "ok 12 found, 3 filtered out",
    ]
    assert [cell.text for cell in second.all("td")] == ["\u2013", "0", "none held", "not used"]
    assert not page.all("div", "notice")


def test_project_in_trouble_is_announced_above_the_instances() -> None:
    project = ProjectResult(
        "p", name="production", token_expiry=NOW - 2 * MINUTE, discovery_success=False
    )
    page = parse(render_status(make_snapshot([make_ok()], [project]), now=NOW, version="1"))
    notice = page.one("div", "warn").text
    assert "production" in notice
    assert "token ended 2 min ago" in notice
    assert "discovery is failing" in notice
    cells = [cell.text for cell in page.one("table", "projects").one("tbody").all("td")]
    assert cells[2].startswith("expired 2 min ago")
    assert cells[3] == "failing"


def test_a_failing_discovery_says_why_and_what_to_do() -> None:
    failure = Failure(Reason.FORBIDDEN, "HTTP 403: <b>no</b>", "grant the instance:list permission")
    project = ProjectResult("p", discovery_success=False, discovery_failure=failure)

    notice = parse(render_status(make_snapshot([], [project]), now=NOW, version="1")).one(
        "div", "warn"
    )

    assert notice.one("p", "message").text == "forbidden HTTP 403: <b>no</b>"
    assert notice.one("p", "hint").text == "grant the instance:list permission"
    assert "The log says why" not in notice.text


@pytest.mark.parametrize(
    ("project", "said"),
    [
        (ProjectResult("p", token_expiry=NOW), "its token ended 0 s ago"),
        (ProjectResult("p", discovery_success=False), "discovery is failing"),
        (ProjectResult("p", token_expiry=NOW + 1, discovery_success=True), None),
    ],
)
def test_either_trouble_of_a_project_is_enough(project: ProjectResult, said: str | None) -> None:
    page = parse(render_status(make_snapshot([make_ok()], [project]), now=NOW, version="1"))
    notices = [notice.text for notice in page.all("div", "warn")]
    assert [said in notice for notice in notices if said] == ([True] if said else [])
    assert len(notices) == (1 if said else 0)


def test_header_has_version_and_links_that_hold_behind_a_prefix() -> None:
    html = render_status(
        make_snapshot([make_ok()]), now=NOW, version="1.2.3", docs_url="https://example.invalid/d"
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
    html = render_status(None, now=NOW, version="1", docs_url=address)
    assert len(parse(html).one("header").all("a")) == 4
