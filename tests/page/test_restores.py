"""What is told and drawn of the moments that can be restored to, and of the full backups."""

from collections.abc import Sequence

import pytest

from exporter.models import BackupState, FullBackup, FullBackups, RestoreWindow, TimeRange
from exporter.page.restores import build_strip, describe_full_backups, describe_window
from tests.page.making import DAY, HOUR, MINUTE, NOW
from tests.page.parsing import spans


def make_window(*ages: tuple[float, float]) -> RestoreWindow:
    """Ranges from so many seconds ago to so many seconds ago, the oldest first."""
    return RestoreWindow(NOW - 9, [TimeRange(NOW - start, NOW - end) for start, end in ages])


def make_full(
    age: float, state: BackupState = BackupState.USABLE, backup_type: str = "auto"
) -> FullBackup:
    end = None if state is BackupState.RUNNING else NOW - age
    return FullBackup(f"id-{age}", "orders-id", backup_type, state, NOW - age - 600, end, 512.0)


def make_full_backups(*backups: FullBackup) -> FullBackups:
    """Ascending by their end."""
    usable = [each for each in backups if each.state is BackupState.USABLE]
    ended = [each for each in backups if each.state is not BackupState.RUNNING]
    return FullBackups(
        NOW - 9,
        backups,
        usable={kind: sum(b.backup_type == kind for b in usable) for kind in ("auto", "manual")},
        latest={each.backup_type: each for each in usable},
        oldest_end=usable[0].end if usable else None,
        latest_failed=ended[-1].state is BackupState.FAILED if ended else None,
    )


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
        (
            [make_full(HOUR, BackupState.FAILED), make_full(0, BackupState.RUNNING)],
            "the latest full backup failed; no usable full backup",
        ),
    ],
)
def test_full_backups_are_told_in_words(backups: Sequence[FullBackup], text: str) -> None:
    assert describe_full_backups(make_full_backups(*backups), now=NOW) == text


def test_strip_shows_ranges_and_full_backups_of_the_lookback_alone() -> None:
    strip = build_strip(
        make_window((9 * DAY, 8 * DAY), (2 * DAY, 12 * HOUR), (6 * HOUR, 0)),
        make_full_backups(
            make_full(3 * DAY), make_full(18 * HOUR), make_full(6 * HOUR, BackupState.FAILED)
        ),
        now=NOW,
        lookback_seconds=DAY,
    )
    assert strip is not None
    # A day is 720 units: to 12 hours ago, and from 6 hours ago to now.
    assert spans(strip.ranges) == [(0.0, 360.0), (540.0, 720.0)]
    assert spans(strip.full_backups) == [(180.0, 183.0)]
    assert spans(strip.failed) == [(540.0, 543.0)]
    assert strip.description.startswith("restorable to 10:13, since 04:13; before that")
    assert strip.description.endswith(
        "; the latest full backup failed; full backup 18 h ago (auto), 2 usable"
    )


def test_a_moment_at_the_very_end_is_seen() -> None:
    strip = build_strip(
        make_window((0, 0)), make_full_backups(make_full(0)), now=NOW, lookback_seconds=DAY
    )
    assert strip is not None
    assert spans(strip.ranges) == [(719.0, 720.0)]
    assert spans(strip.full_backups) == [(717.0, 720.0)]


def test_there_is_no_strip_where_nothing_is_known() -> None:
    assert build_strip(None, None, now=NOW, lookback_seconds=DAY) is None
    empty = build_strip(make_window(), None, now=NOW, lookback_seconds=DAY)
    assert empty is not None
    assert (empty.ranges, empty.full_backups, empty.failed) == ("", "", "")
    assert empty.description == "nothing to restore to"
