"""What `--once` prints: the table for people, the same facts as JSON for scripts."""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import pytest

from exporter.command.report import Report, build_report, render_json
from exporter.command.table import render_table
from exporter.errors import Reason
from exporter.models import (
    Failure,
    InstanceResult,
    ProjectResult,
    RestoreWindow,
    Snapshot,
    SourceResult,
    TimeRange,
)
from tests.page.making import DAY, HOUR, MINUTE, NOW, make_reading, make_result

REFUSED = Failure(
    Reason.AUTH,
    "The username or password is wrong.",
    "check the password: three more refusals lock the account",
    operation="login",
    host="iam.example",
    status=401,
    error_code="IAM.0101",
    request_id="8d0f3a",
)
ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def make_report(*results: InstanceResult, projects: Sequence[ProjectResult] = ()) -> Report:
    snapshot = Snapshot(started=NOW - 1.5, finished=NOW, results=results, projects=projects)
    return build_report(snapshot, now=NOW)


def columns(line: str) -> int:
    """How wide a terminal draws it: Chinese letters take two columns."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def test_the_verdict_comes_first_then_each_instance_worst_first() -> None:
    report = make_report(
        make_result("well", make_reading([5 * MINUTE, 15 * MINUTE])),
        make_result("refused", failure=REFUSED),
        make_result("empty", make_reading([])),
        make_result("holed", make_reading([5 * MINUTE, 8 * HOUR])),
        make_result("old", make_reading([26 * HOUR + 12 * MINUTE], lookback=7 * DAY)),
    )
    assert render_table(report) == (
        """\
4 of 5 instances need attention
scraped 2026-07-05 10:13:07 UTC in 1 s
1 stale, 1 no backups, 1 failing, 1 hole, 1 ok

STATE       INSTANCE  LATEST (UTC)     AGE  BACKUPS     SIZE  LONGEST
stale       old       4 Jul 08:01   26h12m        1  1.0 MiB        -
no backups  empty     -                  -        0  0 bytes        -
failing     refused   -                  -        -        -        -
hole        holed     10:08             5m        2  2.0 MiB    7h55m
ok          well      10:08             5m        2  2.0 MiB      10m

stale: old (old-id)
    What to do: Compare with the backups that the cloud's console lists. If it shows none either: is
    the instance running? Make a full backup by hand and open a ticket.
    Runbook: docs/runbooks/GaussDBMySQLBackupStale.md

no backups: empty (empty-id)
    What to do: Incremental backups follow the first full one: is there one in the cloud's console,
    and is this the id of the instance?
    Runbook: docs/runbooks/GaussDBMySQLBackupNone.md

failing, auth: refused (refused-id), project production
    The username or password is wrong.
    login at iam.example: HTTP 401, IAM.0101, request 8d0f3a
    What to do: check the password: three more refusals lock the account
    Runbook: docs/runbooks/GaussDBMySQLBackupLoginFailing.md

hole: holed (holed-id)
    What to do: Backups are made again. If the console offers no restore to the time of the hole,
    make a full backup now; the hole stays in sight until it has left the window.
    Runbook: docs/runbooks/GaussDBMySQLBackupWindowHole.md
"""
    )


def test_one_cause_is_told_once_with_the_number_and_the_first_names() -> None:
    names = [f"db-{number:03}" for number in range(300)]
    table = render_table(make_report(*(make_result(name, failure=REFUSED) for name in names)))
    assert table.count("The username or password is wrong.") == 1
    assert "failing, auth: 300 instances: db-000, db-001, db-002 and 297 more" in table
    # Each stays findable.
    assert [line.split()[1] for line in table.splitlines() if line.startswith("failing  ")] == names


def test_projects_are_named_where_there_are_several() -> None:
    table = render_table(
        make_report(
            make_result("orders", make_reading(), project_id="p1", project_name="production"),
            make_result("orders", make_reading(), project_id="p2", project_name=""),
        )
    )
    assert "ok     p2 / orders " in table
    assert "ok     production / orders " in table


@pytest.mark.parametrize("has_colours", [False, True])
def test_the_table_fits_a_hundred_columns(has_colours: bool) -> None:
    long = "a-name-of-an-instance-that-is-as-long-as-the-cloud-takes-" + "z" * 40
    wide = "数据库" * 12
    message = "a proxy's page: " + "word " * 60 + "y" * 150
    report = make_report(
        make_result(long, make_reading([900 * DAY], lookback=1_000 * DAY, kilobytes=3e12)),
        make_result(wide, make_reading([5 * MINUTE])),
        make_result("", failure=Failure(Reason.BAD_RESPONSE, message), instance_id="i" * 64),
    )
    lines = ESCAPE.sub("", render_table(report, has_colours=has_colours)).splitlines()
    assert max(map(columns, lines)) <= 100
    # What does not fit goes on in the next line: nothing is left out.
    text = "".join(lines)
    assert text.count("z") == 3 * 40  # in the table, and below with its id
    assert text.count("库") == 12
    assert text.count("y") >= 150
    assert text.count("i" * 20) >= 3


def test_a_terminal_that_is_narrower_is_not_overrun() -> None:
    report = make_report(make_result("orders", make_reading([5 * MINUTE])))
    assert max(map(columns, render_table(report, width=60).splitlines())) <= 60


def test_there_are_no_colours_where_none_are_wanted() -> None:
    report = make_report(make_result(failure=REFUSED), make_result("b", make_reading()))
    assert "\x1b" not in render_table(report)
    assert "\x1b[1;33m" in render_table(report, has_colours=True)


def test_names_and_messages_from_elsewhere_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;title\x07\x1b[2J\r\u202e[bold]"
    failure = replace(REFUSED, message=evil, hint=evil, host=evil)
    table = render_table(
        make_report(
            make_result(evil, failure=failure, project_name=evil),
            make_result("other", make_reading(), project_id="p2"),
            projects=[ProjectResult("p", evil, discovery_success=False, discovery_failure=failure)],
        ),
        has_colours=True,
    )
    assert not set(ESCAPE.sub("", table)) & set("\x1b\x07\r\u202e")
    assert "[bold]" in table


def test_the_runbook_is_a_link_where_the_exporters_address_is_known() -> None:
    table = render_table(
        make_report(make_result(failure=REFUSED)), external_url="https://x.example"
    )
    assert "Runbook: https://x.example/runbooks/GaussDBMySQLBackupLoginFailing" in table


def test_what_is_the_matter_with_a_project_is_told() -> None:
    table = render_table(
        make_report(
            projects=[
                ProjectResult("p1", "one", discovery_success=False, discovery_failure=REFUSED),
                ProjectResult(
                    "p2", discovery_success=True, found_instances=7, discovered_instances=0
                ),
                ProjectResult("p3", unusable_ids=["a b"]),
            ]
        )
    )
    assert table.startswith("no instances\n")
    assert "Project: one: discovery has not succeeded yet, so none of its instances is" in table
    assert "    What to do: check the password" in table
    assert "Project: p2: discovery finds 7 instances and its filters take none of them" in table
    assert "Project: p3: 1 instance cannot be watched" in table
    assert "    a b\n" in table


FORBIDDEN = replace(REFUSED, reason=Reason.FORBIDDEN, message="No permission.", hint="")
WINDOW = RestoreWindow(
    NOW, [TimeRange(NOW - DAY, NOW - 5 * HOUR), TimeRange(NOW - HOUR, NOW - 5 * MINUTE)]
)


def with_restores(name: str, asked: SourceResult[RestoreWindow]) -> InstanceResult:
    return replace(make_result(name, make_reading()), restore_window=asked)


def test_to_which_moment_it_can_be_restored_is_told_where_that_is_asked_for() -> None:
    table = render_table(
        make_report(
            with_restores("a-range", SourceResult(WINDOW, None, NOW)),
            with_restores("nothing", SourceResult(RestoreWindow(NOW, []), None, NOW)),
            with_restores("refused", SourceResult(None, FORBIDDEN, None)),
            make_result("not-asked", make_reading()),
        )
    )
    header, *rows = (line.split() for line in table.splitlines()[4:9])
    assert header[-2:] == ["RESTORABLE", "TO"]
    told = {}
    for row in rows:  # not restorable: two words
        told[row[2] if row[:2] == ["not", "restorable"] else row[1]] = row[-1]
    assert told == {"a-range": "10:08", "nothing": "nothing", "refused": "-", "not-asked": "-"}


def test_a_source_that_cannot_be_read_is_told_and_no_failure() -> None:
    report = make_report(with_restores("orders", SourceResult(None, FORBIDDEN, None)))
    assert not report.is_failed
    table = " ".join(render_table(report).split())
    assert "The restore window of 1 instance cannot be read: orders No permission." in table
    facts = json.loads(render_json(report))["instances"][0]["restores"]["restore_window"]
    assert facts["restorable_until"] is None
    assert facts["failure"]["reason"] == "forbidden"


def test_the_moments_are_in_the_facts_for_scripts() -> None:
    report = make_report(with_restores("orders", SourceResult(WINDOW, None, NOW)))
    restores = json.loads(render_json(report))["instances"][0]["restores"]
    assert restores == {
        "restore_window": {
            "restorable_until": "2026-07-05T10:08:07Z",
            "restorable_since": "2026-07-05T09:13:07Z",
            "restorable_oldest": "2026-07-04T10:13:07Z",
            "ranges": 2,
            "max_gap_seconds": 4 * HOUR,
            "failure": None,
        },
        "full_backups": None,
    }


# JSON -----------------------------------------------------------------------------------------


def test_scripts_get_the_same_facts() -> None:
    report = make_report(
        make_result("refused", failure=REFUSED),
        make_result("well", make_reading([5 * MINUTE, 15 * MINUTE])),
    )
    document = json.loads(render_json(report))
    failing, well = document.pop("instances")
    (cause,) = document.pop("causes")
    assert document == {
        "verdict": "1 of 2 instances need attention",
        "severity": "warning",
        "failed": True,
        "scraped_at": "2026-07-05T10:13:07Z",
        "duration_seconds": 1.5,
        "states": {"failing": 1, "ok": 1},
        "projects": [],
    }
    assert (failing["name"], failing["state"], failing["cause"]) == ("refused", "failing", 0)
    assert failing["backups"] is None
    assert failing["failure"] == {
        "reason": "auth",
        "message": "The username or password is wrong.",
        "hint": "check the password: three more refusals lock the account",
        "operation": "login",
        "host": "iam.example",
        "status": 401,
        "error_code": "IAM.0101",
        "request_id": "8d0f3a",
        "tried": 1,
    }
    assert cause == failing["failure"] | {
        "project_id": "97b026aa9cc4417888c14c84a1ad9860",
        "instances": ["refused-id"],
    }
    assert well == {
        "project_id": "97b026aa9cc4417888c14c84a1ad9860",
        "project_name": "production",
        "id": "well-id",
        "name": "well",
        "region": "cn-north-4",
        "state": "ok",
        "severity": "good",
        "states": ["ok"],
        "latest_end": "2026-07-05T10:08:07Z",
        "age_seconds": 300.0,
        "stale_after_seconds": 3600.0,
        "lookback_seconds": 86400.0,
        "backups": 2,
        "running": 0,
        "size_bytes": 2 * 1024 * 1024,
        "latest_size_bytes": 1024 * 1024,
        "oldest_end": "2026-07-05T09:58:07Z",
        "longest_interval_seconds": 600.0,
        "listing_complete": True,
        "restores": {"restore_window": None, "full_backups": None},
        "advice": None,
        "failure": None,
        "cause": None,
    }


def test_json_can_be_written_whatever_the_cloud_said() -> None:
    text = render_json(make_report(make_result("caf\udce9 数据", make_reading())))
    assert text.isascii()
    assert json.loads(text)["instances"][0]["name"] == "caf\udce9 数据"


# Whether it failed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "projects", "is_failed"),
    [
        ([make_result("a", make_reading())], [], False),
        ([make_result("a", make_reading([]))], [], False),  # no backups is an answer
        ([make_result("a", failure=REFUSED), make_result("b", make_reading())], [], True),
        ([], [ProjectResult("p", discovery_success=True, found_instances=0)], False),
        ([], [ProjectResult("p", discovery_success=False)], True),
        (
            [],
            [ProjectResult("p", discovery_success=True, found_instances=3, discovered_instances=0)],
            True,
        ),
        (
            [make_result("a", make_reading())],
            [ProjectResult("p", discovery_success=True, found_instances=3, discovered_instances=1)],
            False,
        ),
    ],
)
def test_it_failed_where_an_instance_or_a_discovery_did_or_nothing_was_taken(
    results: Sequence[InstanceResult], projects: Sequence[ProjectResult], is_failed: bool
) -> None:
    assert make_report(*results, projects=projects).is_failed is is_failed


def test_a_frozen_instance_is_called_frozen_in_every_line() -> None:
    old = make_result("old", make_reading([26 * HOUR], lookback=7 * DAY))
    frozen = replace(old, instance=replace(old.instance, status="FROZEN"))
    table = render_table(make_report(frozen))
    assert "in 1 s\n1 frozen\n" in table
    assert "\nfrozen  old " in table
    assert "\nfrozen: old (old-id)\n    What to do: No backup is due while " in table
    assert "suspended" not in table.partition("\n")[2]
