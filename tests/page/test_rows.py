"""What a row tells of one instance."""

from dataclasses import replace

from exporter.errors import Reason
from exporter.models import (
    Failure,
    Progress,
)
from tests.page.making import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    make_failing,
    make_failure,
    make_listing,
    make_ok,
    make_partly_listed,
    make_reading,
    make_result,
    minutes,
    row_of,
)


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
