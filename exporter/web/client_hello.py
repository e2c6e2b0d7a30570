"""What a TLS client says first, as far as the choice of a curve needs it (RFC 8446, 4.1.2)."""

from collections.abc import Sequence

_HANDSHAKE_RECORD = 0x16
_CLIENT_HELLO = 1
_SUPPORTED_GROUPS = 10
# A record's content and a hello with more than a client has ever sent: who goes on is not waited
# for. OpenSSL judges it.
_MAX_RECORD_BYTES = 16384 + 256
MAX_HELLO_BYTES = 65536


class _Reader:
    """Bytes from the front on; IndexError where they are not all there."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, count: int) -> bytes:
        if count > len(self._data):
            raise IndexError
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size_of_length: int) -> "_Reader":
        return _Reader(self.take(self.number(size_of_length)))

    def __bool__(self) -> bool:
        return bool(self._data)


def read_groups(data: bytes) -> Sequence[int] | None:
    """The groups that the client offers (supported_groups), in its order; None: more has to come.

    Empty where it names none and where it makes no sense.
    """
    message = _join_records(data)
    if message is None:
        return None
    try:
        return _groups_of(_Reader(message))
    except IndexError:
        return ()


def _join_records(data: bytes) -> bytes | None:
    """The handshake message that the records begin with: None if it is not complete."""
    records, message = _Reader(data), b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4]):
        if len(message) > MAX_HELLO_BYTES:
            return b""
        try:
            kind, _, length = records.number(1), records.number(2), records.number(2)
            if kind != _HANDSHAKE_RECORD or not 0 < length <= _MAX_RECORD_BYTES:
                return b""
            message += records.take(length)
        except IndexError:
            return None
    return message


def _groups_of(message: _Reader) -> Sequence[int]:
    if message.number(1) != _CLIENT_HELLO:
        return ()
    hello = message.vector(3)
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    extensions = hello.vector(2)
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SUPPORTED_GROUPS:
            groups, found = content.vector(2), []
            while groups:
                found.append(groups.number(2))
            return found
    return ()
