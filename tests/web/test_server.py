import asyncio
import base64
import contextlib
import errno
import ipaddress
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.errors import ConfigError, ExporterError
from exporter.web.connection import ClientLimits, parse_sans
from exporter.web.listener import bind, parse_listen_address, raise_open_files_limit
from exporter.web.server import serve
from exporter.web.tls import LoadedWebConfig
from tests.support.certificates import Authority, Issued

# The address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10042", ("", 10042)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9000", ("::1", 9000)),
        ("[fe80::1%lo]:9000", ("fe80::1%lo", 9000)),
    ],
)
def test_a_listen_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10042", "has no port; write host:port, [v6]:port or :port"),
        ("localhost:", "has no port; write host:port, [v6]:port or :port"),
        ("", "has no port; write host:port, [v6]:port or :port"),
        (":65536", "has no port between 0 and 65535 after its last colon"),
        (":" + "9" * 5000, "has no port between 0 and 65535 after its last colon"),
        (":-1", "has no port between 0 and 65535 after its last colon"),
        (":http", "has no port between 0 and 65535 after its last colon"),
        (":٣", "has no port between 0 and 65535 after its last colon"),
        ("::1:9000", "has an IPv6 address without brackets; write [v6]:port"),
        ("[localhost]:9000", "has no IPv6 address between its brackets"),
        ("[::1:9000", "has an IPv6 address without brackets; write [v6]:port"),
        ("http://localhost:80", "has an IPv6 address without brackets; write [v6]:port"),
        ("a b:80", "is not a host and a port; write host:port without http://"),
        ("//localhost:80", "is not a host and a port; write host:port without http://"),
    ],
)
def test_a_listen_address_that_is_none_says_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_listen_address(text)
    assert raised.value.problems == (f"--web.listen-address: {text!r} {problem}",)


@contextlib.contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = bind((host, port))
    try:
        yield sockets
    finally:
        for listening in sockets:
            listening.close()


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_all_interfaces_are_both_families() -> None:
    with bound("") as (listening,):
        port = listening.getsockname()[1]
        assert connects("127.0.0.1", port)
        assert connects("::1", port)


def test_all_interfaces_are_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyV4(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", OnlyV4)
    with bound("") as (listening,):
        assert listening.getsockname()[0] == "0.0.0.0"


@needs_ipv6
def test_an_ipv6_address_is_that_address_only() -> None:
    with bound("::1") as (listening,):
        port = listening.getsockname()[1]
        assert connects("::1", port)
        assert not connects("127.0.0.1", port)


def test_all_addresses_of_a_host_name_get_one_port() -> None:
    with bound("localhost") as sockets:
        assert len({listening.getsockname()[1] for listening in sockets}) == 1
        assert connects("127.0.0.1", sockets[0].getsockname()[1])


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_name_with_two_addresses_listens_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with bound("two.example") as sockets:
        first, second = (listening.getsockname() for listening in sockets)
    assert (first[0], second[0]) == ("127.0.0.1", "127.0.0.2")
    assert first[1] == second[1]


def test_an_address_of_a_name_that_this_machine_does_not_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    with bound("half.example") as (listening,):
        assert listening.getsockname()[0] == "127.0.0.1"


def test_a_name_whose_second_address_is_taken_listens_on_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bound("127.0.0.2") as (taken,):
        port = taken.getsockname()[1]
        with monkeypatch.context() as patch:
            resolve_to(patch, "127.0.0.1", "127.0.0.2")
            with pytest.raises(ConfigError, match="the port is taken"):
                bind(("two.example", port))
        assert not connects("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_a_port_that_is_taken_is_said_so(host: str) -> None:
    with bound(host) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            bind((host, port))
    assert raised.value.problems == (
        f"--web.listen-address: cannot listen on {host}:{port}:"
        " the port is taken by another program; stop it or choose another port",
    )


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("192.0.2.1", "192.0.2.1:0: this machine does not have that address"),
        ("nowhere.invalid", "nowhere.invalid:0: no such host"),
        ("a" * 64 + ".invalid", "a.invalid:0: no such host"),
    ],
)
def test_an_address_that_is_not_ours_is_said_so(host: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        bind((host, 0))
    assert problem in raised.value.problems[0]


# Serving


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


async def test_an_application_is_served_without_naming_the_server() -> None:
    async with serving() as front:
        status, headers, body = await front.get()
    assert (status, body) == (200, b"hello")
    assert "server" not in headers
    assert "date" in headers


async def test_listening_is_logged_with_the_port_that_was_free() -> None:
    with capture_logs() as logs:
        async with serving() as front:
            await front.get()
    assert {
        "event": "listening",
        "log_level": "info",
        "address": f"127.0.0.1:{front.port}",
        "tls": False,
        "basic_auth": False,
    } in logs


async def test_a_forwarded_address_is_not_believed() -> None:
    clients = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            clients.append(scope["client"][0])
        await respond(send, b"")

    async with serving(app) as front:
        await front.get("X-Forwarded-For: 192.0.2.1")
    assert clients == ["127.0.0.1"]


async def test_an_application_that_does_not_start_ends_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    async with serving(app) as front:
        with pytest.raises(ExporterError, match="did not start"):
            await front.task
    assert not connects("127.0.0.1", front.port)


async def test_a_server_that_is_cancelled_closes_its_sockets() -> None:
    async with serving() as front:
        reader, _ = await front.connect()
        await front.get()
        front.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await front.task
        assert await is_closed(reader)
    assert not connects("127.0.0.1", front.port)


# Stopping


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


async def test_sigterm_lets_running_requests_end_and_closes_idle_connections() -> None:
    app = Held()
    stopped = asyncio.Event()
    async with serving(app, stopping=stopped.set) as front:
        idle_reader, idle_writer = await front.connect()
        await request(idle_reader, idle_writer)
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        assert await is_closed(idle_reader)
        assert not running.done()
        assert not connects("127.0.0.1", front.port)
        app.let_go.set()
        status, headers, body = await running
        assert (status, headers["connection"], body) == (200, "close", b"done")
        await front.task


async def test_requests_that_outlast_the_grace_are_answered_503() -> None:
    app = Held()
    async with serving(app, grace_seconds=0) as front:
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGINT)
        status, _, _ = await running
        assert status == 503
        await front.task


async def test_a_second_signal_does_not_wait_for_requests() -> None:
    app = Held()
    stopped = asyncio.Event()
    async with serving(app, stopping=stopped.set, grace_seconds=3600) as front:
        running = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        signal.raise_signal(signal.SIGTERM)
        await front.task
        status, _, _ = await running
        assert status == 503


async def test_a_request_that_ignores_its_cancellation_does_not_keep_the_server() -> None:
    let_go = asyncio.Event()
    arrived = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            arrived.set()
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
            await let_go.wait()

    async with serving(app, grace_seconds=0) as front:
        await front.connect()
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        signal.raise_signal(signal.SIGTERM)
        await front.task
        assert await is_closed(reader)
        let_go.set()


async def test_signals_are_given_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    async with serving() as front:
        await front.get()
        signal.raise_signal(signal.SIGTERM)
        await front.task
    assert [signal.getsignal(number) for number in numbers] == before


async def test_sighup_reloads_and_a_reload_that_fails_stops_nothing() -> None:
    reloads = asyncio.Queue[int]()

    async def reload() -> None:
        reloads.put_nowait(1)
        if reloads.qsize() == 1:
            raise RuntimeError("no")

    with capture_logs() as logs:
        async with serving(on_reload=reload) as front:
            await front.get()
            signal.raise_signal(signal.SIGHUP)
            while reloads.qsize() < 1:
                await asyncio.sleep(0)
            signal.raise_signal(signal.SIGHUP)
            while reloads.qsize() < 2:
                await asyncio.sleep(0)
            status, _, _ = await front.get()
    assert status == 200
    assert "reload failed" in [entry["event"] for entry in logs]


async def test_sighup_without_anything_to_reload_stops_nothing() -> None:
    async with serving() as front:
        await front.get()
        signal.raise_signal(signal.SIGHUP)
        status, _, _ = await front.get()
    assert status == 200


@pytest.mark.parametrize("runner", ["asyncio.run", "uvloop.run"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_stop_ends_with_0(runner: str, number: signal.Signals) -> None:
    program = f"""
        import asyncio, sys, uvloop
        from exporter.web.listener import bind
        from exporter.web.server import serve

        async def app(scope, receive, send):
            if scope["type"] == "http":
                await send({{"type": "http.response.start", "status": 200,
                            "headers": [(b"content-length", b"2")]}})
                await send({{"type": "http.response.body", "body": b"ok"}})

        sockets = bind(("127.0.0.1", 0))
        print(sockets[0].getsockname()[1], flush=True)
        {runner}(serve(app, sockets=sockets, web_config=None, on_reload=None,
                 stopping=lambda: print("stopping", flush=True)))
        print("stopped", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            process.send_signal(number)
            output = process.stdout.read()
        errors = process.stderr.read()
    # The log goes to stdout as long as nobody has set it up.
    assert output.splitlines()[-1] == "stopped"
    assert "stopping" in output.splitlines()
    assert "Traceback" not in errors
    assert process.returncode == 0


# Slow clients and many clients

# Whoever waits is overdue at once; a whole request in one piece never waits.
AT_ONCE = 0.0


async def test_hundreds_of_idle_and_half_said_connections_do_not_stop_a_scrape() -> None:
    async with serving(limits=ClientLimits(connections=100)) as front:
        for number in range(300):
            _, writer = await front.connect()
            writer.write([b"", b"GET /metrics HT", b"GET / HTTP/1.1\r\nHost: x\r\n"][number % 3])
        status, _, body = await front.get()
    assert (status, body) == (200, b"hello")


async def test_at_the_ceiling_the_connection_that_waits_longest_makes_room() -> None:
    app = Held()
    async with serving(app, limits=ClientLimits(connections=3)) as front:
        busy = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        oldest = await front.connect()
        await request(*oldest)
        newer = await front.connect()
        await request(*newer)
        newest = await front.connect()
        await request(*newest)
        assert await is_closed(oldest[0])
        assert (await request(*newer))[0] == 200
        app.let_go.set()
        assert (await busy)[2] == b"done"


async def test_a_connection_over_the_ceiling_is_refused_while_all_others_are_busy() -> None:
    app = Held()
    async with serving(app, limits=ClientLimits(connections=1)) as front:
        busy = asyncio.create_task(front.get(path="/held"))
        await app.arrived.wait()
        reader, _ = await front.connect()
        assert await is_closed(reader)
        app.let_go.set()
        assert (await busy)[2] == b"done"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
    ],
)
async def test_a_request_that_does_not_end_in_time_is_closed(said: bytes) -> None:
    async with serving(Held(), limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.write(said)
        assert await is_closed(reader)


async def test_a_second_request_that_does_not_end_in_time_is_closed_too() -> None:
    async with serving(limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        # In one piece, or the connection might be overdue before it begins.
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
        await read_response(reader)
        writer.write(b"TP/1.1\r\n")
        assert await is_closed(reader)


async def test_a_body_that_trickles_after_the_answer_is_cut_off() -> None:
    async with serving(limits=ClientLimits(request_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        await read_response(reader)
        assert await is_closed(reader)


async def test_a_body_that_ends_after_the_answer_leaves_the_connection_open() -> None:
    async with serving() as front:
        reader, writer = await front.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nhalf")
        assert (await read_response(reader))[0] == 200
        writer.write(b"half")
        assert (await request(reader, writer))[0] == 200


async def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    async with serving(limits=ClientLimits(idle_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        assert (await request(reader, writer))[0] == 200
        assert await is_closed(reader)


async def test_an_idle_connection_is_kept_longer_than_prometheus_keeps_it() -> None:
    # IdleConnTimeout in prometheus/common config/http_config.go: 5 minutes
    assert ClientLimits().idle_seconds > 300
    async with serving() as front:
        connection = await front.connect()
        assert (await request(*connection))[0] == 200
        assert (await request(*connection))[0] == 200


async def test_a_request_that_runs_long_is_not_cut_off() -> None:
    app = Held()
    async with serving(
        app, limits=ClientLimits(request_seconds=AT_ONCE, idle_seconds=AT_ONCE)
    ) as front:
        other, _ = await front.connect()
        reader, writer = await front.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.arrived.wait()
        assert await is_closed(other)  # those who are overdue have been looked for
        app.let_go.set()
        assert (await read_response(reader))[2] == b"done"


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * 50_000_000)


async def test_a_large_response_arrives_whole_and_the_connection_stays_open() -> None:
    async with serving(large) as front:
        connection = await front.connect()
        assert len((await request(*connection))[2]) == 50_000_000
        assert len((await request(*connection))[2]) == 50_000_000


async def test_a_client_that_does_not_read_its_response_is_cut_off() -> None:
    async with serving(large, limits=ClientLimits(write_seconds=AT_ONCE)) as front:
        reader, writer = await front.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        other, _ = await front.connect()
        while front_connections(front.port) > 1:
            await asyncio.sleep(0.01)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await is_closed(reader)
        assert not other.at_eof()


def front_connections(port: int) -> int:
    """Established connections whose own end is the port, as the kernel counts them."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 4096 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 4096,
        b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096,
        b"GET / HTTP/1.1\r\n\r\n" * 20,
        b"\x16\x03\x01 TLS to a plain port",
    ],
)
async def test_what_is_too_large_is_refused_and_closed(sent: bytes) -> None:
    app = Held()
    small = ClientLimits(head_bytes=1024, body_bytes=1024, pipelined_requests=16)
    async with serving(app, limits=small) as front:
        reader, writer = await front.connect()
        writer.write(sent.replace(b"GET / ", b"GET /held ").replace(b"POST / ", b"POST /held "))
        status, headers, _ = await read_response(reader)
        assert (status, headers["connection"]) == (400, "close")
        assert await is_closed(reader)
        app.let_go.set()


async def test_requests_that_come_in_one_piece_are_answered_in_turn() -> None:
    async with serving() as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert [(await read_response(reader))[0] for _ in range(3)] == [200] * 3


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_open_files_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_of_open_files_that_is_not_granted_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda number: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files_limit() == 256


async def test_a_server_that_cannot_accept_any_more_ends_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(listening: socket.socket) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", broken)
    async with serving() as front:
        with pytest.raises(RuntimeError, match="no more"):
            await front.task
    assert not connects("127.0.0.1", front.port)


async def test_a_client_that_leaves_before_it_is_accepted_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    sock_accept = loop.sock_accept
    failures = [ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")]

    async def once_aborted(listening: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return await sock_accept(listening)

    monkeypatch.setattr(loop, "sock_accept", once_aborted)
    with capture_logs() as logs:
        async with serving() as front:
            assert (await front.get())[0] == 200
    assert [entry["event"] for entry in logs] == ["listening"]


async def test_running_out_of_files_is_logged_and_a_scrape_still_answered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as logs:
        async with serving() as front:
            waiting = [await front.connect() for _ in range(20)]
            await front.get()
            # The client's own files are opened before, and connected after the files are out.
            client = socket.socket()
            client.setblocking(False)
            spare = os.dup(0)
            os.close(spare)
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            try:
                with contextlib.suppress(BlockingIOError):
                    client.connect(("127.0.0.1", front.port))
                reader, writer = await asyncio.open_connection(sock=client)
                assert (await request(reader, writer))[0] == 200
                writer.close()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await is_closed(waiting[0][0])
    assert [e["event"] for e in logs].count("connections cannot be accepted") == 1


# TLS


class Guarded:
    """A folder with a CA, the server's certificate and a web configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server")
        self.path = folder / "web.yml"

    def load(self, tls: str = "", rest: str = "") -> LoadedWebConfig:
        self.write(tls, rest)
        return LoadedWebConfig(self.path)

    def write(self, tls: str = "", rest: str = "") -> None:
        new = self.folder / "web.new"
        new.write_text(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
            + "".join(f"  {line}\n" for line in tls.splitlines())
            + rest
        )
        os.replace(new, self.path)

    def client(self, certificate: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.cert_file))
        if certificate is not None:
            context.load_cert_chain(certificate.cert_file, certificate.key_file)
        return context


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


CLIENT_CERTIFICATES = "client_ca_file: test-CA.crt\nclient_auth_type: RequireAndVerifyClientCert\n"


async def serial_number(front: Front, tls: ssl.SSLContext) -> int:
    _, writer = await front.connect(tls)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_request_over_tls_is_answered(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        status, _, body = await front.get(tls=guarded.client())
    assert (status, body) == (200, b"hello")


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    return context


@pytest.mark.parametrize(
    ("minimum", "version", "allowed"),
    [
        ("TLS13", ssl.TLSVersion.TLSv1_3, True),
        ("TLS13", ssl.TLSVersion.TLSv1_2, False),
        ("TLS12", ssl.TLSVersion.TLSv1_2, True),
        ("TLS12", ssl.TLSVersion.TLSv1_1, False),
        ("TLS11", ssl.TLSVersion.TLSv1_1, True),
        ("TLS11", ssl.TLSVersion.TLSv1, False),
    ],
)
async def test_the_minimum_version_is_enforced(
    guarded: Guarded, minimum: str, version: ssl.TLSVersion, allowed: bool
) -> None:
    async with serving(web_config=guarded.load(f"min_version: {minimum}")) as front:
        client = limited(guarded.client(), version)
        if allowed:
            assert (await front.get(tls=client))[0] == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await front.get(tls=client)
        assert (await front.get(tls=guarded.client()))[0] == 200


async def test_the_maximum_version_is_enforced(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load("max_version: TLS12")) as front:
        _, writer = await front.connect(guarded.client())
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"


async def test_a_client_without_a_certificate_is_refused(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client())


async def test_a_client_with_a_certificate_of_another_ca_is_refused(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA").issue("stranger", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(stranger))


async def test_a_client_with_a_certificate_of_the_ca_is_let_in(guarded: Guarded) -> None:
    prometheus = guarded.authority.issue("prometheus", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        assert (await front.get(tls=guarded.client(prometheus)))[0] == 200


async def test_a_certificate_for_servers_does_not_let_a_client_in(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(guarded.server))


async def test_verify_if_given_lets_in_who_has_none_and_refuses_who_has_a_wrong_one(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA").issue("stranger", client=True)
    tls = "client_ca_file: test-CA.crt\nclient_auth_type: VerifyClientCertIfGiven"
    async with serving(web_config=guarded.load(tls)) as front:
        assert (await front.get(tls=guarded.client()))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(stranger))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (x509.DNSName("prometheus.example"), True),
        (x509.RFC822Name("sre@example.com"), True),
        (x509.IPAddress(ipaddress.ip_address("2001:db8::1")), True),
        (x509.DNSName("other.example"), False),
        (x509.UniformResourceIdentifier("spiffe://prometheus.example"), False),
    ],
)
async def test_only_the_named_clients_are_let_in(
    guarded: Guarded, name: x509.GeneralName, allowed: bool
) -> None:
    sans = "client_allowed_sans: [prometheus.example, sre@example.com, '2001:db8::1']"
    client = guarded.authority.issue("client", client=True, sans=(name,))
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES + sans)) as front:
        if allowed:
            assert (await front.get(tls=guarded.client(client)))[0] == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await front.get(tls=guarded.client(client))


def test_a_certificate_without_alternative_names_has_none() -> None:
    assert parse_sans({"subject": ()}) == frozenset()
    assert parse_sans(None) == frozenset()


async def test_a_renewed_certificate_is_shown_to_the_next_client(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        kept = await front.connect(guarded.client())
        assert await serial_number(front, guarded.client()) == guarded.server.serial_number
        renewed = guarded.authority.issue("server")
        assert renewed.serial_number != guarded.server.serial_number
        assert await serial_number(front, guarded.client()) == renewed.serial_number
        assert (await request(*kept))[0] == 200


async def test_a_client_ca_that_is_taken_away_lets_nobody_in_any_more(guarded: Guarded) -> None:
    client = guarded.authority.issue("client", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        assert (await front.get(tls=guarded.client(client)))[0] == 200
        Authority(guarded.folder, "next CA")
        guarded.write(CLIENT_CERTIFICATES.replace("test-CA", "next-CA"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(client))


async def test_a_broken_renewal_keeps_the_old_certificate(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        guarded.server.key_file.write_text("broken")
        assert await serial_number(front, guarded.client()) == guarded.server.serial_number


async def test_handshakes_that_do_not_end_do_not_stop_a_scrape(guarded: Guarded) -> None:
    config = guarded.load()
    async with serving(web_config=config, limits=ClientLimits(connections=20)) as front:
        halves = [await front.connect() for _ in range(60)]
        for _, writer in halves[::2]:
            writer.write(b"\x16\x03\x01\x02\x00\x01")
        status, _, _ = await front.get(tls=guarded.client())
        assert await is_closed(halves[0][0])
    assert status == 200


async def test_a_handshake_that_does_not_end_in_time_is_closed(guarded: Guarded) -> None:
    limits = ClientLimits(handshake_seconds=0.01)
    async with serving(web_config=guarded.load(), limits=limits) as front:
        reader, _ = await front.connect()
        assert await is_closed(reader)


async def test_plain_http_to_a_tls_port_is_closed(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await is_closed(reader)
        assert (await front.get(tls=guarded.client()))[0] == 200


async def test_sigterm_ends_half_done_handshakes_too(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, _ = await front.connect()
        await front.get(tls=guarded.client())
        signal.raise_signal(signal.SIGTERM)
        await front.task
        assert await is_closed(reader)


# Passwords and headers, through the front


def basic(user: str, password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def users_section(**passwords: str) -> str:
    return "basic_auth_users:\n" + "".join(
        f"  {user}: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"
        for user, password in passwords.items()
    )


async def test_every_path_asks_for_the_password(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(users_section(alice="right"))
    async with serving(web_config=LoadedWebConfig(tmp_path / "web.yml")) as front:
        for path in ("/", "/metrics", "/-/healthy", "/nowhere"):
            assert (await front.get(path=path))[0] == 401
            assert (await front.get(basic("alice", "right"), path=path))[0] == 200


async def test_users_of_a_changed_file_are_let_in_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(users_section(alice="right"))
    async with serving(web_config=LoadedWebConfig(path)) as front:
        connection = await front.connect()
        assert (await request(*connection, basic("alice", "right")))[0] == 200
        path.write_text(users_section(bob="also right"))
        assert (await request(*connection, basic("bob", "also right")))[0] == 200
        assert (await request(*connection, basic("alice", "right")))[0] == 401
        path.write_text("broken: [")
        assert (await request(*connection, basic("bob", "also right")))[0] == 200
        assert (await request(*connection))[0] == 401


async def test_configured_headers_are_on_every_response_but_do_not_replace_its_own(
    tmp_path: Path,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"", (b"Content-Security-Policy", b"own"))

    (tmp_path / "web.yml").write_text(
        "http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: none}}\n"
        + users_section(alice="right")
    )
    async with serving(app, web_config=LoadedWebConfig(tmp_path / "web.yml")) as front:
        _, refused, _ = await front.get()
        _, headers, _ = await front.get(basic("alice", "right"))
    assert (refused["x-frame-options"], refused["content-security-policy"]) == ("deny", "none")
    assert (headers["x-frame-options"], headers["content-security-policy"]) == ("deny", "own")
