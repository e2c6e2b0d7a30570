"""What all answers under way may hold together: clients that do not read must not fill memory."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import structlog
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.web.repeats import Repeats
from exporter.web.unread import first_stalled

log = structlog.get_logger(__name__)

# What goes to a connection's buffer at once; the buffer and one piece more are not counted.
PIECE_BYTES = 32 * 1024
# Smaller answers cost less than the connection itself: health is told whatever happens.
_UNCOUNTED_BYTES = 4096
# Whoever reads at all moves on in far less.
_STALLED_SECONDS = 0.5


class Connection(Protocol):
    """Of a client that is answered."""

    def abort(self) -> None: ...

    def is_gone(self) -> bool: ...

    def has_room(self) -> bool:
        """Whether the client has taken so much that more could go out."""


@dataclass(slots=True, eq=False)
class Answer:
    """The body of one answer that is being sent."""

    size: int
    connection: Connection
    moved_at: float

    def has_room(self) -> bool:
        return self.connection.has_room()


class AnswerBudget:
    """Lets answers begin while those under way hold less than `limit_bytes` together.

    So one answer may be larger than all of it. Where it is full, an answer that stands still makes
    room: a client that reads is not shut out by those that do not.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._held_bytes = 0
        self._answers: set[Answer] = set()

    def begin(self, size: int, connection: Connection) -> Answer | None:
        """None: it must not begin now. `end` has to follow."""
        while self._held_bytes >= self._limit_bytes:
            if not self._make_room():
                return None
        answer = Answer(size, connection, self._clock())
        self._answers.add(answer)
        self._held_bytes += size
        return answer

    def end(self, answer: Answer) -> None:
        if answer in self._answers:
            self._answers.remove(answer)
            self._held_bytes -= answer.size

    def move(self, answer: Answer) -> None:
        """A piece of it has gone out."""
        answer.moved_at = self._clock()

    def _make_room(self) -> bool:
        slowest = first_stalled(
            self._answers, since=attrgetter("moved_at"), by=self._clock() - _STALLED_SECONDS
        )
        if slowest is None:
            return False
        self.end(slowest)
        slowest.connection.abort()
        return True


class BoundedAnswers:
    """The application, its answers within a budget and sent in pieces.

    A piece is given to the connection when the client has taken the one before, nearly. An answer
    that may not begin becomes a 503.
    """

    def __init__(self, app: ASGIApp, budget: AnswerBudget) -> None:
        self._app = app
        self._budget = budget
        self._repeats = Repeats()

    async def serve(
        self, connection: Connection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """One request."""
        answer: Answer | None = None
        start: Message | None = None
        is_refused = False

        async def send_within(message: Message) -> None:
            nonlocal answer, start, is_refused
            if message["type"] != "http.response.body":
                start = message  # told together with the body: only then its size is known
                return
            if is_refused or connection.is_gone():
                return
            body: bytes = message.get("body", b"")
            if start is not None:
                if len(body) > _UNCOUNTED_BYTES and scope["method"] != "HEAD":
                    answer = self._budget.begin(len(body), connection)
                    is_refused = answer is None
                if is_refused:
                    if times := self._repeats.count("answers"):
                        log.warning("answers refused, too many are under way", times=times)
                    await _too_many(scope, receive, send)
                    return
                await send(start)
                start = None
            if answer is None:
                await send(message)
            else:
                await self._send_pieces(answer, message, send, connection)

        try:
            await self._app(scope, receive, send_within)
        finally:
            if answer is not None:
                self._budget.end(answer)

    async def _send_pieces(
        self, answer: Answer, message: Message, send: Send, connection: Connection
    ) -> None:
        body: bytes = message.get("body", b"")
        last = max(0, len(body) - 1) // PIECE_BYTES * PIECE_BYTES
        for begin in range(0, last, PIECE_BYTES):
            piece = {"body": body[begin : begin + PIECE_BYTES], "more_body": True}
            await send({**message, **piece})
            self._budget.move(answer)
            await asyncio.sleep(0)  # a client that reads fast does not keep the others waiting
            if connection.is_gone():
                return
        await send({**message, "body": body[last:]})


_too_many = PlainTextResponse(
    "Too many answers under way\n", status_code=503, headers={"Retry-After": "1"}
)
