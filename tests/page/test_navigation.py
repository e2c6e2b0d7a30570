"""Search, states and pages."""

import pytest

from exporter.errors import Reason
from exporter.page.navigation import ROWS_PER_PAGE
from tests.page.making import (
    make_empty,
    make_failing,
    make_failure,
    make_ok,
    make_reading,
    make_result,
    make_with_hole,
    names,
    render,
)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("orders", ["orders"]),
        ("ORD", ["orders"]),
        ("orders-id", ["orders"]),
        ("eu-west", ["billing"]),
        ("eu-west stale", []),
        ("eu-west failing", ["billing"]),
        ("throttled", ["billing"]),
        ("staging-project", ["ledger"]),
        ("p-staging", ["ledger"]),
        ("no backups", ["archive"]),
        ("hole", ["inventory"]),
        ("  id  ", ["archive", "billing", "inventory", "ledger", "orders"]),
        ("nothing of this", []),
    ],
)
def test_search_finds_all_words_in_any_column(query: str, found: list[str]) -> None:
    billing = make_result("billing", None, make_failure(Reason.THROTTLED), region="eu-west-101")
    ledger = make_result(
        "ledger", make_reading(), project_id="p-staging", project_name="staging-project"
    )
    page = render(
        make_ok("orders"),
        billing,
        ledger,
        make_empty("archive"),
        make_with_hole("inventory"),
        query=query,
    )
    assert names(page) == found
    assert f"{len(found)} of 5 instance" in page.one("p", "found").text
    assert page.all("input")[0].attributes["value"] == query.strip()


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("failing", ["a"]),
        ("no-backups", ["b"]),
        ("No Backups", ["b"]),
        ("ok", ["c"]),
        ("hole", ["d"]),
        ("with a hole", ["b", "d"]),
        ("stale", []),
        ("of no such name", ["b", "a", "d", "c"]),
    ],
)
def test_state_narrows_the_list_but_not_the_counts(state: str, found: list[str]) -> None:
    page = render(
        make_failing("a"), make_empty("b"), make_ok("c"), make_with_hole("d"), state=state
    )
    assert names(page) == found
    assert page.all("a", "tally")[0].text == "4 all"


def test_form_and_links_keep_what_was_asked_and_need_no_script() -> None:
    page = render(make_failing("a"), query='say "hi" & <go>', state="failing", refresh="60")
    form = page.one("form")
    assert form.attributes["method"] == "get"
    assert [(each.attributes["name"], each.attributes["value"]) for each in form.all("input")] == [
        ("state", "failing"),
        ("refresh", "60"),
        ("q", 'say "hi" & <go>'),
    ]
    assert [tally.attributes["href"] for tally in page.all("a", "tally")] == [
        "./?q=say+%22hi%22+%26+%3Cgo%3E&refresh=60",
        "./?q=say+%22hi%22+%26+%3Cgo%3E&state=failing&refresh=60",
    ]
    assert not page.all("script")


def test_the_chosen_state_is_marked_and_stays_to_be_left_where_nobody_is_in_it() -> None:
    page = render(make_ok("a"), state="stale")
    (chosen,) = [tally for tally in page.all("a", "tally") if "aria-current" in tally.attributes]
    assert chosen.text == "0 stale"
    assert page.one("p", "found").one("a").attributes["href"] == "./"


@pytest.mark.parametrize(
    ("refresh", "seconds"),
    [("60", "60"), ("1", "5"), ("9999999", "86400"), ("0", ""), ("-3", ""), ("soon", ""), ("", "")],
)
def test_page_loads_itself_again_only_where_it_is_asked_to(refresh: str, seconds: str) -> None:
    page = render(make_ok("a"), refresh=refresh)
    found = [each.attributes for each in page.all("meta") if "http-equiv" in each.attributes]
    assert found == ([{"http-equiv": "refresh", "content": seconds}] if seconds else [])
    links = [link.attributes["href"] for link in page.one("footer").all("a")]
    assert links == ["./" if seconds else "./?refresh=60"]


def test_many_instances_come_in_pages_with_the_worst_on_the_first() -> None:
    results = [make_ok(f"db-{number:04}") for number in range(2 * ROWS_PER_PAGE + 50)]
    results.append(make_failing("zz-worst"))
    first = render(*results, query="id", state="")
    assert names(first)[:2] == ["zz-worst", "db-0000"]
    assert len(names(first)) == ROWS_PER_PAGE
    pages = first.one("nav", "pages")
    assert pages.text.startswith(f"1 to {ROWS_PER_PAGE} of {len(results)}")
    assert [link.attributes["href"] for link in pages.all("a")] == ["./?q=id&page=2"]

    last = render(*results, query="id", page="3")
    assert names(last)[-1] == "db-0249"
    assert [link.attributes["href"] for link in last.one("nav", "pages").all("a")] == [
        "./?q=id&page=2"
    ]
    shown = [name for page in "123" for name in names(render(*results, page=page))]
    assert sorted(shown) == sorted(result.instance.name for result in results)


@pytest.mark.parametrize("page", ["0", "-4", "x", "", "9" * 5_000])
def test_a_page_that_makes_no_sense_is_the_first(page: str) -> None:
    results = [make_ok(f"db-{number:04}") for number in range(ROWS_PER_PAGE + 1)]
    assert names(render(*results, page=page))[0] == "db-0000"


def test_a_page_beyond_the_end_is_the_last() -> None:
    results = [make_ok(f"db-{number:04}") for number in range(ROWS_PER_PAGE + 1)]
    assert names(render(*results, page="7")) == [f"db-{ROWS_PER_PAGE:04}"]
