"""What a person reads on the status page, checked on the page's parsed HTML."""

import base64
import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.models import (
    Failure,
    Instance,
    InstanceResult,
    Progress,
    ProjectResult,
    Reading,
    Snapshot,
)
from exporter.page.picture import WIDTH, build_picture
from exporter.page.status import CONTENT_SECURITY_POLICY, ROWS_PER_PAGE, render_status
from exporter.page.words import format_duration, format_exact_size, format_size, format_span

NOW = 1_783_246_387.0  # 2026-07-05 10:13:07 UTC
MINUTE = 60.0
HOUR = 3_600.0
DAY = 86_400.0

VOID_TAGS = {"meta", "link", "input"}
INLINE_TAGS = {"a", "b", "bdi", "code", "i", "span", "strong", "time"}


@dataclass
class Element:
    """A parsed element; `text` is all text inside, white space made single."""

    tag: str
    attributes: dict[str, str]
    parts: list["str | Element"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for part in self.parts:
            if isinstance(part, str):
                yield part
            elif part.tag != "style":
                space = "" if part.tag in INLINE_TAGS else " "
                yield space
                yield from part._texts()
                yield space

    def walk(self) -> "Iterator[Element]":
        for part in self.parts:
            if isinstance(part, Element):
                yield part
                yield from part.walk()

    def all(self, tag: str, class_name: str = "") -> "list[Element]":
        return [
            each
            for each in self.walk()
            if each.tag == tag
            and (not class_name or class_name in each.attributes.get("class", "").split())
        ]

    def one(self, tag: str, class_name: str = "") -> "Element":
        found = self.all(tag, class_name)
        assert len(found) == 1, (tag, class_name, found)
        return found[0]


class Parser(HTMLParser):
    """A strict reader: what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("root", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].parts.append(element)
        if tag not in VOID_TAGS:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].parts.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root]


def parse(html: str) -> Element:
    parser = Parser()
    parser.feed(html)
    parser.close()
    return parser.root


def make_reading(
    end_ages: Iterable[float] = (5 * MINUTE,),
    *,
    at: float = NOW,
    lookback: float = DAY,
    latest_age: float | None = None,
    kilobytes: float = 1_024.0,
    running: int = 0,
    listing_complete: bool = True,
) -> Reading:
    """A reading of backups that ended so many seconds before `NOW`; `latest_age`: before them."""
    known = sorted(NOW - age for age in end_ages)
    ends = array("d", [end for end in known if at - lookback <= end <= at])
    outside = NOW - latest_age if latest_age is not None else None
    latest = ends[-1] if ends else outside
    return Reading(
        at=at,
        count=len(ends) + running,
        size_kilobytes=kilobytes * len(ends),
        running=running,
        listing_complete=listing_complete,
        latest_end=latest,
        latest_size_kilobytes=kilobytes if latest is not None else None,
        oldest_end=ends[0] if ends else None,
        max_interval_seconds=max((b - a for a, b in pairwise(ends)), default=None),
        ends=ends,
    )


def make_result(
    name: str = "orders",
    reading: Reading | None = None,
    failure: Failure | None = None,
    *,
    instance_id: str = "",
    project_id: str = "97b026aa9cc4417888c14c84a1ad9860",
    project_name: str = "production",
    region: str = "cn-north-4",
    lookback: float = DAY,
    stale_after: float = HOUR,
    last_success: float | None = None,
    progress: Progress | None = None,
) -> InstanceResult:
    return InstanceResult(
        instance=Instance(
            project_id=project_id,
            id=instance_id or f"{name}-id",
            project_name=project_name,
            name=name,
            region=region,
            lookback_seconds=lookback,
            stale_after_seconds=stale_after,
        ),
        reading=reading,
        failure=failure,
        duration_seconds=2.0,
        api_requests=3,
        api_errors=1 if failure else 0,
        api_requests_total=40,
        api_errors_total={reason: 0 for reason in Reason},
        last_success=last_success,
        progress=progress,
    )


def make_failure(reason: Reason = Reason.FORBIDDEN, message: str = "refused") -> Failure:
    return Failure(reason, message, "give the account the permission")


def make_ok(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading())


def make_failing(name: str = "orders", reason: Reason = Reason.FORBIDDEN) -> InstanceResult:
    return make_result(name, None, make_failure(reason))


def make_stale(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([3 * HOUR]))


def make_empty(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([]))


def make_listing(name: str = "orders") -> InstanceResult:
    failure = make_failure(Reason.DEADLINE)
    return make_result(name, None, failure, progress=Progress(pages_done=12, pages_total=41))


def make_with_hole(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([5 * HOUR, 3 * HOUR, 2.5 * HOUR, *minutes(150, 5)]))


def minutes(start: int, stop: int, step: int = 5) -> list[float]:
    return [age * MINUTE for age in range(start, stop - 1, -step)]


def make_snapshot(
    results: Sequence[InstanceResult],
    projects: Sequence[ProjectResult] = (),
    *,
    finished: float = NOW - 8,
) -> Snapshot:
    return Snapshot(finished - 2, finished, results, projects)


def render(
    *results: InstanceResult, query: str = "", state: str = "", page: int | str = 1
) -> Element:
    snapshot = make_snapshot(results)
    return parse(
        render_status(snapshot, now=NOW, version="1.0.0", query=query, state=state, page=page)
    )


def instance_rows(page: Element) -> list[Element]:
    sections = [each for each in page.all("section") if each.attributes.get("id") == "instances"]
    return [row for section in sections for row in section.all("tr") if row.all("td", "state")]


def names(page: Element) -> list[str]:
    return [row.one("bdi", "name").text for row in instance_rows(page)]


def row_of(result: InstanceResult) -> Element:
    (row,) = instance_rows(render(result))
    return row


# The states


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (make_ok(), "ok"),
        (make_stale(), "stale"),
        (make_empty(), "no backups"),
        (make_failing(), "failing"),
        (make_listing(), "listing"),
        (make_with_hole(), "ok"),
        (make_result(reading=make_reading([], latest_age=30 * HOUR)), "stale"),
        (make_result(reading=make_reading([HOUR])), "ok"),
        (make_result(reading=make_reading([HOUR + 1])), "stale"),
        (make_failing(reason=Reason.DEADLINE), "failing"),
        (
            make_result(failure=make_failure(Reason.AUTH), progress=Progress(1, 9)),
            "failing",
        ),
        (make_result(), "failing"),
    ],
)
def test_state_is_told_by_word_and_by_class(result: InstanceResult, word: str) -> None:
    row = row_of(result)
    assert row.one("span", "pill").text == word
    assert row.attributes["class"] == word.replace(" ", "-")


def test_worst_come_first_and_then_names_in_order() -> None:
    page = render(
        make_ok("zebra"),
        make_ok("Alpha"),
        make_listing("b-listing"),
        make_empty("c-empty"),
        make_stale("d-stale"),
        make_failing("f-failing"),
        make_failing("E-failing"),
    )
    assert names(page) == [
        "E-failing",
        "f-failing",
        "d-stale",
        "c-empty",
        "b-listing",
        "Alpha",
        "zebra",
    ]


def test_a_hole_comes_before_the_others_that_are_ok() -> None:
    page = render(make_ok("a"), make_with_hole("b"), make_ok("c"))
    assert names(page) == ["b", "a", "c"]


def test_headings_count_every_instance_by_state() -> None:
    page = render(
        make_ok("a"), make_with_hole("b"), make_stale("c"), make_empty("d"), make_failing("e")
    )
    assert [tally.text for tally in page.all("a", "tally")] == [
        "5 all",
        "1 failing",
        "1 stale",
        "1 no backups",
        "0 listing",
        "2 ok",
        "1 with a hole",
    ]
    assert page.one("head").one("title").text.startswith("1 failing, 1 stale, 1 no backups")


@pytest.mark.parametrize(
    ("results", "headline"),
    [([make_ok()], "all ok"), ([make_listing()], "1 listing"), ([], "no instances")],
)
def test_title_says_what_there_is_when_nothing_is_wrong(
    results: list[InstanceResult], headline: str
) -> None:
    assert render(*results).one("head").one("title").text.startswith(headline)


# One instance


def test_row_tells_age_count_sizes_and_thresholds() -> None:
    reading = make_reading([*minutes(55, 5, 10)], lookback=7 * DAY, kilobytes=1_536, running=1)
    row = row_of(make_result(reading=reading, lookback=7 * DAY, stale_after=0.5 * HOUR))
    latest = row.one("td", "latest")
    assert latest.one("strong").text == "5 min ago"
    assert latest.one("time").attributes["datetime"] == "2026-07-05T10:08:07Z"
    assert latest.one("time").text == "2026-07-05 10:08:07Z"
    assert "stale after 30 min" in latest.text
    amount = row.one("td", "amount")
    assert amount.text == "7 in 7 d 9.0 MiB, last 1.5 MiB 1 running"
    assert [span.attributes["title"] for span in amount.all("span")] == [
        "9,437,184 bytes (9,216 KB)",
        "1,572,864 bytes (1,536 KB)",
    ]
    assert "longest gap 10 min" in row.one("p", "axis").text


def test_failing_row_tells_reason_message_and_hint_but_no_number_of_backups() -> None:
    result = make_result(
        failure=Failure(Reason.THROTTLED, "429 from the gateway", "lower api.rate_limit"),
        last_success=NOW - 47 * MINUTE,
    )
    row = row_of(result)
    assert row.one("code").text == "throttled"
    assert row.one("p", "message").text == "throttled 429 from the gateway"
    assert row.one("p", "hint").text == "lower api.rate_limit"
    fine = row.one("p", "fine").text
    assert fine.startswith("Last success 47 min ago, 2026-07-05 09:26:07Z")
    assert "3 requests, 1 error, 2 s" in fine
    assert "window 24 h, stale after 1 h" in fine
    assert not row.all("svg")
    assert not row.all("td", "latest")
    assert not row.all("td", "amount")


def test_failing_row_says_when_there_never_was_a_success() -> None:
    assert "never since the start" in row_of(make_failing()).text


def test_listing_row_tells_how_far_it_is() -> None:
    row = row_of(make_listing())
    assert "page 12 of 41" in row.text
    bar = row.one("progress")
    assert (bar.attributes["value"], bar.attributes["max"]) == ("12", "41")


def test_progress_bar_has_a_maximum_before_the_first_page() -> None:
    result = replace(make_listing(), progress=Progress(pages_done=0, pages_total=0))
    assert row_of(result).one("progress").attributes["max"] == "1"


def test_instance_without_a_name_is_called_by_its_id_once() -> None:
    row = row_of(make_result("", make_reading(), instance_id="61a4ea66in07"))
    assert row.text.count("61a4ea66in07") == 1


def test_incomplete_listing_is_said() -> None:
    row = row_of(make_result(reading=make_reading(listing_complete=False)))
    assert "listing incomplete" in row.text
    assert "listing incomplete" not in row_of(make_ok()).text


def test_failure_beside_a_reading_is_shown_too() -> None:
    row = row_of(make_result(reading=make_reading(), failure=make_failure(message="half done")))
    assert "half done" in row.text
    assert row.one("span", "pill").text == "ok"


def test_a_message_of_a_whole_page_is_cut() -> None:
    row = row_of(make_result(failure=make_failure(message="word " * 10_000)))
    message = row.one("p", "message").text
    assert message.endswith("…")
    assert len(message) < 600


# The scrape


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


# Projects and links


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


# Search and pages


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
        ("  id  ", ["billing", "archive", "inventory", "ledger", "orders"]),
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
        ("ok", ["d", "c"]),
        ("hole", ["d"]),
        ("stale", []),
        ("of no such name", ["a", "b", "d", "c"]),
    ],
)
def test_state_narrows_the_list_but_not_the_counts(state: str, found: list[str]) -> None:
    page = render(
        make_failing("a"), make_empty("b"), make_ok("c"), make_with_hole("d"), state=state
    )
    assert names(page) == found
    assert page.all("a", "tally")[0].text == "4 all"


def test_form_keeps_what_was_asked_and_needs_no_script() -> None:
    page = render(make_failing("a"), query='say "hi" & <go>', state="failing")
    form = page.one("form")
    assert form.attributes["method"] == "get"
    assert page.all("input")[0].attributes["value"] == 'say "hi" & <go>'
    (chosen,) = [option for option in page.all("option") if "selected" in option.attributes]
    assert chosen.attributes["value"] == "failing"
    assert not page.all("script")


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
    shown = [name for page in (1, 2, 3) for name in names(render(*results, page=page))]
    assert sorted(shown) == sorted(result.instance.name for result in results)


@pytest.mark.parametrize("page", ["0", "-4", "x", "", "9" * 5_000, 0])
def test_a_page_that_makes_no_sense_is_the_first(page: int | str) -> None:
    results = [make_ok(f"db-{number:04}") for number in range(ROWS_PER_PAGE + 1)]
    assert names(render(*results, page=page))[0] == "db-0000"


def test_a_page_beyond_the_end_is_the_last() -> None:
    results = [make_ok(f"db-{number:04}") for number in range(ROWS_PER_PAGE + 1)]
    assert names(render(*results, page=7)) == [f"db-{ROWS_PER_PAGE:04}"]


# The picture


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


# Weight


def test_page_of_a_thousand_busy_instances_stays_light() -> None:
    reading = make_reading(minutes(7 * 24 * 60, 5), lookback=7 * DAY)
    results = [make_result(f"db-{number:04}", reading, lookback=7 * DAY) for number in range(1_000)]
    html = render_status(make_snapshot(results), now=NOW, version="1")
    assert reading.count == 2_016
    assert len(html.encode()) < 400_000


def test_page_of_the_most_ragged_pictures_stays_light() -> None:
    # Backups some four units apart, each gap a hole: nothing can be merged.
    reading = make_reading(minutes(24 * 60, 8, 8))
    results = [make_result(f"db-{number:04}", reading, stale_after=60.0) for number in range(1_000)]
    html = render_status(make_snapshot(results), now=NOW, version="1")
    assert len(html.encode()) < 1_500_000


# Safety

HOSTILE = (
    """<script>alert("1")</script>'"><img src=x onerror=alert(1)>&amp;{{ 7 * 7 }}</bdi></td>"""
)


def make_snapshot_of(text: str) -> Snapshot:
    """Every state, with `text` in each field that holds one, and a project in trouble."""

    def named(
        reading: Reading | None, failure: Failure | None, progress: Progress | None = None
    ) -> InstanceResult:
        return make_result(
            text,
            reading,
            failure,
            instance_id=text,
            project_id=text,
            project_name=text,
            region=text,
            progress=progress,
        )

    failure = Failure(Reason.SERVER, text, text)
    deadline = Failure(Reason.DEADLINE, text, text)
    results = [
        named(make_reading(), failure),
        named(make_reading([3 * HOUR]), None),
        named(make_reading([]), None),
        named(None, failure),
        named(None, deadline, Progress(1, 2)),
    ]
    project = ProjectResult(text, text, text, NOW - 1, discovery_success=False)
    nameless = ProjectResult(text)
    return make_snapshot(results, [project, nameless], finished=NOW - 900)


def test_markup_in_any_field_is_only_text() -> None:
    def shape(html: str) -> list[tuple[str, list[str]]]:
        return [(each.tag, sorted(each.attributes)) for each in parse(html).walk()]

    def render_all(snapshot: Snapshot | None, text: str) -> str:
        return render_status(
            snapshot,
            now=NOW,
            version=text,
            query=text,
            state=text,
            page=text,
            telemetry_path=text,
            docs_url=text,
        )

    html = render_all(make_snapshot_of(HOSTILE), HOSTILE)
    assert "<script" not in html
    assert "<img" not in html
    # It is all there to read, and reads as it is.
    page = parse(html)
    assert names(page) == [HOSTILE] * 5
    assert page.all("p", "hint")[0].text == HOSTILE
    # The page is built of the same elements with the same attributes as with a harmless word.
    assert shape(html) == shape(render_all(make_snapshot_of("orders"), "orders"))
    assert shape(render_all(None, HOSTILE)) == shape(render_all(None, "orders"))


def test_half_a_surrogate_pair_does_not_break_the_response() -> None:
    html = render_status(
        make_snapshot([make_ok("bad \ud800 name")]), now=NOW, version="1", query="bad"
    )
    assert "bad ? name" in html
    assert html.encode("utf-8")
    render_status(make_snapshot([]), now=NOW, version="1", query="\udfff").encode("utf-8")


def test_page_refers_to_nothing_that_a_browser_would_fetch() -> None:
    page = parse(render_status(make_snapshot_of(HOSTILE), now=NOW, version="1"))
    fetched = [each for each in page.walk() if "src" in each.attributes or each.tag == "link"]
    assert [each.attributes["href"] for each in fetched] == ["data:,"]
    assert not [each for each in page.walk() if "style" in each.attributes]
    assert not [each for each in page.all("meta") if "http-equiv" in each.attributes]
    (style,) = page.all("style")
    css = "".join(part for part in style.parts if isinstance(part, str))
    assert "@import" not in css
    assert re.findall(r"url\(([^)]*)\)", css) == ["#hatch"]


def test_policy_allows_exactly_the_style_of_the_page() -> None:
    html = render_status(make_snapshot_of(HOSTILE), now=NOW, version="1")
    (css,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in CONTENT_SECURITY_POLICY


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (0.4, "under 1 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (252, "4 min 12 s"),
        (3_600, "1 h"),
        (8_159, "2 h 15 min"),
        (86_400, "24 h"),
        (172_799, "47 h 59 min"),
        (172_800, "2 d"),
        (273_600, "3 d 4 h"),
        (63_244_800, "732 d"),
    ],
)
def test_durations_are_cut_to_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (112, "112 bytes"),
        (1_023, "1,023 bytes"),
        (1_024, "1.0 KiB"),
        (4_299_161, "4.1 MiB"),
        (230_686_720, "220 MiB"),
        (1.5 * 1_024**3, "1.5 GiB"),
        (5_000 * 1_024**6, "5,000 EiB"),
    ],
)
def test_sizes_are_in_binary_units(size: float, text: str) -> None:
    assert format_size(size) == text


def test_exact_size_keeps_the_unit_of_the_api() -> None:
    assert format_exact_size(0.109375) == "112 bytes (0.109375 KB)"


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (NOW - 4 * HOUR, "2026-07-05 06:13 to 10:13 UTC"),
        (NOW - 14 * HOUR, "2026-07-04 20:13 to 2026-07-05 10:13 UTC"),
    ],
)
def test_span_names_the_day_once(start: float, text: str) -> None:
    assert format_span(start, NOW) == text
