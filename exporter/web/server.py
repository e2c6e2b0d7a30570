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
import math
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.errors import ExporterError
from exporter.web.basic_auth import BasicAuth
from exporter.web.connection import ClientConnection, ClientLimits
from exporter.web.listener import describe_address, raise_open_files_limit
from exporter.web.tls import LoadedWebConfig

log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def serve(
    app: ASGIApp,
    *,
    sockets: Sequence[socket.socket],
    web_config: LoadedWebConfig | None,
    on_reload: Callable[[], Awaitable[None]] | None,
    stopping: Callable[[], None],
    grace_seconds: float = 10.0,
    limits: ClientLimits | None = None,
) -> None:
    """Serves `app` on the sockets of `bind` until SIGTERM or SIGINT, then returns.

    The signal calls `stopping`, closes the sockets and idle connections, and gives running requests
    `grace_seconds` to end; what then still runs is answered 503. A second signal does not wait.
    SIGHUP awaits `on_reload`, one at a time. In the main thread only: no other gets signals.
    """
    files = raise_open_files_limit()
    limits = limits or ClientLimits()
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
                    address=describe_address(listening),
                    tls=web_config is not None and web_config.tls_context is not None,
                    basic_auth=web_config is not None and bool(web_config.users),
                )
            try:
                await server.serve(sockets=list(sockets))
            finally:
                server.close()
                for listening in sockets:
                    listening.close()


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
        limits: ClientLimits,
        grace_seconds: float,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                self._guard(app, web_config),
                interface="asgi3",
                loop="none",
                http=ClientConnection,
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

    def _connections(self) -> list["ClientConnection"]:
        return [c for c in self.server_state.connections if isinstance(c, ClientConnection)]

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

    def _make_connection(self) -> "ClientConnection":
        sans: Sequence[str] = ()
        if self._web_config is not None and (tls := self._web_config.config.tls_server_config):
            sans = tls.client_allowed_sans
        return ClientConnection(
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


def _with_headers(message: Message, added: Sequence[tuple[bytes, bytes]]) -> Message:
    """The start of a response with the headers that the application did not set itself."""
    headers = list(message.get("headers", ()))
    present = {name.lower() for name, _ in headers}
    return {**message, "headers": [*headers, *(h for h in added if h[0] not in present)]}


_shutting_down = PlainTextResponse(
    "Shutting down\n", status_code=503, headers={"Connection": "close"}
)
