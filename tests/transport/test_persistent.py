"""When a connection is used again, over real sockets: never where an answer could be another's."""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from exporter.cloud.api import LIST_BACKUPS
from exporter.config.schema import ApiConfig
from exporter.errors import BadResponseError, Reason, UnavailableError
from exporter.transport import persistent
from exporter.transport.query import Query
from exporter.transport.wire import Wire, connect

_SO_ATTACH_FILTER = 26  # of Linux (socket(7)); Python has no name for it


def answer(body: str, *, status: int = 200, request_id: str = "") -> bytes:
    identity = f"X-Request-Id: {request_id}\r\n" if request_id else ""
    head = f"HTTP/1.1 {status} OK\r\n{identity}Content-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@dataclass(eq=False)
class Served:
    """One connection as the server sees it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: int = 0

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        return head

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def forget(self) -> None:
        """Drop all that comes, and say nothing of it, as a NAT does that has forgotten it."""
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: ret #0
        program = struct.pack("HP", 1, ctypes.addressof(drop_all))
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def reset(self) -> None:
        no_wait = struct.pack("ii", 1, 0)
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_wait)
        self.writer.close()

    async def ended(self) -> None:
        """Until the client has closed it."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(4096):
                pass


Talk = Callable[[Served], Awaitable[None]]


@dataclass(eq=False)
class Cloud:
    """A server, and a client of it by way of all that a request of the program goes through."""

    address: str
    wire: Wire
    connections: list[Served] = field(default_factory=list)
    query: Query = field(default_factory=Query)

    async def ask(self, method: str = "GET") -> httpx.Response:
        extensions = {"query": self.query, "operation": LIST_BACKUPS}
        return await self.wire.send(httpx.Request(method, self.address, extensions=extensions))

    async def texts(self, times: int) -> list[str]:
        return [(await self.ask()).text for _ in range(times)]

    @property
    def errors(self) -> dict[Reason, int]:
        return {reason: count for reason, count in self.query.meter.errors.items() if count}


@asynccontextmanager
async def talking(talk: Talk, *, max_connections: int = 50) -> AsyncIterator[Cloud]:
    """A cloud that talks so on each connection; one that ends its talk is closed."""

    talks: list[asyncio.Task[None] | None] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = Served(len(cloud.connections), reader, writer)
        talks.append(asyncio.current_task())
        cloud.connections.append(served)
        try:
            await talk(served)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        config = ApiConfig(timeout="5s", max_connections=max_connections)
        cloud = Cloud(address, connect(config))
        try:
            yield cloud
        finally:
            await cloud.wire.aclose()
            await asyncio.gather(*filter(None, talks))


# What nobody asked for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unasked",
    [
        answer("another's"),
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"\x00",
    ],
    ids=["an answer", "half of a head", "an empty line", "a byte"],
)
async def test_what_comes_on_an_idle_connection_ends_it(unasked: bytes) -> None:
    ended = asyncio.Event()

    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer("first" if served.number == 0 else "second"))
        if served.number == 0:
            await go_on.wait()
            await served.send(unasked)
            await served.ended()
            ended.set()
        await served.ended()

    go_on = asyncio.Event()
    async with talking(talk) as cloud:
        assert (await cloud.ask()).text == "first"
        go_on.set()
        async with asyncio.timeout(5):
            await ended.wait()
        assert (await cloud.ask()).text == "second"
    assert len(cloud.connections) == 2
    assert cloud.errors == {}


async def test_an_answer_behind_the_one_asked_for_ends_the_connection() -> None:
    async def talk(served: Served) -> None:
        await served.request()
        text = f"answer {served.number}"
        await served.send(answer(text) + answer("another's"))
        await served.ended()

    async with talking(talk) as cloud:
        assert await cloud.texts(2) == ["answer 0", "answer 1"]


async def test_what_waits_unread_when_a_request_is_due_ends_the_connection() -> None:
    """The loop has not read it yet: it would be taken for the answer of what is sent next."""

    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer(f"answer {served.number}"))
        await served.ended()

    async with talking(talk) as cloud:
        assert (await cloud.ask()).text == "answer 0"
        # No turn of the loop between this and the next request.
        raw = cloud.connections[0].writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(raw.fileno())) as direct:
            direct.send(answer("another's"))
        assert (await cloud.ask()).text == "answer 1"


async def test_an_answer_given_twice_is_known_by_its_request_id() -> None:
    """It comes when the next request was sent: nothing else tells it from that one's answer."""

    async def talk(served: Served) -> None:
        for text in ("first", "second", "second"):
            await served.request()
            await served.send(answer(text, request_id=text))
        await served.ended()

    async with talking(talk) as cloud:
        assert await cloud.texts(2) == ["first", "second"]
        with pytest.raises(BadResponseError, match="same X-Request-Id") as caught:
            await cloud.ask()
        assert "mixes answers up" in caught.value.hint
        assert (await cloud.ask()).text == "first"
    assert len(cloud.connections) == 2
    assert cloud.errors == {Reason.BAD_RESPONSE: 1}


async def test_an_id_that_all_answers_have_says_nothing() -> None:
    async def talk(served: Served) -> None:
        while True:
            await served.request()
            await served.send(answer(f"{served.requests}", request_id="always"))

    async with talking(talk) as cloud:
        assert await cloud.texts(3) == ["1", "2", "3"]
    assert cloud.errors == {}


# How long one serves ---------------------------------------------------------------------------


async def talk_on(served: Served) -> None:
    while True:
        await served.request()
        await served.send(answer(f"{served.number}.{served.requests}"))


async def test_a_connection_has_a_greatest_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(persistent, "monotonic", lambda: now)
    async with talking(talk_on) as cloud:
        assert await cloud.texts(2) == ["0.1", "0.2"]
        now += 299
        assert await cloud.texts(1) == ["0.3"]
        now += 1
        assert await cloud.texts(2) == ["1.1", "1.2"]


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_server_that_fails_loses_its_connection(status: int) -> None:
    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer("failing", status=status))
        await served.ended()

    async with talking(talk) as cloud:
        assert [(await cloud.ask()).status_code for _ in range(2)] == [status, status]
    assert len(cloud.connections) == 2


@pytest.mark.parametrize(("idle_seconds", "connections"), [(29, 1), (31, 2)])
async def test_a_connection_is_not_used_after_half_a_minute_of_silence(
    monkeypatch: pytest.MonkeyPatch, idle_seconds: int, connections: int
) -> None:
    """Many NATs forget it after 40 s, and tell nobody."""
    now = 1_000.0
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: now)
    async with talking(talk_on) as cloud:
        await cloud.ask()
        now += idle_seconds
        await cloud.ask()
    assert len(cloud.connections) == connections


def test_a_socket_is_probed_before_a_nat_forgets_it() -> None:
    with persistent.open_socket(
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))
    ) as opened:
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 20


@pytest.mark.parametrize(
    ("last_words", "seen"), [(answer("moved", status=503), 503), (b"", "network")]
)
async def test_a_name_that_moves_is_followed_when_its_old_address_fails(
    last_words: bytes, seen: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old address answers 503 for ever, or closes each connection."""

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(last_words)
        writer.close()

    async def new(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer("here"))
        writer.close()

    addresses = iter(["127.0.0.1", "127.0.0.2"])
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: real(next(addresses), *more, **named),
    )
    first = await asyncio.start_server(old, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(new, "127.0.0.2", port)
    wire = connect(ApiConfig())
    try:
        statuses: list[object] = []
        for _ in range(3):
            extensions = {"query": Query(), "operation": LIST_BACKUPS}
            request = httpx.Request("GET", f"http://db.example:{port}/", extensions=extensions)
            try:
                statuses.append((await wire.send(request)).status_code)
            except UnavailableError as exc:
                statuses.append(exc.reason)
        assert statuses == [seen, 200, 200]
    finally:
        await wire.aclose()
        for server in (first, second):
            server.close()
            await server.wait_closed()


async def test_idle_connections_make_room_for_new_ones() -> None:
    """To many hosts one after the other: those that rest are not more than are allowed at all."""
    wire = connect(ApiConfig(max_connections=3))
    ended: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer("x"))
        ended.append(ports.index(port))
        writer.close()

    servers = [await asyncio.start_server(talk, "127.0.0.1", 0) for _ in range(5)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    try:
        for port in ports:
            extensions = {"query": Query(), "operation": LIST_BACKUPS}
            url = f"http://127.0.0.1:{port}/"
            await wire.send(httpx.Request("GET", url, extensions=extensions))
        async with asyncio.timeout(5):
            while len(ended) < 2:
                await asyncio.sleep(0)
        assert sorted(ended) == [0, 1]
    finally:
        await wire.aclose()
        async with asyncio.timeout(5):
            while len(ended) < 5:
                await asyncio.sleep(0)
        for server in servers:
            server.close()
            await server.wait_closed()


# A stale connection ----------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
async def test_a_request_that_met_a_stale_connection_goes_out_once_more_uncounted(
    reset: bool,
) -> None:
    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer(f"answer {served.number}"))
        await served.request()
        if reset:
            served.reset()

    async with talking(talk) as cloud:
        assert await cloud.texts(3) == ["answer 0", "answer 1", "answer 2"]
    assert [served.requests for served in cloud.connections] == [2, 2, 1]
    assert cloud.query.meter.requests == 3
    assert cloud.errors == {}


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a socket option of Linux")
async def test_what_was_forgotten_in_silence_goes_out_once_more_before_the_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(persistent, "_UNACKNOWLEDGED_SECONDS", 0.2)

    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer(f"answer {served.number}"))
        if served.number == 0:
            served.forget()
        await served.request()

    async with talking(talk) as cloud:
        assert await cloud.texts(2) == ["answer 0", "answer 1"]
        for served in cloud.connections:
            served.writer.transport.abort()
    assert [served.requests for served in cloud.connections] == [1, 1]
    assert cloud.errors == {}


async def test_the_second_try_takes_no_other_stale_connection() -> None:
    """What has forgotten one idle connection has forgotten all."""
    both = asyncio.Barrier(2)

    async def talk(served: Served) -> None:
        await served.request()
        if served.number < 2:
            await both.wait()
        await served.send(answer(f"answer {served.number}"))
        await served.request()
        served.reset()

    async with talking(talk) as cloud:
        together = await asyncio.gather(cloud.ask(), cloud.ask())
        assert {response.text for response in together} == {"answer 0", "answer 1"}
        assert (await cloud.ask()).text == "answer 2"
    assert sorted(served.requests for served in cloud.connections) == [1, 1, 2]
    assert cloud.errors == {}


async def test_a_new_connection_that_is_lost_is_an_error() -> None:
    async def talk(served: Served) -> None:
        await served.request()
        if served.number == 0:
            await served.send(answer("first"))
            await served.request()

    async with talking(talk) as cloud:
        await cloud.ask()
        with pytest.raises(UnavailableError, match="closed the connection without an answer"):
            await cloud.ask()
    assert [served.requests for served in cloud.connections] == [2, 1]
    assert cloud.errors == {Reason.NETWORK: 1}


async def test_an_answer_that_had_begun_is_not_asked_for_again() -> None:
    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer("first"))
        await served.request()
        await served.send(b"HTTP/1.1 200")

    async with talking(talk) as cloud:
        await cloud.ask()
        with pytest.raises(UnavailableError):
            await cloud.ask()
    assert len(cloud.connections) == 1
    assert cloud.errors == {Reason.NETWORK: 1}


async def test_what_changes_something_is_not_sent_twice() -> None:
    """A login that was refused in silence would count twice."""

    async def talk(served: Served) -> None:
        await served.request()
        await served.send(answer("first"))
        await served.request()

    async with talking(talk) as cloud:
        await cloud.ask()
        with pytest.raises(UnavailableError):
            await cloud.ask("POST")
    assert len(cloud.connections) == 1
    assert cloud.errors == {Reason.NETWORK: 1}


async def test_a_connection_that_is_used_again_needs_no_room() -> None:
    """With as many open as are allowed, one that is idle is used, and no other is closed for it:
    else a scrape would open connections anew, with a handshake each."""

    async def talk(served: Served) -> None:
        while True:
            await served.request()
            await served.send(answer("x"))

    async with talking(talk, max_connections=2) as cloud:
        await asyncio.gather(cloud.ask(), cloud.ask())
        await cloud.texts(4)
        await asyncio.gather(cloud.ask(), cloud.ask())
        assert len(cloud.connections) == 2
