"""What a bad answer, or none, says: the reason, the message, and what to do about it.

Sources: the error codes of the API gateway and of the service (API reference), IAM's reference.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import httpx
import msgspec

from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.reporting.redaction import redact
from exporter.transport.json_body import decode
from exporter.transport.limits import parse_retry_after

_MAX_CLOCK_ERROR_SECONDS = 15 * 60.0
_LOCKED = re.compile(r"\block(?:ed|out)?\b", re.IGNORECASE)
LOCKED_HINT = "the account or key is locked after failed logins: wait, then correct the secret"


def quote(text: str) -> str:
    """What others wrote, for a message.

    Whoever shows the message cuts it shorter, after looking for the secrets in use: here the cut
    could leave the first half of one, which nobody would recognise.
    """
    return redact(text, max_chars=2_000)


def retry_after(response: httpx.Response, now: float) -> float | None:
    return parse_retry_after(response.headers.get("retry-after"), now=now)


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
        tree: Any = decode(msgspec.json.decode, body[:65_536])
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


def network_error(exc: Exception) -> ApiError:
    cause = exc
    if isinstance(cause, aiohttp.ClientResponseError):
        return BadResponseError(f"not an HTTP answer: {quote(str(cause.message))}")
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return UnavailableError(
            f"the server's certificate is not trusted: {quote(str(cause))}",
            reason=Reason.NETWORK,
            hint="name the authority that signed it in api.ca_file",
        )
    return UnavailableError(
        f"the connection failed: {quote(str(cause)) or type(cause).__name__}",
        reason=Reason.NETWORK,
        hint="is the endpoint right, and reachable from here (DNS, firewall, proxy)?",
    )
