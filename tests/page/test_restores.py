"""What is told and drawn of the moments that can be restored to, and of the full backups."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from exporter.errors import Reason
from exporter.models import (
    BackupState,
    Failure,
    FullBackup,
    InstanceResult,
    RestoreWindow,
    SourceResult,
)
from exporter.page.restores import describe_full_backups, describe_window
from exporter.page.state import State, judge
from tests.page.making import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    instance_rows,
    make_empty,
    make_failing,
    make_full,
    make_full_backups,
    make_ok,
    make_stale,
    make_window,
    render,
    row_of,
    with_sources,
)
from tests.page.parsing import spans


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (make_window((7 * DAY, 15 * MINUTE)), "restorable to 09:58, since 28 Jun 10:13"),
        (make_window((5 * HOUR, 5 * MINUTE)), "restorable to 10:08, since 05:13"),
        (
            make_window((3 * DAY, 30 * HOUR), (26 * HOUR, 5 * MINUTE)),
            "restorable to 10:08, since 4 Jul 08:13;"
            " before that from 2 Jul 10:13 with 1 gap, of 4 h",
        ),
        (
            make_window((9 * HOUR, 8 * HOUR), (7 * HOUR, 6 * HOUR), (3 * HOUR, MINUTE)),
            "restorable to 10:12, since 07:13;"
            " before that from 01:13 with 2 gaps, the longest of 3 h",
        ),
        (make_window(), "nothing to restore to"),
    ],
)
def test_restorable_range_is_told_in_words(window: RestoreWindow, text: str) -> None:
    assert describe_window(window, now=NOW) == text


@pytest.mark.parametrize(
    ("backups", "text"),
    [
        ([], "no usable full backup"),
        ([make_full(7 * HOUR)], "full backup 7 h ago (auto), 1 usable"),
        (
            [make_full(3 * DAY), make_full(7 * HOUR, backup_type="manual")],
            "full backup 7 h ago (manual), 2 usable",
        ),
        (
            [make_full(3 * DAY), make_full(HOUR, BackupState.FAILED)],
            "the latest full backup failed; full backup 3 d ago (auto), 1 usable",
        ),
        ([make_full(8 * DAY)], "full backup 8 d ago (auto), 1 usable"),
        ([make_full(9 * DAY)], "full backup 9 d ago (auto), 1 usable, stale after 8 d"),
        (
            [make_full(HOUR, BackupState.FAILED), make_full(0, BackupState.RUNNING)],
            "the latest full backup failed; no usable full backup",
        ),
    ],
)
def test_full_backups_are_told_in_words(backups: Sequence[FullBackup], text: str) -> None:
    told = describe_full_backups(make_full_backups(*backups), now=NOW, stale_after_seconds=8 * DAY)
    assert told == text


def test_strip_shows_ranges_and_full_backups_of_the_lookback_alone() -> None:
    row = row_of(
        with_sources(
            make_ok(),
            make_window((9 * DAY, 8 * DAY), (2 * DAY, 12 * HOUR), (6 * HOUR, 0)),
            make_full_backups(
                make_full(3 * DAY), make_full(18 * HOUR), make_full(6 * HOUR, BackupState.FAILED)
            ),
        )
    )
    strip = row.one("svg", "restores")
    # A day is 720 units: to 12 hours ago, and from 6 hours ago to now.
    assert spans(strip.one("path", "ranges").attributes["d"]) == [(0.0, 360.0), (540.0, 720.0)]
    assert spans(strip.one("path", "full").attributes["d"]) == [(180.0, 183.0)]
    assert spans(strip.one("path", "failed").attributes["d"]) == [(540.0, 543.0)]
    told = [text.text for text in row.all("p", "restorable")]
    assert told[0].startswith("restorable to 10:13, since 04:13; before that")
    assert told[1] == "the latest full backup failed; full backup 18 h ago (auto), 2 usable"
    assert strip.attributes["aria-label"] == "; ".join(told)


def test_a_moment_at_the_very_end_is_seen() -> None:
    row = row_of(with_sources(make_ok(), make_window((0, 0)), make_full_backups(make_full(0))))
    assert spans(row.one("path", "ranges").attributes["d"]) == [(719.0, 720.0)]
    assert spans(row.one("path", "full").attributes["d"]) == [(717.0, 720.0)]


def test_there_is_no_strip_where_nothing_is_known() -> None:
    assert not row_of(with_sources(make_ok())).all("svg", "restores")
    row = row_of(with_sources(make_ok(), make_window()))
    assert row.one("p", "restorable").text == "nothing to restore to"
    assert not row.one("svg", "restores").all("path")
    assert "can be restored to" not in render(make_ok()).one("footer").text


@pytest.mark.parametrize(
    ("backups", "is_lacking"),
    [
        ([make_full(HOUR)], False),
        ([make_full(3 * DAY), make_full(HOUR, BackupState.FAILED)], True),
        ([make_full(9 * DAY)], True),
        ([], True),
    ],
)
def test_full_backups_that_are_lacking_stand_out(
    backups: Sequence[FullBackup], is_lacking: bool
) -> None:
    row = row_of(with_sources(make_ok(), None, make_full_backups(*backups)))
    assert bool(row.all("p", "lacking")) is is_lacking
    assert row.one("span", "pill").text == "ok"


def test_restores_are_told_where_the_backups_could_not_be_read() -> None:
    row = row_of(with_sources(make_failing(), make_window((DAY, HOUR))))
    assert row.one("td", "unknown").one("p", "restorable").text.startswith("restorable to 09:13")


# The state


@pytest.mark.parametrize(
    ("result", "states"),
    [
        (with_sources(make_ok(), make_window((DAY, HOUR))), [State.OK]),
        (with_sources(make_ok(), make_window((DAY, HOUR + 1))), [State.NOT_RESTORABLE]),
        (with_sources(make_ok(), make_window()), [State.NOT_RESTORABLE]),
        # Not known is not bad; a failed source fails no instance.
        (with_sources(make_ok()), [State.OK]),
        # That the end of the range stands still follows from the backups that stopped.
        (with_sources(make_stale(), make_window((DAY, 3 * HOUR))), [State.STALE]),
        (with_sources(make_stale(), make_window()), [State.STALE, State.NOT_RESTORABLE]),
        (
            with_sources(make_empty(), make_window()),
            [State.NO_BACKUPS, State.NOT_RESTORABLE],
        ),
        (
            with_sources(make_failing(), make_window((DAY, 2 * HOUR))),
            [State.NOT_RESTORABLE, State.FAILING],
        ),
    ],
)
def test_what_cannot_be_restored_is_a_state(result: InstanceResult, states: list[State]) -> None:
    assert judge(result, now=NOW).states == tuple(states)


def test_verdict_counts_what_cannot_be_restored() -> None:
    page = render(make_ok("a"), with_sources(make_ok("b"), make_window()))
    assert page.one("h1").text == "1 of 2 instances need attention"
    assert page.one("h1").attributes["class"] == "verdict critical"
    assert "1 not restorable" in [tally.text for tally in page.all("a", "tally")]


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (make_window(), "The cloud names not one moment to restore to."),
        (
            make_window((DAY, 2 * HOUR)),
            "Backups arrive, and the cloud offers no restore up",
        ),
    ],
)
def test_row_that_cannot_be_restored_says_what_to_do(window: RestoreWindow, said: str) -> None:
    assert row_of(with_sources(make_ok(), window)).one("p", "advice").text.startswith(said)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("FROZEN", "frozen"),
        ("creating", "being created"),
        ("BUILD", "being created"),
        ("RESTORING", "being restored"),
    ],
)
@pytest.mark.parametrize("make", [make_stale, make_empty])
def test_an_instance_that_rightly_has_no_backups_is_said_to_be_that(
    make: Callable[[], InstanceResult], status: str, word: str
) -> None:
    page = render(with_sources(make(), make_window(), status=status))
    (row,) = instance_rows(page)
    assert row.one("span", "pill").text == word
    assert row.one("p", "advice").text == f"No backup is due while the instance is {word}."
    assert page.one("h1").text == "the only instance is suspended"
    # The hole is there all the same.
    assert len(row.all("rect", "gap")) == 1
    assert page.all("a", "tally")[-1].text == "1 with a hole"


def test_a_frozen_instance_that_fails_too_is_called_frozen_and_found_so() -> None:
    stale = make_stale()
    failing = replace(
        stale,
        reading=None,
        last_reading=stale.reading,
        failure=Failure(Reason.SERVER, "HTTP 500"),
    )
    frozen = with_sources(failing, status="FROZEN")
    page = render(frozen, make_ok("b"), query="frozen")
    (row,) = instance_rows(page)
    assert row.one("span", "pill").text == "failing"
    assert row.all("small")[0].text == "and frozen"


def test_suspended_instances_need_no_attention_and_are_not_called_well() -> None:
    page = render(make_ok("a"), with_sources(make_stale("b"), status="FROZEN"))
    assert page.one("h1").text == "all 2 instances are well or suspended"


def test_status_alone_excuses_nothing_else() -> None:
    assert judge(with_sources(make_ok(), status="FROZEN"), now=NOW).state is State.OK
    assert judge(with_sources(make_failing(), status="FROZEN"), now=NOW).state is State.FAILING
    assert judge(with_sources(make_stale(), status="normal"), now=NOW).state is State.STALE


def test_a_source_that_cannot_be_read_is_told_once_for_all_instances() -> None:
    refused: SourceResult[RestoreWindow] = SourceResult(
        None, Failure(Reason.FORBIDDEN, "not permitted", "grant gaussdb:instance:list"), None
    )
    results = [replace(make_ok(f"db-{number}"), restore_window=refused) for number in range(20)]
    page = render(*results)
    (notice,) = page.all("div", "warn")
    assert notice.one("strong").text == "The restore window of 20 instances cannot be read:"
    assert "db-0, db-1, db-2 and 17 more" in notice.text
    assert notice.one("p", "message").text == "forbidden not permitted"
    links = [link.attributes["href"] for link in notice.all("a")]
    assert "./runbooks/GaussDBMySQLBackupSourceFailing" in links
    assert {judge(result, now=NOW).state for result in results} == {State.OK}


def test_a_source_of_an_instance_that_fails_itself_for_that_reason_is_not_told_beside_it() -> None:
    refused: SourceResult[RestoreWindow] = SourceResult(None, Failure(Reason.SERVER, "no"), None)
    page = render(replace(make_failing(reason=Reason.SERVER), restore_window=refused))
    assert not page.all("div", "notice")


def test_another_reason_for_which_a_source_fails_is_not_hidden_by_the_instances_own() -> None:
    """The permission would be missing still when the cloud's trouble is over."""
    refused: SourceResult[RestoreWindow] = SourceResult(None, Failure(Reason.FORBIDDEN, "no"), None)
    page = render(replace(make_failing(reason=Reason.SERVER), restore_window=refused))
    (notice,) = page.all("div", "warn")
    assert notice.one("strong").text == "The restore window of 1 instance cannot be read:"


@pytest.mark.parametrize(
    ("reason", "runbook"),
    [
        (Reason.AUTH, "GaussDBMySQLBackupLoginFailing"),
        (Reason.THROTTLED, "GaussDBMySQLBackupThrottled"),
        (Reason.NOT_FOUND, "GaussDBMySQLBackupSourceFailing"),
    ],
)
def test_a_failing_source_leads_to_the_runbook_of_its_reason(reason: Reason, runbook: str) -> None:
    refused: SourceResult[RestoreWindow] = SourceResult(None, Failure(reason, "no"), None)
    page = render(replace(make_ok(), restore_window=refused))
    links = [link.attributes["href"] for link in page.one("div", "warn").all("a")]
    assert f"./runbooks/{runbook}" in links
