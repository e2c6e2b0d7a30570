"""Services on this machine or this link: the metadata service, the pod's credential agent.

They are never asked through a proxy, and their answers are small.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx

from exporter.errors import ApiError, BadResponseError, Reason, UnavailableError

_BODY_LIMIT_BYTES = 64 * 1024


class LocalAnswer(NamedTuple):
    status: int
    body: bytes


def create_local_client() -> httpx.AsyncClient:
    """A client for `ask`: no proxy, not even the environment's; the system's trust."""
    return httpx.AsyncClient(
        verify=ssl.create_default_context(), trust_env=False, follow_redirects=False
    )


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    hint: str,
    content: bytes | None = None,
) -> LocalAnswer:
    """The answer, whatever its status. Its caller bounds the time: `within`.

    ApiError, with `hint`, where there is none, or one without end.
    """
    body = bytearray()
    try:
        async with client.stream(
            method,
            url,
            headers={**headers, "Accept-Encoding": "identity"},
            content=content,
            timeout=None,
            follow_redirects=False,
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise BadResponseError("an answer in an encoding that was not asked for", hint=hint)
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _BODY_LIMIT_BYTES:
                    raise BadResponseError(
                        f"an answer of more than {_BODY_LIMIT_BYTES} bytes", hint=hint
                    )
            return LocalAnswer(response.status_code, bytes(body))
    except (httpx.HTTPError, OSError) as exc:
        error = UnavailableError(
            f"no answer ({type(exc).__name__})", reason=Reason.NETWORK, hint=hint
        )
        error.counted = True  # it was sent, and may be sent again
        raise error from exc


@asynccontextmanager
async def within(seconds: float, *, hint: str) -> AsyncIterator[None]:
    """The one time-out of an exchange: also one whose bytes trickle has no more time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        error = UnavailableError(
            f"no answer within {seconds:g} s", reason=Reason.TIMEOUT, hint=hint
        )
        error.counted = True
        raise error from exc


def unexpected(answer: LocalAnswer, hint: str) -> ApiError:
    """The error that an answer with another status than those that are understood is."""
    message = f"HTTP {answer.status}"
    if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return UnavailableError(message, reason=Reason.SERVER, hint=hint, status=answer.status)
    return BadResponseError(message, hint=hint, status=answer.status)
