"""What a bad answer, or none, says: the reason, the message, and what to do about it.

Sources: the error codes of the API gateway and of the service (API reference), IAM's reference.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any

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
from exporter.transport.backoff import parse_retry_after
from exporter.transport.json_body import decode
from exporter.transport.permissions import forbidden_hint, missing_hint

_QUOTED_CHARS = 600
_MAX_CLOCK_ERROR_SECONDS = 15 * 60.0
_EXPIRED = re.compile(r"\bexpired?\b", re.IGNORECASE)
_LOCKED = re.compile(r"\block(?:ed|out)?\b", re.IGNORECASE)
LOCKED_HINT = "the account or key is locked after failed logins: wait, then correct the secret"


@functools.lru_cache(maxsize=256)  # in an outage all instances are told the same
def quote(text: str) -> str:
    """What others wrote, for a message.

    Whoever shows the message cuts it to half of this, after looking for the secrets in use: here
    the cut could leave the first half of one, which nobody would recognise.
    """
    return redact(text, max_chars=_QUOTED_CHARS)


def retry_after(response: httpx.Response, now: float) -> float | None:
    return parse_retry_after(response.headers.get("retry-after"), now=now)


def reason_of(status: int) -> Reason:
    """The metric's label for an answer's status."""
    known = {
        401: Reason.AUTH,
        403: Reason.FORBIDDEN,
        404: Reason.NOT_FOUND,
        407: Reason.NETWORK,  # a proxy's: the cloud was not asked
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
        # A number is the status once more, in IAM's answers; its codes are texts (IAM.0011).
        code = "" if isinstance(nested.get("code"), int) else _text(nested, "code")
        return ErrorBody(code, _text(nested, "message"))
    if not isinstance(tree, dict):
        return ErrorBody()
    return ErrorBody(_text(tree, "error_code"), _text(tree, "error_msg"), _text(tree, "request_id"))


def _text(tree: Mapping[str, Any], key: str) -> str:
    value = tree.get(key)
    return str(value)[:4096] if isinstance(value, str | int) else ""


WRONG_ADDRESS_HINT = (
    "is it the right address? The endpoint of the project's region is asked for; a proxy or portal"
    " on the way may answer in its place"
)
PROXY_ACCESS_HINT = "set the proxy's user and password in api.proxy_url, or correct them"
_NO_SUCH_API = ".0101"  # the gateway's own word: it serves no such API


def _hint(
    status: int, told: ErrorBody, operation: str, *, foreign: bool, proxy: str, signed: bool
) -> str:
    """What to do about a refused request; `proxy` may have answered in the cloud's place."""
    code, message = told.code, told.message
    if status == 407:
        return PROXY_ACCESS_HINT
    if status in (400, 401, 403) and _LOCKED.search(message):
        return LOCKED_HINT
    if foreign and code.endswith(_NO_SUCH_API) and (hint := missing_hint(operation)):
        return hint
    if foreign:
        return WRONG_ADDRESS_HINT
    if status == 401:
        return _unauthorised_hint(code, message, signed=signed)
    if status == 403:
        return forbidden_hint(operation)
    if status == 404:
        return "check the instance's id: is it in this project and region, and not deleted?"
    if status == 400 and code.endswith("280404"):
        return "check the instance's id"
    if status == 429:
        return "lower api.rate_limit or scrape less often"
    if status >= 500 and proxy:
        return f"the cloud's own trouble, or that of the proxy {proxy}: look at the proxy's log"
    if status >= 500:
        return "the cloud's own trouble: if it lasts, ask its support with the request's id"
    return ""


def _unauthorised_hint(code: str, message: str, *, signed: bool) -> str:
    if signed and _EXPIRED.search(message):
        return "the time that was signed is too far from the cloud's: set this machine's clock"
    if _EXPIRED.search(message):
        return (
            "the token has expired: write a new one to its file; with a password or access key the"
            " exporter renews it by itself"
        )
    if code.endswith(".0307"):
        return (
            "the token has expired, or another region gave it: get a new one from the IAM of the"
            " endpoint's region"
        )
    return "check the credentials, and that region and endpoint are the project's own"


# What came instead of the API's answer ----------------------------------------------------------

_HTML = re.compile(
    rb"\s*+(?:<\?xml[^>]{0,200}>\s*+)?(?:<!--.{0,1000}?-->\s*+)?"
    rb"<(?:!doctype html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
# What nginx, Apache and Go answer to plain http on a port of https.
_HTTPS_WANTED = re.compile(
    rb"plain HTTP.{0,40}(?:HTTPS|SSL)|HTTP request to an HTTPS", re.IGNORECASE | re.DOTALL
)
_TITLE = re.compile(rb"<title[^>]{0,100}>(.{0,200}?)</title", re.IGNORECASE | re.DOTALL)
_SHOWN_BYTES = 60


def is_html(body: bytes) -> bool:
    return _HTML.match(body[:4096]) is not None


def describe_body(body: bytes) -> str:
    """What an answer is that is not JSON, for people."""
    if not body.strip():
        return "an empty answer"
    if is_html(body):
        title = _TITLE.search(body[:16_384])
        name = quote(unescape(title[1].decode("utf-8", "replace"))) if title is not None else ""
        return f'an HTML page ("{name}")' if name else "an HTML page"
    text = quote(body[:_SHOWN_BYTES].decode("utf-8", "replace"))
    return f'something else that begins with "{text}"' if text else "no text at all"


def not_json(body: bytes, what: str, exc: Exception) -> BadResponseError:
    """An answer in which `what` was expected, and that `exc` says cannot be read."""
    if body.lstrip()[:1] in (b"{", b"["):
        return BadResponseError(f"not {what}: {quote(str(exc))}")
    error = BadResponseError(f"not {what} but {describe_body(body)}", hint=WRONG_ADDRESS_HINT)
    error.foreign = True
    return error


def _moved(response: httpx.Response) -> str:
    """Where a redirect leads, without what may be a secret in it."""
    location = response.headers.get("location", "").split("?")[0].split("#")[0]
    return f" to {quote(location)}" if location else ""


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


def _asked(response: httpx.Response) -> dict[str, Any]:
    """What was asked for, and of whom."""
    try:
        request = response.request
    except RuntimeError:
        return {}
    return {
        "operation": request.extensions.get("operation", ""),
        "host": request.url.netloc.decode("ascii"),
    }


def error_of(response: httpx.Response, *, now: float, signed: bool = False) -> ApiError:
    """The error that an answer with a bad status is; its message is redacted.

    `signed`: the request had a signature, which a clock that is off spoils.
    """
    status, body = response.status_code, response.content
    told = parse_error_body(body)
    proxy = response.extensions.get("proxy", "")  # where it could have answered itself
    says_nothing = not (told.code or told.message)
    is_page = says_nothing and is_html(body)
    foreign = is_page or (
        status in (404, 405) and (says_nothing or told.code.endswith(_NO_SUCH_API))
    )
    reason = reason_of(status)
    asked = _asked(response)
    operation = asked.get("operation", "")
    facts: dict[str, Any] = {
        "hint": _hint(status, told, operation, foreign=foreign, proxy=proxy, signed=signed),
        "status": status,
        "error_code": quote(told.code),
        "request_id": quote(told.request_id or response.headers.get("x-request-id", "")),
        **asked,
    }
    message = f"HTTP {status}"
    if status == 407:
        message = f"the proxy {proxy} wants a user and password: HTTP 407".replace("  ", " ")
    elif status == 400 and _HTTPS_WANTED.search(body[:4096]):
        message += ": plain http was sent to a port of https"
        facts["hint"] = "write https:// in the endpoint"
    elif not says_nothing:
        told_text = (quote(part) for part in (told.code, told.message) if part)
        message += ": " + " ".join(told_text)
    elif 300 <= status < 400:
        message += f": a redirect{_moved(response)}, which is not followed"
    elif is_page:
        message += f": {describe_body(body)}, not an answer of this API"
    error: ApiError
    if reason is Reason.THROTTLED:
        error = RateLimitedError(message, retry_after=response.extensions.get("silence"), **facts)
    elif reason is Reason.AUTH:
        if signed:
            facts["hint"] = _clock_hint(response, now) or facts["hint"]
        error = AuthError(message, reason=reason, **facts)
    elif reason is Reason.BAD_RESPONSE:
        facts["hint"] = facts["hint"] or WRONG_ADDRESS_HINT
        error = BadResponseError(message, **facts)
    elif reason in (Reason.SERVER, Reason.TIMEOUT, Reason.NETWORK):
        error = UnavailableError(message, reason=reason, **facts)
    else:
        error = RefusedError(message, reason=reason, **facts)
    error.foreign = foreign
    if status == 503:
        error.retry_after = retry_after(response, now)
    error.counted = True
    return error
