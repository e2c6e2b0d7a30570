"""One request and its answer: under the limits, timed, counted, logged, and read whole."""

import asyncio
import logging
import time
from collections.abc import Callable
from traceback import clear_frames
from typing import Any

import aiohttp
import httpx
import structlog

from exporter.errors import ApiError, BadResponseError, RateLimitedError
from exporter.transport.background import BackgroundLimiter
from exporter.transport.backoff import parse_policy_hint
from exporter.transport.bodies import read_body
from exporter.transport.clock import CloudClock, steady_time
from exporter.transport.connections import ExactTransport
from exporter.transport.failures import quote, reason_of, retry_after
from exporter.transport.limits import Permit, RateLimiter
from exporter.transport.query import Query, Share
from exporter.transport.unanswered import Way, causes, network_error, timed_out

log = structlog.get_logger(__name__)

_FAILING_SERVER = frozenset({502, 503, 504})

Observe = Callable[[str, float], None]  # an operation and the seconds it took


class LimitedTransport(httpx.AsyncBaseTransport):
    """Each request within its project's limits, timed, counted, logged, and read whole.

    It looks for its `Query`, its `RateLimiter` and its operation in the request's extensions.
    Raises ApiError for what is no answer; an answer with a bad status is for the caller.

    With the extension `parse` a 200 is parsed here: what comes of it, the value or a
    BadResponseError, is the response's extension `parsed`. An answer that makes no sense ends its
    connection, which may be one answer behind.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        timeout: float,
        observe: Observe,
        clock: Callable[[], float],
        proxy: str = "",
    ) -> None:
        """`proxy` is the address of the one that is in use, for people."""
        self._inner = inner
        self._timeout = timeout
        self._observe = observe
        self._clock = clock
        self._proxy = proxy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        extensions = request.extensions
        query: Query = extensions["query"]
        limiter: RateLimiter | BackgroundLimiter | None = extensions.get("limiter")
        if limiter is None:
            return await self._exchange(request, query)
        permit = await limiter.acquire(query)
        answered = False
        try:
            is_still_good: Callable[[], bool] | None = extensions.get("is_still_good")
            if is_still_good is not None and not is_still_good():
                # While it waited, what it shows of us was refused: nobody need see it again.
                return httpx.Response(401, request=request, extensions={"was_sent": False})
            try:
                response = await self._exchange(request, query, permit)
                answered = True
            except RateLimitedError as exc:  # of a proxy
                silence = limiter.throttled(
                    permit, retry_after=exc.retry_after, hint=None, by=f"the proxy {self._proxy}"
                )
                exc.retry_after = silence
                raise
            if response.status_code == 429:
                response.extensions["silence"] = limiter.throttled(
                    permit,
                    retry_after=retry_after(response, extensions.get("clock", self._clock)()),
                    hint=parse_policy_hint(response.content[:4096].decode("utf-8", "replace")),
                )
            else:
                limiter.succeeded(permit)
            return response
        finally:
            limiter.ended(permit, answered=answered)
            limiter.release(permit.share)

    async def _exchange(
        self, request: httpx.Request, query: Query, permit: Permit | None = None
    ) -> httpx.Response:
        host = request.url.netloc.decode("ascii")
        way = Way(host, request.url.scheme == "https", self._proxy)
        started = time.perf_counter()
        sent = steady_time()
        try:
            with query.sending(host, lambda: way.asked(_unresolved(self._inner, request))):
                response = await self._converse(request, way, permit)
        except ApiError as exc:
            if permit is not None and permit.is_given_up:
                # Another try of it takes none of the connections that others wait for.
                query.share = Share.UNANSWERED
            query.count_error(exc.reason)
            exc.counted = True
            exc.operation = request.extensions["operation"]
            exc.host = host
            _log(request, started, error=exc.message)
            raise
        finally:
            self._observe(request.extensions["operation"], time.perf_counter() - started)
        _learn_the_time(response, sent)
        status = response.status_code
        if status != 200 and not (status == 201 and request.method == "POST"):
            query.count_error(reason_of(status))
        if status in _FAILING_SERVER:
            # The next one may lead to a server that works.
            _end_connection(response, look_up_again=True)
        _parse(response)
        _log(request, started, response)
        return response

    async def _converse(
        self, request: httpx.Request, way: Way, permit: Permit | None
    ) -> httpx.Response:
        """The answer, its body read. Raises ApiError."""
        begun = False
        try:
            async with asyncio.timeout(self._timeout) as bound:
                if permit is not None:
                    permit.bound = bound
                response = await self._inner.handle_async_request(request)
                begun = True
                try:
                    body = await read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            seconds = self._timeout if permit is None else permit.age(at_most=self._timeout)
            unresolved = _unresolved(self._inner, request)
            raise timed_out(way, seconds, begun=begun, unresolved=unresolved) from exc
        except (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError) as exc:
            for cause in causes(exc):
                # Some frames hold the exception that they raised (aiohappyeyeballs does).
                clear_frames(cause.__traceback__)
            raise network_error(exc, way, now=self._clock()) from exc
        headers = response.headers
        if "content-encoding" in headers:
            headers = _plain_headers(headers)
        extensions = response.extensions
        if self._proxy and not way.is_https:
            extensions = {**extensions, "proxy": self._proxy}
        return _Answer(
            response.status_code,
            body,
            headers=headers,
            request=request,
            extensions=extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Answer(httpx.Response):
    """An answer with its body, without the way by which httpx reads one: bounded and decoded as
    it is, there is nothing left to read."""

    def __init__(self, status: int, body: bytes, **facts: Any) -> None:
        super().__init__(status, stream=_READ, **facts)
        self._body = body

    @property
    def content(self) -> bytes:
        return self._body


_READ = httpx.ByteStream(b"")


def _learn_the_time(response: httpx.Response, sent: float) -> None:
    """From what the cloud itself has said just now: no page of a proxy, nothing out of a cache."""
    clock = response.request.extensions.get("clock")
    headers = response.headers
    if isinstance(clock, CloudClock) and "age" not in headers and response.content[:1] == b"{":
        clock.observe(headers.get("date"), sent=sent, received=steady_time())


def _unresolved(inner: httpx.AsyncBaseTransport, request: httpx.Request) -> str:
    return inner.unresolved(request) if isinstance(inner, ExactTransport) else ""


def _plain_headers(headers: httpx.Headers) -> httpx.Headers:
    """The headers of a body that is read and decoded already."""
    plain = headers.copy()
    plain.pop("content-encoding", None)
    return plain


def _parse(response: httpx.Response) -> None:
    parse: Callable[[bytes], Any] | None = response.request.extensions.get("parse")
    if parse is None or response.status_code != 200:
        return
    try:
        response.extensions["parsed"] = parse(response.content)
    except BadResponseError as exc:
        exc.operation = response.request.extensions["operation"]
        exc.host = response.request.url.netloc.decode("ascii")
        exc.status = response.status_code
        exc.request_id = _request_id(response)
        response.extensions["parsed"] = exc.kept()
        _end_connection(response)


def _end_connection(response: httpx.Response, *, look_up_again: bool = False) -> None:
    discard: Callable[..., None] | None = response.extensions.get("discard")
    if discard is not None:
        discard(look_up_again=look_up_again)


def _request_id(response: httpx.Response) -> str:
    return quote(response.headers.get("x-request-id", ""))


def _log(
    request: httpx.Request,
    started: float,
    response: httpx.Response | None = None,
    *,
    error: str | None = None,
) -> None:
    """One line at debug: never a header or a body, where tokens and signatures are."""
    if not logging.getLogger(__name__).isEnabledFor(logging.DEBUG):
        return  # at most times; to put the line together takes as long as to read an answer
    facts: dict[str, Any] = {}
    if response is not None:
        facts["status"] = response.status_code
        facts["request_id"] = response.headers.get("x-request-id")
        parsed = response.extensions.get("parsed")
        if isinstance(parsed, BadResponseError):
            error = parsed.message
        else:
            facts["rows"] = getattr(parsed, "row_count", None)
    facts |= {"query": request.url.query.decode("ascii") or None, "error": error}
    log.debug(
        "request",
        operation=request.extensions["operation"],
        method=request.method,
        host=request.url.netloc.decode("ascii"),
        path=request.url.path,
        duration_seconds=round(time.perf_counter() - started, 3),
        **{name: value for name, value in facts.items() if value is not None},
    )
