"""Persistent connections: when one may be used again, and what ends it.

aiohttp's pool hands out what is connected and not too long idle. That is not enough for us: an
answer that nobody asked for waits there for the next request
(https://github.com/aio-libs/aiohttp/issues/13656), and a connection that is used all the time
outlives every change of the DNS.
"""

import asyncio
import select
import socket
import ssl
import weakref
from time import monotonic
from typing import Any

import aiohttp
import structlog
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection

from exporter.transport.names import NameResolver
from exporter.transport.unanswered import TunnelError

log = structlog.get_logger(__name__)

# Many NATs forget a connection that was silent for 40 s, and say nothing of it.
IDLE_SECONDS = 30.0
# The DNS moves, and the old address may go on answering.
_GREATEST_AGE_SECONDS = 300.0
_LOOK_UP_AGAIN_SECONDS = 1.0
# The first probe of a connection on which nothing moves, the others, and how many: one without an
# answer is enough where the system knows the time-out below.
_PROBE_AFTER_SECONDS, _PROBE_EVERY_SECONDS, _PROBES = 20, 5, 3
# A request that nobody's kernel has acknowledged for so long never arrived: what is on the way has
# forgotten the connection, or the other end is gone. Not while connecting: api.timeout bounds that.
_UNACKNOWLEDGED_SECONDS = 4.0


class Conversation(ResponseHandler):
    """One connection: requests and answers in turn, and silence in between."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self.opened = monotonic()
        self.requests = 0
        self.rested = self.opened  # when it was last used
        self.is_silent = True  # nothing of the answer that is awaited has come
        self.is_idle = False
        self._last_request_id = ""
        self._ids_differ = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # not on every system
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_UNACKNOWLEDGED_SECONDS * 1000)
            )

    def begin(self, connection: Connection) -> None:
        """A request goes out next."""
        self.requests += 1
        self.is_silent, self.is_idle = True, False
        connection.add_callback(self._rest)

    def _rest(self) -> None:
        self.is_idle, self.rested = True, monotonic()

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp's own way of going on with what came before
            super().data_received(data)
            return
        self.is_silent = False
        if not self.is_idle:
            super().data_received(data)
        elif self.transport is not None:
            log.debug("nobody asked for what came on an idle connection", bytes=len(data))
            self.end()

    @property
    def is_usable(self) -> bool:
        """Whether a request may go out on it after the one before was answered."""
        return (
            not self.should_close
            and monotonic() - self.opened < _GREATEST_AGE_SECONDS
            and self.transport is not None
            and not _is_readable(self.transport.get_extra_info("socket"))
        )

    def repeats(self, request_id: str) -> bool:
        """Whether the answer with this id was given on this connection just before; not where
        every answer has the same id, which then says nothing."""
        before, self._last_request_id = self._last_request_id, request_id
        if not request_id or not before or request_id == before:
            return bool(request_id) and request_id == before and self._ids_differ
        self._ids_differ = True
        return False

    def end(self) -> None:
        """Never use it again."""
        self.force_close()
        if self.transport is not None:
            self.transport.close()


def _is_readable(sock: Any) -> bool:
    """Whether bytes, or the end, wait that nobody has read yet."""
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Request(aiohttp.ClientRequest):
    """A request that knows on which connection it went."""

    conversation: Conversation | None = None
    wants_new_connection = False


class Response(aiohttp.ClientResponse):
    """An answer that knows on which connection it came."""

    conversation: Conversation | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if isinstance(connection.protocol, Conversation):
            self.conversation = connection.protocol
        return await super().start(connection)


async def send_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp client middleware: leave lost connections to our own retries, which count them.

    But for one: the other end may close an idle connection just when it is used, or have
    forgotten it. Where not a byte came back the request goes out again, on a new one.
    aiohttp sends a GET again by itself, once, after one of these two errors, and whatever the
    connection (no setting of it is public); under another class the same error comes through.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        if not _met_a_stale_connection(request):
            raise aiohttp.ClientConnectionError(str(exc)) from exc
    return await send_once(request, handler)


def _met_a_stale_connection(request: aiohttp.ClientRequest) -> bool:
    """Whether it may be sent once more; the next one goes out on a new connection."""
    assert isinstance(request, Request)
    conversation = request.conversation
    if request.method != "GET" or conversation is None or request.wants_new_connection:
        return False
    request.wants_new_connection = True
    return conversation.requests > 1 and conversation.is_silent


class Connector(aiohttp.TCPConnector):
    """aiohttp's pool, less the connections that must not be used again.

    It also tells what fails at the proxy from what fails behind it.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext, idle_seconds: float, most_open: int) -> None:
        """Idle connections are closed where there would be more than `most_open` otherwise."""
        self.names = NameResolver()
        super().__init__(
            limit=0,
            ssl=ssl_context,
            keepalive_timeout=idle_seconds,
            socket_factory=open_socket,
            resolver=self.names,
        )
        self._most_open = most_open
        self._looked_up_again: dict[tuple[str, int], float] = {}
        self._conversations: weakref.WeakSet[Conversation] = weakref.WeakSet()
        # There is no public way to a protocol of one's own; a test holds that it is in use.
        self._factory = self._open_conversation  # type: ignore[assignment]

    def _open_conversation(self) -> Conversation:
        conversation = Conversation(self._loop)
        self._conversations.add(conversation)
        return conversation

    def look_up_again(self, host: str, port: int) -> None:
        """The server at this address fails: the name may have moved. Not without end, where all
        servers of the name fail."""
        now = monotonic()
        if now - self._looked_up_again.get((host, port), float("-inf")) > _LOOK_UP_AGAIN_SECONDS:
            self._looked_up_again[host, port] = now
            self.clear_dns_cache(host, port)

    def _make_room(self) -> None:
        if len(self._conversations) < self._most_open:
            return
        connected = [each for each in self._conversations if each.transport is not None]
        idle = sorted((each for each in connected if each.is_idle), key=lambda each: each.rested)
        for conversation in idle[: max(0, len(connected) - self._most_open + 1)]:
            conversation.end()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's name
    ) -> ResponseHandler:
        self._make_room()
        return await super()._create_connection(req, traces, timeout)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's name
    ) -> Connection:
        while True:
            try:
                connection = await super().connect(req, traces=traces, timeout=timeout)
            except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError):
                raise
            except (
                aiohttp.ClientOSError,
                aiohttp.ServerDisconnectedError,
                aiohttp.ClientResponseError,
            ) as exc:
                if req.proxy is None:
                    raise
                raise TunnelError(str(exc)) from exc
            conversation = connection.protocol
            assert isinstance(conversation, Conversation)
            wants_new = isinstance(req, Request) and req.wants_new_connection
            if conversation.requests and (wants_new or not conversation.is_usable):
                connection.close()
                continue
            conversation.begin(connection)
            if isinstance(req, Request):
                req.conversation = conversation
            return connection


def open_socket(address: AddrInfoType) -> socket.socket:
    """A socket that is probed while nothing moves on it: a dead one is noticed, and what is on
    the way (NAT, firewall) does not forget it."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_EVERY_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
    ):
        if hasattr(socket, name):  # not on every system
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened
