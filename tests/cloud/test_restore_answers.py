import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cloud.restore_answers import parse_full_backups, parse_restore_times
from exporter.errors import BadResponseError
from exporter.models import BackupState, FullBackup, TimeRange, UnreadableBackup
from tests.support.virtual_time import HOUR, NOON

NOON_MS = 1_690_545_600_000


def ranges(*pairs: tuple[object, object]) -> bytes:
    told = [{"start_time": start, "end_time": end} for start, end in pairs]
    return json.dumps({"restore_times": told}).encode()


# The restore window ----------------------------------------------------------------------------


def test_a_range_is_read_in_milliseconds() -> None:
    body = ranges((NOON_MS - 3_600_000, NOON_MS - 500))
    assert parse_restore_times(body, now=NOON) == [TimeRange(NOON - HOUR, NOON - 0.5)]


def test_an_empty_list_is_an_answer() -> None:
    assert parse_restore_times(b'{"restore_times": []}', now=NOON) == []


def test_a_single_moment_is_a_range() -> None:
    assert parse_restore_times(ranges((NOON_MS, NOON_MS)), now=NOON) == [TimeRange(NOON, NOON)]


def test_the_vendors_sample_is_refused_with_its_pair() -> None:
    """Start and end are the wrong way round in the documentation; which is wrong, nobody knows."""
    body = ranges((1_675_149_246_000, 1_675_094_400_000))
    with pytest.raises(BadResponseError) as caught:
        parse_restore_times(body, now=NOON)
    assert caught.value.message == (
        "a restorable range starts after its end: start_time 1675149246000, end_time 1675094400000"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"restore_times": null}', "no restore_times"),
        (b"{}", "no restore_times"),
        # As sibling services call it
        (b'{"restore_time": [{"start_time": 10, "end_time": 20}]}', "no restore_times"),
        (b"[]", "not a list of restorable ranges"),
        (b"<html>", "not a list of restorable ranges"),
        (b'{"restore_times": [{}]}', "not a list of restorable ranges"),
        (b'{"restore_times": [null]}', "not a list of restorable ranges"),
        (b'{"restore_times": {"start_time": 1, "end_time": 2}}', "not a list of restorable ranges"),
        (ranges((str(NOON_MS), NOON_MS)), "not a list of restorable ranges"),
        (ranges((None, NOON_MS)), "not a list of restorable ranges"),
        (ranges((NOON_MS - 0.5, NOON_MS)), "not a list of restorable ranges"),
        (ranges((float(NOON_MS), NOON_MS)), "not a list of restorable ranges"),
        (ranges((True, NOON_MS)), "not a list of restorable ranges"),
        (ranges((NOON_MS // 1000 - 9, NOON_MS // 1000)), "not in milliseconds"),
        (ranges((0, NOON_MS)), "not in milliseconds"),
        (ranges((-NOON_MS, NOON_MS)), "not in milliseconds"),
        (ranges((10**12 - 1, NOON_MS)), "not in milliseconds"),
        (ranges((NOON_MS, NOON_MS + 300_001)), "lies in the future"),
        (ranges((NOON_MS * 1000, NOON_MS * 1000)), "lies in the future"),  # microseconds
        (ranges((NOON_MS, 10**400)), "lies in the future"),
        (ranges((NOON_MS, NOON_MS), (NOON_MS, NOON_MS - 1)), "starts after its end"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadResponseError, match=message):
        parse_restore_times(body, now=NOON)


def test_the_bounds_of_what_makes_sense_are_in_it() -> None:
    body = ranges((10**12, NOON_MS + 300_000))
    assert parse_restore_times(body, now=NOON) == [TimeRange(10**9, NOON + 300)]


@given(st.binary(max_size=200) | st.from_regex(r'\{"restore_times": \[.{0,80}\]\}').map(str.encode))
def test_restore_times_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(BadResponseError):
        assert isinstance(parse_restore_times(body, now=NOON), list)


# Full backups ----------------------------------------------------------------------------------

ROW: Mapping[str, object] = {
    "id": "a5b6",
    "name": "xxx-20230727-160412",
    "begin_time": "2023-07-28T00:04:12+0800",
    "end_time": "2023-07-28T00:10:42+0800",
    "status": "COMPLETED",
    "take_up_time": 6,
    "type": "auto",
    "size": 2803,
    "datastore": {"type": "gaussdb-mysql", "version": "8.0"},
    "instance_id": "i1",
    "instance_name": "orders",
    "backup_level": "0",
    "description": None,
}
PARSED = FullBackup(
    "a5b6", "i1", "auto", BackupState.USABLE, 1_690_473_852.0, 1_690_474_242.0, 2803.0
)


def listing(*rows: object, **more: object) -> bytes:
    return json.dumps({"backups": rows, "total_count": len(rows), **more}).encode()


def parse_one(**changes: Any) -> Any:
    row = {name: value for name, value in {**ROW, **changes}.items() if value is not ...}
    (parsed,) = parse_full_backups(listing(row), now=NOON).rows
    return parsed


def test_a_full_backup_is_read() -> None:
    page = parse_full_backups(listing(ROW, total_count=7), now=NOON)
    assert (list(page.rows), page.total_count, page.row_count) == ([PARSED], 7, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "AVAILABLE"}, {}),
        ({"status": "completed", "type": "Auto"}, {}),
        ({"type": "manual"}, {"backup_type": "manual"}),
        ({"size": None}, {"size_megabytes": None}),  # unknown, and not 0
        ({"size": ...}, {"size_megabytes": None}),
        ({"begin_time": None}, {"begin": None}),
        ({"status": "BUILDING", "end_time": None}, {"state": BackupState.RUNNING, "end": None}),
        ({"status": "BUILDING"}, {"state": BackupState.RUNNING, "end": None}),
        ({"status": "FAILED"}, {"state": BackupState.FAILED}),
        (
            {"status": "FAILED", "end_time": ""},
            {"state": BackupState.FAILED, "end": 1_690_473_852.0},
        ),
        ({"instance_id": None}, {"instance_id": ""}),
        ({"instance_id": ...}, {"instance_id": ""}),
    ],
)
def test_what_a_row_says_is_kept(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert parse_one(**changes) == PARSED._replace(**expected)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"status": "SOMETHING"}, "its status is SOMETHING"),
        ({"status": None}, "status"),
        ({"status": ...}, "status"),
        ({"type": "incremental"}, "its type is incremental"),
        ({"type": 5}, "type"),
        ({"end_time": None}, "no end_time"),
        ({"status": "FAILED", "end_time": None, "begin_time": None}, "no end_time"),
        ({"end_time": "yesterday"}, "isoformat"),
        ({"end_time": "2023-07-28T00:10:42"}, "without a zone"),
        ({"begin_time": 1_690_473_852_000}, "begin_time"),
        ({"end_time": "2023-07-28T00:04:11+0800"}, "after its end"),
        ({"end_time": "2023-07-28T20:05:01+0800"}, "in the future"),
        ({"size": -1}, "its size is -1"),
        ({"size": 1e304}, "its size is 1e"),
        ({"size": "2803"}, "size"),
    ],
)
def test_a_row_that_makes_no_sense_spoils_its_instance_alone(
    changes: dict[str, Any], problem: str
) -> None:
    parsed = parse_one(**changes)
    assert isinstance(parsed, UnreadableBackup)
    assert (parsed.id, parsed.instance_id) == ("a5b6", "i1")
    assert problem in parsed.problem


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b"<html>",
        b'{"backups": null, "total_count": 3}',
        listing(ROW, total_count=-1),
        listing({**ROW, "id": ""}),
        listing({**ROW, "id": None}),
        listing({**ROW, "instance_id": 5}),
        listing("a row"),
        listing(None),
    ],
)
def test_a_listing_that_does_not_tell_whose_rows_they_are_is_refused(body: bytes) -> None:
    with pytest.raises(BadResponseError):
        parse_full_backups(body, now=NOON)


def test_a_listing_without_rows_is_empty_where_it_says_so() -> None:
    assert parse_full_backups(b'{"backups": null, "total_count": 0}', now=NOON).rows == []
    assert parse_full_backups(listing(), now=NOON).rows == []


@pytest.mark.parametrize(("told", "belongs"), [("i1", True), (None, True), ("i2", False)])
def test_a_full_backup_of_another_instance_than_the_one_asked_for_makes_no_sense(
    told: str | None, belongs: bool
) -> None:
    body = listing({**ROW, "instance_id": told})
    assert len(parse_full_backups(body, now=NOON).rows) == 1  # the whole project was asked for
    if belongs:
        assert len(parse_full_backups(body, now=NOON, asked="i1").rows) == 1
    else:
        with pytest.raises(BadResponseError, match="is of instance i2, not of the one asked for"):
            parse_full_backups(body, now=NOON, asked="i1")
