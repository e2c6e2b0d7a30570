"""What the cloud's answers say: rows, instances, tokens, and what an error is about.

Sources of the facts: the API reference of TaurusDB (ShowIncrementalBackupList), the vendor's SDK
3.1.219, and IAM's reference for tokens. What is not documented is not relied on.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import httpx
import msgspec

from exporter.credentials.auth import Token
from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.models import Backup, Page
from exporter.reporting.redaction import redact
from exporter.transport.limits import parse_retry_after

_MAX_CLOCK_ERROR_SECONDS = 15 * 60.0


def quote(text: str) -> str:
    """What others wrote, for a message.

    Whoever shows the message cuts it shorter, after looking for the secrets in use: here the cut
    could leave the first half of one, which nobody would recognise.
    """
    return redact(text, max_chars=2_000)


def retry_after(response: httpx.Response, now: float) -> float | None:
    return parse_retry_after(response.headers.get("retry-after"), now=now)


# Errors ----------------------------------------------------------------------------------------


def reason_of(status: int) -> Reason:
    """The metric's label for an answer's status."""
    known = {
        401: Reason.AUTH,
        403: Reason.FORBIDDEN,
        404: Reason.NOT_FOUND,
        408: Reason.TIMEOUT,
        409: Reason.SERVER,  # the instance is busy
        429: Reason.THROTTLED,
    }
    if status in known:
        return known[status]
    if status >= 500:
        return Reason.SERVER
    return Reason.BAD_REQUEST if status >= 400 else Reason.BAD_RESPONSE


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error's body tells, in any of the forms of the gateway, the service and IAM."""

    code: str = ""
    message: str = ""
    request_id: str = ""


def parse_error_body(body: bytes) -> ErrorBody:
    """Never fails: a proxy's HTML is no message. Not redacted yet."""
    try:
        tree: Any = msgspec.json.decode(body[:65_536])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return ErrorBody()
    if isinstance(tree, dict) and isinstance(tree.get("error"), dict):
        nested = tree["error"]
        return ErrorBody(_text(nested, "code"), _text(nested, "message"))
    if not isinstance(tree, dict):
        return ErrorBody()
    return ErrorBody(_text(tree, "error_code"), _text(tree, "error_msg"), _text(tree, "request_id"))


def _text(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key)
    return str(value)[:4096] if isinstance(value, str | int) else ""


_LOCKED = re.compile(r"\block(?:ed|out)?\b", re.IGNORECASE)
LOCKED_HINT = "the account or key is locked after failed logins: wait, then correct the secret"


def _hint(status: int, code: str, message: str) -> str:
    """What to do about a refused request."""
    if status in (400, 401, 403) and _LOCKED.search(message):
        return LOCKED_HINT
    if status == 401 and code.endswith(".0307"):
        return "the token belongs to another region: check region, endpoint and iam_endpoint"
    if status == 401:
        return "check the credentials, and that region and endpoint are the project's own"
    if status == 403:
        return (
            "grant the user gaussdbformysql:backup:list (and gaussdbformysql:instance:list for"
            " discovery) in this project; an instance that does not exist may be answered so too"
        )
    if status == 404:
        return "check the instance's id: is it in this project and region, and not deleted?"
    if status == 400 and code.endswith("280404"):
        return "check the instance's id"
    if status == 429:
        return "lower api.rate_limit or scrape less often"
    if status >= 500:
        return "the cloud's own trouble: if it lasts, ask its support with the error's code"
    return ""


def _clock_hint(response: httpx.Response, now: float) -> str:
    """Signatures are refused when the clocks differ by more than 15 minutes."""
    try:
        server = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return ""
    off = now - server
    if abs(off) < _MAX_CLOCK_ERROR_SECONDS:
        return ""
    direction = "ahead" if off > 0 else "behind"
    return f"the clock of this machine is {abs(off) / 60:.0f} minutes {direction}: set it"


def error_of(response: httpx.Response, *, now: float, signed: bool = False) -> ApiError:
    """The error that an answer with a bad status is; its message is redacted.

    `signed`: the request had a signature, which a clock that is off spoils.
    """
    status = response.status_code
    told = parse_error_body(response.content)
    message = f"HTTP {status}"
    if told.code or told.message:
        message += ": " + " ".join(quote(part) for part in (told.code, told.message) if part)
    elif 300 <= status < 400:
        message += ": a redirect, which is not followed"
    reason = reason_of(status)
    facts: dict[str, Any] = {
        "hint": _hint(status, told.code, told.message),
        "status": status,
        "error_code": quote(told.code),
        "request_id": quote(told.request_id or response.headers.get("x-request-id", "")),
    }
    error: ApiError
    if reason is Reason.THROTTLED:
        error = RateLimitedError(message, retry_after=response.extensions.get("silence"), **facts)
    elif reason is Reason.AUTH:
        if signed:
            facts["hint"] = _clock_hint(response, now) or facts["hint"]
        error = AuthError(message, reason=reason, **facts)
    elif reason is Reason.BAD_RESPONSE:
        error = BadResponseError(message, status=status, request_id=facts["request_id"])
    elif reason in (Reason.SERVER, Reason.TIMEOUT):
        error = UnavailableError(message, reason=reason, **facts)
    else:
        error = RefusedError(message, reason=reason, **facts)
    if status == 503:
        error.retry_after = retry_after(response, now)
    error.counted = True
    return error


# The listing -----------------------------------------------------------------------------------


class _Row(msgspec.Struct, gc=False):
    id: str
    begin_time: str | None = None
    end_time: str | None = None
    size: float | None = None


class _Listing(msgspec.Struct, gc=False):
    backups: list[_Row] | None = None
    total_count: int | None = None


_decode_listing = msgspec.json.Decoder(_Listing).decode


def parse_time(text: str) -> float:
    """Seconds since the epoch of a time with its zone; ValueError if it is none.

    The API documents `2022-07-07T12:41:14+0800`; any ISO 8601 time with a zone is understood.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.timestamp()


def parse_page(body: bytes) -> Page:
    """The rows of one answer; BadResponseError if anything in it makes no sense."""
    try:
        listing = _decode_listing(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadResponseError(f"not a listing of backups: {quote(str(exc))}") from exc
    total = listing.total_count
    if total is not None and total < 0:
        raise BadResponseError(f"total_count is {total}")
    if listing.backups is None:
        if total != 0:
            raise BadResponseError("the listing has no backups, not even an empty list")
        return Page((), 0)
    return Page([_parse_row(row) for row in listing.backups], total)


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


def format_time(seconds: float) -> str:
    """As the API takes it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(seconds))


# Instances -------------------------------------------------------------------------------------


class _Tag(msgspec.Struct, gc=False):
    key: str = ""
    value: str | None = None


class _InstanceRow(msgspec.Struct, gc=False):
    id: str
    name: str | None = None
    status: str | None = None
    region: str | None = None
    tags: list[_Tag] | None = None


class _InstanceListing(msgspec.Struct, gc=False):
    instances: list[_InstanceRow]
    total_count: int | None = None


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance as the project's listing shows it."""

    id: str
    name: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InstancePage:
    instances: Sequence[FoundInstance]
    total_count: int | None


def parse_instance_page(body: bytes) -> InstancePage:
    try:
        listing = msgspec.json.decode(body, type=_InstanceListing)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadResponseError(f"not a listing of instances: {quote(str(exc))}") from exc
    return InstancePage(
        [
            FoundInstance(
                row.id, row.name or "", {tag.key: tag.value or "" for tag in row.tags or ()}
            )
            for row in listing.instances
        ],
        listing.total_count,
    )


# Tokens ----------------------------------------------------------------------------------------


class _TokenFacts(msgspec.Struct):
    expires_at: str


class _TokenBody(msgspec.Struct):
    token: _TokenFacts


def parse_token(response: httpx.Response) -> Token:
    """The token of a 201; BadResponseError if there is none."""
    value = response.headers.get("x-subject-token", "")
    if not value:
        raise BadResponseError("IAM's answer has no X-Subject-Token", status=201)
    try:
        expires_at = parse_time(
            msgspec.json.decode(response.content, type=_TokenBody).token.expires_at
        )
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as exc:
        raise BadResponseError(
            f"IAM's answer does not say when the token ends: {quote(str(exc))}"
        ) from exc
    return Token(value, expires_at)
