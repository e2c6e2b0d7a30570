"""One client's connection: what it may take, and until when it has to do something."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClientLimits:
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


class ClientConnection(HttpToolsProtocol):
    """uvicorn's connection, which knows until when its client has to do something."""

    def __init__(
        self,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: ClientLimits,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._limits = limits
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
        self._write_deadline = time.monotonic() + self._limits.write_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = math.inf

    def _become_idle(self) -> None:
        self._is_idle = True
        self._wait(self._limits.idle_seconds)

    def _wait(self, seconds: float) -> None:
        self.waiting_since = time.monotonic()
        self._request_deadline = self.waiting_since + seconds
