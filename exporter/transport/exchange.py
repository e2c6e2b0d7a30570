"""One request and its answer: under the limits, timed, counted, and read whole within bounds."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import httpx

from exporter.errors import ApiError, BadResponseError, Reason, UnavailableError
from exporter.transport.failures import network_error, quote, reason_of, retry_after
from exporter.transport.limits import Query, RateLimiter, parse_policy_hint

MAX_RESPONSE_BYTES = 10 * 1024 * 1024

Observe = Callable[[str, float], None]  # an operation and the seconds it took


class LimitedTransport(httpx.AsyncBaseTransport):
    """Each request within its project's limits, timed, counted, and read whole within its bounds.

    It looks for its `Query`, its `RateLimiter` and its operation in the request's extensions.
    Raises ApiError for what is no answer; an answer with a bad status is for the caller.
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
        limiter: RateLimiter | None = extensions.get("limiter")
        if limiter is None:
            return await self._exchange(request, query)
        permit = await limiter.acquire(query)
        try:
            response = await self._exchange(request, query)
            if response.status_code == 429:
                response.extensions["silence"] = limiter.throttled(
                    permit,
                    retry_after=retry_after(response, self._clock()),
                    hint=parse_policy_hint(response.content[:4096].decode("utf-8", "replace")),
                )
            else:
                limiter.succeeded(permit)
            return response
        finally:
            limiter.release()

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
            raise _counted(network_error(exc), meter.count_error) from exc
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
            f"the body comes in an encoding that was not asked for: {quote(encoding)}"
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
