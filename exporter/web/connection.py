"""One client's connection: what it may take, and until when it has to do something."""

import asyncio
import functools
import math
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from exporter.web.answers import BoundedAnswers
from exporter.web.client_limits import ClientLimits, MessageMeter
from exporter.web.request_head import (
    RefusedError,
    announced_body,
    check_coding,
    check_expectation,
    check_host,
    check_version,
    split_target,
)
from exporter.web.unread import has_room, has_unread

log = structlog.get_logger(__name__)

# Of a client that goes on talking though it was refused.
_MOST_DROPPED_BYTES = 4 * 1024 * 1024
# For how long a client is not blamed for what this process has not looked at yet.
_MOST_HELD_UP_SECONDS = 5.0
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30} ")


def is_over(deadline: float, now: float, has_moved: Callable[[], bool]) -> bool:
    """Whether a client is too late. Not where it has done its part, and a process that was held
    up has not looked at that yet."""
    return now >= deadline and (now >= deadline + _MOST_HELD_UP_SECONDS or not has_moved())


class ClientConnection(HttpToolsProtocol):
    """uvicorn's connection, which knows what its client may do and until when.

    A message that is refused is answered in its turn, after those before it; whatever follows it
    is not looked at, and the connection ends.
    """

    def __init__(
        self,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        limits: ClientLimits,
        answers: BoundedAnswers,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self.app = functools.partial(answers.serve, self)
        self._limits = limits
        # Since when there is no request to answer; infinity while there is one.
        self.waiting_since = math.inf
        self.stalled_since = math.inf  # since when the client takes nothing of its answer
        self._request_deadline = math.inf
        self._write_deadline = math.inf
        self._is_idle = False
        self._reading_head = True
        self._request_complete = False
        self._refused: RefusedError | None = None
        self._is_deaf = False  # what comes is not looked at any more
        self._dropped_bytes = 0
        self._meter = MessageMeter(limits)
        self._unanswered: deque[RequestResponseCycle] = deque()

    def is_overdue(self, now: float) -> bool:
        return is_over(self._request_deadline, now, lambda: has_unread(self.transport)) or is_over(
            self._write_deadline, now, self.has_room
        )

    def has_room(self) -> bool:
        """Whether the client has taken so much that more of its answer could go out."""
        return has_room(self.transport)

    # Ending

    def abort(self) -> None:
        self.transport.abort()
        self._disconnect_all()

    def is_gone(self) -> bool:
        """Whether nothing can be sent any more; from then on what is said is not."""
        if self.transport.is_closing():
            # uvloop raises where something is written before it has told of the loss.
            self._disconnect_all()
        return self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnect_all()  # uvicorn looks at the newest only
        super().connection_lost(exc)

    def _disconnect_all(self) -> None:
        for cycle in self._unanswered:
            self._disconnect(cycle)

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()

    # Reading

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(self._limits.request_seconds)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._is_deaf:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > _MOST_DROPPED_BYTES:
                self.abort()
            return
        if self._is_idle:
            self._is_idle = False
            self._wait(self._limits.request_seconds)
        is_first = self._meter.message_bytes == 0
        self._meter.message_bytes += len(data)
        while data and not self._is_deaf:
            try:
                self.parser.feed_data(data)
                self._meter.check_message(in_head=self._reading_head)
                return
            except httptools.HttpParserUpgrade as exc:
                # Nothing else is spoken here: the request is answered as it is.
                data = data[exc.args[0] or len(data) :]
            except httptools.HttpParserInvalidMethodError:
                if is_first and _METHOD.match(data):
                    self._refuse(RefusedError(501, "This method is not known here."))
                else:
                    self._refuse(RefusedError(400, "This is not HTTP."))
            except httptools.HttpParserError as exc:
                cause = exc.__context__
                if not isinstance(cause, RefusedError):
                    cause = RefusedError(400, f"This is not HTTP: {exc}.")
                self._refuse(cause)
            except RefusedError as exc:
                self._refuse(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if len(self.pipeline) >= self._limits.pipelined_requests:
            # The last one says that the connection ends, and the client asks again for the others.
            self.pipeline[0][0].keep_alive = False
            self._is_deaf = True
            raise RefusedError(503, "Too many requests at once.")
        self._request_complete = False
        self._meter.begin_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._meter.check_target(len(self.url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._meter.add_header(len(name) + len(value))
        if self._reading_head:  # trailers are nobody's
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        check_version(version)
        check_host(version, self.headers)
        method = self.parser.get_method().decode("ascii")
        self.url, host = split_target(method, self.url)
        if host is not None:
            self.headers[:] = [(n, host if n == b"host" else v) for n, v in self.headers]
        self.expect_100_continue = check_expectation(version, self.headers)
        check_coding(self.headers)
        self._meter.check_body(announced_body(self.headers))
        self._reading_head = False
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        if self.expect_100_continue:
            # Whether a body follows the answer is the client's to decide: nothing can be told apart
            # after it.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._meter.add_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._request_complete = True
        self._reading_head = True
        self._meter.message_bytes = 0
        self._request_deadline = self.waiting_since = math.inf
        if self.cycle is not None and self.cycle.response_complete:
            self._become_idle()

    # Refusing

    def _refuse(self, refused: RefusedError) -> None:
        log.debug("request refused", client=self.client, status=refused.status, text=refused.text)
        if not self._is_deaf:
            self._is_deaf = True
            self._refused = refused
        self._request_deadline = self.waiting_since = math.inf
        if not self._reading_head:
            self._drop_cycle()
        self._answer_refused()

    def _drop_cycle(self) -> None:
        """The message has begun to be answered, or waits for its turn, when its body is refused."""
        if self.pipeline:
            self.pipeline.popleft()
            self._unanswered.pop()
        elif not self.cycle.response_started:
            self._disconnect(self._unanswered.pop())
        else:  # the client has its answer, or a part of it
            self._refused = None
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
                self._wait(self._limits.write_seconds)

    def _answer_refused(self) -> None:
        if self._refused is None or self._unanswered or self.transport.is_closing():
            return
        self.transport.write(self._refused.response(self.server_state.default_headers))
        self._refused = None
        # Closed at once, what the client still says would be answered by a reset, and the answer be
        # lost with it (RFC 9112, 9.6).
        self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(self._limits.linger_seconds)
        self.waiting_since = -1.0  # nobody can be spared more

    # Answering

    def on_response_complete(self) -> None:
        has_next = bool(self.pipeline)
        self._unanswered.popleft()
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the deadlines here take its place
        if not self.flow.write_paused:
            self._write_deadline = math.inf
        if self.transport.is_closing():
            self._wait(self._limits.write_seconds)  # until the client has read it
        elif self._refused is not None:
            self._answer_refused()
        elif has_next:
            pass
        elif self._request_complete:
            self._become_idle()
        elif self._request_deadline == math.inf:  # a part of the next request came with this one
            self._wait(self._limits.request_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled_since = time.monotonic()
        if self._write_deadline == math.inf:
            self._write_deadline = time.monotonic() + self._limits.write_seconds

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled_since = math.inf
        if self.cycle is None or self.cycle.response_complete:
            self._write_deadline = math.inf

    def _become_idle(self) -> None:
        self._is_idle = True
        self._wait(self._limits.idle_seconds)

    def _wait(self, seconds: float) -> None:
        self.waiting_since = time.monotonic()
        self._request_deadline = self.waiting_since + seconds
