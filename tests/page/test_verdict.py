"""The whole in a sentence, and the counts by state."""

import pytest

from exporter.models import InstanceResult
from tests.page.making import (
    make_empty,
    make_failing,
    make_listing,
    make_ok,
    make_result,
    make_stale,
    make_with_hole,
    render,
)


def test_headings_count_every_instance_by_state() -> None:
    page = render(
        make_ok("a"), make_with_hole("b"), make_stale("c"), make_empty("d"), make_failing("e")
    )
    assert [tally.text for tally in page.all("a", "tally") if tally.text[0] != "0"] == [
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
        ([make_empty()], "1 of 1 instance needs attention"),
        ([make_failing("a"), make_listing("b")], "1 of 2 instances need attention"),
        ([make_ok("a"), make_listing("b")], "nothing is known yet of 1 of 2 instances"),
        ([make_result()], "nothing is known yet of 1 of 1 instance"),
        ([make_ok("a"), make_ok("b")], "all 2 instances are well"),
        ([make_ok()], "all is well"),
        ([], "no instances"),
    ],
)
def test_title_says_the_verdict(results: list[InstanceResult], headline: str) -> None:
    assert render(*results).one("head").one("title").text == f"{headline} · GaussDB MySQL backups"
