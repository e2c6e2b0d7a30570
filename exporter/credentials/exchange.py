"""One exchange with who tells who we are: retried, explained, and with one time-out for it all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import httpx
import msgspec

from exporter.errors import (
    ApiError,
    AuthError,
    LoginError,
    RateLimitedError,
    Reason,
    RefusedError,
    UnavailableError,
)
from exporter.transport.failures import LOCKED_HINT, error_of
from exporter.transport.query import Query
from exporter.transport.retries import with_retries
from exporter.transport.wire import Wire

T = TypeVar("T")

LOGIN = "login"  # the metrics' name of all these requests
_LONGEST_WAIT_SECONDS = 10.0  # between two tries


async def exchange(
    wire: Wire,
    url: str,
    body: Mapping[str, object],
    read: Callable[[httpx.Response], T],
    *,
    what: str,
    refused_hint: str,
    auth: httpx.Auth | None = None,
    headers: Mapping[str, str] | None = None,
) -> T:
    """What `read` makes of the answer to a POST; `what` it is, for people.

    AuthError where it is refused, with `refused_hint`; another ApiError where there is no usable
    answer.
    """
    content = msgspec.json.encode(body)

    async def send(query: Query) -> T:
        request = httpx.Request(
            "POST",
            url,
            content=content,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                **(headers or {}),
            },
            extensions={"query": query, "operation": LOGIN},
        )
        response = await wire.send(request, auth)
        if response.status_code in (httpx.codes.OK, httpx.codes.CREATED):
            return read(response)
        error = error_of(response, now=wire.clock(), signed=auth is not None)
        if isinstance(error, RateLimitedError):
            # Nothing holds back the next try here, as the limits of a project do.
            raise LoginError.of(error)
        if isinstance(error, AuthError | RefusedError) and not error.foreign:
            hint = error.hint if error.hint == LOCKED_HINT else refused_hint
            raise AuthError(error.message, reason=Reason.AUTH, hint=hint, **error.facts)
        raise error

    return await retried(wire, send, what=what)


async def retried(wire: Wire, send: Callable[[Query], Awaitable[T]], *, what: str) -> T:
    """What `send` gives, tried again as often as other requests. Raises ApiError.

    All of it has one time-out, however slowly each part of it goes on.
    """
    config = wire.config
    whole = (config.retries + 1) * (config.timeout + _LONGEST_WAIT_SECONDS)
    query = Query(deadline=asyncio.get_running_loop().time() + whole)
    try:
        async with asyncio.timeout(whole):
            return await with_retries(
                lambda: send(query), query=query, retries=config.retries, jitter=wire.jitter
            )
    except TimeoutError as exc:
        raise UnavailableError(
            f"{what}: no answer within {whole:g} s", reason=Reason.TIMEOUT
        ) from exc
    except ApiError as exc:
        if isinstance(exc, RefusedError):  # by something else than who was asked
            exc.reason = Reason.BAD_RESPONSE
        exc.message = f"{what}: {exc.message}"
        exc.counted = False  # it counts for each instance that it keeps from being queried
        raise
