"""What is said to be the matter with an instance: the state that alerts, table and page share."""

from dataclasses import replace

import pytest
import yaml

from exporter.errors import Reason
from exporter.models import InstanceResult, Progress, Reading
from exporter.page.state import Severity, State, judge
from tests.page.making import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    make_empty,
    make_failing,
    make_failure,
    make_listing,
    make_ok,
    make_partly_listed,
    make_reading,
    make_result,
    make_stale,
    make_with_hole,
    names,
    render,
    row_of,
)
from tests.support.paths import ROOT


def make_remembered(
    reading: Reading | None, reason: Reason = Reason.SERVER, *, last_end: float | None = None
) -> InstanceResult:
    """An instance that fails now, and of which `reading` was the last that succeeded."""
    failing = make_failing(reason=reason)
    end = reading.latest_end if reading is not None else None
    return replace(failing, last_reading=reading, last_end=last_end or end)


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (make_ok(), "ok"),
        (make_stale(), "stale"),
        (make_empty(), "no backups"),
        (make_failing(), "failing"),
        (make_listing(), "listing"),
        (make_partly_listed(), "listing"),
        (make_with_hole(), "hole"),
        (make_result(reading=make_reading([], latest_age=30 * HOUR)), "stale"),
        (make_result(reading=make_reading([HOUR])), "ok"),
        (make_result(reading=make_reading([HOUR + 1])), "stale"),
        (make_result(reading=make_reading(listing_complete=False)), "incomplete"),
        (make_failing(reason=Reason.DEADLINE), "failing"),
        (make_result(failure=make_failure(Reason.AUTH), progress=Progress(1, 9)), "failing"),
        (make_result(), "not asked yet"),
    ],
)
def test_state_is_told_by_word_and_by_class(result: InstanceResult, word: str) -> None:
    row = row_of(result)
    assert row.one("span", "pill").text == word
    assert row.attributes["class"] == word.replace(" ", "-")


def test_a_failing_instance_is_stale_once_its_last_known_backup_is_old() -> None:
    fresh = make_remembered(make_reading([30 * MINUTE], at=NOW - 20 * MINUTE))
    old = make_remembered(make_reading([2 * HOUR], at=NOW - 90 * MINUTE))
    assert judge(fresh, now=NOW).states == (State.FAILING,)
    assert judge(old, now=NOW).states == (State.STALE, State.FAILING)
    # As the time goes on, without another scrape.
    assert judge(fresh, now=NOW + 31 * MINUTE).state is State.STALE


def test_a_failing_instance_that_had_no_backup_still_has_none() -> None:
    assert judge(make_remembered(make_reading([])), now=NOW).states == (
        State.NO_BACKUPS,
        State.FAILING,
    )


def test_a_failing_instance_keeps_its_hole() -> None:
    remembered = make_remembered(make_with_hole().reading)
    assert judge(remembered, now=NOW).states == (State.FAILING, State.HOLE)


def test_backups_that_have_all_expired_are_stale_no_less() -> None:
    result = replace(make_empty(), last_end=NOW - 8 * DAY)
    assert judge(result, now=NOW).states == (State.STALE, State.NO_BACKUPS)


def test_nothing_is_listed_before_the_first_page_has_come() -> None:
    waiting = replace(make_listing(), progress=Progress(pages_done=0, pages_total=0))
    assert judge(waiting, now=NOW).state is State.FAILING


def test_a_listing_that_is_cut_off_fails_an_instance_that_was_known() -> None:
    known = replace(make_listing(), last_reading=make_reading())
    assert judge(known, now=NOW).state is State.FAILING


def test_an_instance_may_be_stale_and_have_a_hole_before_it() -> None:
    result = make_result(reading=make_reading([9 * HOUR, 3 * HOUR]))
    assert judge(result, now=NOW).states == (State.STALE, State.HOLE)


def test_a_gap_of_exactly_the_threshold_is_no_hole() -> None:
    assert judge(make_result(reading=make_reading([61 * MINUTE, MINUTE])), now=NOW).state is (
        State.OK
    )
    longer = make_result(reading=make_reading([61 * MINUTE + 1, MINUTE]))
    assert judge(longer, now=NOW).state is State.HOLE


def test_severities_are_those_of_the_alerts() -> None:
    files = list(ROOT.glob("helm/*/files/alerts.yaml"))
    alerts = {
        rule["alert"]: rule["labels"]["severity"]
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    named = {state: state.alert for state in State if state.alert}
    assert {state: alerts[alert] for state, alert in named.items()} == {
        state: state.severity.value for state in named
    }
    for alert in named.values():
        assert (ROOT / "docs" / "runbooks" / f"{alert}.md").is_file()


def test_every_state_is_explained_in_the_documents() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.partition("## The states of an instance")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()]
    severities = {Severity.CRITICAL: "critical", Severity.WARNING: "warning"}
    told = [[state.value, severities.get(state.severity, "")] for state in State]
    assert [row for row in rows if row[:1] not in ([], ["---"], ["state"])] == told


def test_worst_come_first_in_the_order_of_severity_and_then_names() -> None:
    page = render(
        make_ok("zebra"),
        make_ok("Alpha"),
        make_listing("b-listing"),
        make_result("a-not-asked"),
        make_result("a-incomplete", make_reading(listing_complete=False)),
        make_with_hole("a-hole"),
        make_failing("f-failing"),
        make_failing("E-failing"),
        make_empty("c-empty"),
        make_stale("d-stale"),
    )
    assert names(page) == [
        "d-stale",
        "c-empty",
        "E-failing",
        "f-failing",
        "a-hole",
        "a-incomplete",
        "a-not-asked",
        "b-listing",
        "Alpha",
        "zebra",
    ]
