"""What a row tells of one instance."""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.errors import Reason
from exporter.models import Failure, InstanceResult, Overdue, Progress
from tests.page.making import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    instance_rows,
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
    minutes,
    names,
    render,
    row_of,
)
from tests.support.paths import ROOT


def test_row_tells_age_count_sizes_and_thresholds() -> None:
    reading = make_reading([*minutes(55, 5, 10)], lookback=7 * DAY, kilobytes=1_536, running=1)
    row = row_of(make_result(reading=reading, lookback=7 * DAY, stale_after=0.5 * HOUR))
    latest = row.one("td", "latest")
    assert latest.one("strong").text == "5 min ago"
    assert latest.one("time").attributes["datetime"] == "2026-07-05T10:08:07Z"
    assert latest.one("time").text == "10:08:07"
    assert "stale after 30 min" in latest.text
    amount = row.one("td", "amount")
    assert amount.text == "7 in 7 d 9.0 MiB in all the last 1.5 MiB 1 running"
    assert [span.attributes["title"] for span in amount.all("span")] == [
        "9,437,184 bytes (9,216 KB)",
        "1,572,864 bytes (1,536 KB)",
    ]
    assert "longest gap 10 min" in row.one("p", "gaps").text


def test_failing_row_tells_reason_message_and_hint() -> None:
    result = make_result(
        failure=Failure(Reason.THROTTLED, "429 from the gateway", "lower api.rate_limit"),
        last_success=NOW - 47 * MINUTE,
    )
    row = row_of(result)
    assert row.one("code").text == "throttled"
    assert row.one("p", "message").text == "throttled 429 from the gateway"
    assert row.one("p", "hint").text == "lower api.rate_limit Runbook"
    assert row.one("p", "hint").one("a").attributes["href"] == (
        "./runbooks/GaussDBMySQLBackupThrottled"
    )
    fine = row.one("p", "fine").text
    assert fine.startswith("last success 47 min ago, 09:26:07")
    assert "3 requests, 1 error, 2 s" in fine
    assert "Nothing was read since the start." in row.text
    assert not row.all("svg")
    assert not row.all("td", "latest")
    assert not row.all("td", "amount")


def test_failing_row_tells_the_evidence_that_support_asks_for() -> None:
    failure = Failure(
        Reason.FORBIDDEN,
        "not permitted",
        operation="list_backups",
        host="gaussdb.cn-north-4.example",
        status=403,
        error_code="DBS.200010",
        request_id="8d0f3a",
    )
    row = row_of(make_result(failure=failure))
    assert row.all("p", "fine")[0].text == (
        "list_backups at gaussdb.cn-north-4.example: HTTP 403, DBS.200010, request 8d0f3a"
    )
    # Where the cause is shared, each row still has its own request.
    others = [
        make_result(name, failure=replace(failure, request_id=f"id-of-{name}")) for name in "abc"
    ]
    page = render(*others)
    assert len(page.all("details", "cause")) == 1
    for row, name in zip(instance_rows(page), "abc", strict=True):
        assert row.one("p", "fine").text.endswith(f"request id-of-{name}")


def test_failing_row_says_when_there_never_was_a_success() -> None:
    assert "no success since the start" in row_of(make_failing()).text


def test_listing_row_tells_how_far_it_is() -> None:
    row = row_of(make_listing())
    assert "page 12 of 41" in row.text
    bar = row.one("progress")
    assert (bar.attributes["value"], bar.attributes["max"]) == ("12", "41")


def test_row_of_a_window_that_is_being_listed_tells_the_latest_backup_alone() -> None:
    row = row_of(make_partly_listed())
    assert row.one("td", "latest").one("strong").text == "5 min ago"
    assert row.one("td", "amount").one("strong").text == "\u2013"


def test_progress_bar_has_a_maximum_before_the_total_is_known() -> None:
    result = replace(make_listing(), progress=Progress(pages_done=1, pages_total=0))
    assert row_of(result).one("progress").attributes["max"] == "1"


def test_instance_without_a_name_is_called_by_its_id_once() -> None:
    row = row_of(make_result("", make_reading(), instance_id="61a4ea66in07"))
    assert row.text.count("61a4ea66in07") == 1


def test_incomplete_listing_is_said() -> None:
    row = row_of(make_result(reading=make_reading(listing_complete=False)))
    assert "do not match the cloud's own total" in row.text
    assert not row_of(make_ok()).all("tr", "what")


def test_a_window_that_could_not_be_listed_anew_is_said_with_its_reason() -> None:
    overdue = Overdue(NOW - 7 * HOUR, Reason.FORBIDDEN)
    reading = replace(make_reading(listing_complete=False), overdue=overdue)
    row = row_of(make_result(reading=reading))
    assert "For 7 h the whole window could not be listed anew (forbidden)" in row.text
    assert "total" not in row.text


def test_failure_beside_a_reading_is_shown_too() -> None:
    row = row_of(make_result(reading=make_reading(), failure=make_failure(message="half done")))
    assert "half done" in row.text
    assert row.one("span", "pill").text == "ok"


def test_a_message_of_a_whole_page_is_cut() -> None:
    row = row_of(make_result(failure=make_failure(message="word " * 10_000)))
    message = row.one("p", "message").text
    assert message.endswith("…")
    assert len(message) < 600


def make_remembered(**more: Any) -> InstanceResult:
    """It fails since 45 minutes; 50 minutes ago all was read."""
    reading = make_reading([*minutes(600, 55)], at=NOW - 50 * MINUTE)
    return replace(make_result(failure=make_failure(), **more), last_reading=reading)


def test_failing_row_keeps_the_last_known_numbers_and_picture_marked_as_of() -> None:
    row = row_of(make_remembered())
    assert row.one("span", "pill").text == "failing"
    assert row.one("small", "as-of").text == "as of 09:23:07"
    assert row.one("td", "latest").one("strong").text == "55 min ago"
    assert row.one("td", "amount").one("strong").text == "110"
    assert row.one("rect", "unread").text == "not looked at since 09:23"
    assert row.all("path", "ticks")


def test_numbers_of_this_scrape_are_not_marked() -> None:
    assert not row_of(make_ok()).all("small", "as-of")


def test_all_that_is_the_matter_is_named_the_worst_first() -> None:
    row = row_of(make_remembered(stale_after=30 * MINUTE))
    assert row.one("span", "pill").text == "stale"
    assert row.one("td", "state").text == "stale and failing as of 09:23:07"
    # Its backups may be well: first things first.
    assert row.one("p", "advice").text.startswith("While the queries fail no newer backup can")
    assert row.one("p", "message").text == "forbidden refused"


@pytest.mark.parametrize(
    ("result", "runbook"),
    [
        (make_stale(), "GaussDBMySQLBackupStale"),
        (make_empty(), "GaussDBMySQLBackupNone"),
        (make_failing(), "GaussDBMySQLBackupAPIFailing"),
        (make_failing(reason=Reason.AUTH), "GaussDBMySQLBackupLoginFailing"),
        (make_with_hole(), "GaussDBMySQLBackupWindowHole"),
        (
            make_result(reading=make_reading(listing_complete=False)),
            "GaussDBMySQLBackupListingIncomplete",
        ),
    ],
)
def test_every_row_in_need_says_what_to_do_and_leads_to_its_runbook(
    result: InstanceResult, runbook: str
) -> None:
    (link,) = row_of(result).one("tr", "what").all("a")
    assert link.attributes["href"] == f"./runbooks/{runbook}"
    assert (ROOT / "docs" / "runbooks" / f"{runbook}.md").is_file()


# One cause, many rows


def test_a_cause_that_instances_share_is_told_once_above_them() -> None:
    hint = make_failure().hint
    page = render(*(make_failing(f"db-{number:03}") for number in range(300)), make_ok("orders"))
    (cause,) = page.all("details", "cause")
    assert cause.one("summary").text == "300 fail for one cause: forbidden refused"
    assert "production: db-000, db-001, db-002 and 297 more" in cause.text
    assert "open" in cause.attributes
    assert page.text.count(hint) == 1
    row = instance_rows(page)[0]
    assert row.one("p", "message").text == "forbidden fails like 299 others: the cause"
    (link,) = row.one("tr", "what").all("a")
    assert link.attributes["href"] == "#" + cause.all("p")[-1].attributes["id"]


def test_the_instances_of_a_cause_can_be_listed() -> None:
    results = [make_failing("a"), make_failing("b"), make_failing("c", Reason.SERVER), make_ok("d")]
    (link, _) = reversed(render(*results).one("details").all("a"))
    query = parse_qs(urlsplit(link.attributes["href"]).query)["q"][0]
    assert names(render(*results, query=query)) == ["a", "b"]


def test_the_commonest_causes_are_told_folded_and_the_others_in_their_rows() -> None:
    reasons = [reason for reason in Reason if reason is not Reason.DEADLINE]
    results = [
        make_failing(f"{reason.value}-{number}", reason)
        for size, reason in enumerate(reasons, start=1)
        for number in range(size)
    ]
    page = render(*results)
    causes = page.all("details", "cause")
    assert [cause.one("code").text for cause in causes] == [
        reason.value for reason in reversed(reasons[-5:])
    ]
    assert not any("open" in cause.attributes for cause in causes)
    # One alone is told where it is.
    (first,) = instance_rows(render(*results, query=f"{reasons[0].value}-0"))
    assert "refused" in first.text
