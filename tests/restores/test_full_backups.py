import pytest

from exporter.models import BackupState, FullBackup
from exporter.restores.full_backups import summarise

RUNNING, USABLE, FAILED = BackupState.RUNNING, BackupState.USABLE, BackupState.FAILED


def backup(
    id: str, end: float | None, state: BackupState = USABLE, kind: str = "auto"
) -> FullBackup:
    return FullBackup(id, "i1", kind, state, None if end is None else end - 60, end, 100.0)


def test_no_backup_at_all_is_none_that_is_usable() -> None:
    none = summarise([], at=5.0)
    assert (none.at, none.backups, none.usable) == (5.0, (), {"auto": 0, "manual": 0})
    assert (dict(none.latest), none.oldest_end, none.latest_failed) == ({}, None, None)


def test_each_type_has_its_number_and_its_latest() -> None:
    found = summarise(
        [
            backup("c", 300),
            backup("a", 100),
            backup("m", 200, kind="manual"),
            backup("b", 200),
            backup("r", None, RUNNING),
        ],
        at=400,
    )
    assert [each.id for each in found.backups] == ["a", "b", "m", "c", "r"]
    assert found.usable == {"auto": 3, "manual": 1}
    assert {kind: each.id for kind, each in found.latest.items()} == {"auto": "c", "manual": "m"}
    assert (found.oldest_end, found.latest_failed) == (100, False)


@pytest.mark.parametrize(
    ("rows", "failed"),
    [
        ([backup("a", 100), backup("f", 200, FAILED)], True),
        ([backup("f", 200, FAILED), backup("a", 300, kind="manual")], False),
        ([backup("f", 200, FAILED), backup("r", None, RUNNING)], True),
        ([backup("r", None, RUNNING)], None),
        ([backup("a", 200), backup("f", 200, FAILED)], True),
    ],
)
def test_the_latest_that_has_ended_tells_whether_it_failed(
    rows: list[FullBackup], failed: bool | None
) -> None:
    assert summarise(rows, at=0).latest_failed is failed
    assert summarise(reversed(rows), at=0).latest_failed is failed


def test_failed_ones_are_neither_usable_nor_the_oldest() -> None:
    found = summarise([backup("f", 50, FAILED), backup("a", 100)], at=0)
    assert (found.usable["auto"], found.oldest_end) == (1, 100)


def test_a_row_that_came_on_two_pages_counts_once() -> None:
    found = summarise([backup("a", None, RUNNING), backup("a", 100)], at=0)
    assert found.usable == {"auto": 1, "manual": 0}
