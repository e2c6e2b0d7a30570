"""A network between the exporter and the simulator: it streams, it counts, it breaks."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import ASGIApp

from exporter.simulator import Fault

_Message = MutableMapping[str, Any]

# The connection is reset instead of an answer: the simulator marks it, the transport does it.
_RESET = b"x-simulated-reset"
RESET = Fault(headers={_RESET.decode(): "1"})
Break = Callable[[httpx.Request], Exception | None]


@dataclass(slots=True)
class Exchange:
    """One request as the network saw it. Times are the event loop's."""

    request: httpx.Request
    started: float
    bytes_read: int = 0
    ended: float | None = None


class StreamingTransport(httpx.AsyncBaseTransport):
    """An ASGI application as a server: bodies stream, a crash of it is a lost connection.

    Unlike httpx' own ASGITransport it does not read bodies ahead of the client, and it tells the
    application when the client gives up. `before` may name an error that comes instead of an
    answer (httpx.ConnectError and the like).
    """

    def __init__(self, app: ASGIApp, *, before: Break | None = None) -> None:
        self._app = app
        self.before = before
        self.exchanges: deque[Exchange] = deque(maxlen=100_000)
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.closed, "a request after the transport was closed"
        exchange = Exchange(request, asyncio.get_running_loop().time())
        self.exchanges.append(exchange)
        error = self.before(request) if self.before is not None else None
        if error is not None:
            raise error
        connection = _Connection(self._app, request, exchange, self)
        return await connection.answer()

    async def aclose(self) -> None:
        self.closed = True

    @property
    def paths(self) -> list[str]:
        return [exchange.request.url.path for exchange in self.exchanges]


@dataclass(slots=True)
class _Connection:
    app: ASGIApp
    request: httpx.Request
    exchange: Exchange
    transport: StreamingTransport
    messages: "asyncio.Queue[_Message | Exception]" = field(
        default_factory=lambda: asyncio.Queue(maxsize=1)
    )
    sent: bool = False
    task: "asyncio.Task[None] | None" = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self) -> httpx.Response:
        transport = self.transport
        transport.in_flight += 1
        transport.most_in_flight = max(transport.most_in_flight, transport.in_flight)
        self.task = asyncio.create_task(self._serve(await self.request.aread()))
        try:
            start = await self._next()
            if any(name == _RESET for name, _ in start["headers"]):
                raise httpx.ReadError("connection reset by peer")
        except BaseException:
            await self.close()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=_Body(self))

    async def _serve(self, body: bytes) -> None:
        url = self.request.url
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.request.method,
            "headers": [(name.lower(), value) for name, value in self.request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": ("127.0.0.1", 123),
            "root_path": "",
        }

        async def receive() -> _Message:
            if not self.sent:
                self.sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        try:
            await self.app(scope, receive, self.messages.put)
        except OSError as exc:
            await self.messages.put(exc)

    async def _next(self) -> _Message:
        message = await self.messages.get()
        if isinstance(message, Exception):
            raise httpx.ReadError("connection reset by peer") from message
        return message

    async def body(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._next()
            chunk = message.get("body", b"")
            self.exchange.bytes_read += len(chunk)
            if chunk:
                yield chunk
            more = message.get("more_body", False)

    async def close(self) -> None:
        if self.task is None:
            return
        task, self.task = self.task, None
        self.transport.in_flight -= 1
        self.exchange.ended = asyncio.get_running_loop().time()
        self.gone.set()
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            raise AssertionError("the simulator broke") from task.exception()


class _Body(httpx.AsyncByteStream):
    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.body()

    async def aclose(self) -> None:
        await self._connection.close()
