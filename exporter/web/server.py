"""The listener: takes connections, bounds what they may cost, and stops when it is told to.

uvicorn parses and answers HTTP. What it leaves open is here: time-outs for slow clients, a limit of
connections that makes room for new ones, TLS whose certificate follows its file, and signals. So
connections are accepted here and not by the event loop's own server, which neither counts those in
a TLS handshake nor takes another TLS context for the next one.
"""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import math
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from exporter.errors import ConfigError, ExporterError
from exporter.web.basic_auth import BasicAuth
from exporter.web.web_config import LoadedWebConfig

log = structlog.get_logger(__name__)

BACKLOG = 1024
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_SUCH_ADDRESS_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take.

    `connections` is a ceiling: at it, the connection that has been waiting longest for a request is
    closed for each new one, so that a scrape always gets in. Therefore idle connections may be kept
    long: longer than Prometheus keeps them (5 min), so that it is Prometheus who closes and no
    scrape meets a closing connection.
    """

    connections: int = 1000
    handshake_seconds: float = 10.0
    request_seconds: float = 10.0  # from the first byte, or from the start, to the whole request
    idle_seconds: float = 330.0
    write_seconds: float = 60.0  # a response that the client does not read
    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024
    pipelined_requests: int = 16


def parse_listen_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port`; raises ConfigError.

    The host of `:port` is empty: all interfaces, IPv4 and IPv6.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text:
        raise _address_error(text, "has no port; write host:port, [v6]:port or :port")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text[:6]) <= 65535):
        raise _address_error(text, "has no port between 0 and 65535 after its last colon")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _address_error(text, "has no IPv6 address between its brackets") from None
    elif ":" in host:
        raise _address_error(text, "has an IPv6 address without brackets; write [v6]:port")
    elif any(letter in "[]/@" or letter.isspace() for letter in host):
        raise _address_error(text, "is not a host and a port; write host:port without http://")
    return host, int(port_text)


def _address_error(text: str, problem: str) -> ConfigError:
    return ConfigError([f"--web.listen-address: {text!r} {problem}"])


def bind(address: tuple[str, int]) -> list[socket.socket]:
    """Listening sockets for the address, one for each of a host name's; raises ConfigError.

    Clients may connect at once; they are answered when `serve` runs. Port 0 takes a free port.
    """
    host, port = address
    if host in ("", "::"):
        return [_bind_all_interfaces(port)]
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError):
        raise _listen_error(address, "no such host") from None
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, _, _, _, resolved in dict.fromkeys(found):
        if sockets and port == 0:  # the name's other addresses get the port that the first one took
            resolved = (resolved[0], sockets[0].getsockname()[1], *resolved[2:])
        try:
            sockets.append(_listen(family, resolved))
        except OSError as exc:
            if exc.errno in _NO_SUCH_ADDRESS_FAMILY:  # localhost is ::1 too, where there is none
                absent = exc
                continue
            for listening in sockets:
                listening.close()
            raise _listen_error(address, exc) from None
    if not sockets:
        raise _listen_error(address, absent or "no such host")
    return sockets


def _bind_all_interfaces(port: int) -> socket.socket:
    try:
        return _listen(socket.AF_INET6, ("::", port, 0, 0))
    except OSError as exc:
        if exc.errno not in _NO_SUCH_ADDRESS_FAMILY:
            raise _listen_error(("", port), exc) from None
    try:
        return _listen(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what was asked for
    except OSError as exc:
        raise _listen_error(("", port), exc) from None


def _listen(family: int, resolved: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            everything = resolved[0] == "::"
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if everything else 1)
        listening.bind(resolved)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_error(address: tuple[str, int], cause: OSError | str) -> ConfigError:
    host, port = address
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    match cause.errno if isinstance(cause, OSError) else cause:
        case errno.EADDRINUSE:
            problem = "the port is taken by another program; stop it or choose another port"
        case errno.EADDRNOTAVAIL:
            problem = "this machine does not have that address; :PORT listens on all that it has"
        case errno.EACCES:
            problem = "no permission; ports below 1024 need privileges"
        case _:
            problem = str(cause.strerror) if isinstance(cause, OSError) else cause
    return ConfigError([f"--web.listen-address: cannot listen on {text}: {problem}"])


def raise_open_files_limit() -> int:
    """Lets this process open as many files as it is ever allowed to; gives the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems name a hard limit that they do not grant.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1_000_000


async def serve(
    app: ASGIApp,
    *,
    sockets: Sequence[socket.socket],
    web_config: LoadedWebConfig | None,
    on_reload: Callable[[], Awaitable[None]] | None,
    stopping: Callable[[], None],
    grace_seconds: float = 10.0,
    limits: Limits | None = None,
) -> None:
    """Serves `app` on the sockets of `bind` until SIGTERM or SIGINT, then returns.

    The signal calls `stopping`, closes the sockets and idle connections, and gives running requests
    `grace_seconds` to end; what then still runs is answered 503. A second signal does not wait.
    SIGHUP awaits `on_reload`, one at a time. In the main thread only: no other gets signals.
    """
    files = raise_open_files_limit()
    limits = limits or Limits()
    # The other half of the files is for connections to the cloud and what else a process opens.
    limits = replace(limits, connections=max(1, min(limits.connections, files // 2)))
    server = _Server(app, web_config=web_config, limits=limits, grace_seconds=grace_seconds)

    def stop() -> None:
        if server.should_exit:
            log.warning("stopping at once")
            server.force_exit = True
            return
        log.info("stopping", grace_seconds=grace_seconds)
        stopping()
        server.should_exit = True

    async with _reloader(on_reload) as reload:
        with _signal_handlers(
            {**dict.fromkeys(_STOP_SIGNALS, stop), signal.SIGHUP: reload},
        ):
            for listening in sockets:
                log.info(
                    "listening",
                    address=_describe_address(listening),
                    tls=web_config is not None and web_config.tls_context is not None,
                    basic_auth=web_config is not None and bool(web_config.users),
                )
            try:
                await server.serve(sockets=list(sockets))
            finally:
                server.close()
                for listening in sockets:
                    listening.close()


def _describe_address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def _signal_handlers(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Has the running loop call the handlers, and gives the signals back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            if previous is not None:  # None: set by something that is not Python
                signal.signal(number, previous)


@contextlib.asynccontextmanager
async def _reloader(
    on_reload: Callable[[], Awaitable[None]] | None,
) -> AsyncIterator[Callable[[], None]]:
    """Gives a function that asks for a reload. Those asked for during one become one more."""
    wanted = asyncio.Event()

    async def run() -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            if on_reload is None:
                log.info("nothing to reload")
                continue
            try:
                await on_reload()
            except Exception:
                log.exception("reload failed")

    task = asyncio.create_task(run())
    try:
        yield wanted.set
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Server(uvicorn.Server):
    """uvicorn's server with its own way of accepting, of stopping, and no hands on signals."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        web_config: LoadedWebConfig | None,
        limits: Limits,
        grace_seconds: float,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                self._guard(app, web_config),
                interface="asgi3",
                loop="none",
                http=_Connection,
                ws="none",
                workers=1,
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
            )
        )
        self._web_config = web_config
        self._limits = limits
        self._grace_seconds = grace_seconds
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], float] = {}  # since when
        self._not_accepting_logged = -math.inf

    def _guard(self, app: ASGIApp, web_config: LoadedWebConfig | None) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            started = False

            async def send_noting_start(message: Message) -> None:
                nonlocal started
                started = True
                if message["type"] == "http.response.start" and web_config is not None:
                    message = _with_headers(message, web_config.config.response_headers)
                await send(message)

            try:
                await inner(scope, receive, send_noting_start)
            except asyncio.CancelledError:
                # The grace is over. Anything else that cancels is none of ours.
                if not self.should_exit or started or scope["type"] != "http":
                    raise
                await _shutting_down(scope, receive, send)

        inner = app
        if web_config is not None:

            def users() -> Mapping[str, str]:
                web_config.refresh()
                return web_config.users

            inner = BasicAuth(app, users)
        return guarded

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ExporterError("the application did not start; the log says why")
        self.servers = []
        self._accepting = [asyncio.create_task(self._accept(s)) for s in sockets or ()]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            if connection.is_overdue(now):
                connection.transport.abort()
        for task in self._accepting:
            if task.done():  # never by itself: better a restart than a server that is deaf
                task.result()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting)
        for listening in sockets or ():
            listening.close()
        for connection in self._connections():
            connection.shutdown()
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self._idle()
        except TimeoutError:
            log.warning("requests cut off", running=len(self.server_state.tasks))
        running = list(self.server_state.tasks)
        for request in running:
            request.cancel()
        if running:
            await asyncio.wait(running, timeout=1.0)  # for their 503s to be written
        self.close()
        if not self.force_exit:
            await self.lifespan.shutdown()

    def close(self) -> None:
        """Lets go of everything at once."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()

    async def _idle(self) -> None:
        state = self.server_state
        # uvicorn's sets tell nobody when they become empty
        while (state.connections or state.tasks) and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _connections(self) -> list["_Connection"]:
        return [c for c in self.server_state.connections if isinstance(c, _Connection)]

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)  # a crowd at the door does not keep those who are in waiting
            try:
                accepted, _ = await loop.sock_accept(listening)
            except ConnectionAbortedError:
                continue  # the client went away before we came
            except OSError as exc:
                self._log_not_accepting(exc)
                if exc.errno in _OUT_OF_RESOURCES:
                    self._make_room()
                await asyncio.sleep(0.1)
                continue
            open_connections = len(self._handshakes) + len(self.server_state.connections)
            if open_connections >= self._limits.connections and not self._make_room():
                accepted.close()
                continue
            task = asyncio.create_task(self._connect(accepted))
            self._handshakes[task] = loop.time()
            task.add_done_callback(functools.partial(self._forget_handshake, accepted))

    def _forget_handshake(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        if task.cancelled():  # perhaps before it began: then nobody else closes the socket
            accepted.close()

    def _log_not_accepting(self, cause: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._not_accepting_logged >= 60.0:
            self._not_accepting_logged = now
            log.error("connections cannot be accepted", cause=cause.strerror)

    async def _connect(self, accepted: socket.socket) -> None:
        tls_context = None
        if self._web_config is not None:
            self._web_config.refresh()
            tls_context = self._web_config.tls_context
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_connection,
                accepted,
                ssl=tls_context,
                # None: asyncio refuses a number here without TLS.
                ssl_handshake_timeout=self._limits.handshake_seconds if tls_context else None,
                # Clients that do not say goodbye are not waited for.
                ssl_shutdown_timeout=1.0 if tls_context else None,
            )
        except OSError as exc:  # what TLS refuses is one too
            log.debug("connection failed", cause=str(exc))

    def _make_connection(self) -> "_Connection":
        sans: Sequence[str] = ()
        if self._web_config is not None and (tls := self._web_config.config.tls_server_config):
            sans = tls.client_allowed_sans
        return _Connection(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            limits=self._limits,
            client_allowed_sans=sans,
        )

    def _make_room(self) -> bool:
        """Closes what has been waiting longest for a request; False if nothing waits."""
        never = math.inf
        handshake = min(self._handshakes, key=self._handshakes.__getitem__, default=None)
        handshake_since = never if handshake is None else self._handshakes[handshake]
        connection = min(self._connections(), key=lambda c: c.waiting_since, default=None)
        connection_since = never if connection is None else connection.waiting_since
        # Neither is chosen twice, though it takes a turn of the loop until they are gone.
        if handshake is not None and handshake_since <= connection_since:
            del self._handshakes[handshake]
            handshake.cancel()
            return True
        if connection is not None and connection_since < never:
            connection.waiting_since = never
            connection.transport.abort()
            return True
        return False


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, which knows until when its client has to do something."""

    def __init__(
        self,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: Limits,
        client_allowed_sans: Sequence[str],
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._limits = limits
        self._client_allowed_sans = client_allowed_sans
        # Since when there is no request to answer; infinity while there is one.
        self.waiting_since = math.inf
        self._request_deadline = math.inf
        self._write_deadline = math.inf
        self._is_idle = False
        self._reading_head = True
        self._request_complete = False
        self._head_bytes = 0
        self._body_bytes = 0

    def is_overdue(self, now: float) -> bool:
        return now >= min(self._request_deadline, self._write_deadline)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self._limits.request_seconds)
        if self._client_allowed_sans:
            sans = parse_sans(transport.get_extra_info("peercert"))
            if sans.isdisjoint(self._client_allowed_sans):
                log.warning("client certificate refused", client=self.client, names=sorted(sans))
                transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_idle:
            self._is_idle = False
            self._wait(self._limits.request_seconds)
        if self._reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._reading_head and self._head_bytes > self._limits.head_bytes:
            self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._request_complete = False
        self._body_bytes = 0

    def on_headers_complete(self) -> None:
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        # httptools turns what is raised here into a 400.
        if head_bytes > self._limits.head_bytes:
            raise ValueError("request head too large")
        if len(self.pipeline) >= self._limits.pipelined_requests:
            raise ValueError("too many requests at once")
        self._reading_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise ValueError("request body too large")
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._request_complete = True
        self._reading_head = True
        self._head_bytes = 0
        self._request_deadline = self.waiting_since = math.inf
        if self.cycle is not None and self.cycle.response_complete:
            self._become_idle()

    def on_response_complete(self) -> None:
        has_next = bool(self.pipeline)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the deadlines here take its place
        if self.transport.is_closing():
            self._wait(self._limits.write_seconds)  # until the client has read it
        elif has_next:
            pass
        elif self._request_complete:
            self._become_idle()
        elif self._request_deadline == math.inf:  # a part of the next request came with this one
            self._wait(self._limits.request_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.time() + self._limits.write_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = math.inf

    def _become_idle(self) -> None:
        self._is_idle = True
        self._wait(self._limits.idle_seconds)

    def _wait(self, seconds: float) -> None:
        self.waiting_since = self.loop.time()
        self._request_deadline = self.waiting_since + seconds


def parse_sans(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The alternative names of `SSLSocket.getpeercert()`, addresses in their usual form."""
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(
        # OpenSSL writes ::1 as 0:0:0:0:0:0:0:1
        str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value
        for kind, value in names
        if kind in ("DNS", "email", "URI", "IP Address")
    )


def _with_headers(message: Message, added: Sequence[tuple[bytes, bytes]]) -> Message:
    """The start of a response with the headers that the application did not set itself."""
    headers = list(message.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    return {**message, "headers": [*headers, *(h for h in added if h[0] not in present)]}


_shutting_down = PlainTextResponse(
    "Shutting down\n", status_code=503, headers={"Connection": "close"}
)
