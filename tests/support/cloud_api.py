"""A project's client on a network that is a function, and answers for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import httpx
import pytest

from exporter.cloud.api import ProjectClient
from exporter.config.schema import ApiConfig
from exporter.credentials.http_auth import CloudAuth, SigningAuth, TokenAuth
from exporter.credentials.refusals import Refusals
from exporter.credentials.sources import StaticSource
from exporter.credentials.values import Keys, Token
from exporter.errors import (
    ApiError,
    Reason,
)
from exporter.models import Instance, Page
from exporter.transport.query import Query
from exporter.transport.wire import connect
from tests.support.virtual_time import NOON, Clock

PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
INSTANCE = Instance(PROJECT, "61a4ea66210545909d74a05c27a7179ein07")
TOKEN = "MIIToken" + "x" * 60
EMPTY = b'{"backups": [], "total_count": 0}'
NOTHING = Page([], 0)
Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Api:
    """A project's client on a network that is a function, and what it did."""

    def __init__(self, answer: Answer, *, auth: CloudAuth | None = None, **config: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.sent_at: list[float] = []
        self.tokens: list[str | None] = []
        self.observed: list[tuple[str, float]] = []
        self.query = Query()
        self._answer = answer
        self.clock = Clock()
        self.wire = connect(
            ApiConfig(**config),
            transport=httpx.MockTransport(self._handle),
            observe=lambda operation, seconds: self.observed.append((operation, seconds)),
            clock=self.clock,
            jitter=lambda low, high: high,
        )
        self.client = ProjectClient(
            self.wire,
            project_id=PROJECT,
            endpoint="https://gaussdb.example:8443",
            auth=auth or token_auth(),
        )

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.tokens.append(request.headers.get("X-Auth-Token"))
        self.sent_at.append(asyncio.get_running_loop().time())
        answer = self._answer(request)
        return answer if isinstance(answer, httpx.Response) else await answer

    async def list_backups(self, instance: Instance = INSTANCE, **more: Any) -> Page:
        asked = {"begin": NOON - 86_400, "end": NOON, "offset": 0, "query": self.query, **more}
        return await self.client.fetch_backups(instance, **asked)

    async def fail(self) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.list_backups()
        return caught.value

    @property
    def errors(self) -> dict[Reason, int]:
        return {reason: count for reason, count in self.query.meter.errors.items() if count}


def token_auth(load: Callable[[], str] = lambda: TOKEN) -> TokenAuth:
    refusals = Refusals("t")
    return TokenAuth(
        StaticSource(
            lambda: Token(load()),
            lambda token: token.value,
            lambda _: refusals,
            project_id=PROJECT,
            who="t",
        )
    )


def signing_auth(clock: Clock) -> SigningAuth:
    refusals = Refusals("key")
    source = StaticSource(
        lambda: Keys("AKEXAMPLE", "secret"),
        lambda keys: keys.secret_key,
        lambda _: refusals,
        project_id=PROJECT,
        who="key",
    )
    return SigningAuth(source, project_id=PROJECT, clock=clock)


def answers(*given: httpx.Response | Exception) -> Answer:
    """One after the other; the last one for ever."""
    left = list(given)

    def answer(request: httpx.Request) -> httpx.Response:
        item = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(item, Exception):
            raise item
        return httpx.Response(item.status_code, headers=item.headers, content=item.content)

    return answer


def ok(content: bytes = EMPTY, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=content, headers=headers)


def gateway_error(status: int, code: str = "", message: str = "", **headers: str) -> httpx.Response:
    body = {"error_msg": message, "error_code": code, "request_id": "8d0f3a"}
    return httpx.Response(status, json=body, headers=headers)


class Stream(httpx.AsyncByteStream):
    """A body in pieces; tells how many were taken, and whether it was closed."""

    def __init__(self, pieces: Iterable[bytes], *, every: float = 0.0) -> None:
        self._pieces = iter(pieces)
        self._every = every
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if self._every:
                await asyncio.sleep(self._every)
            self.taken += len(piece)
            yield piece

    async def aclose(self) -> None:
        self.closed = True
