"""What one client may take, and the measure of one message of its."""

from dataclasses import dataclass

from exporter.web.request_head import RefusedError


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What one client may take, and `answers_bytes` what all may together.

    `connections` is a ceiling: at it, the connection that has been waiting longest for a request is
    closed for each new one, so that a scrape always gets in; where all are being answered, it waits
    until one is not. Therefore idle connections may be kept long: longer than Prometheus keeps them
    (5 min), so that it is Prometheus who closes and no scrape meets a closing connection.
    """

    connections: int = 1000
    handshake_seconds: float = 10.0
    request_seconds: float = 10.0  # from the first byte, or from the start, to the whole request
    idle_seconds: float = 330.0
    write_seconds: float = 60.0  # an answer that the client does not read
    linger_seconds: float = 1.0  # for a client that was refused to read why
    target_bytes: int = 8 * 1024  # RFC 9110, 4.1, recommends as much
    head_bytes: int = 32 * 1024
    header_lines: int = 100
    body_bytes: int = 64 * 1024
    pipelined_requests: int = 16
    answers_bytes: int = 64 * 1024 * 1024


class MessageMeter:
    """Counts a message while it is read; RefusedError for what is too much of it."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self.message_bytes = 0  # in whatever part
        self._head_bytes = self._header_lines = self._body_bytes = 0

    def begin_head(self) -> None:
        self._head_bytes = self._header_lines = self._body_bytes = 0

    def check_target(self, length: int) -> None:
        if length > self._limits.target_bytes:
            raise RefusedError(414, "The request's target is too long.")

    def add_header(self, length: int) -> None:
        """Of the head or a trailer."""
        self._head_bytes += length
        self._header_lines += 1
        is_large = self._head_bytes > self._limits.head_bytes
        if is_large or self._header_lines > self._limits.header_lines:
            raise RefusedError(431, "The request's header fields are too large, or too many.")

    def check_body(self, length: int) -> None:
        if length > self._limits.body_bytes:
            raise RefusedError(413, "The request's body is too large.")

    def add_body(self, length: int) -> None:
        self._body_bytes += length
        self.check_body(self._body_bytes)

    def check_message(self, *, in_head: bool) -> None:
        """For what the parser keeps to itself: parts of lines, trailers, chunks' extensions."""
        head = self._limits.target_bytes + self._limits.head_bytes
        if in_head:
            if self.message_bytes > head:
                raise RefusedError(431, "The request's head is too large.")
        elif self.message_bytes > head + 4 * self._limits.body_bytes:
            raise RefusedError(413, "The request is too large.")
