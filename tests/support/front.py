"""A running `serve` on loopback, and a client of plain bytes for it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.web.client_limits import ClientLimits
from exporter.web.listener import bind
from exporter.web.live_config import LoadedWebConfig
from exporter.web.server import serve


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"hello")


async def respond(send: Send, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


class Front:
    """A running `serve` and a client for it."""

    def __init__(self, port: int, task: asyncio.Task[None]) -> None:
        self.port = port
        self.task = task
        self._opened: list[asyncio.StreamWriter] = []

    async def connect(
        self, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        self._opened.append(writer)
        return reader, writer

    async def get(
        self, *headers: str, path: str = "/", tls: ssl.SSLContext | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        return await request(*await self.connect(tls), *headers, path=path)

    def hang_up(self) -> None:
        for writer in self._opened:
            writer.transport.abort()


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *headers: str, path: str = "/"
) -> tuple[int, dict[str, str], bytes]:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    return await read_response(reader)


async def read_response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status_line, *lines = head.split("\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return (
        int(status_line.split()[1]),
        headers,
        await reader.readexactly(int(headers.get("content-length", 0))),
    )


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Waits until the other side has closed."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await reader.read()
    return True


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp = hello,
    *,
    web_config: LoadedWebConfig | None = None,
    limits: ClientLimits | None = None,
    stopping: Callable[[], None] = lambda: None,
    on_reload: Callable[[], Awaitable[None]] | None = None,
    grace_seconds: float = 10.0,
) -> AsyncIterator[Front]:
    sockets = bind(("127.0.0.1", 0))
    port = sockets[0].getsockname()[1]
    task = asyncio.create_task(
        serve(
            app,
            sockets=sockets,
            web_config=web_config,
            on_reload=on_reload,
            stopping=stopping,
            grace_seconds=grace_seconds,
            limits=limits,
        )
    )
    front = Front(port, task)
    try:
        async with asyncio.timeout(60):  # a test that hangs fails
            yield front
    finally:
        front.hang_up()
        task.cancel()
        await asyncio.wait([task])


class Held:
    """An application whose requests wait until they are let go."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/held":
            self.arrived.set()
            await self.let_go.wait()
        await respond(send, b"done")


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def connections_of(port: int) -> int:
    """Established connections whose own end is the port, as the kernel counts them."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
