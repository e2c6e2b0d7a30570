"""Takes connections from the listening sockets, and makes room where there are too many.

The event loop's own server counts no connections, and none that are in a TLS handshake.
"""

import asyncio
import errno
import heapq
import itertools
import math
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter, itemgetter

import structlog

from exporter.web.client_limits import ClientLimits
from exporter.web.connection import ClientConnection, is_over
from exporter.web.live_config import LoadedWebConfig
from exporter.web.repeats import Repeats
from exporter.web.tls_transport import TlsConnection
from exporter.web.unread import first_stalled, has_unread

log = structlog.get_logger(__name__)

# How many are looked at for who can be spared; a client that has gone counts as one that asks.
_LOOKED_AT = 16
_STALLED_SECONDS = 0.5
# How long until there is another look whether there is room.
_FULL_SECONDS = 0.05
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


_Client = TlsConnection | ClientConnection


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
        self._handshakes: dict[TlsConnection, float] = {}  # since when
        self._repeats = Repeats()

    def start(self, sockets: Iterable[socket.socket]) -> None:
        self._accepting = [asyncio.create_task(self._accept(s)) for s in sockets]

    def end_overdue(self, now: float) -> None:
        """Ends handshakes that take too long."""
        for connection, since in list(self._handshakes.items()):
            deadline = since + self._limits.handshake_seconds
            if is_over(deadline, now, partial(has_unread, connection.raw)):
                connection.abort("it was not over in time")

    def check(self) -> None:
        """Raises what has ended the accepting: better a restart than a server that is deaf."""
        for task in self._accepting:
            if task.done():  # never by itself
                task.result()

    def close(self) -> None:
        for task in self._accepting:
            task.cancel()
        for connection in list(self._handshakes):
            connection.abort("the server stops")

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
                if times := self._repeats.count("accepting", exc.errno):
                    log.error("connections cannot be accepted", cause=exc.strerror, times=times)
                if exc.errno in _OUT_OF_RESOURCES:
                    self._make_room()
                await asyncio.sleep(0.1)
                continue
            try:
                await self._wait_for_room()
            except asyncio.CancelledError:
                accepted.close()
                raise
            try:
                await loop.connect_accepted_socket(self._make_protocol, accepted)
            except OSError as exc:
                log.debug("connection failed", cause=str(exc))

    async def _wait_for_room(self) -> None:
        """Where all are being answered the next one waits: soon some end, or can be spared."""
        for look in itertools.count():
            if self._has_room():
                return
            if look == 0 and (times := self._repeats.count("full")):
                limit = self._limits.connections
                log.warning("all connections are being answered", connections=limit, times=times)
            await asyncio.sleep(_FULL_SECONDS)

    def _has_room(self) -> bool:
        count = len(self._handshakes) + sum(1 for _ in self._connections())
        return count < self._limits.connections or self._make_room()

    def _make_protocol(self) -> asyncio.Protocol:
        inner = self._make_connection()
        if self._web_config is None:
            return inner
        self._web_config.refresh()
        if self._web_config.tls is None:
            return inner
        return TlsConnection(self._web_config.tls, inner, self)

    def handshake_begins(self, connection: TlsConnection) -> None:
        self._handshakes[connection] = time.monotonic()

    def handshake_ends(self, connection: TlsConnection, why_not: str | None) -> None:
        if why_not is None:
            self._handshakes.pop(connection, None)
        # Who connects and leaves looks whether the port is open: balancers do so all day.
        elif not connection.said_nothing and (
            times := self._repeats.count(connection.peer, why_not)
        ):
            log.warning("TLS handshake failed", client=connection.peer, cause=why_not, times=times)

    def handshake_is_lost(self, connection: TlsConnection) -> None:
        self._handshakes.pop(connection, None)

    def _make_room(self) -> bool:
        """Ends whoever can be spared most; False if there is nobody.

        That is who has been waiting longest for a request, if nothing has come of it that is only
        not read yet: of many who come at once, the one that asks must not give way to the next.
        Else it is who has left an answer unread for longest.
        """
        connections = list(self._connections())
        waiting: list[tuple[float, _Client]] = [
            *((since, each) for each, since in self._handshakes.items()),
            *((each.waiting_since, each) for each in connections),
        ]
        for since, each in heapq.nsmallest(_LOOKED_AT, waiting, key=itemgetter(0)):
            if since < math.inf and (since < 0 or not has_unread(_raw(each))):
                self._spare(each)
                return True
        stalled = first_stalled(
            connections, since=attrgetter("stalled_since"), by=time.monotonic() - _STALLED_SECONDS
        )
        if stalled is None:
            return False
        self._spare(stalled)
        return True

    def _spare(self, each: _Client) -> None:
        # Neither is chosen twice, though it takes a turn of the loop until they are gone.
        if isinstance(each, TlsConnection):
            del self._handshakes[each]
            each.abort("its place was needed")
        else:
            each.waiting_since = each.stalled_since = math.inf
            each.abort()


def _raw(each: _Client) -> asyncio.BaseTransport:
    return each.raw if isinstance(each, TlsConnection) else each.transport
