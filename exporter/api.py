"""The cloud's API over HTTP: requests under the limits, answers as models, errors with a reason.

Sources of the facts: the API reference of TaurusDB (ShowIncrementalBackupList), the vendor's SDK
3.1.219, and IAM's reference for tokens. What is not documented is not relied on.
"""

import asyncio
import random
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import aiohttp
import httpx
import msgspec
import structlog

from exporter.auth import CloudAuth, SigningAuth, Token
from exporter.config import ApiConfig
from exporter.connections import ExactTransport
from exporter.errors import (
    ApiError,
    AuthError,
    BadResponseError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.limits import (
    Gate,
    Jitter,
    Lane,
    Query,
    parse_policy_hint,
    parse_retry_after,
    retry_seconds,
)
from exporter.models import Backup, Instance, Page
from exporter.redaction import SecretRegistry, redact
from exporter.signing import build_query

log = structlog.get_logger(__name__)

LIST_BACKUPS = "list_backups"
LIST_INSTANCES = "list_instances"
LOGIN = "login"
OPERATIONS = (LIST_BACKUPS, LIST_INSTANCES, LOGIN)

MAX_RESPONSE_BYTES = 10 * 1024 * 1024
_MAX_CLOCK_ERROR_SECONDS = 15 * 60.0
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})

# The body of a GET; that it is given spares httpx a second copy of the headers.
_NOTHING = httpx.ByteStream(b"")

Observe = Callable[[str, float], None]  # an operation and the seconds it took

# The exchange ----------------------------------------------------------------------------------


class LimitedTransport(httpx.AsyncBaseTransport):
    """Each request under its lane's limits, timed, counted, and read whole within its bounds.

    It looks for its `Query`, its `Lane` and its operation in the request's extensions. Raises
    ApiError for what is no answer; an answer with a bad status is for the caller.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        timeout: float,
        observe: Observe,
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._timeout = timeout
        self._observe = observe
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = request.extensions
        query: Query = extensions["query"]
        lane: Lane | None = extensions.get("lane")
        if lane is None:
            return await self._exchange(request, query)
        permit = await lane.acquire(query)
        try:
            response = await self._exchange(request, query)
            if response.status_code == 429:
                response.extensions["silence"] = lane.throttled(
                    permit,
                    retry_after=_retry_after(response, self._clock()),
                    hint=parse_policy_hint(response.content[:4096].decode("utf-8", "replace")),
                )
            else:
                lane.succeeded(permit)
            return response
        finally:
            lane.release()

    async def _exchange(self, request: httpx.Request, query: Query) -> httpx.Response:
        meter = query.meter
        meter.requests += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._inner.handle_async_request(request)
                try:
                    body = await _read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            error: ApiError = UnavailableError(
                f"no answer within {self._timeout:g} s",
                reason=Reason.TIMEOUT,
                hint="is the endpoint reachable from here, and api.timeout long enough?",
            )
            raise _counted(error, meter.count_error) from exc
        except BadResponseError as exc:
            raise _counted(exc, meter.count_error) from None
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as exc:
            raise _counted(_network_error(exc), meter.count_error) from exc
        finally:
            self._observe(request.extensions["operation"], time.perf_counter() - started)
        status = response.status_code
        if status != 200 and not (status == 201 and request.method == "POST"):
            meter.count_error(reason_of(status))
        headers = response.headers
        if "content-encoding" in headers:
            headers = _plain_headers(headers)
        return httpx.Response(status, headers=headers, content=body, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _counted(error: ApiError, count: Callable[[Reason], None]) -> ApiError:
    count(error.reason)
    error.counted = True
    return error


def _network_error(exc: Exception) -> ApiError:
    cause = exc
    if isinstance(cause, aiohttp.ClientResponseError):
        return BadResponseError(f"not an HTTP answer: {_quoted(str(cause.message))}")
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return UnavailableError(
            f"the server's certificate is not trusted: {_quoted(str(cause))}",
            reason=Reason.NETWORK,
            hint="name the authority that signed it in api.ca_file",
        )
    return UnavailableError(
        f"the connection failed: {_quoted(str(cause)) or type(cause).__name__}",
        reason=Reason.NETWORK,
        hint="is the endpoint right, and reachable from here (DNS, firewall, proxy)?",
    )


def _quoted(text: str) -> str:
    """What others wrote, for a message.

    Whoever shows the message cuts it shorter, after looking for the secrets in use: here the cut
    could leave the first half of one, which nobody would recognise.
    """
    return redact(text, max_chars=2_000)


def _plain_headers(headers: httpx.Headers) -> httpx.Headers:
    """The headers of a body that is read and decoded already."""
    plain = headers.copy()
    plain.pop("content-encoding", None)
    return plain


async def _read_body(response: httpx.Response) -> bytes:
    """The decoded body; BadResponseError as soon as it is over the bound, not after."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    if encoding in ("", "identity"):
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.stream:
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadResponseError(
            f"the body comes in an encoding that was not asked for: {_quoted(encoding)}"
        )
    return await _inflate(response.stream, gzip=encoding != "deflate")


async def _inflate(stream: AsyncIterator[bytes] | httpx.AsyncByteStream, *, gzip: bool) -> bytes:
    """A compressed body, though none was asked for. A bomb is noticed while it is inflated."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if gzip else 0))
    body = bytearray()
    received = 0
    try:
        async for chunk in stream:
            received += len(chunk)
            if received > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
            body += inflater.decompress(chunk, MAX_RESPONSE_BYTES + 1 - len(body))
            if len(body) > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
    except zlib.error as exc:
        raise BadResponseError(f"the compressed body is damaged: {exc}") from exc
    if not inflater.eof:
        raise BadResponseError("the compressed body ends too early")
    return bytes(body)


def _too_large() -> str:
    return f"the body is over {MAX_RESPONSE_BYTES // 1024 // 1024} MiB"


def _retry_after(response: httpx.Response, now: float) -> float | None:
    return parse_retry_after(response.headers.get("retry-after"), now=now)


# Errors ----------------------------------------------------------------------------------------


def reason_of(status: int) -> Reason:
    """The metric's label for an answer's status."""
    known = {
        400: Reason.BAD_REQUEST,
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
_LOCKED_HINT = "the account or key is locked after failed logins: wait, then correct the secret"


def _hint(status: int, code: str, message: str) -> str:
    """What to do about a refused request."""
    if status in (400, 401, 403) and _LOCKED.search(message):
        return _LOCKED_HINT
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
        message += ": " + " ".join(_quoted(part) for part in (told.code, told.message) if part)
    elif 300 <= status < 400:
        message += ": a redirect, which is not followed"
    reason = reason_of(status)
    facts: dict[str, Any] = {
        "hint": _hint(status, told.code, told.message),
        "status": status,
        "error_code": _quoted(told.code),
        "request_id": _quoted(told.request_id or response.headers.get("x-request-id", "")),
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
        error.retry_after = _retry_after(response, now)
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
        raise BadResponseError(f"not a listing of backups: {_quoted(str(exc))}") from exc
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
        raise BadResponseError(f"backup {_quoted(row.id)} has the size {size}")
    try:
        begin = parse_time(row.begin_time) if row.begin_time else None
        end = parse_time(row.end_time) if row.end_time else None
    except (ValueError, OverflowError) as exc:
        raise BadResponseError(
            f"backup {_quoted(row.id)} has an unreadable time: {_quoted(str(exc))}"
        ) from exc
    if end is None and begin is None:
        raise BadResponseError(f"backup {_quoted(row.id)} has neither begin_time nor end_time")
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
        raise BadResponseError(f"not a listing of instances: {_quoted(str(exc))}") from exc
    return InstancePage(
        [
            FoundInstance(
                row.id, row.name or "", {tag.key: tag.value or "" for tag in row.tags or ()}
            )
            for row in listing.instances
        ],
        listing.total_count,
    )


# The client ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wire:
    """What all projects' clients share: one pool of connections, one gate, one way to wait."""

    transport: LimitedTransport
    gate: Gate
    config: ApiConfig
    clock: Callable[[], float]
    jitter: Jitter

    async def send(self, request: httpx.Request, auth: httpx.Auth | None = None) -> httpx.Response:
        """The answer to a request, repeated as `auth` wants. Raises ApiError.

        As httpx's own client does it, less what no answer of this API needs (redirects, cookies,
        hooks, a body read in pieces): that takes longer than all the rest of a request.
        """
        if auth is None:
            return await self.transport.handle_async_request(request)
        flow = auth.async_auth_flow(request)
        try:
            request = await anext(flow)
            while True:
                response = await self.transport.handle_async_request(request)
                try:
                    request = await flow.asend(response)
                except StopAsyncIteration:
                    return response
        finally:
            await flow.aclose()

    async def aclose(self) -> None:
        await self.transport.aclose()


def connect(
    config: ApiConfig,
    *,
    observe: Observe = lambda operation, seconds: None,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Jitter = random.uniform,
) -> Wire:
    """The shared connections; `transport` takes the network's place in tests."""
    inner = transport if transport is not None else _open_connections(config)
    limited = LimitedTransport(inner, timeout=config.timeout, observe=observe, clock=clock)
    return Wire(limited, Gate(config.max_connections), config, clock, jitter)


def ssl_context(config: ApiConfig) -> ssl.SSLContext:
    """The trust of the system, and of `api.ca_file` where it is given. OSError, ssl.SSLError."""
    context = ssl.create_default_context()
    if config.ca_file is not None:
        context.load_verify_locations(cafile=config.ca_file)
    return context


def _open_connections(config: ApiConfig) -> ExactTransport:
    return ExactTransport(
        ssl_context=ssl_context(config),
        proxy_url=config.proxy_url.get_secret_value() if config.proxy_url is not None else None,
        # Long enough for an idle connection to be of use to the next scrape.
        keepalive_seconds=90.0,
    )


class ProjectClient:
    """One project's API: its endpoint, its credentials, its lane."""

    def __init__(
        self,
        wire: Wire,
        *,
        project_id: str,
        endpoint: str,
        auth: CloudAuth,
    ) -> None:
        self._wire = wire
        self._project_id = project_id
        self._endpoint = endpoint
        self.auth = auth
        self.lane = Lane(wire.gate, rate_limit=wire.config.rate_limit, jitter=wire.jitter)
        # What is sent beside the authentication; a compressed answer would cost more than it saves.
        self._headers = {
            "Host": httpx.URL(endpoint).netloc.decode("ascii"),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "X-Language": "en-us",
        }

    async def fetch_backups(
        self, instance: Instance, *, begin: float, end: float, offset: int, query: Query
    ) -> Page:
        """One page of 50 of the backups between two times, as the API understands them."""
        parameters = [
            ("begin_time", format_time(begin)),
            ("end_time", format_time(end)),
            ("limit", "50"),
            ("offset", str(offset)),
        ]
        if instance.offsite:
            parameters.append(("display_offsite_backup", "true"))
        path = f"/v3/{self._project_id}/instances/{instance.id}/incremental-backups"
        return parse_page(await self._get(LIST_BACKUPS, path, parameters, query))

    async def fetch_instances(self, *, version: str, offset: int, query: Query) -> InstancePage:
        """One page of 100 of the project's instances, by the API of `version` (v3.1 or v3)."""
        path = f"/{version}/{self._project_id}/instances"
        parameters = [("limit", "100"), ("offset", str(offset))]
        return parse_instance_page(await self._get(LIST_INSTANCES, path, parameters, query))

    async def _get(
        self, operation: str, path: str, parameters: list[tuple[str, str]], query: Query
    ) -> bytes:
        """The body of a 200, retried as the configuration says. Raises ApiError, DeadlineError."""
        url = f"{self._endpoint}{path}?{build_query(parameters)}"
        extensions = {"query": query, "lane": self.lane, "operation": operation}
        attempt = 0
        while True:
            try:
                request = httpx.Request(
                    "GET", url, headers=self._headers, stream=_NOTHING, extensions=extensions
                )
                response = await self._wire.send(request, self.auth)
                if response.status_code == 200:
                    return response.content
                raise error_of(
                    response, now=self._wire.clock(), signed=isinstance(self.auth, SigningAuth)
                )
            except (UnavailableError, RateLimitedError) as exc:
                # What keeps a retry from being sent is no second failure.
                exc.counted = exc.counted or attempt > 0
                if attempt >= self._wire.config.retries or not _is_retried(exc):
                    raise
                if isinstance(exc, RateLimitedError):
                    # The lane keeps the project silent: nothing to wait for here.
                    if not query.has_time_for(exc.retry_after or 0.0):
                        raise
                    wait = 0.0
                else:
                    wait = retry_seconds(attempt, exc.retry_after, jitter=self._wire.jitter)
                if not query.has_time_for(wait):
                    raise
                log.debug(
                    "request retried",
                    operation=operation,
                    attempt=attempt + 1,
                    wait_seconds=round(wait, 3),
                    error=exc.message,
                )
                if wait:
                    await query.sleep(wait)
                attempt += 1


def _is_retried(error: ApiError) -> bool:
    """429, 502, 503, 504 and whatever kept an answer from coming; nothing that was not sent."""
    if error.status is None:
        return error.counted
    return error.status in _RETRIED_STATUSES


# Login -----------------------------------------------------------------------------------------


async def fetch_token(
    wire: Wire,
    *,
    iam_endpoint: str,
    domain: str,
    username: str,
    password: str,
    project_id: str,
    registry: SecretRegistry,
) -> Token:
    """A token for one project (KeystoneCreateUserTokenByPassword). Raises ApiError.

    AuthError where IAM refuses the login, another ApiError where it cannot answer.
    """
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": username, "password": password, "domain": {"name": domain}}
                },
            },
            "scope": {"project": {"id": project_id}},
        }
    }
    response = await wire.send(
        httpx.Request(
            "POST",
            f"{iam_endpoint}/v3/auth/tokens?nocatalog=true",
            json=body,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            extensions={"query": Query(), "operation": LOGIN},
        )
    )
    if response.status_code == 201:
        token = parse_token(response)
        registry.update(f"the token of project {project_id}", [token.value])
        return token
    error = error_of(response, now=wire.clock())
    message = f"login of {username} at {iam_endpoint}: {error.message}"
    if isinstance(error, AuthError | RefusedError):
        hint = (
            error.hint
            if error.hint == _LOCKED_HINT
            else "check domain (the account's name), username, password and the project's id"
        )
        raise AuthError(message, reason=Reason.AUTH, hint=hint, status=error.status) from error
    error.message = message
    raise error


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
            f"IAM's answer does not say when the token ends: {_quoted(str(exc))}"
        ) from exc
    return Token(value, expires_at)
