"""Serves until it is told to stop.

uvicorn parses and answers HTTP. What it leaves open is beside it: sockets (`listener`), accepting
(`acceptor`), time-outs for slow clients (`connection`), TLS whose certificate follows its file
(`tls_transport`, `live_config`), and signals (`signals`).
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from signal import SIGHUP

import structlog
import uvicorn
from starlette.types import ASGIApp

from exporter.errors import ExporterError
from exporter.web.acceptor import Acceptor
from exporter.web.answers import AnswerBudget, BoundedAnswers
from exporter.web.client_limits import ClientLimits
from exporter.web.connection import ClientConnection
from exporter.web.guard import Guard
from exporter.web.listener import describe_address, raise_open_files_limit
from exporter.web.live_config import LoadedWebConfig
from exporter.web.signals import STOP_SIGNALS, reloader, signal_handlers

log = structlog.get_logger(__name__)

# For running requests to end in once the server is told to stop.
GRACE_SECONDS = 10.0


async def serve(
    app: ASGIApp,
    *,
    sockets: Sequence[socket.socket],
    web_config: LoadedWebConfig | None,
    on_reload: Callable[[], Awaitable[None]] | None,
    stopping: Callable[[], None],
    grace_seconds: float = GRACE_SECONDS,
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

    async with reloader(on_reload) as reload:
        with signal_handlers({**dict.fromkeys(STOP_SIGNALS, stop), SIGHUP: reload}):
            for listening in sockets:
                log.info(
                    "listening",
                    address=describe_address(listening),
                    tls=web_config is not None and web_config.tls is not None,
                    basic_auth=web_config is not None and bool(web_config.users),
                )
            try:
                await server.serve(sockets=list(sockets))
            finally:
                server.close()
                for listening in sockets:
                    listening.close()


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
        guard = Guard(app, web_config, is_stopping=lambda: self.should_exit)
        super().__init__(
            uvicorn.Config(
                guard,
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
        self._limits = limits
        self._answers = BoundedAnswers(guard, AnswerBudget(limits.answers_bytes))
        self._grace_seconds = grace_seconds
        self._acceptor = Acceptor(
            self._make_connection, self._connections, web_config=web_config, limits=limits
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ExporterError("the application did not start; the log says why")
        self.servers = []
        self._acceptor.start(sockets or ())
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        for connection in self._connections():
            if connection.is_overdue(now):
                connection.abort()
        self._acceptor.end_overdue(now)
        self._acceptor.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._acceptor.close()
        await self._acceptor.wait_closed()
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
        self._acceptor.close()
        for connection in self._connections():
            connection.abort()

    async def _idle(self) -> None:
        state = self.server_state
        # uvicorn's sets tell nobody when they become empty
        while (state.connections or state.tasks) and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _connections(self) -> list[ClientConnection]:
        return [c for c in self.server_state.connections if isinstance(c, ClientConnection)]

    def _make_connection(self) -> ClientConnection:
        return ClientConnection(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            limits=self._limits,
            answers=self._answers,
        )
