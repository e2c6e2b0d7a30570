"""Takes connections from the listening sockets, and makes room where there are too many.

The event loop's own server neither counts those in a TLS handshake nor takes another TLS context
for the next connection.
"""

import asyncio
import errno
import functools
import math
import socket
from collections.abc import Callable, Iterable

import structlog

from exporter.web.connection import ClientConnection, ClientLimits
from exporter.web.tls import LoadedWebConfig

log = structlog.get_logger(__name__)

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts connections and takes them through TLS; each one is then a `ClientConnection`.

    `connections` are those that have come that far and are still open.
    """

    def __init__(
        self,
        make_connection: Callable[[], ClientConnection],
        connections: Callable[[], Iterable[ClientConnection]],
        *,
        web_config: LoadedWebConfig | None,
        limits: ClientLimits,
    ) -> None:
        self._make_connection = make_connection
        self._connections = connections
        self._web_config = web_config
        self._limits = limits
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], float] = {}  # since when
        self._not_accepting_logged = -math.inf

    def start(self, sockets: Iterable[socket.socket]) -> None:
        self._accepting = [asyncio.create_task(self._accept(s)) for s in sockets]

    def check(self) -> None:
        """Raises what has ended the accepting: better a restart than a server that is deaf."""
        for task in self._accepting:
            if task.done():  # never by itself
                task.result()

    def close(self) -> None:
        for task in (*self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        if self._accepting:
            await asyncio.wait(self._accepting)

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
            if self._is_full() and not self._make_room():
                accepted.close()
                continue
            task = asyncio.create_task(self._connect(accepted))
            self._handshakes[task] = loop.time()
            task.add_done_callback(functools.partial(self._forget_handshake, accepted))

    def _is_full(self) -> bool:
        count = len(self._handshakes) + sum(1 for _ in self._connections())
        return count >= self._limits.connections

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
