"""What the cloud's answers say of restores: the ranges of moments, and the full backups.

Sources of the facts: the API reference of TaurusDB (ShowBackupRestoreTime,
ShowGaussMySqlBackupList) and the vendor's SDK 3.1.219. The vendor's only sample of restore-time
has a range that starts after its end: such a pair is refused, never swapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import msgspec

from exporter.cloud.answers import check_instance
from exporter.errors import BadResponseError
from exporter.models import (
    FULL_BACKUP_TYPES,
    BackupState,
    FullBackup,
    TimeRange,
    UnreadableBackup,
)
from exporter.transport.failures import not_json, quote
from exporter.transport.json_body import decode
from exporter.transport.times import parse_time

# The cloud's clock may be a little ahead of what we take for now.
_AHEAD_SECONDS = 300.0
# In 2001. What is smaller is no number of milliseconds of a moment that can be meant.
_LEAST_MILLISECONDS = 10**12

# The restore window ----------------------------------------------------------------------------


class _Range(msgspec.Struct, gc=False):
    start_time: int
    end_time: int


class _Ranges(msgspec.Struct, gc=False):
    restore_times: list[_Range] | None = None


_decode_ranges = msgspec.json.Decoder(_Ranges).decode


def parse_restore_times(body: bytes, *, now: float) -> list[TimeRange]:
    """The ranges of one answer as they come; BadResponseError if anything in it makes no sense.

    An empty list is an answer: nothing to restore to. A missing one is none.
    """
    try:
        answer = decode(_decode_ranges, body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise not_json(body, "a list of restorable ranges", exc) from exc
    if answer.restore_times is None:
        raise BadResponseError("the answer has no restore_times, not even an empty list")
    return [_parse_range(pair, now) for pair in answer.restore_times]


def _parse_range(pair: _Range, now: float) -> TimeRange:
    told = f"start_time {pair.start_time}, end_time {pair.end_time}"[:200]
    for moment in (pair.start_time, pair.end_time):
        if moment < _LEAST_MILLISECONDS:
            raise BadResponseError(f"a restorable range is not in milliseconds: {told}")
        if moment > (now + _AHEAD_SECONDS) * 1000:
            raise BadResponseError(f"a restorable range lies in the future: {told}")
    if pair.start_time > pair.end_time:
        raise BadResponseError(f"a restorable range starts after its end: {told}")
    return TimeRange(pair.start_time / 1000, pair.end_time / 1000)


# Full backups ----------------------------------------------------------------------------------

_STATES = {
    "BUILDING": BackupState.RUNNING,
    "COMPLETED": BackupState.USABLE,
    "AVAILABLE": BackupState.USABLE,
    "FAILED": BackupState.FAILED,
}


class _Identity(msgspec.Struct, gc=False):
    """Whose row it is: read even where the rest of it makes no sense."""

    id: str
    instance_id: str | None = None


class _FullRow(msgspec.Struct, gc=False):
    status: str
    type: str
    begin_time: str | None = None
    end_time: str | None = None
    size: float | None = None


class _FullListing(msgspec.Struct, gc=False):
    backups: list[msgspec.Raw] | None = None
    total_count: int | None = None


_decode_full_listing = msgspec.json.Decoder(_FullListing).decode
_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_full_row = msgspec.json.Decoder(_FullRow).decode


@dataclass(frozen=True, slots=True)
class FullBackupPage:
    """One answer of the listing: its rows, and how many the API says there are in all."""

    rows: Sequence[FullBackup | UnreadableBackup]
    total_count: int | None

    @property
    def row_count(self) -> int:
        return len(self.rows)


def parse_full_backups(body: bytes, *, now: float, asked: str = "") -> FullBackupPage:
    """The rows of one answer; BadResponseError where it cannot even be told whose they are, or
    they are not of the instance that was `asked` for."""
    try:
        listing = decode(_decode_full_listing, body)
        rows = listing.backups
        if rows is None:
            if listing.total_count != 0:
                raise BadResponseError("the listing has no backups, not even an empty list")
            rows = []
        parsed = [_parse_full_row(decode(_decode_identity, bytes(row)), row, now) for row in rows]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise not_json(body, "a listing of full backups", exc) from exc
    if listing.total_count is not None and listing.total_count < 0:
        raise BadResponseError(f"total_count is {listing.total_count}")
    for row in parsed:
        if asked:
            check_instance(row.id, row.instance_id, asked)
    return FullBackupPage(parsed, listing.total_count)


def _parse_full_row(
    identity: _Identity, text: msgspec.Raw, now: float
) -> FullBackup | UnreadableBackup:
    if not identity.id:
        raise BadResponseError("a full backup has no id")
    instance_id = identity.instance_id or ""
    try:
        return _check_full_row(identity.id, instance_id, decode(_decode_full_row, bytes(text)), now)
    except (msgspec.MsgspecError, ValueError, OverflowError) as exc:
        problem = f"full backup {quote(identity.id)} makes no sense: {quote(str(exc))}"
        return UnreadableBackup(identity.id, instance_id, problem)


def _check_full_row(id_: str, instance_id: str, row: _FullRow, now: float) -> FullBackup:
    """ValueError says what is wrong with it."""
    state = _STATES.get(row.status.upper())
    if state is None:
        raise ValueError(f"its status is {row.status}")
    backup_type = row.type.lower()
    if backup_type not in FULL_BACKUP_TYPES:
        raise ValueError(f"its type is {row.type}")
    begin = parse_time(row.begin_time) if row.begin_time else None
    end = parse_time(row.end_time) if row.end_time else None
    if state is BackupState.RUNNING:
        end = None
    elif end is None and state is BackupState.FAILED:
        end = begin  # it has ended; when, the cloud may leave open
    if state is not BackupState.RUNNING and end is None:
        raise ValueError("it has ended and has no end_time")
    if any(moment is not None and moment > now + _AHEAD_SECONDS for moment in (begin, end)):
        raise ValueError("it lies in the future")
    if begin is not None and end is not None and begin > end:
        raise ValueError(f"it begins ({row.begin_time}) after its end ({row.end_time})")
    if row.size is not None and not (row.size >= 0 and isfinite(row.size * 1024 * 1024)):
        raise ValueError(f"its size is {row.size}")
    return FullBackup(id_, instance_id, backup_type, state, begin, end, row.size)
