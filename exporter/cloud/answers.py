"""What the cloud's answers say: rows and instances.

Sources of the facts: the API reference of TaurusDB (ShowIncrementalBackupList) and the vendor's
SDK 3.1.219. What is not documented is not relied on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import msgspec

from exporter.errors import BadResponseError
from exporter.models import Backup, Page
from exporter.transport.failures import not_json, quote
from exporter.transport.json_body import decode
from exporter.transport.times import format_time, parse_time

# The listing -----------------------------------------------------------------------------------


class _Row(msgspec.Struct, gc=False):
    id: str
    begin_time: str | None = None
    end_time: str | None = None
    size: float | None = None
    instance_id: str | None = None
    # Told apart by these from the rows of the listing of full backups, whose sizes are in MB.
    type: Any = None
    backup_type: Any = None


class _Listing(msgspec.Struct, gc=False):
    backups: list[_Row] | None = None
    total_count: int | None = None


_decode_listing = msgspec.json.Decoder(_Listing).decode

# How far beyond what was asked for a row may lie: nobody documents what the filter looks at, and
# the cloud's machines may differ by a little.
_LEEWAY_SECONDS = 60.0
_MIXED_UP_HINT = (
    "a proxy or gateway on the way mixes answers up; the connection that it came on was closed"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listing was asked for: whose backups, between which times."""

    instance_id: str
    begin: float
    end: float


def parse_page(body: bytes, asked: Asked | None = None) -> Page:
    """The rows of one answer; BadResponseError if anything in it makes no sense, or is none of
    what was `asked`."""
    try:
        listing = decode(_decode_listing, body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise not_json(body, "a listing of backups", exc) from exc
    total = listing.total_count
    if total is not None and total < 0:
        raise BadResponseError(f"total_count is {total}")
    if listing.backups is None:
        if total != 0:
            raise BadResponseError("the listing has no backups, not even an empty list")
        return Page((), 0)
    rows = [_parse_row(row) for row in listing.backups]
    if asked is not None:
        for told, row in zip(listing.backups, rows, strict=True):
            check_instance(told.id, told.instance_id, asked.instance_id)
            if told.backup_type is None and told.type in ("auto", "manual"):
                raise BadResponseError(
                    f"backup {quote(told.id)} is a full one: the answer is of another listing",
                    hint=_MIXED_UP_HINT,
                )
            _check_window(row, asked)
    return Page(rows, total)


def check_instance(row_id: str, told: str | None, asked: str) -> None:
    """BadResponseError where a row says that it is of another instance than the one asked for."""
    if told and told != asked:
        raise BadResponseError(
            f"backup {quote(row_id)} is of instance {quote(told)}, not of the one asked for",
            hint=_MIXED_UP_HINT,
        )


def _check_window(row: Backup, asked: Asked) -> None:
    """BadResponseError where a row is outside of the times asked for, whatever the filter means.

    One that runs has no end to filter by: it may be shown whatever is asked for.
    """
    if row.end is None:
        return
    begin = row.begin if row.begin is not None else -inf
    if begin > asked.end + _LEEWAY_SECONDS or row.end < asked.begin - _LEEWAY_SECONDS:
        raise BadResponseError(
            f"backup {quote(row.id)} is outside of the times asked for:"
            f" {format_time(asked.begin)} to {format_time(asked.end)}",
            hint=_MIXED_UP_HINT,
        )


def _parse_row(row: _Row) -> Backup:
    size = row.size or 0.0
    if not row.id:
        raise BadResponseError("a backup has no id")
    if size < 0 or not isfinite(size * 1024):
        raise BadResponseError(f"backup {quote(row.id)} has the size {size}")
    try:
        begin = parse_time(row.begin_time) if row.begin_time else None
        end = parse_time(row.end_time) if row.end_time else None
    except (ValueError, OverflowError) as exc:
        raise BadResponseError(
            f"backup {quote(row.id)} has an unreadable time: {quote(str(exc))}"
        ) from exc
    if end is None and begin is None:
        raise BadResponseError(f"backup {quote(row.id)} has neither begin_time nor end_time")
    return Backup(row.id, begin, end, size)


# Instances -------------------------------------------------------------------------------------


class _Tag(msgspec.Struct, gc=False):
    key: str = ""
    value: str | None = None


class _InstanceRow(msgspec.Struct, gc=False):
    id: str
    name: str | None = None
    tags: list[_Tag] | None = None
    # Beside the point: where they make no sense, the instance is listed all the same.
    status: Any = None
    backup_strategy: Any = None


class _InstanceListing(msgspec.Struct, gc=False):
    instances: list[_InstanceRow]
    total_count: int | None = None


_MAX_STATUS_CHARS = 64
_MAX_KEEP_DAYS = 3_660  # on request; 732 else
_decode_instances = msgspec.json.Decoder(_InstanceListing).decode


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance as the project's listing shows it."""

    id: str
    name: str
    tags: Mapping[str, str]
    status: str = ""  # as the cloud writes it; "" where it tells none
    keep_days: int | None = None  # how long its backups are kept


@dataclass(frozen=True, slots=True)
class InstancePage:
    instances: Sequence[FoundInstance]
    total_count: int | None

    @property
    def rows(self) -> Sequence[FoundInstance]:
        return self.instances

    @property
    def row_count(self) -> int:
        return len(self.instances)


def parse_instance_page(body: bytes) -> InstancePage:
    try:
        listing = decode(_decode_instances, body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise not_json(body, "a listing of instances", exc) from exc
    return InstancePage([_parse_instance(row) for row in listing.instances], listing.total_count)


def _parse_instance(row: _InstanceRow) -> FoundInstance:
    strategy = row.backup_strategy
    return FoundInstance(
        row.id,
        row.name or "",
        {tag.key: tag.value or "" for tag in row.tags or ()},
        status=row.status[:_MAX_STATUS_CHARS] if isinstance(row.status, str) else "",
        keep_days=_parse_days(strategy.get("keep_days") if isinstance(strategy, dict) else None),
    )


def _parse_days(value: object) -> int | None:
    """A number, or a text with one; the vendor's samples have `7`, `"7"` and `"7,"`."""
    text = value.strip(" ,") if isinstance(value, str) else str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) <= 4):
        return None
    return days if 1 <= (days := int(text)) <= _MAX_KEEP_DAYS else None
