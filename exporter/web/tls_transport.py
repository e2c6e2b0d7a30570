"""TLS between a connection's socket and a protocol that knows nothing of it.

The event loop's own TLS throws away what OpenSSL has to say where a handshake fails, so that the
client never learns why. It also takes its context before the client has said which curves it has,
and reads a megabyte ahead for whoever does not read. OpenSSL does all of the work here too, on
buffers in memory.
"""

import asyncio
import contextlib
import ssl
from typing import Any, Protocol

from exporter.web.client_hello import read_groups
from exporter.web.tls_context import TlsContexts

# More at once only keeps others waiting, and memory.
_CHUNK_BYTES = 65536
# How long a client that was refused may take to read why.
_LINGER_SECONDS = 1.0
_HANDSHAKE_RECORD = 0x16
_PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 49\r\n"
    b"Connection: close\r\n"
    b"\r\n"
    b"Client sent an HTTP request to an HTTPS server.\r\n"
)


class Watcher(Protocol):
    """Who wants to know what becomes of a handshake."""

    def handshake_begins(self, connection: "TlsConnection") -> None: ...

    def handshake_ends(self, connection: "TlsConnection", why_not: str | None) -> None:
        """Once; None is a good end."""

    def handshake_is_lost(self, connection: "TlsConnection") -> None:
        """A connection is closed that had no good end."""


class TlsConnection(asyncio.Protocol):
    """The server's side of one connection: a handshake, then `inner` on a `TlsTransport`.

    `inner` is told of a connection only after a good handshake. `said_nothing` as long as the
    client has not begun.
    """

    def __init__(
        self,
        contexts: TlsContexts,
        inner: asyncio.Protocol,
        watcher: Watcher,
    ) -> None:
        self.inner = inner
        self.said_nothing = True
        self._contexts = contexts
        self._watcher = watcher
        self._shaking_hands = True
        self._has_failed = False
        self._hello = b""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.raw: asyncio.Transport
        self.tls: ssl.SSLObject | None = None
        self.transport: TlsTransport | None = None

    @property
    def peer(self) -> str:
        address = self.raw.get_extra_info("peername")
        return str(address[0]) if address else ""

    # What the socket's transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.raw = transport
        self._watcher.handshake_begins(self)
        if not self._contexts.needs_groups:
            self._begin(self._contexts.choose())

    def data_received(self, data: bytes) -> None:
        if self.raw.is_closing() or self._has_failed:
            return
        if self.said_nothing:
            self.said_nothing = False
            if data[0] != _HANDSHAKE_RECORD and data[:1].isalpha():
                self.raw.write(_PLAIN_HTTP_ANSWER)
                self._give_up("the client speaks plain HTTP")
                return
        if self.tls is None:
            self._hello += data
            groups = read_groups(self._hello)
            if groups is None:
                return
            data, self._hello = self._hello, b""
            self._begin(self._contexts.choose(groups))
        self._incoming.write(data)
        if self._shaking_hands:
            self._shake_hands()
        if not self._shaking_hands:
            self.deliver()

    def eof_received(self) -> bool | None:
        if self._shaking_hands:
            self._give_up("the client has gone in the middle of it")
        elif self.transport is not None and not self.raw.is_closing():
            self.inner.eof_received()
        return None  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self._shaking_hands:
            self._give_up("the client has gone in the middle of it")
        if self.transport is None:
            self._watcher.handshake_is_lost(self)
        else:
            self.transport.is_lost = True
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        # Who does not read need not say more: what OpenSSL answers by itself would pile up.
        self.raw.pause_reading()
        if self.transport is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.transport is None:
            self.raw.resume_reading()
            return
        if not self.transport.reading_is_paused:
            self.raw.resume_reading()
        self.inner.resume_writing()

    # The handshake

    def abort(self, why: str) -> None:
        """Ends a handshake without waiting for anything."""
        self._give_up(why)
        self.raw.abort()

    def _begin(self, context: ssl.SSLContext) -> None:
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def _shake_hands(self) -> None:
        assert self.tls is not None
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return
        except ssl.SSLError as exc:
            self.flush()  # the alert
            self._give_up(_describe(exc))
            return
        refusal = self._contexts.refuse(self.tls.getpeercert())
        if refusal is not None:
            self.say_goodbye()
            self._give_up(refusal)
            return
        self.flush()
        self._shaking_hands = False
        self.transport = TlsTransport(self)
        self._watcher.handshake_ends(self, None)
        self.inner.connection_made(self.transport)

    def _give_up(self, why: str) -> None:
        """Ends the connection when the client has had time to read the reason.

        Closed at once, what the client still says would be answered by a reset, and the reason be
        lost with it.
        """
        if not self._shaking_hands:
            return
        self._shaking_hands, self._has_failed = False, True
        self._watcher.handshake_ends(self, why)
        if not self.raw.is_closing():
            self.raw.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.raw.abort)

    # After it

    def say_goodbye(self) -> None:
        assert self.tls is not None
        with contextlib.suppress(ssl.SSLError):  # it waits for the other side's
            self.tls.unwrap()
        self.flush()

    def flush(self) -> None:
        if self._outgoing.pending and not self.raw.is_closing():
            self.raw.write(self._outgoing.read())

    def deliver(self) -> None:
        """Gives `inner` what has come, as long as it takes it."""
        assert self.tls is not None
        while self.transport is not None and not (
            self.transport.reading_is_paused or self.transport.is_closing()
        ):
            try:
                data = self.tls.read(_CHUNK_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:  # nonsense, or that it was the last
                data = b""
            if not data:
                self.flush()
                self.inner.eof_received()
                self.transport.close()
                return
            self.inner.data_received(data)
        self.flush()


class TlsTransport(asyncio.Transport):
    """What the protocol within sees of its connection."""

    def __init__(self, connection: TlsConnection) -> None:
        super().__init__()
        self._connection = connection
        self._raw = connection.raw
        self.is_lost = False
        self.reading_is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        tls = self._connection.tls
        assert tls is not None
        match name:
            case "ssl_object":
                return tls
            case "sslcontext":
                return tls.context
            case "peercert":
                return tls.getpeercert()
            case _:
                return self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._connection.inner

    def is_closing(self) -> bool:
        return self.is_lost or self._raw.is_closing()

    def is_reading(self) -> bool:
        return not self.reading_is_paused and not self.is_closing()

    def pause_reading(self) -> None:
        if not self.reading_is_paused and not self.is_closing():
            self.reading_is_paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_is_paused and not self.is_closing():
            self.reading_is_paused = False
            self._raw.resume_reading()
            # What has been decrypted before does not come again from the socket.
            asyncio.get_running_loop().call_soon(self._connection.deliver)

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if not data or self.is_closing():
            return
        tls = self._connection.tls
        assert tls is not None
        view = memoryview(data)
        while view:
            view = view[tls.write(view[:_CHUNK_BYTES]) :]
            self._connection.flush()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self.is_closing():
            self._connection.say_goodbye()
            self._raw.write_eof()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def close(self) -> None:
        """Says goodbye (close_notify), and does not wait for the other side to say it too."""
        if self.is_closing():
            return
        self._connection.say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()


def _describe(error: ssl.SSLError) -> str:
    """OpenSSL's reason in words, and which certificate's fault it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate not accepted: {error.verify_message}"
    return (error.reason or "no TLS").replace("_", " ").lower()
